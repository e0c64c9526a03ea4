"""Latents in two dimensions, to be looked at: PCA and t-SNE, and UMAP where it is installed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, UsageError

METHODS = ("pca", "tsne", "umap")
_FIRST_TO = 50  # components that neighbours are looked for in: noise of the others would drown them
LEAST = 4


@dataclass(frozen=True)
class Embedding:
    """points: (N, 2); axes: what the two stand for."""

    points: NDArray[np.float64]
    method: str
    axes: tuple[str, str]


def embed(latents: NDArray, method: str = "tsne", seed: int = 0, perplexity: float = 30.0) -> Embedding:
    """The means (N, Z) of N images in the plane. Latents keep their scales, which is what they carry.

    perplexity: how many neighbours t-SNE and UMAP keep near, lowered for small cohorts. PCA needs no seed.
    Raises UsageError for an unknown method or one that is not installed, InputError for fewer than four images.
    """
    if method not in METHODS:
        raise UsageError(f"'{method}' is no embedding: choose one of {', '.join(METHODS)}.")
    latents = np.asarray(latents, np.float64)
    if len(latents) < LEAST:
        raise InputError(f"{len(latents)} images are too few to embed: give at least {LEAST}.")
    if not np.ptp(latents, axis=0).any():
        raise InputError(f"All {len(latents)} images have the same latents, so there is nothing to see: the model may "
                         "have collapsed, or the images are copies.")
    if latents.shape[1] < 2:
        return Embedding(np.column_stack([latents, np.zeros(len(latents))]), method, ("latent 0", ""))
    neighbours = max(2.0, min(perplexity, (len(latents) - 1) / 3))
    if method == "pca":
        pca, axes = principal_plane(latents)
        return Embedding(pca.transform(latents), method, axes)
    if method == "tsne":
        return Embedding(_tsne(latents, neighbours, seed), method, ("t-SNE 1", "t-SNE 2"))
    return Embedding(_umap(latents, neighbours, seed), method, ("UMAP 1", "UMAP 2"))


def principal_plane(latents: NDArray):
    """scikit-learn's PCA of (N, Z) with two components, and what its axes are called."""
    from sklearn.decomposition import PCA

    pca = PCA(2, svd_solver="full").fit(latents)
    first, second = (f"PC {i + 1} ({share:.0%} of the variance)" for i, share in
                     enumerate(np.nan_to_num(pca.explained_variance_ratio_)))
    return pca, (first, second)


def _compressed(latents: NDArray) -> NDArray:
    from sklearn.decomposition import PCA

    if latents.shape[1] <= _FIRST_TO:
        return latents
    return PCA(min(_FIRST_TO, len(latents)), svd_solver="full").fit_transform(latents)


def _tsne(latents: NDArray, perplexity: float, seed: int) -> NDArray:
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # threads that wait for one another made it eighty times slower on a busy machine
        return TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(_compressed(latents))


def _umap(latents: NDArray, neighbours: float, seed: int) -> NDArray:
    try:
        from umap import UMAP
    except ImportError:
        raise UsageError('UMAP needs the package umap-learn: install it (in MedVAE\'s folder  pip install ".[umap]"), '
                         "or choose tsne or pca.") from None
    return UMAP(n_neighbors=max(2, round(neighbours)), random_state=seed, n_jobs=1).fit_transform(_compressed(latents))
