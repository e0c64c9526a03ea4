"""What any model of images has to beat: the mean image, and principal components with a Gaussian in their plane."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..progress import CancelToken, Progress, no_progress, scaled
from .generative import GenerativeScores, Reference, evaluate_model

MEAN_IMAGE = "mean training image"


@dataclass(frozen=True, eq=False)
class PrincipalComponents:
    """Reconstructs by the principal components of training images, and samples from a Gaussian with their variances;
    without any, everything is the mean image. mean: (voxels,); axes: (K, voxels); variances: (K,); shape: of an image,
    (1, …). Images are (N, 1, …) in 0…1, latents (N, K)."""

    mean: NDArray[np.float32]
    axes: NDArray[np.float32]
    variances: NDArray[np.float64]
    shape: tuple[int, ...]

    @classmethod
    def of(cls, train: NDArray[np.float32], most: int, cancel: CancelToken | None = None) -> PrincipalComponents:
        """The first `most` components of the images (N, 1, *shape), or as many as there are: at most one less than
        images, and one per voxel. Raises Cancelled before it begins."""
        from sklearn.decomposition import PCA

        (cancel or CancelToken()).check()
        rows = train.reshape(len(train), -1)
        fitted = PCA(min(most, len(rows) - 1, rows.shape[1]), svd_solver="full").fit(rows)
        return cls(fitted.mean_, fitted.components_, fitted.explained_variance_, train.shape[1:])

    def first(self, count: int) -> PrincipalComponents:
        """With the first `count` components alone."""
        return replace(self, axes=self.axes[:count], variances=self.variances[:count])

    @property
    def name(self) -> str:
        return f"{len(self.axes)} principal components" if len(self.axes) else MEAN_IMAGE

    def encode(self, images: NDArray, cancel: CancelToken | None = None) -> tuple[NDArray, None]:
        """Images → latents (N, K), and no log-variance."""
        return (images.reshape(len(images), -1) - self.mean) @ self.axes.T, None

    def reconstruct(self, images: NDArray, cancel: CancelToken | None = None) -> NDArray[np.float32]:
        """Images → what their latents stand for, the same shape."""
        return self.decode(self.encode(images)[0])

    def kl_per_latent(self, images: NDArray, cancel: CancelToken | None = None) -> None:
        """None: there is no posterior."""
        return None

    def sample(self, count: int, seed: int = 0, cancel: CancelToken | None = None) -> NDArray[np.float32]:
        """`count` images from latents of the components' variances."""
        noise = np.random.default_rng(seed).normal(size=(count, len(self.axes)))
        return self.decode(noise * np.sqrt(self.variances))

    def decode(self, latents: NDArray) -> NDArray[np.float32]:
        """Latents (N, K) → images."""
        rows = latents.astype(np.float32) @ self.axes + self.mean
        return rows.clip(0, 1).reshape(len(rows), *self.shape)


def baseline_scores(
    against: Reference, scores: Sequence[GenerativeScores], samples: int | None = None, seed: int = 0,
    progress: Progress = no_progress, cancel: CancelToken | None = None,
) -> list[GenerativeScores]:
    """Scores of the mean image, and of as many principal components as the models with these scores have latents.
    samples: how many to draw, by default as many as there are held-back images. Raises Cancelled."""
    every = PrincipalComponents.of(against.train, max(score.latents for score in scores), cancel)
    counts = sorted({min(count, len(every.axes)) for count in (0, *(score.latents for score in scores))})
    found = []
    for done, model in enumerate(map(every.first, counts)):
        told = scaled(progress, done / len(counts), (done + 1) / len(counts))
        found.append(evaluate_model(model.name, model, against, samples, seed, told, cancel)[0])
    return found
