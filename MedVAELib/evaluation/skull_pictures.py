"""Pictures of an evaluation of predicted heads: one per head, and one of the whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy import ndimage

from ..skull.calibrate import LEVELS
from ..standard_planes import AXES, BY_COUNT, PLANES, Subset, named
from .skull import MEAN_HEAD, Case, Guess, Score
from .skull_metrics import Solid
from .skull_planes import SeenPlanes
from .skull_tables import FIGURES, has_spread, kinds, mean_of, methods, uncertainty

TRUE_COLOUR, OURS_COLOUR, MEAN_COLOUR = "#31e981", "#ff5a5f", "#5aa9ff"
SIZE = 120
"""Pixels of a slice through the centroid; its edge is EDGE times the largest extent of the true head."""
EDGE = 1.25
ERROR_MM, STD_MM = 4.0, 2.0


def write_head_picture(case: Case, seen: SeenPlanes, guesses: Mapping[tuple[str, Subset], Guess], path: Path) -> None:
    """Writes a PNG: a row per plane; the plane with the true and the found outline, slices through the centroid with
    the true head and what is predicted from three planes and from one, and the latter's error and standard deviation.

    The first method among the guesses is ours.
    """
    from matplotlib.figure import Figure

    ours = next(iter(guesses))[0]
    most, least = guesses[ours, BY_COUNT[0]], guesses[ours, BY_COUNT[-1]]
    figure = Figure(figsize=(15, 9.4), facecolor="black")  # placed by hand: arranging costs more than drawing
    panels = figure.subplots(3, 5, gridspec_kw={"left": 0.02, "right": 0.99, "top": 0.9, "bottom": 0.06,
                                                "wspace": 0.05, "hspace": 0.05})
    for row, plane in zip(panels, PLANES, strict=True):
        _show_plane(row[0], seen, plane)
        true = _slice(case.solid, case.solid.field, plane, case.solid)
        for panel, subset in ((row[1], BY_COUNT[0]), (row[2], BY_COUNT[-1])):
            panel.set_facecolor("black")
            for method, colour, style in ((ours, OURS_COLOUR, "solid"), (MEAN_HEAD, MEAN_COLOUR, "dashed")):
                if (method, subset) in guesses:
                    solid = guesses[method, subset].solid
                    panel.contour(_slice(solid, solid.field, plane, case.solid), levels=[0], colors=colour,
                                  linestyles=style, linewidths=1.1)
            panel.contour(true, levels=[0], colors=TRUE_COLOUR, linewidths=1.1)
            panel.set_aspect("equal")
        predicted = _slice(least.solid, least.solid.field, plane, case.solid)
        error = _shown(predicted - true, np.minimum(abs(predicted), abs(true)))
        scales = [row[3].imshow(error, origin="lower", cmap="coolwarm", vmin=-ERROR_MM, vmax=ERROR_MM)]
        if least.std_mm is not None:
            std = _shown(_slice(least.solid, least.std_mm, plane, case.solid), abs(predicted))
            scales.append(row[4].imshow(std, origin="lower", cmap="viridis", vmin=0, vmax=STD_MM))
        for panel in row:
            panel.set_xticks([])
            panel.set_yticks([])
            panel.set_facecolor("black")
    for scale, left in zip(scales, (0.62, 0.82), strict=False):
        bar = figure.colorbar(scale, cax=figure.add_axes((left, 0.035, 0.15, 0.012)), orientation="horizontal")
        bar.ax.tick_params(colors="white", labelsize=7)
    titles = ("plane: true outline green, found red",
              f"from {len(BY_COUNT[0])} planes: true green, ours red,\nmean head blue",
              f"from the {BY_COUNT[-1][0]} plane alone", "ours from one plane − true, mm,\nnear the surfaces",
              "standard deviation, mm,\nnear the surface")
    for panel, title in zip(panels[0], titles, strict=True):
        panel.set_title(title, color="white", fontsize=9)
    figure.suptitle(f"{case.name} ({case.kind}). Slices through the centroid; up is anterior (axial) or superior, "
                    f"{ours} std up to {0 if most.std_mm is None else float(most.std_mm.max()):.1f} mm from three "
                    "planes", color="white", fontsize=9)
    figure.savefig(path, dpi=80)


def _show_plane(panel, seen: SeenPlanes, plane: str) -> None:
    grey = seen.images[plane].grey_yx
    panel.imshow(grey, cmap="gray", vmin=0, vmax=1)
    found = seen.outlines[plane].on_image()
    for outline, colour in ((seen.true_outlines[plane], TRUE_COLOUR), (found, OURS_COLOUR)):
        if (outline > 0.5).any():
            panel.contour(outline, levels=[0.5], colors=colour, linewidths=1)
    panel.set_ylabel(plane, color="white", fontsize=9)


def _slice(solid: Solid, volume: np.ndarray, plane: str, extent_of: Solid) -> np.ndarray:
    """A volume on a head's voxels in the plane through the head's centroid, (SIZE, SIZE), rows rising upwards."""
    row, column = (2 - axis for axis in AXES[plane][:2])  # of zyx
    edge = EDGE * float(np.ptp(extent_of.points_mm, axis=0).max())
    along = (np.arange(SIZE) - (SIZE - 1) / 2) * edge / SIZE
    points = np.zeros((SIZE, SIZE, 3))
    points[..., row], points[..., column] = along[:, None], along[None]
    return solid.values_at(volume, points.reshape(-1, 3)).reshape(SIZE, SIZE)


def _shown(values: np.ndarray, distance: np.ndarray) -> np.ma.MaskedArray:
    """Values near a surface; elsewhere nothing is drawn, as a signed distance says little there."""
    return np.ma.masked_where(ndimage.uniform_filter(distance, 3) > ERROR_MM, values)


def write_summary_plot(scores: Sequence[Score], path: Path) -> None:
    """Writes a PNG: Dice, Hausdorff and surface distance by number of planes and, for three planes, by kind; and what
    the standard deviation is worth."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 8.5), layout="constrained")
    panels = figure.subplots(2, 3)
    names = ("dice", "hausdorff_mm", "surface_mm")
    for panel, name in zip(panels[0], names, strict=True):
        _bars(panel, scores, name, [(named(planes), lambda s, p=planes: s.planes == p) for planes in BY_COUNT])
    panels[0][0].legend(fontsize=8)
    for panel, name in zip(panels[1][:2], ("surface_mm", "hausdorff_mm"), strict=True):
        _bars(panel, [s for s in scores if s.planes == BY_COUNT[0]], name,
              [(kind, lambda s, k=kind: s.kind == k) for kind in kinds(scores)])
        panel.set_title(f"{FIGURES[name][0]}, three planes", fontsize=10)
    _calibration(panels[1][2], scores)
    figure.savefig(path, dpi=100)


def _bars(panel, scores: Sequence[Score], name: str, groups) -> None:
    """Means with their intervals: a group of bars per group, a bar per method."""
    order, width = methods(scores), 0.8 / max(len(methods(scores)), 1)
    low = 1.0
    for k, method in enumerate(order):
        found = [mean_of([s for s in scores if chosen(s)], method, name) for _, chosen in groups]
        value, below, above = np.array(found).T
        place = np.arange(len(groups)) + (k - (len(order) - 1) / 2) * width
        error = np.nan_to_num(np.stack([value - below, above - value])).clip(min=0)
        panel.bar(place, value, width, yerr=error, label=method, error_kw={"linewidth": 0.8})
        low = min(low, float(np.nanmin(value, initial=1.0)))
    if name == "dice":
        panel.set_ylim(max(0.0, low - 0.05), 1)
    labels = [label.replace(" + ", "\n").replace(", ", ",\n") for label, _ in groups]
    panel.set_xticks(range(len(groups)), labels, fontsize=8 if len(groups) < 5 else 6)
    panel.set_title(FIGURES[name][0], fontsize=10)
    panel.grid(axis="y", alpha=0.3)


def _calibration(panel, scores: Sequence[Score]) -> None:
    """Share of the surface inside the interval of each level, by number of planes, for every method with a spread."""
    panel.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
    for method in methods(scores):
        if not has_spread(scores, method):
            continue
        table = uncertainty(scores, method)
        for planes, marker in zip(BY_COUNT, "osD", strict=True):
            row = table[named(planes)]
            panel.plot(LEVELS, list(row["within"].values()), marker=marker, linewidth=0.8,
                       label=f"{method}, {len(planes)}: std {row['std_mm']:.2f} mm")
    panel.set_xlabel("level of the interval", fontsize=8)
    panel.set_ylabel("share of the surface inside", fontsize=8)
    panel.set_title("What the standard deviation is worth", fontsize=10)
    if panel.get_legend_handles_labels()[0]:
        panel.legend(fontsize=7)
    panel.grid(alpha=0.3)
