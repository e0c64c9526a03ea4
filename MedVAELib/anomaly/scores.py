"""Anomaly scores, by name: each turns residual and healthy expectation into one number per voxel, bright side positive.

All work on the scan's own voxels inside a box around the brain (zyx) in network units.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.special import log_ndtr, logsumexp

from ..errors import UsageError, check_seed
from ..preprocessing.intensity import NETWORK_MEDIAN

Volume = NDArray[np.float32]


@dataclass(frozen=True)
class Emphasis:
    """What counts how far, by modality. coarse: share of the z-score smoothed over millimetres; brightness_power: power
    of the brightness against the brain's median; spread_power: of the spread expected, 1 for a z-score, 0 for a
    residual; symmetry: share of the score that is taken off near the surface where the other side scores as high. On
    DWI acute infarcts outshine every healthy tissue, small ones drown in a smoothed map, and artefacts lie on both
    sides alike; on FLAIR a lesion can be no brighter than the cortex, and lesions can lie on both sides."""

    coarse: float
    brightness_power: float
    spread_power: float = 1.0
    symmetry: float = 0.0

    def __post_init__(self) -> None:
        if min(self.coarse, self.brightness_power, self.spread_power, self.symmetry) < 0 or self.symmetry > 1:
            raise ValueError("coarse, powers and symmetry must not be negative, symmetry at most 1")


EMPHASIS = {"flair": Emphasis(1.0, 0.0, 0.75), "dwi": Emphasis(0.0, 4.0, 0.75, 0.9)}
"""What new bundles are calibrated with; each bundle keeps its own."""
MAX_SAMPLES = 10_000
_SSIM_SIGMA_MM = 1.5
_USUAL_SPREAD = 0.07  # network units (brain median 0.5): where a power of the spread changes nothing


@dataclass
class ScoreInputs:
    """image: bias-corrected scan; expected, variance: of the healthy tissue mix, posterior variance included;
    weight: how far brightness is abnormal in the tissue there (0…1); coarse_z: z-score smoothed over millimetres;
    spacing_mm: of the voxels, zyx; fine_sigma_mm: of the Gaussian against noise; emphasis: of the modality;
    probability (K, …), mean and spread (K,), kl_gradient: for the scores that need them, else None."""

    image: Volume
    expected: Volume
    variance: Volume
    weight: Volume
    coarse_z: Volume
    spacing_mm: tuple[float, float, float]
    fine_sigma_mm: float
    mean: NDArray[np.float64]
    spread: NDArray[np.float64]
    emphasis: Emphasis
    probability: Volume | None = None
    kl_gradient: Volume | None = None

    @property
    def residual(self) -> Volume:
        """Image − expected (zyx), network units."""
        return self.image - self.expected

    @cached_property
    def smooth_residual(self) -> Volume:
        """The residual without its noise; both signs of a score read it."""
        return ndimage.gaussian_filter(self.residual, self.smoothing)

    @property
    def smoothing(self) -> tuple[float, ...]:
        """The sigma against noise in voxels per axis."""
        return self.in_voxels(self.fine_sigma_mm)

    def in_voxels(self, sigma_mm: float) -> tuple[float, ...]:
        """A sigma in mm as voxels, zyx."""
        return tuple(sigma_mm / step for step in self.spacing_mm)


def zscore(inputs: ScoreInputs, sign: int = 1) -> Volume:
    """Residual over the spread expected there, fine and coarse scale together, weighted by tissue and brightness.

    The coarse term lets a large lesion count where the tissue itself is uncertain; the fine term keeps its edge.
    """
    emphasis = inputs.emphasis
    # In place where it can be: a box of a scan of 0.5 mm takes hundreds of MB.
    spread = np.sqrt(inputs.variance)
    spread /= _USUAL_SPREAD
    spread **= emphasis.spread_power
    spread *= _USUAL_SPREAD
    z = np.divide(inputs.smooth_residual, spread, out=spread)
    z *= sign
    np.maximum(z, 0, out=z)
    z += emphasis.coarse * np.maximum(sign * inputs.coarse_z, 0)
    if emphasis.brightness_power and sign > 0:
        brightness = np.maximum(ndimage.gaussian_filter(inputs.image, inputs.smoothing) / NETWORK_MEDIAN, 0)
        z *= brightness**emphasis.brightness_power
    z *= inputs.weight
    return z


def absolute(inputs: ScoreInputs, sign: int = 1) -> Volume:
    """|residual|, the classical score of autoencoders (Baur et al. 2021); both signs count."""
    return ndimage.gaussian_filter(np.abs(inputs.residual), inputs.smoothing)


def reconstruction_probability(inputs: ScoreInputs, sign: int = 1) -> Volume:
    """-log E_z[p(x | z)] under the tissue mixture (An & Cho 2015): exact, since the mixture is linear in p(tissue | z).

    Given a sign, the one-sided tail probability is used instead of the density, so that only that side is abnormal.
    """
    if inputs.probability is None:
        raise ValueError("reconstruction_probability needs the tissue probabilities")
    smooth = ndimage.gaussian_filter(inputs.image, inputs.smoothing)
    tail = [
        np.log(np.maximum(p, 1e-6)) + log_ndtr(-sign * (smooth - m) / s)
        for p, m, s in zip(inputs.probability, inputs.mean, np.maximum(inputs.spread, 0.03), strict=True)
        if m > 0
    ]
    return np.maximum(-logsumexp(tail, axis=0), 0).astype(np.float32)


def kl_gradient(inputs: ScoreInputs, sign: int = 1) -> Volume:
    """|∂KL/∂x| × residual of the given sign (Zimmerer et al. 2019)."""
    if inputs.kl_gradient is None:
        raise ValueError("kl_gradient needs the gradient of the KL divergence")
    return inputs.kl_gradient * np.maximum(sign * inputs.smooth_residual, 0)


def ssim(inputs: ScoreInputs, sign: int = 1) -> Volume:
    """1 - structural similarity of scan and reconstruction (Bergmann et al. 2019); both signs count."""
    x, y = inputs.image, inputs.expected

    def blur(a: Volume) -> Volume:
        return ndimage.gaussian_filter(a, inputs.in_voxels(_SSIM_SIGMA_MM))

    mx, my = blur(x), blur(y)
    vx, vy, cov = blur(x * x) - mx * mx, blur(y * y) - my * my, blur(x * y) - mx * my
    c1, c2 = 0.01**2, 0.03**2
    return 1 - ((2 * mx * my + c1) * (2 * cov + c2)) / ((mx * mx + my * my + c1) * (vx + vy + c2))


TWO_SIDED = ("absolute", "ssim")
"""Scores in which darker counts as much as brighter."""
SCORES: dict[str, Callable[[ScoreInputs, int], Volume]] = {
    "zscore": zscore,
    "absolute": absolute,
    "reconstruction_probability": reconstruction_probability,
    "kl_gradient": kl_gradient,
    "ssim": ssim,
}


def check_arguments(samples: int, fpr: float, score: str, seed: int = 0) -> None:
    """Raises UsageError for a value out of range; `detect_anomalies` does it first."""
    if not 1 <= samples <= MAX_SAMPLES:
        raise UsageError(f"samples must lie between 1 and {MAX_SAMPLES}, not {samples}.")
    if not 1e-5 <= fpr <= 0.5:
        raise UsageError(f"fpr must lie between 0.00001 and 0.5, not {fpr}.")
    check_seed(seed)
    if score not in SCORES:
        raise UsageError(f"Unknown score '{score}': choose one of {', '.join(SCORES)}.")
