"""Two-dimensional views of a table of latents that new images can be put into: PCA and LDA are linear, t-SNE is not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .embed import LEAST, embed, principal_plane
from .probe import discriminant_axes, fit_linear
from .table import TRAIN, LatentTable

_MOST_FOR_LDA = 2048
"""Latents beyond as many leave LDA out: its map from latents to the plane is found by sending every axis through it."""


@dataclass(frozen=True, eq=False)
class Plane:
    """points: (N, 2), the table's rows. matrix: (2, Z) and offset: (2,), which put latents z at matrix·z + offset;
    None where only the table's own images have a place."""

    name: str
    axes: tuple[str, str]
    points: NDArray[np.float64]
    matrix: NDArray[np.float64] | None = None
    offset: NDArray[np.float64] | None = None


def planes_of(table: LatentTable) -> list[Plane]:
    """Those that the table allows: LDA needs two labels and two images of each, PCA and t-SNE four images."""
    mean = table.mean.astype(np.float64)
    if not np.ptp(mean, axis=0).any():  # copies of one image
        return []
    found = [_lda(table, mean)] if _separable(table) else []
    if len(table) >= LEAST and table.latents > 1:
        tsne = embed(mean, "tsne")
        found += [_pca(mean), Plane("t-SNE", tsne.axes, np.asarray(tsne.points, np.float64))]
    return found


def _pca(mean: NDArray) -> Plane:
    pca, axes = principal_plane(mean)
    return Plane("PCA", axes, pca.transform(mean), pca.components_, -pca.components_ @ pca.mean_)


def _separable(table: LatentTable) -> bool:
    labels = [label for label in table.labels if label]
    return (len(set(labels)) > 1 and min(labels.count(name) for name in set(labels)) > 1
            and 1 < table.latents <= _MOST_FOR_LDA)


def _lda(table: LatentTable, mean: NDArray) -> Plane:
    """Fitted on the training images where the table says which they are. Else the axis' title has it: with many latents
    any labels of the images that it was fitted on lie apart. Two labels have one axis: the second is then what varies
    most at right angles to it."""
    labels, split = np.asarray(table.labels, object), np.asarray(table.split, object)
    known, train = labels != "", split == TRAIN
    fit = known & train if _all_labels_in(labels, train) else known
    held_back = bool((known & ~fit).any())
    model = fit_linear(mean[fit], labels[fit])
    axes = discriminant_axes(model)
    matrix, offset = axes.matrix, axes.offset
    if len(matrix) > 1:
        matrix, offset, second = matrix[:2], offset[:2], "LD 2"
    else:
        across = _across(mean, matrix[0])
        matrix, offset = np.stack([matrix[0], across]), np.array([offset[0], -across @ mean.mean(0)])
        second = "what varies most across LD 1"
    fitted = "the training images" if held_back else "these images: new ones lie less apart"
    return Plane("LDA", (f"LD 1 (fitted on {fitted})", second), mean @ matrix.T + offset, matrix, offset)


def _all_labels_in(labels: NDArray, rows: NDArray) -> bool:
    """Whether the rows have two images of each label at least."""
    known = set(labels) - {""}
    return all((labels[rows] == name).sum() > 1 for name in known)


def _across(mean: NDArray, direction: NDArray) -> NDArray:
    """The unit direction of largest variance at right angles to another, (Z,)."""
    unit = direction / max(np.linalg.norm(direction), 1e-12)
    centred = mean - mean.mean(0)
    rest = centred - np.outer(centred @ unit, unit)
    return np.linalg.svd(rest, full_matrices=False)[2][0]
