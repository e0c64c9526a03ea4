"""What any model of images has to beat: the mean image, and principal components with a Gaussian in their plane."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..progress import CancelToken
from .generative import GenerativeScores, Reference, evaluate_model

MEAN_IMAGE = "mean training image"


class PrincipalComponents:
    """Reconstructs by `count` principal components of the training images (N, 1, *shape), and samples from a Gaussian
    with their variances; with none, everything is the mean image."""

    def __init__(self, train: NDArray[np.float32], count: int):
        from sklearn.decomposition import PCA

        rows = train.reshape(len(train), -1)
        self.shape, self.mean, count = train.shape[1:], rows.mean(0), min(count, len(train) - 1)
        self.axes, self.variances = np.zeros((0, rows.shape[1]), np.float32), np.zeros(0)
        if count:
            fitted = PCA(count, svd_solver="full").fit(rows)
            self.axes, self.variances = fitted.components_.astype(np.float32), fitted.explained_variance_
        self.name = f"{count} principal components" if count else MEAN_IMAGE

    def encode(self, images: NDArray) -> tuple[NDArray, None]:
        return (images.reshape(len(images), -1) - self.mean) @ self.axes.T, None

    def reconstruct(self, images: NDArray) -> NDArray[np.float32]:
        return self._decode(self.encode(images)[0])

    def kl_per_latent(self, images: NDArray) -> None:
        return None

    def sample(self, count: int, seed: int = 0) -> NDArray[np.float32]:
        noise = np.random.default_rng(seed).normal(size=(count, len(self.axes)))
        return self._decode(noise * np.sqrt(self.variances))

    def _decode(self, latents: NDArray) -> NDArray[np.float32]:
        rows = latents.astype(np.float32) @ self.axes + self.mean
        return rows.clip(0, 1).reshape(len(rows), *self.shape)


def baseline_scores(
    against: Reference, latents: Sequence[int], samples: int | None = None, seed: int = 0,
    cancel: CancelToken | None = None,
) -> list[GenerativeScores]:  # fmt: skip
    """Scores of the mean image, and of as many principal components as the compared models have latents."""
    counts = sorted({min(count, len(against.train) - 1) for count in (0, *latents)})
    models = [PrincipalComponents(against.train, count) for count in counts]
    return [evaluate_model(model.name, model, against, samples, seed, cancel=cancel)[0] for model in models]
