"""What a scanner makes of an anatomy: partial volume, blur, thick slices."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ...tissues import TISSUES
from .anatomy import TISSUE_OF_GROUP


def sample_groups(groups: Tensor, coords: Tensor, linear: Tensor, spacing_mm: float) -> Tensor:
    """Intensity groups at four points inside each voxel (4, N): their mix is the partial volume.

    groups: (D, H, W) labels; coords: (d, h, w, 3) zyx positions of the voxels in it; linear: (3, 3) from millimetres of
    the voxel grid (spacing_mm) to positions.
    """
    size = torch.tensor(groups.shape, device=groups.device)
    corners = torch.tensor([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], device=groups.device)
    flat, out = groups.flatten(), []
    for corner in corners * (spacing_mm / 4):
        index = (coords + linear @ corner.to(linear.dtype)).round().long()
        inside = ((index >= 0) & (index < size)).all(-1)
        index = torch.minimum(index.clamp(min=0), size - 1)
        value = flat[(index[..., 0] * size[1] + index[..., 1]) * size[2] + index[..., 2]]
        out.append(torch.where(inside, value, torch.zeros_like(value)).flatten())
    return torch.stack(out).long()


def tissue_fractions(groups: Tensor, shape: Sequence[int]) -> Tensor:
    """How much of each voxel is of which tissue, (K, *shape), by the groups at the points inside it (S, N)."""
    fractions = torch.zeros(len(TISSUES), groups.shape[1], device=groups.device)
    share = torch.full(groups.shape, 1 / len(groups), device=groups.device)
    return fractions.scatter_add_(0, TISSUE_OF_GROUP.to(groups.device)[groups], share).view(-1, *shape)


def blur(image: Tensor, sigma: float) -> Tensor:
    """Separable Gaussian blur (sigma in voxels, seven taps)."""
    x = torch.arange(-3, 4, device=image.device, dtype=torch.float32)
    kernel = torch.exp(-(x**2) / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    image = image[None, None]
    for axis in range(3):
        shape, padding = [1] * 5, [0] * 3
        shape[2 + axis], padding[axis] = 7, 3
        image = F.conv3d(image, kernel.view(shape), padding=padding)
    return image[0, 0]


def dilate(mask: Tensor, width: int) -> Tensor:
    """Maximum over a cube of `width` voxels (odd), one axis after the other; mask: (1, 1, D, H, W)."""
    for axis in range(3):
        kernel = [width if a == axis else 1 for a in range(3)]
        mask = F.max_pool3d(mask, kernel, 1, [k // 2 for k in kernel])
    return mask


def closed(mask: Tensor) -> Tensor:
    """Gaps of up to four voxels filled; mask: (1, 1, D, H, W)."""
    return 1 - dilate(1 - dilate(mask, 5), 5)


def ragged(mask: Tensor, level: Tensor) -> Tensor:
    """The mask (1, 1, D, H, W) shrunk by a voxel where level (D, H, W) is above 1 and grown where it is below −1, as
    (D, H, W) bool."""
    shrunk, grown = 1 - dilate(1 - mask, 3), dilate(mask, 3)
    return torch.where(level > 1, shrunk, torch.where(level < -1, grown, mask))[0, 0] > 0.5


def thick_slices(image: Tensor, axis: int, factor: int) -> Tensor:
    """Averages `factor` voxels into a slice and interpolates back, as a thick-slice scan on a finer grid is.

    Every slice stays where its voxels were: the last one may reach beyond the grid, and is not squeezed into it.
    """
    kernel = [factor if a == axis else 1 for a in range(3)]
    thick = F.avg_pool3d(image[None, None], kernel, kernel, ceil_mode=True)
    whole = F.interpolate(thick, scale_factor=[float(width) for width in kernel], mode="trilinear")[0, 0]
    return whole.narrow(axis, 0, image.shape[axis])
