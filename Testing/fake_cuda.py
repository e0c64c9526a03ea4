"""A pretended GPU on a machine without one, so that mistakes about where tensors lie show in every run of the tests.

Within `pretended("cuda")` or `pretended("mps")` tensors are on the CPU as ever, but carry the device that they would
be on, and torch's refusals are made in its place. It proves that tensors of two devices never meet, that generators lie
where they draw, that nothing on the device goes to numpy, that copies are asynchronous only from pinned memory to the
device, and that MPS gets no float64. It proves nothing about numbers, speed or memory of a GPU: everything is computed
on the CPU, autocast is off, and there are no streams and no graphs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map

from MedVAELib.inference import device as device_module
from MedVAELib.training.synthesis import random as random_module

CPU = torch.device("cpu")
_TAG, _PINNED = "pretended_device", "pretended_pinned"
_RealGenerator, _RealAutocast, _real_load = torch.Generator, torch.autocast, torch.load
_ASK = {Tensor.device.__get__: lambda device: device, Tensor.is_cuda.__get__: lambda device: device.type == "cuda",
        Tensor.is_mps.__get__: lambda device: device.type == "mps",
        Tensor.is_cpu.__get__: lambda device: device.type == "cpu"}
_NO_COMPUTATION = ("_has_compatible_shallow_copy_type", "_parse_to")
_OF_THE_FIRST = ("copy_", "set_", "new_tensor", "new_zeros", "new_ones", "new_full", "new_empty")


@contextmanager
def pretended(kind: str) -> Iterator[torch.device]:
    """Yields the device that there seems to be, of kind "cuda" or "mps"."""
    device = torch.device(kind, 0)
    cuda = {"is_available": kind == "cuda", "device_count": 1, "get_device_capability": (9, 0), "empty_cache": None,
            "get_device_name": "a pretended GPU", "mem_get_info": (8 << 30, 80 << 30), "memory_reserved": 0,
            "memory_allocated": 0, "is_bf16_supported": True, "is_current_stream_capturing": False}
    with ExitStack() as stack:
        for name, answer in cuda.items():
            stack.enter_context(patch.object(torch.cuda, name, lambda *_, answer=answer, **__: answer))
        stack.enter_context(patch.object(torch.backends.cuda, "is_built", lambda: True))
        # Optimisers ask it whether a graph is being captured: a build of torch with CUDA then looks for a real driver.
        stack.enter_context(patch.object(torch.accelerator, "current_accelerator", lambda **_: None))
        stack.enter_context(patch.object(torch, "Generator", _Generator))
        stack.enter_context(patch.object(random_module, "Generator", _Generator))
        stack.enter_context(patch.object(torch, "autocast", _NoAutocast))
        stack.enter_context(patch.object(torch, "load", _load))
        if kind == "mps":
            stack.enter_context(patch.object(device_module, "mps_problem", lambda: ""))
        stack.enter_context(_Pretence(device))
        yield device


def lies_on(tensor: Tensor) -> torch.device:
    """Where a tensor seems to be."""
    return tensor.__dict__.get(_TAG, CPU)


def put(tree: Any, device: torch.device) -> Any:
    """The same tensors, from now on on a device."""

    def tagged(value: Any) -> Any:
        if isinstance(value, Tensor):
            if device.type == "mps" and value.dtype in (torch.float64, torch.complex128):
                raise TypeError("Cannot convert a MPS Tensor to float64, which MPS does not support.")
            value.__dict__[_TAG] = device
        return value

    return tree_map(tagged, tree)


def _named(device: Any) -> torch.device:
    device = torch.device("cpu" if device is None else device)
    return device if device.type == "cpu" else torch.device(device.type, device.index or 0)


class _Generator(_RealGenerator):
    """Draws on the CPU and says that it lies on the device it was made for."""

    def __new__(cls, device: Any = "cpu") -> _Generator:
        return super().__new__(cls, "cpu")

    def __init__(self, device: Any = "cpu"):
        self._device = _named(device)

    @property
    def device(self) -> torch.device:
        return self._device

    def manual_seed(self, seed: int) -> _Generator:
        super().manual_seed(seed)
        return self


class _NoAutocast(_RealAutocast):
    def __init__(self, *_: Any, **__: Any):
        super().__init__("cpu", enabled=False)


def _load(file: Any, map_location: Any = None, **options: Any) -> Any:
    return put(_real_load(file, map_location="cpu", **options), _named(map_location))


class _Pretence(TorchFunctionMode):
    def __init__(self, device: torch.device):
        super().__init__()
        self.device = device

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs, name = dict(kwargs or {}), getattr(func, "__name__", "")
        first = args[0] if args and isinstance(args[0], Tensor) else None
        if name in _NO_COMPUTATION:
            return func(*args, **kwargs)
        if func in _ASK:
            return _ASK[func](lies_on(first))
        if name in ("numpy", "__array__") and lies_on(first) != CPU:
            raise TypeError(f"can't convert a tensor on {lies_on(first)} to numpy: copy it to the CPU first.")
        if func == Tensor.data.__set__:
            func(*args)
            return put(first, lies_on(args[1]))
        if func == Tensor.__deepcopy__ or func in (Tensor.data.__get__, Tensor.grad.__get__):
            return put(func(*args), lies_on(first))
        if func == Tensor.pin_memory:
            return self._pinned(first)
        if func == Tensor.cpu:
            return self._moved(first, CPU, func)
        if func == Tensor.to:
            return self._to(first, list(args[1:]), kwargs)
        if func in (Tensor.__getitem__, Tensor.__setitem__):
            return self._indexed(func, args)
        if name in _OF_THE_FIRST:
            device = kwargs.pop("device", None)
            return put(func(*args, **kwargs), lies_on(first) if device is None else _named(device))
        return self._computed(func, args, kwargs)

    def _pinned(self, tensor: Tensor) -> Tensor:
        if lies_on(tensor) != CPU or self.device.type != "cuda":
            raise RuntimeError("only dense CPU tensors can be pinned, and only for CUDA.")
        pinned = put(tensor.clone(), CPU)
        pinned.__dict__[_PINNED] = True
        return pinned

    def _moved(self, tensor: Tensor, device: torch.device, copy: Callable[[Tensor], Tensor]) -> Tensor:
        if lies_on(tensor) == device:
            return tensor
        moved = copy(tensor)
        return put(moved.clone() if moved is tensor else moved, device)

    def _to(self, tensor: Tensor, given: list, options: dict) -> Tensor:
        device = options.pop("device", None)
        asynchronous = options.pop("non_blocking", False)
        left = []
        for value in given:
            if isinstance(value, (str, torch.device)):
                device = value
            elif isinstance(value, Tensor):
                device, value = lies_on(value), value.dtype
                left.append(value)
            elif isinstance(value, bool):
                asynchronous = asynchronous or value
            elif value is not None:
                left.append(value)
        options = {name: value for name, value in options.items() if value is not None}
        source = lies_on(tensor)
        target = source if device is None else _named(device)
        safe = source == target or (target.type == "cuda" and tensor.__dict__.get(_PINNED, False))
        assert safe or not asynchronous, f"an asynchronous copy from {source} to {target} may be read too early"
        changed = tensor.to(*left, **options) if left or options else tensor
        if source == target:
            return put(changed, source) if changed is not tensor else tensor
        return put(changed.clone() if changed is tensor else changed, target)

    def _indexed(self, func: Callable, args: tuple) -> Any:
        here = lies_on(args[0])
        for index in _tensors(args[1]):
            if index.dim() and lies_on(index) not in (CPU, here):
                raise RuntimeError(f"indices should be on {here} or the CPU, not on {lies_on(index)}.")
        if func == Tensor.__setitem__ and isinstance(args[2], Tensor) and args[2].dim() and lies_on(args[2]) != here:
            raise RuntimeError(f"a tensor on {lies_on(args[2])} was assigned into one on {here}.")
        return put(func(*args), here)

    def _computed(self, func: Callable, args: tuple, kwargs: dict) -> Any:
        """Any other function: its tensors lie on one device, except for single numbers, and so does its result."""
        asked = kwargs.pop("device", None)
        tensors = _tensors((args, kwargs))
        places = {lies_on(tensor) for tensor in tensors if tensor.dim()}
        if len(places) > 1 and asked is None:
            shapes = [(str(lies_on(tensor)), tuple(tensor.shape)) for tensor in tensors]
            raise RuntimeError(f"Expected all tensors of {func.__name__} to be on the same device: {shapes}.")
        if asked is not None:
            device = _named(asked)
        else:
            device = next(iter(places)) if places else max(map(lies_on, tensors), key=lambda d: d != CPU, default=CPU)
        generator = kwargs.get("generator")
        if generator is not None and _named(generator.device) != device:
            raise RuntimeError(f"Expected a '{device}' generator for {func.__name__}, not '{generator.device}'.")
        return put(func(*args, **kwargs), device)


def _tensors(tree: Any) -> list[Tensor]:
    return [value for value in tree_flatten(tree)[0] if isinstance(value, Tensor)]
