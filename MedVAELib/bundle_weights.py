"""How a bundle's file stores weights: as 16-bit floats, or matrices and convolutions as 8-bit integers, half the size.

In 8 bits every row of a weight (along its first axis, an output channel's) is whole numbers up to 127 times a factor of
its own, which stands beside it as `NAME.scale`: 1 % of a row's root mean square is lost. What is no convolution or
matrix stays in 16 bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from .errors import BundleError

if TYPE_CHECKING:
    from torch import Tensor

FLOAT16, INT8 = "float16", "int8"
FORMATS = (FLOAT16, INT8)
_SCALE, _LARGEST = ".scale", 127


def packed(state: Mapping[str, Tensor], form: str = FLOAT16) -> dict[str, Tensor]:
    """What is written of a state_dict, one tensor or two per weight. Packing what `unpacked` gave changes nothing.

    Raises BundleError for weights that do not fit the form.
    """
    if form not in FORMATS:
        raise BundleError(f"Weights are stored as {' or '.join(FORMATS)}, not as {form}.")
    stored: dict[str, Tensor] = {}
    for name, tensor in state.items():
        tensor = tensor.detach().cpu()
        if form == INT8 and tensor.is_floating_point() and tensor.ndim > 1 and name + _SCALE not in state:
            stored[name], stored[name + _SCALE] = _as_int8(name, tensor)
        else:
            stored[name] = _as_float16(name, tensor)
    return stored


def unpacked(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state_dict: floating-point weights as float32, others as stored."""
    import torch

    state = {}
    for name, tensor in stored.items():
        scale = stored.get(name + _SCALE)
        if scale is not None and tensor.dtype is torch.int8:
            state[name] = tensor.float() * scale.view(-1, *[1] * (tensor.ndim - 1))
        elif not _is_scale(name, stored):
            state[name] = tensor.float() if tensor.is_floating_point() else tensor
    return state


def _is_scale(name: str, stored: Mapping[str, Tensor]) -> bool:
    import torch

    weight = stored.get(name.removesuffix(_SCALE)) if name.endswith(_SCALE) else None
    return weight is not None and weight.dtype is torch.int8


def _as_float16(name: str, tensor: Tensor) -> Tensor:
    import torch

    half = tensor.to(torch.float16) if tensor.is_floating_point() else tensor
    if not bool(torch.isfinite(half).all()):
        raise BundleError(f"The weight {name} has values that fp16 cannot hold: the bundle was not written.")
    return half.contiguous().clone()  # safetensors refuses tensors that share memory


def _as_int8(name: str, tensor: Tensor) -> tuple[Tensor, Tensor]:
    import torch

    rows = tensor.float().flatten(1)
    if not bool(torch.isfinite(rows).all()):
        raise BundleError(f"The weight {name} has values that are no numbers: the bundle was not written.")
    scale = rows.abs().amax(1) / _LARGEST
    whole = (rows / scale.clamp(min=torch.finfo(torch.float32).tiny)[:, None]).round()
    return whole.to(torch.int8).view(tensor.shape).contiguous(), scale
