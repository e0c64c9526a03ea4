"""Values kept within limits in such a way that they find back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _Within(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, low: float, high: float) -> Tensor:
        ctx.save_for_backward(values)
        ctx.limits = low, high
        return values.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (values,), (low, high) = ctx.saved_tensors, ctx.limits
        outwards = ((values < low) & (gradient > 0)) | ((values > high) & (gradient < 0))
        return gradient.masked_fill(outwards, 0), None, None


def within(values: Tensor, low: float, high: float) -> Tensor:
    """`values.clamp(low, high)`, but a value beyond a limit still gets the gradient that leads it back: with `clamp`, a
    log-variance that fell too low while its divergence was not yet paid for stays there for ever."""
    return _Within.apply(values, low, high)
