"""Pictures of latent spaces: images in the plane, discriminant axes with the confusion, strips of generated images."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from ..latent.classify import Classification
from ..latent.embed import Embedding
from ..latent.table import as_column
from ..training.image_pictures import view

_MOST_COLOURS = 10
_COLOURS = matplotlib.colormaps["tab10"].colors
_OTHERS = "#b8bcc2"


def write_embedding(embedding: Embedding, values: Sequence, name: str, path: Path) -> None:
    """Writes a PNG: the points, coloured by a column of labels or numbers."""
    figure = _figure(6.4, 5.2)
    axes = figure.subplots()
    scatter(axes, embedding.points, values, name)
    axes.set(xlabel=embedding.axes[0], ylabel=embedding.axes[1])
    figure.savefig(path, dpi=110)


def scatter(axes, points: NDArray, values: Sequence, name: str, hollow: NDArray | None = None) -> None:
    """Points (N, 2) on axes, coloured by values: a colour each for up to ten kinds, a scale for numbers; rows without
    a value are grey. `hollow`: which are drawn as rings."""
    column = as_column(values)
    if column.dtype == np.float64 and len(set(column[np.isfinite(column)])) > _MOST_COLOURS:
        known = np.isfinite(column)
        axes.scatter(*points[~known].T, s=9, color=_OTHERS)
        shown = axes.scatter(*points[known].T, s=12, c=column[known], cmap="viridis")
        axes.figure.colorbar(shown, ax=axes, label=name)
        return
    texts = np.array(["" if value != value else str(value) for value in values], object)
    kinds = sorted(set(texts) - {""}, key=lambda kind: (-(texts == kind).sum(), kind))
    named = sorted(kinds[:_MOST_COLOURS])
    groups = [(kind, texts == kind, _COLOURS[i]) for i, kind in enumerate(named)]
    others = ~np.isin(texts, named)
    if others.any():
        groups.insert(0, ("others" if kinds[_MOST_COLOURS:] else "without", others, _OTHERS))
    filled = np.ones(len(points), bool) if hollow is None else ~hollow
    for label, rows, colour in groups:
        axes.scatter(*points[rows & filled].T, s=12, color=colour, label=label, alpha=0.8, linewidths=0)
        if (rows & ~filled).any():
            axes.scatter(*points[rows & ~filled].T, s=22, facecolors="none", edgecolors=[colour], linewidths=1.1)
    axes.legend(title=name, fontsize=8, title_fontsize=8)


def write_classification(found: Classification, path: Path) -> None:
    """Writes a PNG: the first discriminant axes, test images as rings, and the confusion of the test images."""
    figure = _figure(11.5, 4.8)
    plane, matrix = figure.subplots(1, 2, gridspec_kw={"width_ratios": (1.35, 1)})
    points, second = found.axes[:, :2], "LD 2"
    if found.axes.shape[1] == 1:  # two classes have one axis: scattered a little, so that points do not hide others
        points = np.column_stack([found.axes[:, 0], np.random.default_rng(0).uniform(-1, 1, len(found.axes))])
        second = "(no meaning: points spread out)"
    scatter(plane, points, found.axes_labels, found.target, found.axes_test)
    plane.set(xlabel=f"LD 1 ({found.shares[0]:.0%} of what lies between classes)", ylabel=second,
              title="discriminant axes; test patients as rings")
    confusion, shares = found.confusion, found.confusion / np.maximum(found.confusion.sum(1, keepdims=True), 1)
    matrix.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(confusion):
        ink = "white" if shares[row, column] > 0.6 else "black"
        matrix.text(column, row, count, ha="center", va="center", color=ink)
    ticks = range(len(found.classes))
    matrix.set_xticks(ticks, found.classes, rotation=30, ha="right")
    matrix.set_yticks(ticks, found.classes)
    matrix.set(xlabel="predicted", ylabel="true", title=f"test patients: accuracy {found.accuracy}")
    figure.savefig(path, dpi=110)


def write_strips(
    rows: Mapping[str, NDArray], path: Path, titles: Sequence[str] = (), note: str = "", dpi: int = 110
) -> None:
    """Writes a grey PNG: a named row of images (n, 1, *shape) in 0…1 per entry, under column titles; of volumes the
    three middle planes."""
    columns = max(len(images) for images in rows.values())
    height, width = view(next(iter(rows.values()))[0]).shape
    cell = min(1.6, 15 / columns)
    figure = _figure(1.4 + cell * columns, 0.35 + (cell * height / width + 0.05) * len(rows) + 0.25 * bool(note))
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for panels, (name, images) in zip(grid, rows.items(), strict=True):
        for panel in panels:
            panel.axis("off")
        for panel, image in zip(panels, images, strict=False):
            panel.imshow(view(image), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        panels[0].text(-0.08, 0.5, name, transform=panels[0].transAxes, ha="right", va="center", fontsize=8)
    for panel, title in zip(grid[0], titles, strict=False):
        panel.set_title(title, fontsize=8)
    if note:
        figure.supxlabel(note, fontsize=8)
    figure.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0, hspace=0)
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=dpi)
    Image.open(drawn).convert("L").save(path, "PNG", optimize=True)  # a third smaller than with colours it has not


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), layout="constrained")
