"""Ellipsoids with their three outline maps, for tests of the skull models that need no heads."""

from __future__ import annotations

import torch
from torch import Tensor

PRESENT = torch.tensor([[1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 0, 1], [0, 1, 1]]).bool()
"""All seven non-empty subsets of the planes."""


def ellipsoids(count: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """planes (N, 3, 96, 96), present (N, 3) running through all subsets, sdf (N, 1, 48, 48, 48) in voxels of 96³."""
    generator = torch.Generator().manual_seed(seed)
    semi_axes = torch.tensor([28.0, 37.0, 29.0]) * (1 + 0.1 * torch.randn(count, 3, generator=generator))
    line = torch.arange(48) * 2 - 47.0
    axes = [line.view([-1 if i == k else 1 for i in range(3)]) / semi_axes[:, k].view(-1, 1, 1, 1) for k in range(3)]
    radius = (axes[0] ** 2 + axes[1] ** 2 + axes[2] ** 2).sqrt()
    sdf = (1 - radius) * semi_axes.min(1).values.view(-1, 1, 1, 1)
    fine = torch.arange(96) - 47.5
    planes = torch.stack([_ellipse(fine, semi_axes[:, rows], semi_axes[:, columns]) for rows, columns in
                          ((1, 2), (0, 1), (0, 2))], 1)
    return planes, PRESENT[torch.arange(count) % len(PRESENT)], sdf[:, None]


def _ellipse(line: Tensor, row_axis: Tensor, column_axis: Tensor) -> Tensor:
    rows, columns = line.view(1, -1, 1) / row_axis.view(-1, 1, 1), line.view(1, 1, -1) / column_axis.view(-1, 1, 1)
    radius = (rows**2 + columns**2).sqrt()
    return (0.5 + (1 - radius) * torch.minimum(row_axis, column_axis).view(-1, 1, 1)).clamp(0, 1)
