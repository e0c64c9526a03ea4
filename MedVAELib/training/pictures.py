"""Pictures of a training run: loss curves, and reconstructions beside their targets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..files.whole_files import replaced
from ..tissues import TISSUES
from .log_file import read_log


def draw_curves(output: Path, *panels: Sequence[str]) -> None:
    """curves.png of the run in `output`, from its log: a panel for each group of names, those of training as lines
    against the step, those of validation as points. Names and groups that the log does not have are left out."""
    from matplotlib.figure import Figure

    log = read_log(output)
    validations = [{"step": line["step"]} | line["validation"] for line in log if "validation" in line]
    drawn = [[(f"{name}, {what}", style, points) for name in names
              for what, style, lines in (("training", "-", log), ("validation", "o-", validations))
              if (points := [(line["step"], line[name]) for line in lines if name in line])] for names in panels]
    drawn = [curves for curves in drawn if curves]
    if not drawn:
        return
    figure = Figure(figsize=(max(8.0, 4.0 * len(drawn)), 3.6), layout="constrained")
    for panel, curves in zip(figure.subplots(1, len(drawn), squeeze=False)[0], drawn, strict=True):
        for label, style, points in curves:
            panel.plot(*zip(*points, strict=True), style, linewidth=0.8, markersize=3, label=label)
        panel.set(xlabel="step")
        panel.grid(alpha=0.3)
        panel.legend(fontsize=8)
    with replaced(output / "curves.png") as temporary:
        figure.savefig(temporary, dpi=100, format="png")


def draw_reconstructions(rows: list[tuple[NDArray, NDArray, NDArray]], output: Path) -> None:
    """Per scan: the input, the healthy target and the prediction, axial and sagittal. Arrays zyx and (K, z, y, x)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 2.1 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), 6, squeeze=False)
    for row, (image, target, predicted) in zip(axes, rows, strict=True):
        known = target.sum(0) > 0
        labels = [np.where(known, volume.argmax(0), 0) for volume in (target, predicted)]
        panels = [(image, "gray", 1.2), *((label, "tab10", len(TISSUES)) for label in labels)]
        cuts = [(slice(None), 0), (slice(None), 2)]
        for column, (axis, (volume, colours, top)) in enumerate((cut[1], panel) for cut in cuts for panel in panels):
            plane = np.take(volume, volume.shape[axis] // 2 - (4 if axis == 2 else 0), axis)
            row[column].imshow(plane, origin="lower", cmap=colours, vmin=0, vmax=top, interpolation="nearest")
            row[column].axis("off")
    for column, title in enumerate(["scan", "healthy target", "prediction"] * 2):
        axes[0][column].set_title(title, fontsize=9)
    with replaced(output) as temporary:
        figure.savefig(temporary, dpi=90, format="png")
