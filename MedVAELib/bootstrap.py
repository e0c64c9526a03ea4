"""Percentile bootstrap: how often is drawn anew, and the interval of what was drawn."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000
CONFIDENCE = 0.95


def interval(draws: NDArray) -> tuple[float, float]:
    """The central CONFIDENCE of the draws; NaN, NaN with no draw that is defined."""
    draws = draws[np.isfinite(draws)]
    if not draws.size:
        return float("nan"), float("nan")
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(draws, (tail, 1 - tail))
    return float(low), float(high)
