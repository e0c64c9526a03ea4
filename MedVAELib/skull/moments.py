"""Mean and spread of sampled heads, streamed over batches of samples.

A sample is a signed distance on a grid of 48³; its soft occupancy, sigmoid of the distance, lives on 96³. Away from the
surface all samples agree and the occupancy is 0 or 1 to four digits, so only the voxels of a band are computed.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SOFTNESS = 0.5
"""Voxels of the 96³ grid over which the occupancy rises from 1/2 to 0.73."""
_SETTLED = 9.0 * SOFTNESS  # beyond this distance the occupancy is 0 or 1 to 1e-4


class _Running:
    """Mean and Σ (x - mean)² over samples (Chan, Golub and LeVeque 1979)."""

    def __init__(self, shape: tuple[int, ...], device: torch.device | str):
        self.mean, self.m2 = torch.zeros(shape, device=device), torch.zeros(shape, device=device)

    def merge(self, before: int, new: int, mean: Tensor, m2: Tensor) -> None:
        """Takes in `new` samples with these moments after `before` others."""
        step = mean - self.mean
        self.mean += step * (new / (before + new))
        self.m2 += m2 + step.square_() * (before * new / (before + new))

    def std(self, count: int) -> Tensor:
        """n in the denominator, not n - 1: samples come in pairs mirrored about their mean (`draw_correlated`), so it
        is known and not estimated from them. Those of the conditional GAN do not: theirs is 1.6 % too small at 32."""
        return (self.m2 / count).sqrt_()


class HeadMoments:
    """Running moments of heads given as signed distances (n, d, h, w) in voxels of the grid twice as fine."""

    def __init__(self, shape: tuple[int, int, int], device: torch.device | str = "cpu"):
        self.shape, self.count = shape, 0
        self._fine = tuple(2 * n for n in shape)
        self._distance = _Running(shape, device)
        self._occupancy = _Running(self._fine, device)

    def update(self, sdf: Tensor) -> None:
        """Merges a batch, (n, d, h, w); larger ones are faster."""
        sdf = sdf.float()
        mean = sdf.mean(0)
        self._distance.merge(self.count, len(sdf), mean, (sdf - mean).square_().sum(0))
        self._occupancy.merge(self.count, len(sdf), *self._occupancies(sdf))
        self.count += len(sdf)

    def _occupancies(self, sdf: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and Σ (o - mean)² of a batch's occupancies on the fine grid."""
        # Interpolation never leaves the range of what it lies between, so these bound every sample on the fine grid.
        low, high = self._finer(torch.stack([sdf.amin(0), sdf.amax(0)]))
        mean = (low > _SETTLED).float()
        m2 = torch.zeros_like(mean)
        band = ((low <= _SETTLED) & (high >= -_SETTLED)).flatten().nonzero()[:, 0]
        index, weight = _between(band, self.shape)
        rows = sdf.flatten(1).T.contiguous()
        soft = F.embedding_bag(index, rows, per_sample_weights=weight, mode="sum").div_(SOFTNESS).sigmoid_()
        mean.view(-1)[band] = soft.mean(1)
        m2.view(-1)[band] = soft.sub_(soft.mean(1, keepdim=True)).square_().sum(1)
        return mean, m2

    def _finer(self, volumes: Tensor) -> Tensor:
        """(n, d, h, w) on the fine grid."""
        return F.interpolate(volumes[None], self._fine, mode="trilinear", align_corners=False)[0]

    def distance(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation over samples of the signed distance on the fine grid, in its voxels."""
        mean, std = self._finer(torch.stack([self._distance.mean, self._distance.std(self.count)]))
        return mean, std

    def probability(self) -> Tensor:
        """Of lying inside, on the fine grid: Φ of the distance's mean over its standard deviation, 1/2 where the mean
        surface lies. Without a spread it is a step."""
        mean, std = self.distance()
        return torch.special.ndtr(mean / std.clamp(min=torch.finfo(std.dtype).tiny))

    def occupancy(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation over samples of the soft occupancy on the fine grid."""
        return self._occupancy.mean, self._occupancy.std(self.count)


def _between(fine: Tensor, shape: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """For flat indices on the fine grid: the flat indices and weights (N, 8) of trilinear interpolation from the
    coarse grid, as `F.interpolate(scale_factor=2, align_corners=False)` does it."""
    d, h, w = shape
    fine = fine.int()
    row = fine // (2 * w)
    axes = [(row // (2 * h), d, h * w), (row % (2 * h), h, w), (fine % (2 * w), w, 1)]
    index, weight = [], []
    for place, size, stride in axes:
        table = torch.arange(2 * size, dtype=torch.int32, device=fine.device)
        first = (table + 1) // 2 - 1
        upper = torch.where(table % 2 == 0, 0.75, 0.25)
        pair = torch.stack([first, first + 1], 1).clamp(0, size - 1) * stride
        index.append(pair[place])
        weight.append(torch.stack([1 - upper, upper], 1)[place])
    (iz, iy, ix), (wz, wy, wx) = index, weight
    plane_index = (iz[:, :, None] + iy[:, None]).flatten(1)
    plane_weight = (wz[:, :, None] * wy[:, None]).flatten(1)
    return ((plane_index[:, :, None] + ix[:, None]).flatten(1), (plane_weight[:, :, None] * wx[:, None]).flatten(1))
