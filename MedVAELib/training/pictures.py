"""Pictures of a training run: loss curves, and reconstructions beside their targets."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..tissues import TISSUES


def draw_curves(log: Path, output: Path) -> None:
    """Training loss per ten steps and validation cross-entropy against the step."""
    from matplotlib.figure import Figure

    if not log.exists():
        return
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    training = [(line["step"], line["cross_entropy"]) for line in lines if "cross_entropy" in line]
    validation = [(line["step"], line["validation"]["cross_entropy"]) for line in lines if "validation" in line]
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    if training:
        axes.plot(*zip(*training, strict=True), color="0.7", linewidth=0.8, label="training (class-weighted)")
    if validation:
        axes.plot(*zip(*validation, strict=True), "o-", color="tab:blue", label="validation, unseen heads")
    axes.set(xlabel="step", ylabel="cross-entropy, nats per voxel", ylim=(0, None))
    axes.legend()
    figure.savefig(output, dpi=110)


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
    figure.savefig(output, dpi=90)
