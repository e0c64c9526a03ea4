"""One picture per case: scan, expert's outline, score and our mask on axial slices through the lesion."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..anomaly.result import Detection
from ..preprocessing.geometry import like
from ..preprocessing.morphology import bounding_box, largest_part
from ..reporting.display import AXIAL, DisplayAxes

SLICES = 3
APART_MM = 12.0
MARGIN_MM = 12.0
TRUTH_COLOUR, MASK_COLOUR = "#31e981", "#ff5a5f"


def write_case_picture(detection: Detection, truth: np.ndarray | None, title: str, path: Path) -> None:
    """Writes a PNG: a row per slice; columns: scan, scan with the expert's and our outline, anomaly score.

    truth: bool, zyx on the scan's voxels, or None. Slices lie about the largest lesion, without truth about our
    largest finding, else mid-brain. Radiological convention: the patient's right is on the left.
    """
    from matplotlib.figure import Figure

    axes = DisplayAxes.of(detection.scan.image)
    scan = axes.array(detection.scan.image)
    score, mask = (axes.turn.view(values) for values in detection.bright_side())
    brain = axes.array(detection.brain) > 0
    lesion = np.zeros(brain.shape, bool)
    if truth is not None:
        lesion = axes.array(like(truth.astype(np.uint8), detection.scan.image)) > 0
    box = _box(brain | lesion, axes.spacing_zyx_mm)
    where = brain if brain.any() else np.ones_like(brain)
    grey = np.percentile(scan[where], (0.5, 99.8))
    top = max(float(np.percentile(score[where], 99.9)), detection.threshold * 1.2, 1e-6)
    chosen = _slices(lesion if lesion.any() else mask if mask.any() else brain, brain | lesion, axes.spacing_zyx_mm[0])

    figure = Figure(figsize=(9.6, 3.3 * len(chosen) + 0.8), facecolor="black", layout="constrained")
    panels = figure.subplots(len(chosen), 3, squeeze=False)
    aspect = axes.spacing_zyx_mm[1] / axes.spacing_zyx_mm[2]
    middle = [(side - 1) / 2 for side in scan.shape[1:]]
    names = ("scan", "expert (green), ours (red)" if truth is not None else "ours (red)",
             f"score, 0 … {top:.3g}; threshold {detection.threshold:.3g}")
    for row, index in zip(panels, chosen, strict=True):
        shown = [AXIAL.slice(volume, index)[box] for volume in (scan, score, lesion, mask)]
        row[0].imshow(shown[0], cmap="gray", vmin=grey[0], vmax=grey[1], aspect=aspect)
        row[1].imshow(shown[0], cmap="gray", vmin=grey[0], vmax=grey[1], aspect=aspect)
        row[2].imshow(shown[1], cmap="inferno", vmin=0, vmax=top, aspect=aspect)
        for outline, colour, panels_with_it in ((shown[3], MASK_COLOUR, row[1:2]), (shown[2], TRUTH_COLOUR, row[1:3])):
            if outline.any():
                for panel in panels_with_it:
                    panel.contour(outline, levels=[0.5], colors=colour, linewidths=0.8)
        for panel in row:
            panel.axis("off")
        row[0].text(2, 2, f"S {axes.position_ras_mm((index, *middle))[2]:.0f} mm", color="white", fontsize=7, va="top")
    for panel, name in zip(panels[0], names, strict=True):
        panel.set_title(name, color="white", fontsize=9)
    figure.suptitle(f"{title}   (patient's right on the left)\nscore: {detection.unit}", color="white", fontsize=9)
    figure.savefig(path, dpi=110)


def _box(region: np.ndarray, spacing_zyx_mm: tuple[float, float, float]) -> tuple[slice, slice]:
    """Rows and columns of an axial slice that hold the region with a margin; everything where it is empty."""
    _, rows, columns = bounding_box(region, [int(np.ceil(MARGIN_MM / mm)) for mm in spacing_zyx_mm])
    return rows, columns


def _slices(target: np.ndarray, within: np.ndarray, thickness_mm: float) -> list[int]:
    """The slice with most of the target's largest component, and others about APART_MM off, from the top down."""
    if not target.any():
        return [target.shape[0] // 2]
    centre = int(largest_part(target).sum(axis=(1, 2)).argmax())
    filled = np.flatnonzero(within.any(axis=(1, 2)))
    step = max(1, round(APART_MM / thickness_mm))
    offsets = (np.arange(SLICES) - SLICES // 2) * step
    return sorted({int(np.clip(centre + offset, filled[0], filled[-1])) for offset in offsets}, reverse=True)
