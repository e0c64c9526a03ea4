"""How a bundle's file stores weights: as 16-bit floats, or matrices and convolutions as 8-bit integers, half the size.

In 8 bits every row of a weight (along its first axis, an output channel's) is whole numbers up to 127 times a factor of
its own, which stands beside it as `NAME.scale`: about 1 % of its root mean square is lost. What is no convolution or
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

    scales = {name + _SCALE for name, tensor in stored.items() if tensor.dtype is torch.int8} & stored.keys()
    state = {}
    for name, tensor in stored.items():
        if name + _SCALE in scales:
            state[name] = tensor.float() * stored[name + _SCALE].view(-1, *[1] * (tensor.ndim - 1))
        elif name not in scales:
            state[name] = tensor.float() if tensor.is_floating_point() else tensor
    return state


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
