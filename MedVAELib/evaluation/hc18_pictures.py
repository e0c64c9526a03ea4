"""Contact sheets of real planes with the drawn and the found outline on them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..skull.result import FoundPlane
from .hc18 import DrawnPlane, PlaneScore
from .hc18_tables import methods

DRAWN_COLOUR, FOUND_COLOUR = "#31e981", "#ff5a5f"
COLUMNS = 4
_KEPT_PX = 400


class Sheet:
    """Keeps small copies of the planes and draws some of them."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[np.ndarray, ...]] = {}

    def keep(self, plane: DrawnPlane, found: FoundPlane | None) -> None:
        """found: None where no outline was found."""
        step = max(1, max(plane.image.grey_yx.shape) // _KEPT_PX)
        outline = np.zeros(plane.image.grey_yx.shape, bool) if found is None else found.outline_yx > 0.5
        kept = (plane.image.grey_yx, plane.drawn, outline)
        self._kept[plane.name] = tuple(array[::step, ::step].copy() for array in kept)

    def write(self, scores: Sequence[PlaneScore], path: Path) -> None:
        """Writes a PNG of these planes in this order: drawn outline green, found one red, and the errors."""
        from matplotlib.figure import Figure

        rows = max(1, math.ceil(len(scores) / COLUMNS))
        figure = Figure(figsize=(3.6 * COLUMNS, 2.9 * rows), facecolor="black", layout="constrained")
        panels = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
        first = methods(scores)[0] if scores else ""
        for panel in panels:
            panel.axis("off")
        for panel, score in zip(panels, scores, strict=False):
            grey, drawn, outline = self._kept[score.name]
            panel.imshow(grey, cmap="gray", vmin=0, vmax=1)
            for shape, colour in ((drawn, DRAWN_COLOUR), (outline, FOUND_COLOUR)):
                if shape.any():
                    panel.contour(shape, levels=[0.5], colors=colour, linewidths=0.8)
            said = "no head found" if score.failure else (f"{score.error(first):+.1f} ± {score.spread():.1f} mm, "
                                                          f"outline Dice {score.outline_dice:.3f}")
            panel.set_title(f"{score.name}, {score.drawn['HC']:.0f} mm: {said}", color="white", fontsize=7)
        figure.savefig(path, dpi=80)
