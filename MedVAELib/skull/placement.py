"""Where a plane's image lies in the head frame, as far as it can be known."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..preprocessing.outlines import SIZE, canonical_map, rotation
from ..standard_planes import AXES
from .outline import Outline


def place_plane(
    plane: str, outline: Outline, pixel_mm: float, centre_yx_px: tuple[float, float], distance_mm: NDArray[np.float32],
    spacing_mm: float,
) -> NDArray[np.float64]:
    """(4, 4) from an image's pixels (column, row, 0) to the head frame in RAS mm.

    The outline's centroid goes to the origin, the image is turned as its canonical map is, and flipped so that the
    outline agrees best with the predicted head, (z, y, x) signed distance in mm. How far from the centre the plane
    was, or how tilted, cannot be known.
    """
    turn = float(rotation(outline.ellipse, plane)[0])
    cos, sin = np.cos(turn), np.sin(turn)
    drawn = canonical_map(outline.map[None], outline.pixel_mm, plane, spacing_mm)[0].numpy()
    flips, _ = section_fit(drawn, plane, distance_mm, spacing_mm)
    rows_to, columns_to, _ = AXES[plane]
    # Of the image's row and column directions, how much lies along the canonical rows and columns.
    along = {"row": (cos, -sin), "column": (sin, cos)}
    matrix = np.eye(4)
    for place, name in ((0, "column"), (1, "row")):
        direction = np.zeros(3)
        direction[rows_to] = flips[0] * along[name][0]
        direction[columns_to] = flips[1] * along[name][1]
        matrix[:3, place] = direction * pixel_mm
    matrix[:3, 2] = np.cross(matrix[:3, 0], matrix[:3, 1]) / pixel_mm
    matrix[:3, 3] = -matrix[:3, 0] * centre_yx_px[1] - matrix[:3, 1] * centre_yx_px[0]
    return matrix


def section_fit(
    drawn: NDArray[np.float32], plane: str, distance_mm: NDArray[np.float32], spacing_mm: float
) -> tuple[tuple[int, int], float]:
    """Which way round, (±1, ±1) for rows and columns, an outline fits the head's own section best, and by what share of
    its area it departs from it then.

    drawn: canonical map (96, 96); distance_mm: of the head, (z, y, x), signed, on a grid of spacing_mm.
    """
    axis = 2 - AXES[plane][2]  # of the zyx array
    section = distance_mm.take((SIZE // 2 - 1, SIZE // 2), axis).mean(axis) / spacing_mm
    inside = np.clip(section + 0.5, 0, 1)
    apart = {(rows, columns): float(np.abs(drawn[::rows, ::columns] - inside).sum())
             for rows in (1, -1) for columns in (1, -1)}
    best = min(apart, key=apart.__getitem__)
    return best, apart[best] / max(float(drawn.sum()), 1e-6)
