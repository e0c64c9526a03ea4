"""Pictures of a training run: loss curves, and reconstructions beside their targets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..tissues import TISSUES
from ..whole_files import replaced


def draw_curves(output: Path, training: Sequence[str], validation: Sequence[str] | None = None) -> None:
    """Values of the run in `output` against the step, from its log.jsonl into curves.png.

    training: terms of the loss; validation: values of the held-back cases, by default those of the same names. Both in
    one picture where the names are the same, else side by side.
    """
    from matplotlib.figure import Figure

    log = output / "log.jsonl"
    if not log.exists():
        return
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    figure = Figure(figsize=(8 if validation is None else 13, 4), layout="constrained")
    axes = figure.subplots(1, 1 if validation is None else 2, squeeze=False)[0]
    for name in training:
        points = [(line["step"], line[name]) for line in lines if name in line]
        axes[0].plot(*zip(*points, strict=True), linewidth=0.8, label=f"{name}, training")
    for name in training if validation is None else validation:
        points = [(line["step"], line["validation"][name]) for line in lines if "validation" in line]
        if points:
            axes[-1].plot(*zip(*points, strict=True), "o-", markersize=3, label=f"{name}, held-back cases")
    for panel in axes:
        panel.set(xlabel="step")
        panel.grid(alpha=0.3)
        if panel.lines:
            panel.legend(fontsize=8)
    with replaced(output / "curves.png") as temporary:
        figure.savefig(temporary, dpi=110, format="png")


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
