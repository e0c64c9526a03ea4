"""Mean and variance over posterior samples, streamed: no sample is ever kept."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor

# Values handled together on the CPU, so that the temporaries of a chunk stay in a core's caches.
_CPU_CHUNK_VALUES = 150_000
_LEAST_COLUMNS = 16  # products with fewer were measured three times slower on a CPU
# Between these, a voxel's sum of exponentials is exact without its largest logit taken off first: what underflows is
# below float32's rounding beside it, and nothing overflows.
_LEAST_SUM, _GREATEST_SUM = 1e-20, 1e30


@dataclass(frozen=True)
class Moments:
    """Moments over posterior samples, all float32 zyx.

    probability: (K, D, H, W), mean of the class probabilities. reconstruction, std: mean and standard deviation
    (n - 1 in the denominator; 0 for one sample) of Σₖ wₖ pₖ, (D, H, W) for weights (K,) and (R, D, H, W) for
    weights (R, K), in the unit of the weights.
    """

    probability: np.ndarray
    reconstruction: np.ndarray
    std: np.ndarray
    samples: int


def seed_of(*numbers: int) -> int:
    """A generator's seed from several numbers, such as a run's seed and a sample's index."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def posterior_noise(shape: tuple[int, ...], seed: int, index: int) -> Tensor:
    """Standard normal noise (*shape) of posterior sample `index`, drawn on the CPU: the same for every batch size
    and on every device."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed_of(seed, index)))


@dataclass(frozen=True)
class LogitLayout:
    """How a decoder lays out its logits: `folded` ones are (B, 8K, D/2, H/2, W/2), class-major, 2×2×2 voxels in
    the channels; plain ones are (B, K, D, H, W)."""

    folded: bool

    @property
    def fold(self) -> int:
        return 8 if self.folded else 1

    def grid(self, scan: tuple[int, int, int]) -> tuple[int, int, int]:
        """The logits' grid (d, h, w) for that of the scan (D, H, W)."""
        return tuple(side // 2 for side in scan) if self.folded else tuple(scan)

    def positions(self, logits: Tensor) -> Tensor:
        """(B, K·F, d, h, w) -> (B, N, K, F), N = d·h·w; a view when the logits are channels-last."""
        b, channels, *grid = logits.shape
        n = grid[0] * grid[1] * grid[2]
        return logits.permute(0, 2, 3, 4, 1).reshape(b, n, channels // self.fold, self.fold)

    def volume(self, values: Tensor, grid: tuple[int, int, int]) -> Tensor:
        """(N, C, F) on the logits' grid (d, h, w) -> (C, D, H, W)."""
        d, h, w = grid
        if not self.folded:
            return values.reshape(d, h, w, -1).permute(3, 0, 1, 2).contiguous()
        blocks = values.reshape(d, h, w, -1, 2, 2, 2).permute(3, 0, 4, 1, 5, 2, 6)
        return blocks.reshape(-1, 2 * d, 2 * h, 2 * w)


class RunningMoments:
    """Moments that take in one batch of samples after the other, in float32 on their device.

    weights: (R, K), on the CPU. After n samples: Σ of the probabilities (N, K, F), and mean and M2 = Σ (r - mean)² of
    the reconstructions (N, R, F), merged as by Chan, Golub and LeVeque (1979). After an update that failed for lack of
    memory, start again with new moments.
    """

    def __init__(self, positions: int, weights: Tensor, fold: int, device: torch.device):
        r, k = weights.shape
        self.count = 0
        self.total = torch.zeros(positions, k, fold, device=device)
        self.mean = torch.zeros(positions, r, fold, device=device)
        self.m2 = torch.zeros(positions, r, fold, device=device)
        self._chunk = positions if device.type != "cpu" else max(1, _CPU_CHUNK_VALUES // (k * fold))
        self._probability = torch.empty(0, device=device)
        # (K·F, (1 + R)·F): the plain and the weighted sums over classes as one matrix product, the F voxels of a block
        # kept apart; (F, K·F): what spreads a value per voxel over its classes.
        sums = torch.cat([torch.ones(1, k), weights.float()])
        mixing = torch.einsum("rk,fg->kfrg", sums, torch.eye(fold)).reshape(k * fold, (1 + r) * fold)
        self._mixing = functional.pad(mixing, (0, max(0, _LEAST_COLUMNS - (1 + r) * fold))).to(device)
        self._spreading = torch.eye(fold, device=device).repeat(1, k)

    def update(self, logits: Iterable[Tensor]) -> None:
        """One batch of samples as pieces (B, n, K, F) that follow one another along the positions, any float type."""
        start = 0
        for piece in logits:
            classes, weighted = piece.shape[2], self.total.shape[1]
            if classes != weighted:
                raise ValueError(f"the model has {classes} classes, but the weights are for {weighted}")
            for part in piece.split(self._chunk, 1):
                self._merge(part, slice(start, start + part.shape[1]))
                start += part.shape[1]
        self.count += len(piece)

    def _merge(self, logits: Tensor, here: slice) -> None:
        batch = len(logits)
        p, mixed = self._probabilities(logits)
        self.total[here].add_(p[0] if batch == 1 else p.sum(0))
        new = batch / (self.count + batch)
        mean = mixed[0] if batch == 1 else mixed.mean(0)
        step = mean - self.mean[here]
        self.mean[here].add_(step, alpha=new)
        self.m2[here].addcmul_(step, step, value=self.count * new)
        if batch > 1:
            self.m2[here].add_((mixed - mean).square_().sum(0))

    def _probabilities(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """(B, n, K, F) -> probabilities (B, n, K, F), valid until the next call, and weighted sums (B, n, R, F)."""
        batch, _, k, fold = logits.shape
        r, p = self.mean.shape[1], self._probability.resize_(logits.shape)
        flat = p.view(-1, k * fold)
        if p.device.type == "cpu":
            # torch's softmax over the middle axis was measured five times slower than this.
            p.copy_(logits).mul_(math.log2(math.e)).exp2_()
            sums = torch.mm(flat, self._mixing).view(batch, -1, self._mixing.shape[1])
            ones, mixed = sums[..., :fold], sums[..., fold : (1 + r) * fold].unflatten(2, (r, fold))
            least, greatest = ones.aminmax()
            if least > _LEAST_SUM and greatest < _GREATEST_SUM:
                inverse = ones.reciprocal()
                flat.mul_(torch.mm(inverse.view(-1, fold), self._spreading))
                return p, mixed * inverse[:, :, None]
        torch.softmax(logits, 2, dtype=torch.float32, out=p)
        sums = torch.mm(flat, self._mixing).view(batch, -1, self._mixing.shape[1])
        return p, sums[..., fold : (1 + r) * fold].unflatten(2, (r, fold))

    def merge(self, other: RunningMoments) -> None:
        """Takes in what another took in, which is used up."""
        count = self.count + other.count
        step = other.mean.sub_(self.mean)
        self.total.add_(other.total)
        self.mean.add_(step, alpha=other.count / count)
        self.m2.add_(other.m2).addcmul_(step, step, value=self.count * other.count / count)
        self.count = count

    def result(self, layout: LogitLayout, grid: tuple[int, int, int]) -> Moments:
        """The moments as volumes, with the axis R. grid: of the logits (d, h, w). They are unfolded where they lie, as
        a GPU turns memory about many times faster than a CPU does."""
        std = (self.m2 / max(self.count - 1, 1)).sqrt_()
        volumes = (layout.volume(t, grid).cpu().numpy() for t in (self.total / self.count, self.mean, std))
        return Moments(*volumes, samples=self.count)
