"""Training with several processes, one per GPU or share of the cores: `torchrun … -m MedVAELib train CONFIG.yaml`.

Every process makes the whole batch's data and noise and computes its share of the rows, gradients are averaged, so the
result is that of one process. Without `torchrun` there is one process, and the same code.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as distributed
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.data import DataLoader, Dataset

from ..errors import UsageError
from ..inference.device import cuda_problem, usable_cores
from ..progress import CancelToken

T = TypeVar("T")
LOOK_S = 0.5
"""Seconds between two looks at whether to go on waiting for a loader: its `timeout` where it has processes."""
_GPU_DATA_PROCESSES = 4
_SHARED_MEMORY = "/dev/shm"  # of Linux
_SHARED_MEMORY_BYTES = 512 << 20  # four processes keep 430 MB of whole brains ready
_PATIENCE = timedelta(hours=2)  # the others wait while the first validates and writes


@dataclass(frozen=True)
class Processes:
    """This process's number among `count`."""

    rank: int = 0
    count: int = 1

    @classmethod
    def current(cls) -> Processes:
        if distributed.is_available() and distributed.is_initialized():
            return cls(distributed.get_rank(), distributed.get_world_size())
        return cls()

    @property
    def first(self) -> bool:
        """The first process alone writes files and validates."""
        return self.rank == 0

    def share(self, rows: Tensor) -> Tensor:
        """This process's rows of a batch (B, …); B is a multiple of `count`."""
        size = len(rows) // self.count
        return rows[self.rank * size : (self.rank + 1) * size]

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Replaces floating-point tensors by their mean over the processes, in one exchange."""
        tensors = list(tensors)
        if self.count == 1 or not tensors:
            return
        flat = torch.cat([tensor.detach().float().reshape(-1) for tensor in tensors])
        distributed.all_reduce(flat)
        flat /= self.count
        for tensor, mean in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.detach().copy_(mean.view(tensor.shape))

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether one of the processes says so."""
        if self.count == 1:
            return flag
        said = torch.tensor(float(flag), device=device)
        distributed.all_reduce(said)
        return bool(said > 0)

    def from_first(self, value: float, device: torch.device) -> float:
        """The first process's number, in all of them."""
        if self.count == 1:
            return value
        told = torch.tensor(value, dtype=torch.float64, device=device)
        distributed.broadcast(told, 0)
        return float(told)

    def wait(self) -> None:
        """Until all of them are here."""
        if self.count > 1:
            distributed.barrier()


class SharedNoise(TorchFunctionMode):
    """Within, random numbers of `generator` whose first axis runs over this process's `rows` (or a multiple of them)
    are its part of those that one process would have drawn for the whole batch."""

    def __init__(self, processes: Processes, generator: torch.Generator, rows: int):
        super().__init__()
        self.processes, self.generator, self.rows = processes, generator, rows

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        ours = func in (torch.randn, torch.rand) and kwargs.get("generator") is self.generator
        if not ours or self.processes.count == 1:
            return func(*args, **kwargs)
        shape = tuple(args[0]) if args and not isinstance(args[0], int) else tuple(args)
        if not shape or shape[0] == 0 or shape[0] % self.rows:
            return func(*args, **kwargs)
        return self.processes.share(func((shape[0] * self.processes.count, *shape[1:]), **kwargs))


@contextmanager
def joined(device: str) -> Iterator[tuple[str, bool]]:
    """Within, the processes that `torchrun` started know one another; yields the device for this one, and whether it
    is the first.

    Without `torchrun` nothing happens, and `device` is yielded as it is. Raises UsageError where there are more
    processes than GPUs.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        yield device, True
        return
    device = _own_device(device, int(os.environ.get("LOCAL_RANK", 0)))
    if device.startswith("cuda"):
        torch.cuda.set_device(device)
    nccl = device.startswith("cuda") and distributed.is_nccl_available()  # Windows has none
    distributed.init_process_group("nccl" if nccl else "gloo", timeout=_PATIENCE)
    try:
        yield device, distributed.get_rank() == 0
    finally:
        distributed.destroy_process_group()


def _own_device(device: str, local_rank: int) -> str:
    if device == "cpu" or (device == "auto" and cuda_problem()):
        return "cpu"
    if device not in ("auto", "cuda"):
        raise UsageError(f"With torchrun every process takes a device of its own: give --device cuda or cpu, "
                         f"not {device}.")
    if local_rank >= torch.cuda.device_count():
        raise UsageError(f"torchrun starts more processes than there are GPUs ({torch.cuda.device_count()}): "
                         "lower --nproc-per-node, or give --device cpu.")
    return f"cuda:{local_rank}"


def data_processes(device: torch.device) -> int:
    """How many background processes make a training's data: one beside a CPU, whose other cores train; several beside a
    GPU, which waits for one, as a synthetic scan is some hundred small operations and a changed image a millisecond.
    None, as the log says, where what they make has no room on its way: such a process goes silent for ever."""
    if os.path.isdir(_SHARED_MEMORY) and (free := shutil.disk_usage(_SHARED_MEMORY).free) < _SHARED_MEMORY_BYTES:
        logging.getLogger(__name__).warning(
            "No background processes make the data, which slows the training down: they need %d MB in %s, and %d are "
            "free (docker run --shm-size=1g).", _SHARED_MEMORY_BYTES >> 20, _SHARED_MEMORY, free >> 20)
        return 0
    return 1 if device.type == "cpu" else min(_GPU_DATA_PROCESSES, usable_cores())


def from_background(
    batches: Dataset[T], workers: int, waiting: Callable[[], None], order: Iterable[int] | None = None,
    start_method: str | None = None,
) -> Iterator[T]:
    """The batches of a data set, in the stated order or its own, made by so many background processes or (0) here.

    waiting: as in `patiently`. start_method: of the processes, by default the system's.
    """
    return patiently(DataLoader(
        batches, batch_size=None, sampler=order, num_workers=workers, prefetch_factor=4 if workers else None,
        timeout=LOOK_S if workers else 0, multiprocessing_context=start_method if workers else None,
    ), waiting)


def patiently(loader: Iterable[T], waiting: Callable[[], None]) -> Iterator[T]:
    """All of a loader's, calling `waiting`, which may end it by an exception, at each of its time-outs, after which it
    can be asked again."""
    batches = iter(loader)
    while True:
        try:
            batch = next(batches)
        except StopIteration:
            return
        except RuntimeError as error:
            if not str(error).startswith("DataLoader timed out after"):  # a kernel of a GPU may time out, too
                raise
            waiting()
        else:
            yield batch


def heard_alone(cancel: CancelToken | None) -> CancelToken:
    """The token where there is one process, else one that nobody sets: several have to agree first, which they do
    between steps."""
    return cancel if cancel and Processes.current().count == 1 else CancelToken()
