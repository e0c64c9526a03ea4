"""Calibration of a skull model's uncertainty: one temperature on its priors' standard deviations."""

from __future__ import annotations

from statistics import NormalDist

import torch
from torch import Tensor, nn

from ..progress import CancelToken
from .held_back import SUBSETS, HeldBack, predict

LEVELS = (0.5, 0.8, 0.95)
TEMPERATURES = (0.5, 0.7, 0.85, 1.0, 1.2, 1.4, 1.7, 2.0, 2.5, 3.0)
_NEAR = 1.0  # voxels of the 96³ grid from the predicted surface: where coverage is counted


@torch.inference_mode()
def calibrate(model: nn.Module, held_back: HeldBack, samples: int, cancel: CancelToken) -> dict[str, object]:
    """The temperature at which central intervals cover what they say, over all numbers of planes alike.

    Of a surface point, the interval is mean ± quantile · standard deviation of the samples' signed distance there, and
    it covers if the true distance lies in it. Returns "temperature", and "coverage" on the heads it was chosen on, by
    number of planes. A model whose samples do not differ has the temperature 1 and covers nothing.
    """
    tried: dict[float, dict[int, tuple[float, ...]]] = {}
    for temperature in TEMPERATURES:
        tried[temperature] = {}
        for count in SUBSETS:
            cancel.check()
            tried[temperature][count] = coverage(predict(model, held_back, count, samples, temperature),
                                                 held_back.sdf[:, 0])  # fmt: skip
        if all(max(levels) == 0.0 for levels in tried[temperature].values()):
            return _entry(1.0, tried[temperature])
    best = min(tried, key=lambda temperature: _miss(tried[temperature]))
    return _entry(best, tried[best])


def coverage(samples: Tensor, truth: Tensor) -> tuple[float, ...]:
    """Share of the predicted surface covered by the interval of each of LEVELS. samples: (N, S, D, H, W), truth:
    (N, D, H, W), signed distances in voxels of the 96³ grid. Every head counts the same."""
    mean, std = samples.mean(1), samples.std(1)
    near, error = mean.abs() < _NEAR, (mean - truth).abs()
    shares = []
    for level in LEVELS:
        covered = (error <= NormalDist().inv_cdf(0.5 + level / 2) * std) & near
        share = covered.sum((1, 2, 3)) / near.sum((1, 2, 3)).clamp(min=1)
        shares.append(float(share.mean()))
    return tuple(shares)


def _miss(by_count: dict[int, tuple[float, ...]]) -> float:
    return max(abs(share - level) for shares in by_count.values() for share, level in zip(shares, LEVELS, strict=True))


def _entry(temperature: float, by_count: dict[int, tuple[float, ...]]) -> dict[str, object]:
    stated = {str(count): [round(share, 3) for share in shares] for count, shares in by_count.items()}
    return {"temperature": temperature, "levels": list(LEVELS), "coverage": stated}
