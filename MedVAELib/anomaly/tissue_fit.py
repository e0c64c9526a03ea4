"""Healthy intensities of the scan at hand: robust mean and spread per tissue, and the smooth bias field."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..progress import CancelToken
from ..tissues import BACKGROUND, CORTEX, EXTRACEREBRAL, OUTER_CSF, PARENCHYMA, VENTRICLES, WHITE

_SPREAD_FLOOR = 0.02  # network units; noise that no scan is free of
_BIAS_SIGMA_MM = 24.0
_MAX_LOG_BIAS = 0.6
_OUTLIER = 0.12  # network units (brain median 0.5): farther from the expected tissue does not shape the bias field
_ROUNDS = 4


@dataclass(frozen=True)
class TissueFit:
    """mean, spread: (K,) in network units with the bias removed; bias: (D, H, W), a factor near 1."""

    mean: NDArray[np.float64]
    spread: NDArray[np.float64]
    bias: NDArray[np.float32]

    @property
    def tissue_contrast(self) -> float:
        """Largest difference between white matter, cortex and CSF, in spreads of the white matter."""
        means = self.mean[[WHITE, CORTEX, VENTRICLES, OUTER_CSF]]
        return float((means.max() - means.min()) / self.spread[WHITE])

    def expected(self, probability: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Mean and variance, (D, H, W), of the intensity that the healthy tissue mix has at each voxel.

        probability: (K, D, H, W). The variance is that of the mixture: within tissues and between them.
        """
        mean = np.tensordot(self.mean, probability, 1)
        second = np.tensordot(self.spread**2 + self.mean**2, probability, 1)
        return mean.astype(np.float32), np.maximum(second - mean**2, 0).astype(np.float32) + _SPREAD_FLOOR**2


def fit_tissues(
    image: NDArray[np.float32], probability: NDArray[np.float32], inside: NDArray[np.bool_], spacing_mm: float,
    cancel: CancelToken | None = None,
) -> TissueFit:  # fmt: skip
    """Alternates between tissue statistics and bias field, each time leaving out what does not look healthy.

    image: (D, H, W) in network units; probability: (K, D, H, W); inside: voxels of the brain that hold data.
    Medians keep a lesion that covers less than half of a tissue from moving its mean.
    """
    cancel = cancel or CancelToken()
    bias = np.ones_like(image)
    used = inside
    sigma = _BIAS_SIGMA_MM / spacing_mm
    clear = inside & (probability[list(PARENCHYMA)].sum(0) > 0.7)
    for _ in range(_ROUNDS):
        cancel.check()
        mean, spread = _statistics(image / bias, probability, used)
        residual = image / bias - np.tensordot(mean, probability, 1)
        healthy = clear & (np.abs(residual) < _OUTLIER)
        expected = np.maximum(np.tensordot(mean, probability, 1), 0.05)
        log_ratio = np.where(healthy, np.log(np.maximum(image, 1e-3) / expected), 0).astype(np.float32)
        weight = ndimage.gaussian_filter(healthy.astype(np.float32), sigma)
        field = ndimage.gaussian_filter(log_ratio, sigma) / np.maximum(weight, 1e-3)
        bias = np.exp(np.clip(field, -_MAX_LOG_BIAS, _MAX_LOG_BIAS)).astype(np.float32)
    mean, spread = _statistics(image / bias, probability, used)
    return TissueFit(mean, spread, bias)


def _statistics(
    image: NDArray[np.float32], probability: NDArray[np.float32], used: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weighted median and 1.48 × weighted median absolute deviation per tissue, from voxels that are mostly it."""
    classes = len(probability)
    mean, spread = np.zeros(classes), np.full(classes, 0.05)
    for k in range(classes):
        if k in (BACKGROUND, EXTRACEREBRAL):
            continue
        chosen = used & (probability[k] > 0.5)
        if chosen.sum() < 60:
            chosen = used & (probability[k] > 0.1)
        if chosen.sum() < 20:
            continue
        values, weights = image[chosen], probability[k][chosen]
        mean[k] = _weighted_median(values, weights)
        spread[k] = 1.4826 * _weighted_median(np.abs(values - mean[k]), weights)
    for k in (VENTRICLES, OUTER_CSF):  # a scan without visible ventricles still has CSF
        if mean[k] == 0:
            mean[k] = mean[OUTER_CSF] or mean[VENTRICLES] or 0.1
    return mean, np.maximum(spread, 0.01)


def _weighted_median(values: NDArray, weights: NDArray) -> float:
    order = np.argsort(values)
    cumulative = np.cumsum(weights[order])
    return float(values[order[np.searchsorted(cumulative, 0.5 * cumulative[-1])]])
