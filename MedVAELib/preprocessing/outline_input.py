"""A plane as the outline network sees it, and the way back onto the plane's own pixels."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

SIDE = 192
"""Pixels along an edge of the outline network's image."""


def inner_size(height: int, width: int, side: int = SIDE) -> tuple[int, int]:
    """Rows and columns that a plane fills of the square: its longer side all of it."""
    scale = side / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def fitted(grey: Tensor, side: int = SIDE) -> Tensor:
    """A plane (H, W) of square pixels, 0…1, as a square (side, side): scaled to fit, in the middle, 0 around it."""
    rows, columns = inner_size(*grey.shape, side)
    small = F.interpolate(grey[None, None].float(), size=(rows, columns), mode="bilinear", antialias=True)[0, 0]
    top, left = (side - rows) // 2, (side - columns) // 2
    return F.pad(small.clamp(0, 1), (left, side - columns - left, top, side - rows - top))


def unfitted(square: Tensor, height: int, width: int) -> Tensor:
    """A map (side, side) made from a plane of that height and width, on the plane's own pixels: (H, W)."""
    side = square.shape[0]
    rows, columns = inner_size(height, width, side)
    top, left = (side - rows) // 2, (side - columns) // 2
    inner = square[None, None, top : top + rows, left : left + columns].float()
    return F.interpolate(inner, size=(height, width), mode="bilinear")[0, 0]
