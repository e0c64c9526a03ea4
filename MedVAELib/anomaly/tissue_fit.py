"""Healthy intensities of the scan at hand: robust mean and spread per tissue, and the smooth bias field."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..preprocessing.morphology import dilated, opened
from ..progress import CancelToken
from ..tissues import BACKGROUND, CORTEX, EXTRACEREBRAL, OUTER_CSF, PARENCHYMA, VENTRICLES, WHITE

_SPREAD_FLOOR = 0.02  # network units; noise that no scan is free of
_MAX_LOG_BIAS = 1.2
_ORDER = 3  # of the polynomials in x, y and z: what coils shade is smooth
_CUTOFF = 2.0  # robust deviations beyond which a voxel does not count
_ROUNDS, _REWEIGHTINGS = 6, 3
_RIDGE = 1e-4  # against wild extrapolation to where a lesion or another tissue is
_SHARE = 0.6  # of a tissue in a voxel that tells of it
_EVERY = 2  # voxels along each axis: the rounds look at an eighth of them
_MIN_VOXELS = 200
_ANOMALY_MM, _ANOMALY_ML, _ANOMALY_RESIDUAL = 3.0, 20.0, 0.08  # smoothing, size, network units (brain median 0.5)
_PERIVENTRICULAR_MM, _SUBCORTICAL_MM = 16.0, 24.0  # up to and from here, from the ventricles on
_MAX_PERIVENTRICULAR = 0.05  # logarithm; 13 real scans without diffuse disease measure −.09 to .01


@dataclass(frozen=True)
class TissueFit:
    """mean, spread: (K,) in network units with the bias removed; bias: (D, H, W), a factor near 1. periventricular: by
    what factor the white matter near the ventricles is brighter than farther away where that is more than what shades
    the cortex, so that it was not taken for healthy; 1 where it was."""

    mean: NDArray[np.float64]
    spread: NDArray[np.float64]
    bias: NDArray[np.float32]
    periventricular: float = 1.0

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
) -> TissueFit:
    """Alternates between tissue statistics and bias field, each time leaving out what does not look healthy.

    image: (D, H, W) in network units; probability: (K, D, H, W); inside: voxels of the brain that hold data. Medians
    keep a lesion that covers less than half of a tissue from moving its mean. The bias field is the mean of two robust
    polynomials, one through the white matter and one through the cortex: coils shade both alike, a lesion does not.
    Diffuse disease of white matter begins around the ventricles and can be most of it: where white matter there is
    brighter than under the cortex, and the cortex's polynomial does not say so, only what lies under the cortex counts.
    """
    cancel = cancel or CancelToken()
    fit, cortex = _fit(image, probability, inside, inside, spacing_mm, cancel)
    away_mm = ndimage.distance_transform_edt(probability[VENTRICLES] <= 0.5) * spacing_mm
    white, subcortical = inside & (probability[WHITE] > _SHARE), away_mm >= _SUBCORTICAL_MM
    excess = _excess(image, cortex, white & (away_mm < _PERIVENTRICULAR_MM), white & subcortical)
    if excess <= _MAX_PERIVENTRICULAR:
        return fit
    fit, _ = _fit(image, probability, inside, inside & (subcortical | (probability[WHITE] <= 0.1)), spacing_mm, cancel)
    return replace(fit, periventricular=math.exp(excess))


def _excess(image: NDArray[np.float32], shading: NDArray[np.float32] | None, here: NDArray, there: NDArray) -> float:
    """How much brighter white matter is here than there, beyond the shading of another tissue; logarithms."""
    if shading is None or min(here.sum(), there.sum()) < _MIN_VOXELS:
        return 0.0
    unshaded = np.log(np.maximum(image, 1e-3)) - shading
    return float(np.median(unshaded[here]) - np.median(unshaded[there]))


def _fit(
    image: NDArray[np.float32], probability: NDArray[np.float32], inside: NDArray[np.bool_], known: NDArray[np.bool_],
    spacing_mm: float, cancel: CancelToken,
) -> tuple[TissueFit, NDArray[np.float32] | None]:
    """The fit, and the logarithm of the shading of the cortex alone, if there was enough of it. known: voxels inside
    that may be healthy."""
    clear = inside & (probability[list(PARENCHYMA)].sum(0) > 0.7)
    near = _smoothed(clear, spacing_mm)
    some = (slice(None, None, _EVERY),) * 3
    few, few_known = probability[(slice(None), *some)], known[some]
    terms = _terms(image.shape)
    shading = [_Shading(terms[some], few[k] > _SHARE) for k in (WHITE, CORTEX)]
    bias, fitted = np.ones_like(image), [None, None]
    for _ in range(_ROUNDS):
        cancel.check()
        mean, _ = _statistics((image / bias)[some], few, few_known)
        residual = np.where(clear, image / bias - np.tensordot(mean, probability, 1), 0)
        healthy = few_known & ~_anomalies(residual, near, clear, spacing_mm)[some]
        mean, _ = _statistics((image / bias)[some], few, healthy)
        expected = np.maximum(np.tensordot(mean, few, 1), 0.05)
        log_ratio = np.log(np.maximum(image[some], 1e-3) / expected)
        fitted = [part.fit(log_ratio, healthy & clear[some]) for part in shading]
        found = [coefficients for coefficients in fitted if coefficients is not None]
        if not found:
            break
        field = terms @ np.mean(found, 0).astype(np.float32)
        field -= np.median(field[clear])
        bias = np.exp(np.clip(field, -_MAX_LOG_BIAS, _MAX_LOG_BIAS)).astype(np.float32)
    mean, spread = _statistics(image / bias, probability, known)
    cortex = fitted[1]
    return TissueFit(mean, spread, bias), None if cortex is None else terms @ cortex.astype(np.float32)


class _Shading:
    """A polynomial through one tissue, fitted better from round to round."""

    def __init__(self, terms: NDArray[np.float32], tissue: NDArray[np.bool_]):
        """terms: (…, terms) at some of a grid's voxels; tissue: where there is enough of it, (…)."""
        self.terms, self.tissue = terms, tissue
        self.coefficients = np.zeros(terms.shape[-1])

    def fit(self, log_ratio: NDArray, used: NDArray[np.bool_]) -> NDArray[np.float64] | None:
        """The coefficients, or None where too little of the tissue is among the voxels used. log_ratio: of the image to
        what is expected. Least squares with Tukey's biweight (Beaton & Tukey 1974), reweighted a few times."""
        used = used & self.tissue
        if used.sum() < _MIN_VOXELS:
            return None
        terms, target = self.terms[used].astype(float), log_ratio[used]
        for _ in range(_REWEIGHTINGS):
            off = target - terms @ self.coefficients
            off = off - np.median(off)
            scale = 1.4826 * np.median(np.abs(off)) + 0.02
            weight = np.clip(1 - (off / (_CUTOFF * scale)) ** 2, 0, None) ** 2
            weighted = terms * weight[:, None]
            ridge = _RIDGE * weight.sum() * np.eye(terms.shape[1])
            self.coefficients = np.linalg.solve(weighted.T @ terms + ridge, weighted.T @ target)
        return self.coefficients


@lru_cache(maxsize=2)
def _terms(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """The terms of a polynomial at the voxels of a grid whose edges lie at −1 and 1, (…, terms)."""
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n, dtype=np.float32) for n in shape), indexing="ij")
    powers = [p for p in np.ndindex(*(_ORDER + 1,) * 3) if sum(p) <= _ORDER]
    return np.stack([z**i * y**j * x**k for i, j, k in powers], -1)


def _smoothed(values: NDArray, spacing_mm: float) -> NDArray[np.float32]:
    return ndimage.gaussian_filter(values.astype(np.float32), _ANOMALY_MM / spacing_mm)


def _anomalies(
    residual: NDArray, near: NDArray, clear: NDArray[np.bool_], spacing_mm: float
) -> NDArray[np.bool_]:
    """Large regions that are too bright as a whole, and their rims: a tumour that shaped the bias field would hide."""
    bright = clear & (_smoothed(residual, spacing_mm) > _ANOMALY_RESIDUAL * np.maximum(near, 0.05))
    labels, _ = ndimage.label(opened(bright))
    ml = np.bincount(labels.ravel()) * spacing_mm**3 / 1000
    ml[0] = 0
    return dilated((ml > _ANOMALY_ML)[labels], 2)


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
