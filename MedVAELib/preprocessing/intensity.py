"""Intensity convention of the anatomy network, shared by training and prediction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .morphology import filled

NETWORK_MEDIAN = 0.5
"""The brain's median in what the network sees."""
NETWORK_MAX = 1.5
"""Brighter voxels are clipped: three times the brain's median."""
LARGEST_BRAIN_ML = 2200.0
"""The largest brains hold 1.9 litres with their CSF, a head more than three."""
MIN_BRAIN_ML = 250.0
"""What holds less is not taken for a brain."""

_CONSTANT_SHARE = 0.25
_PADDING_SHARE, _PADDING_GAP = 0.01, 0.5
_NEAR_ZERO, _BELOW_ZERO = 0.01, 0.2  # × what a hundredth exceeds; of what does not lie near 0
_AIR_SHARE, _AIR_NOISE, _RAISED_AIR = 0.1, 0.05, 0.1
"""A tenth of a head's scan is air: within .05 of the range above its darkest value (.03 in all scans measured). Air
above a tenth of what a hundredth of the scan exceeds counts as raised by a constant, which no real scan here is."""


@dataclass(frozen=True)
class Foreground:
    """Where a scan holds data, and the intensity that counts as zero.

    support: bool, the scan's own grid; constant_background: someone wrote one value around a bare brain or head;
    offset: scan units, subtracted before scaling (not 0 for z-scored scans, whose air is not the darkest value, nor
    where a constant was added to all).
    """

    support: NDArray[np.bool_]
    constant_background: bool
    offset: float


def find_foreground(values: NDArray[np.float32]) -> Foreground:
    """values: the scan's intensities in any unit.

    A value shared exactly by a quarter of all voxels is a background that someone wrote there: skull-stripped or
    masked scans, z-scored or not. So is one below zero where no other is, or that lies far below all others, as -1024
    or -32768 in corners. Everything else is data, and what it encloses too: a cavity can be as dark as the background.
    """
    values = _with_exact_zero(values)
    sample = _sample(values)
    levels, counts = np.unique(sample, return_counts=True)
    background, share = float(levels[counts.argmax()]), counts.max() / sample.size
    if levels[0] < 0 and counts[0] > _PADDING_SHARE * sample.size:
        low, high = np.quantile(sample[sample > levels[0]], (0.001, 0.99)) if len(levels) > 1 else (0.0, 0.0)
        if low >= 0 or low - levels[0] > _PADDING_GAP * (high - low):
            return Foreground(values != levels[0], counts[0] >= _CONSTANT_SHARE * sample.size, min(0.0, float(low)))
    if share < _CONSTANT_SHARE:
        darkest, air, bright = (float(value) for value in np.quantile(sample, (0.001, _AIR_SHARE, 0.99)))
        raised = darkest > _RAISED_AIR * bright and air - darkest < _AIR_NOISE * (bright - darkest)
        return Foreground(np.ones(values.shape, bool), False, darkest if raised else min(0.0, darkest))
    support = filled(values != background)
    inside = sample[sample != background]
    darkest = float(np.quantile(inside, 0.001)) if inside.size else 0.0
    return Foreground(support, True, min(background, darkest))


def _with_exact_zero(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """With 0 for what lies next to it in a z-scored brain on 0: resampled by splines, the 0 around it becomes ±1e-6.

    A third or more of such a brain lies below 0; of a positive scan, the overshoot at edges alone, up to a tenth.
    """
    if values.min() >= 0:
        return values
    sample = _sample(values)
    near = _NEAR_ZERO * float(np.quantile(np.abs(sample), 0.99))
    around = float((np.abs(sample) <= near).mean())
    if around < _CONSTANT_SHARE or float((sample < -near).mean()) < _BELOW_ZERO * (1 - around):
        return values
    return np.where(np.abs(values) <= near, np.float32(0), values)


def _sample(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Two to four million of the values, or all."""
    return values.ravel()[:: max(1, values.size // 2_000_000)]
