"""From raw scores to "how rare is this in healthy brains": the scale of the anomaly map, and thresholds on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

UNIT = "-log10 of the share of healthy brain voxels that score higher"
_STANDARD_SHARE = 0.1
_MOST_CORRECTION = 1.25
_TAIL_SHARES = np.concatenate([np.linspace(0.98, 0.02, 49), np.logspace(-2, -5, 25)])


@dataclass(frozen=True)
class ScoreCalibration:
    """Raw score at which a given share of healthy voxels lies above: `raw` rises as `share` falls.

    typical: raw score that a tenth of a healthy brain exceeds, before scans are made comparable with `standardise`.
    """

    share: NDArray[np.float64]
    raw: NDArray[np.float64]
    typical: float

    def __post_init__(self) -> None:
        if len(self.share) != len(self.raw) or len(self.share) < 2:
            raise ValueError("a calibration needs as many raw scores as shares, two at least")
        if (np.diff(self.raw) < 0).any() or (np.diff(self.share) >= 0).any():
            raise ValueError("raw scores must rise while shares fall")
        if not self.typical >= 0:
            raise ValueError("typical must not be negative")

    @classmethod
    def from_healthy(cls, samples: list[ArrayLike]) -> ScoreCalibration:
        """samples: raw scores of brain voxels, one array per healthy scan; every scan counts the same."""
        arrays = [np.asarray(s, float) for s in samples]
        typical = float(np.exp(np.mean([np.log(max(_exceeded_by_a_tenth(a), 1e-6)) for a in arrays])))
        arrays = [a * _correction(typical, a) for a in arrays]
        weights = np.concatenate([np.full(len(a), 1 / len(a)) for a in arrays])
        values = np.concatenate(arrays)
        order = np.argsort(values)
        above = 1 - np.cumsum(weights[order]) / weights.sum()
        raw = np.interp(_TAIL_SHARES[::-1], above[::-1], values[order][::-1])[::-1]
        return cls(_TAIL_SHARES, np.maximum.accumulate(raw), typical)

    def standardise(self, raw: NDArray[np.float32]) -> NDArray[np.float32]:
        """Makes scans comparable: noisier ones, and ones whose anatomy was read less well, score higher all over.
        raw: (n,), of a scan's brain.

        The correction stays within a quarter, because a lesion that fills a tenth of the brain would hide itself.
        """
        return raw * np.float32(_correction(self.typical, raw)) if raw.size else raw

    def apply(self, raw: NDArray[np.float32]) -> NDArray[np.float32]:
        """Calibrated score, float32. Strictly rising in `raw`, also beyond the rarest score seen in healthy brains,
        where the share goes on falling as a power of `raw`, the heavy tail of extreme values (Pickands 1975)."""
        log_share = -np.log10(self.share)
        # Ties (many zeros) are spread by a hair so that ranks survive.
        knots = self.raw + np.arange(len(self.raw)) * 1e-9
        tail = slice(-12, None)
        last = max(knots[-1], 1e-6)
        slope = max((log_share[-1] - log_share[tail][0]) / max(np.log(last / max(knots[tail][0], 1e-9)), 1e-6), 1e-3)
        score = np.interp(raw, knots, log_share)
        below, beyond = raw < knots[0], raw > knots[-1]
        score[below] = log_share[0] * np.clip(raw[below] / max(knots[0], 1e-6), 0, 1)
        score[beyond] = log_share[-1] + slope * np.log(np.maximum(raw[beyond], last) / last)
        return score.astype(np.float32)

    def as_json(self) -> dict[str, list[float] | float]:
        share, raw = ([float(f"{v:.6g}") for v in column] for column in (self.share, self.raw))
        return {"share": share, "raw": raw, "typical": float(f"{self.typical:.6g}")}

    @classmethod
    def from_json(cls, data: dict[str, list[float] | float]) -> ScoreCalibration:
        return cls(np.asarray(data["share"], float), np.asarray(data["raw"], float), float(data["typical"]))


def _exceeded_by_a_tenth(raw: NDArray) -> float:
    return float(np.quantile(raw, 1 - _STANDARD_SHARE))


def _correction(typical: float, raw: NDArray) -> float:
    """Factor that brings a scan's raw scores to the usual level, within limits."""
    own = _exceeded_by_a_tenth(raw)
    return float(np.clip(typical / own, 1 / _MOST_CORRECTION, _MOST_CORRECTION)) if min(own, typical) > 0 else 1.0


def threshold(fpr: float) -> float:
    """The calibrated score above which a share `fpr` of healthy voxels lies."""
    return -float(np.log10(fpr))


def reference_histogram(highest: float) -> dict[str, list[float]]:
    """Density of the calibrated score in healthy brains: exponential by construction, share above s = 10^-s."""
    edges = np.linspace(0, max(highest, 6.0), 61)
    above = 10.0**-edges
    density = (above[:-1] - above[1:]) / np.diff(edges)
    return {"edges": edges.tolist(), "density": density.tolist()}
