"""Mean and variance over posterior samples, streamed: no sample is ever kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

# Positions handled together on the CPU, chosen so that the temporaries of a chunk stay in the caches.
_CPU_CHUNK_VALUES = 600_000


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


def posterior_noise(shape: tuple[int, ...], seed: int, index: int) -> Tensor:
    """Standard normal noise (*shape) of posterior sample `index`, drawn on the CPU: the same for every batch size
    and on every device."""
    state = np.random.SeedSequence([seed, index]).generate_state(1, np.uint64)[0]
    generator = torch.Generator().manual_seed(int(state >> np.uint64(1)))
    return torch.randn(shape, generator=generator)


@dataclass(frozen=True)
class LogitLayout:
    """How a decoder lays out its logits: `folded` ones are (B, 8K, D/2, H/2, W/2), class-major, 2×2×2 voxels in
    the channels; plain ones are (B, K, D, H, W)."""

    folded: bool

    @property
    def fold(self) -> int:
        return 8 if self.folded else 1

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
    """Merges batches of logits into running moments (Chan, Golub and LeVeque 1979), in float32 on their device.

    weights: (R, K), on the CPU. After n samples: probability mean (N, K, F), and mean and M2 = Σ (r - mean)² of the
    reconstructions (N, R, F). After an update that failed for lack of memory, start again with new moments.
    """

    def __init__(self, positions: int, weights: Tensor, fold: int, device: torch.device):
        r, k = weights.shape
        self.count = 0
        self.probability = torch.zeros(positions, k, fold, device=device)
        self.mean = torch.zeros(positions, r, fold, device=device)
        self.m2 = torch.zeros(positions, r, fold, device=device)
        self.chunk = positions if device.type != "cpu" else max(1, _CPU_CHUNK_VALUES // (k * fold))
        # (K·F, R·F): the weighted sum over classes as one matrix product, the F voxels of a block kept apart.
        mixing = torch.einsum("rk,fg->kfrg", weights.float(), torch.eye(fold))
        self._mixing = mixing.reshape(k * fold, r * fold).to(device)

    def update(self, logits: Tensor) -> None:
        """logits: (B, N, K, F), any float type."""
        batch, positions, k, fold = logits.shape
        total = self.count + batch
        for start in range(0, positions, self.chunk):
            part = slice(start, start + self.chunk)
            p = torch.softmax(logits[:, part], 2, dtype=torch.float32)
            r = torch.mm(p.reshape(-1, k * fold), self._mixing).reshape(batch, -1, self.mean.shape[1], fold)
            if batch == 1:
                p_mean, r_mean, spread = p[0], r[0], None
            else:
                p_mean, r_mean = p.mean(0), r.mean(0)
                spread = (r - r_mean).square_().sum(0)
            step = r_mean - self.mean[part]
            square = step.square()
            p_step = p_mean - self.probability[part]
            self.probability[part].add_(p_step, alpha=batch / total)
            self.mean[part].add_(step, alpha=batch / total)
            self.m2[part].add_(square, alpha=self.count * batch / total)
            if spread is not None:
                self.m2[part].add_(spread)
        self.count = total

    def result(self, layout: LogitLayout, grid: tuple[int, int, int]) -> Moments:
        """The moments as volumes, with the axis R. grid: of the logits (d, h, w). They are unfolded where they lie, as
        a GPU turns memory about many times faster than a CPU does."""
        std = (self.m2 / max(self.count - 1, 1)).sqrt_()
        volumes = (layout.volume(t, grid).cpu().numpy() for t in (self.probability, self.mean, std))
        return Moments(*volumes, samples=self.count)


def joined(slabs: Sequence[Moments]) -> Moments:
    """The whole from slabs along the first axis, each with the axis R."""
    volumes = ([getattr(slab, name) for slab in slabs] for name in ("probability", "reconstruction", "std"))
    return Moments(*(np.concatenate(parts, 1) for parts in volumes), samples=slabs[0].samples)
