"""How well a model of images reconstructs and samples: MSE, MS-SSIM, Fréchet distance, divergence, copies.

Images are (N, 1, *shape) float32 in 0…1. "Held-back" images are those the model was not trained on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from ..errors import InputError
from ..latent.statistics import LatentMoments
from ..progress import CancelToken, Progress, no_progress
from .generative_features import Features, random_features
from .metrics import mean_with_interval

SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
BLUR_VOXELS = 1.0
"""Standard deviation of the blur that gives the Fréchet distance a scale."""
PLAUSIBLE = 0.95
"""Share of real images that a sample may lie as far from the nearest other real one as."""
LEAST = 20
_AT_ONCE = 16
Figure = tuple[float, float, float]
_NOT_TOLD = (math.nan, math.nan, math.nan)


class Generator(Protocol):
    """What is measured of a model; `LatentModel` has it."""

    def encode(self, images: NDArray, *, cancel: CancelToken | None) -> tuple[NDArray, NDArray | None]: ...

    def reconstruct(self, images: NDArray, *, cancel: CancelToken | None) -> NDArray: ...

    def kl_per_latent(self, images: NDArray, *, cancel: CancelToken | None) -> NDArray | None: ...

    def sample(self, count: int, seed: int, *, cancel: CancelToken | None) -> NDArray: ...


@dataclass(frozen=True)
class Reference:
    """What is the same for all models: the images, and Fréchet distances that say what one of them means.

    floor: of training images from held-back ones, both real. blurred: of the held-back images blurred by BLUR_VOXELS.
    reach: how far PLAUSIBLE of the training images lie from the nearest held-back image, at most (root mean square).
    patients: of the held-back images, where known: intervals then resample patients. same_patients: whether all of
    these are patients of training images as well.
    """

    train: NDArray[np.float32]
    held_back: NDArray[np.float32]
    features: Features
    floor: float
    blurred: float
    reach: float
    patients: Sequence[str] | None = None
    same_patients: bool = False

    @property
    def chance(self) -> float:
        """How often the nearest of all images is a training image where none was copied; NaN unless `same_patients`:
        new images of the training patients are nearer to their others, which are all training images then."""
        if not self.same_patients:
            return math.nan
        return len(self.train) / (len(self.train) + len(self.held_back))

    @property
    def scales(self) -> tuple[int, int]:
        return ms_ssim_scales(self.held_back.shape[2:])


@dataclass(frozen=True)
class GenerativeScores:
    """mse, ms_ssim: mean over the held-back images with its interval; sharpness: mean gradient of reconstructions and
    of samples, over that of the held-back images; fid: Fréchet distances from the held-back images; kl: nats per
    image, NaN without a posterior; plausible: share of samples within `Reference.reach`; nearer: share of samples whose
    nearest image of all is a training image, to compare with `Reference.chance`, NaN where that is; nearest,
    nearest_real: median distance from the nearest training image of samples and of held-back images."""

    name: str
    mse: Figure
    ms_ssim: Figure
    fid_reconstructions: float
    fid_samples: float
    sharpness_reconstructions: float
    sharpness_samples: float
    kl: float
    active: int
    latents: int
    plausible: Figure
    nearer: Figure
    nearest: float
    nearest_real: float


@dataclass(frozen=True)
class Made:
    """What the figures were measured on: reconstructions of the held-back images in their order, and samples."""

    reconstructions: NDArray[np.float32]
    samples: NDArray[np.float32]


def reference(
    train: NDArray, held_back: NDArray, seed: int = 0, cancel: CancelToken | None = None,
    patients: Sequence[str] | None = None, train_patients: Sequence[str] = (),
) -> Reference:
    """patients, train_patients: of the held-back and the training images. Raises InputError for fewer than LEAST images
    of either kind, whose distances would be noise."""
    if min(len(train), len(held_back)) < LEAST:
        raise InputError(f"{len(train)} training and {len(held_back)} held-back images are too few to measure samples "
                         f"by: give at least {LEAST} of each.")
    features = random_features(held_back, cancel)
    as_many = _some(train, len(held_back), seed)
    floor = frechet_distance(features(as_many), features(held_back))
    blurred = frechet_distance(features(blur(held_back, BLUR_VOXELS)), features(held_back))
    reach = float(np.quantile(_nearest(as_many, held_back, cancel), PLAUSIBLE))
    same_patients = bool(patients) and set(patients) <= set(train_patients)
    return Reference(train, held_back, features, floor, blurred, reach, patients, same_patients)


def evaluate_model(
    name: str, model: Generator, against: Reference, samples: int | None = None, seed: int = 0,
    progress: Progress = no_progress, cancel: CancelToken | None = None,
) -> tuple[GenerativeScores, Made]:
    """samples: how many to draw, by default as many as there are held-back images."""
    cancel, real = cancel or CancelToken(), against.held_back
    progress("reconstructions", 0.0, f"{name}: reconstructing {len(real)} images")
    reconstructions = model.reconstruct(real, cancel=cancel)
    progress("samples", 0.3, f"{name}: drawing samples")
    made = Made(reconstructions, model.sample(samples or len(real), seed, cancel=cancel))
    compared = made.samples[: len(real)]  # the distance falls with their number, and its floor is of as many
    progress("distances", 0.6, f"{name}: measuring")
    divergence = model.kl_per_latent(real, cancel=cancel)
    means = model.encode(real, cancel=cancel)[0].reshape(len(real), -1)
    to_train, to_held_back, usual = nearest_neighbours(made.samples, against.train, real, cancel)
    nearer = mean_with_interval((to_train < to_held_back).astype(float)) if against.same_patients else _NOT_TOLD
    square_error = ((made.reconstructions - real) ** 2).reshape(len(real), -1).mean(1)
    scores = GenerativeScores(
        name, mean_with_interval(square_error, groups=against.patients),
        mean_with_interval(ms_ssim(made.reconstructions, real, cancel), groups=against.patients),
        frechet_distance(against.features(made.reconstructions), against.features(real)),
        frechet_distance(against.features(compared), against.features(real)),
        sharpness(made.reconstructions) / sharpness(real), sharpness(made.samples) / sharpness(real),
        math.nan if divergence is None else float(divergence.reshape(len(real), -1).sum(1).mean()),
        int(LatentMoments.of(means).active.sum()), means.shape[1],
        mean_with_interval((to_held_back <= against.reach).astype(float)),
        nearer,
        float(np.median(to_train)), float(np.median(usual)))
    progress("distances", 1.0, f"{name}: done")
    return scores, made


# --- Figures ---------------------------------------------------------------------------------------------------------


def frechet_distance(first: NDArray, second: NDArray) -> float:
    """|μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2(Σ₁Σ₂)^½) of two sets of features (N, F) (Heusel et al. 2017), between the Gaussians
    of their means and covariances (Dowson and Landau 1982)."""
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    apart = first.mean(0) - second.mean(0)
    spreads = [(each - each.mean(0)) / math.sqrt(len(each) - 1) for each in (first, second)]
    # Σ = RᵀR, so the eigenvalues of Σ₁Σ₂ are the squares of the singular values of R₁R₂ᵀ; a root of Σ₁Σ₂ itself is
    # inexact where few or like images leave a covariance singular.
    one, other = (np.linalg.qr(spread, "r") for spread in spreads)
    both = np.linalg.svd(one @ other.T, compute_uv=False).sum()
    return float(apart @ apart + sum(np.square(spread).sum() for spread in spreads) - 2 * both)


def ms_ssim_scales(shape: tuple[int, ...]) -> tuple[int, int]:
    """How many scales, and how wide a kernel, an image allows: five of 11 from 176 voxels up, three of up to 9 from 20,
    else one. The coarsest scale must still be as wide as the kernel."""
    side = min(shape)
    if side >= 176:
        return 5, 11
    if side >= 20:
        return 3, min(9, side // 4 - (side // 4 + 1) % 2)
    return 1, min(7, side - (side + 1) % 2)


def ms_ssim(first: NDArray, second: NDArray, cancel: CancelToken | None = None) -> NDArray[np.float64]:
    """Multi-scale structural similarity of pairs (N, 1, *shape), (N,); MONAI's, with scales that fit the image."""
    from monai.metrics import MultiScaleSSIMMetric

    scales, kernel = ms_ssim_scales(first.shape[2:])
    weights = np.array(SSIM_WEIGHTS[:scales]) / sum(SSIM_WEIGHTS[:scales])
    metric = MultiScaleSSIMMetric(first.ndim - 2, 1.0, kernel_size=kernel, weights=weights.tolist(), reduction="none")
    values = []
    for start in range(0, len(first), _AT_ONCE):
        (cancel or CancelToken()).check()
        pair = (torch.from_numpy(np.array(part[start : start + _AT_ONCE], np.float32)) for part in (first, second))
        values.append(metric(*pair).flatten().double().numpy())
    return np.concatenate(values)


def sharpness(images: NDArray) -> float:
    """Mean absolute difference between neighbouring voxels, over all axes and images."""
    return float(np.mean([np.abs(np.diff(images, axis=axis)).mean() for axis in range(2, images.ndim)]))


def blur(images: NDArray, sigma: float) -> NDArray[np.float32]:
    """Gaussian blur of every image; sigma in voxels."""
    return ndimage.gaussian_filter(np.asarray(images, np.float32), (0, 0, *(sigma,) * (images.ndim - 2)))


def nearest_neighbours(
    samples: NDArray, train: NDArray, held_back: NDArray, cancel: CancelToken | None = None
) -> tuple[NDArray, NDArray, NDArray]:
    """Root mean square differences per voxel: of each sample from the nearest training image and from the nearest
    held-back one, and of each held-back image from the nearest training image.

    Where both kinds are of the same patients, a sample that copies nothing is as like to one kind as to the other, so
    its nearest image is a training image as often as these are among all, however smooth it is (after the three-sample
    test of Meehan et al. 2020).
    """
    return _nearest(samples, train, cancel), _nearest(samples, held_back, cancel), _nearest(held_back, train, cancel)


def _nearest(images: NDArray, among: NDArray, cancel: CancelToken | None, found: Callable = np.min) -> NDArray:
    """Distance of each image from the nearest of a set; `found` np.argmin: which one it is."""
    others = np.asarray(among, np.float32).reshape(len(among), -1)
    squares, nearest = (others**2).sum(1), []
    for start in range(0, len(images), _AT_ONCE):
        (cancel or CancelToken()).check()
        part = np.asarray(images[start : start + _AT_ONCE], np.float32).reshape(-1, others.shape[1])
        distance = np.maximum((part**2).sum(1)[:, None] + squares - 2 * part @ others.T, 0)
        nearest.append(found(np.sqrt(distance / others.shape[1]), 1))
    return np.concatenate(nearest)


def nearest_images(images: NDArray, among: NDArray) -> NDArray[np.float32]:
    """For each image the most like it of a set, by root mean square difference."""
    return among[_nearest(images, among, None, np.argmin)]


def _some(images: NDArray, count: int, seed: int) -> NDArray:
    """`count` of them, or all; the same for the same seed."""
    if len(images) <= count:
        return images
    return images[np.sort(np.random.default_rng(seed).choice(len(images), count, replace=False))]
