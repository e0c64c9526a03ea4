"""Calibration of a skull model's uncertainty: a temperature on its priors' standard deviations per subset of planes,
and what the measures' standard deviations are multiplied by then."""

from __future__ import annotations

import math
from statistics import NormalDist

import torch
from torch import Tensor, nn

from ..progress import CancelToken
from ..standard_planes import SUBSETS, Subset, named
from .biometry import COARSE, measure_heads
from .held_back import HeldBack, predict

LEVELS = (0.5, 0.8, 0.95)
QUANTILES = tuple(NormalDist().inv_cdf(0.5 + level / 2) for level in LEVELS)
"""Of a normal distribution: its central intervals of these levels, in standard deviations."""
RANGE = (0.25, 4.0)
"""Of temperatures that are looked through."""
_ROUNDS = 3  # each draws with what the one before found, since the spread only nearly follows the temperature
_STEPS = 12  # halvings of the range's logarithm: to 0.1 %
_NEAR = 1.0  # voxels of the 96³ grid from the predicted surface: where coverage is counted


@torch.inference_mode()
def calibrate(model: nn.Module, held_back: HeldBack, samples: int, cancel: CancelToken) -> dict[str, object]:
    """The temperatures at which central intervals cover what they say, one for every subset of the planes.

    Of a surface point, the interval is mean ± quantile · standard deviation of the samples' signed distance there, and
    it covers if the true distance lies in it. Returns "temperatures" and "coverage" on the heads they were chosen on,
    by name of the subset, "levels", and "measures", as `measure_widening` says. A model whose samples do not differ has
    the temperature 1 and covers nothing.
    """
    temperatures, covered, measures = {}, {}, {}
    for seen in SUBSETS:
        temperature = round(_temperature(model, held_back, seen, samples, cancel), 3)
        cancel.check()
        drawn = predict(model, held_back, seen, samples, temperature)
        temperatures[named(seen)] = temperature
        covered[named(seen)] = [round(share, 3) for share in coverage(deviations(drawn, held_back.sdf[:, 0]))]
        measures[named(seen)] = measure_widening(drawn, held_back)
    return {"temperatures": temperatures, "levels": list(LEVELS), "coverage": covered, "measures": measures}


def _temperature(model: nn.Module, held_back: HeldBack, seen: Subset, samples: int, cancel: CancelToken) -> float:
    temperature = 1.0
    for _ in range(_ROUNDS):
        cancel.check()
        found = deviations(predict(model, held_back, seen, samples, temperature), held_back.sdf[:, 0])
        if max(coverage(found)) == 0.0:
            return 1.0
        temperature = min(max(temperature * _widening(found), RANGE[0]), RANGE[1])
    return temperature


def measure_widening(samples: Tensor, held_back: HeldBack) -> dict[str, float]:
    """By measure, the factor on its standard deviation over the samples (N, S, 48, 48, 48) with which its central
    intervals hold what they should. The temperature makes those of single points right; a diameter, circumference or
    volume sums up points whose errors go together less, or more, than the samples' do. 1 without a spread."""

    def measured(sdf: Tensor) -> dict[str, Tensor]:
        return measure_heads(sdf / COARSE, COARSE)  # in voxels of the 96³ grid: the head's size drops out

    truth = measured(held_back.sdf[:, 0])
    drawn = [measured(head) for head in samples]
    factors = {}
    for name, true in truth.items():
        of_heads = torch.stack([each[name] for each in drawn])
        std = of_heads.std(1, correction=0)
        off = (of_heads.mean(1) - true).abs() / std.clamp(min=torch.finfo(std.dtype).tiny)
        factors[name] = round(_widening([off]), 3) if std.any() else 1.0
    return factors


def deviations(samples: Tensor, truth: Tensor) -> list[Tensor]:
    """Of every head, the errors at the predicted surface in standard deviations. samples: (N, S, D, H, W), truth:
    (N, D, H, W), signed distances in voxels of the 96³ grid."""
    mean, std = samples.mean(1), samples.std(1, correction=0)
    errors = (mean - truth).abs() / std.clamp(min=torch.finfo(std.dtype).tiny)
    return [error[near] for error, near in zip(errors, mean.abs() < _NEAR, strict=True)]


def coverage(found: list[Tensor], widening: float = 1.0) -> tuple[float, ...]:
    """Share of the deviations within the interval of each of LEVELS, were all standard deviations that much larger.
    Every head counts the same."""
    quantiles = [widening * quantile for quantile in QUANTILES]
    return tuple(sum(float((head <= z).float().mean()) if len(head) else 0.0 for head in found) / len(found)
                 for z in quantiles)


def _widening(found: list[Tensor]) -> float:
    """The factor on the standard deviations with which as much is covered as should be, on average over the levels."""
    low, high = (math.log(limit) for limit in RANGE)
    for _ in range(_STEPS):
        middle = (low + high) / 2
        too_much = sum(coverage(found, math.exp(middle))) > sum(LEVELS)
        low, high = (low, middle) if too_much else (middle, high)
    return math.exp((low + high) / 2)
