"""Calibration of a skull model's uncertainty: one temperature on its priors' standard deviations."""

from __future__ import annotations

import math
from statistics import NormalDist

import torch
from torch import Tensor, nn

from ..progress import CancelToken
from .held_back import SUBSETS, HeldBack, predict

LEVELS = (0.5, 0.8, 0.95)
RANGE = (0.25, 4.0)
"""Of temperatures that are looked through."""
_STEPS = 6  # halvings of the range's logarithm: to 5 %
_NEAR = 1.0  # voxels of the 96³ grid from the predicted surface: where coverage is counted


@torch.inference_mode()
def calibrate(model: nn.Module, held_back: HeldBack, samples: int, cancel: CancelToken) -> dict[str, object]:
    """The temperature at which central intervals cover what they say, over all numbers of planes alike.

    Of a surface point, the interval is mean ± quantile · standard deviation of the samples' signed distance there, and
    it covers if the true distance lies in it. Coverage rises with the temperature, so it is found by bisection. Returns
    "temperature", and "coverage" on the heads it was chosen on, by number of planes. A model whose samples do not
    differ has the temperature 1 and covers nothing.
    """

    def covered(temperature: float) -> dict[int, tuple[float, ...]]:
        shares = {}
        for count in SUBSETS:
            cancel.check()
            drawn = predict(model, held_back, count, samples, temperature)
            shares[count] = coverage(drawn, held_back.sdf[:, 0])
        return shares

    low, high = (math.log(limit) for limit in RANGE)
    found = covered(1.0)
    if all(max(levels) == 0.0 for levels in found.values()):
        return _entry(1.0, found)
    temperature = 1.0
    for _ in range(_STEPS):
        low, high = (math.log(temperature), high) if _excess(found) < 0 else (low, math.log(temperature))
        temperature = math.exp((low + high) / 2)
        found = covered(temperature)
    return _entry(temperature, found)


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


def _excess(by_count: dict[int, tuple[float, ...]]) -> float:
    """By how much more is covered than should be, on average over levels and numbers of planes."""
    return sum(sum(shares) - sum(LEVELS) for shares in by_count.values())


def _entry(temperature: float, by_count: dict[int, tuple[float, ...]]) -> dict[str, object]:
    stated = {str(count): [round(share, 3) for share in shares] for count, shares in by_count.items()}
    return {"temperature": round(temperature, 3), "levels": list(LEVELS), "coverage": stated}
