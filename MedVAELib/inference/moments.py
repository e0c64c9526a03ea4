"""Mean and variance over posterior samples, streamed: no sample is ever kept."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..networks.healthy_anatomy import unfold

_FOLD = 8  # voxels in the channels of folded logits, class-major
# Between these, a voxel's sum of exponentials is exact without its largest logit taken off first: what underflows is
# below float32's rounding beside it, and nothing overflows.
_LEAST_SUM, _GREATEST_SUM = 1e-20, 1e30


@dataclass(frozen=True)
class Moments:
    """Moments over posterior samples, all float32 zyx.

    probability: (K, D, H, W), mean of the class probabilities. reconstruction, std: mean and standard deviation
    (n - 1 in the denominator; 0 for one sample) of Σₖ wₖ pₖ, (D, H, W), in the unit of the weights.
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


class RunningMoments:
    """Moments that take in one batch of folded logits after the other, in float32 on their device.

    weights: (K,), on the CPU. After n samples: Σ of the probabilities (N, K, 8), N the positions of the folded grid,
    and mean and M2 = Σ (r - mean)² of the reconstructions (N, 8), merged as by Chan, Golub and LeVeque (1979). After an
    update that failed for lack of memory, start again with new moments.
    """

    def __init__(self, positions: int, weights: Tensor, device: torch.device):
        self.count = 0
        self.total = torch.zeros(positions, len(weights), _FOLD, device=device)
        self.mean = torch.zeros(positions, _FOLD, device=device)
        self.m2 = torch.zeros(positions, _FOLD, device=device)
        self._probability = torch.empty(0, device=device)
        # (K·8, 2·8): the plain and the weighted sum over classes as one matrix product, the voxels of a block kept
        # apart; (8, K·8): what spreads a value per voxel over its classes.
        apart = torch.eye(_FOLD)
        sums = torch.stack([torch.ones_like(weights), weights], 1)
        self._mixing = torch.kron(sums, apart).to(device)
        self._spreading = apart.repeat(1, len(weights)).to(device)

    def update(self, logits: Iterable[Tensor]) -> None:
        """One batch of samples as pieces (B, K·8, d, h, w) that follow one another along the first axis of the folded
        grid, any float type; those that are channels-last are not copied."""
        start = 0
        for piece in logits:
            positions = piece.permute(0, 2, 3, 4, 1).reshape(len(piece), -1, piece.shape[1] // _FOLD, _FOLD)
            end = start + positions.shape[1]
            self._merge(positions, slice(start, end))
            start = end
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
        """(B, n, K, 8) -> probabilities (B, n, K, 8), valid until the next call, and weighted sums (B, n, 8)."""
        p = self._probability.resize_(logits.shape)
        flat = p.view(*p.shape[:2], -1)
        if p.device.type == "cpu":
            # torch's softmax over the middle axis was measured five times slower than this.
            p.copy_(logits).mul_(math.log2(math.e)).exp2_()
            ones, mixed = (flat @ self._mixing).chunk(2, 2)
            least, greatest = ones.aminmax()
            if least > _LEAST_SUM and greatest < _GREATEST_SUM:
                inverse = ones.reciprocal()
                flat.mul_(inverse @ self._spreading)
                return p, mixed * inverse
        torch.softmax(logits, 2, dtype=torch.float32, out=p)
        return p, (flat @ self._mixing).chunk(2, 2)[1]

    def merge(self, other: RunningMoments) -> None:
        """Takes in what another took in, which is used up."""
        count = self.count + other.count
        step = other.mean.sub_(self.mean)
        self.total.add_(other.total)
        self.mean.add_(step, alpha=other.count / count)
        self.m2.add_(other.m2).addcmul_(step, step, value=self.count * other.count / count)
        self.count = count

    def result(self, grid: tuple[int, int, int]) -> Moments:
        """The moments as volumes. grid: of the folded logits (d, h, w). They are unfolded where they lie, as a GPU
        turns memory about many times faster than a CPU does."""
        std = (self.m2 / max(self.count - 1, 1)).sqrt_()
        probability, mean, std = (
            unfold(values.view(1, *grid, -1).permute(0, 4, 1, 2, 3))[0].cpu().numpy()
            for values in (self.total / self.count, self.mean, std)
        )
        return Moments(probability, mean[0], std[0], self.count)
