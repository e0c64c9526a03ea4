"""Pictures of a skull prediction: the planes with the outline found on them, sections, and the head from outside."""

from __future__ import annotations

from dataclasses import replace

import matplotlib
import numpy as np
from matplotlib.colors import Colormap
from numpy.typing import NDArray
from PIL import Image

from ..skull.result import FoundPlane, SkullPrediction
from ..standard_planes import AXES
from .colours import FOUND, UNCERTAINTY, Legend, map_legend
from .display import PLANES
from .head_views import VIEWS, HeadPainter
from .pictures import draw_outline, edge_letters, grid, scale_bar

STD_RANGE_MM = (0.2, 1.6)
"""Of the surface's colours; the same in every report, so that reports can be compared."""
_PANEL_PX = 440
PROBABILITY, STD = matplotlib.colormaps["cividis"], matplotlib.colormaps["magma"]
_LETTER_PX = 19


def plane_picture(found: FoundPlane) -> Image.Image:
    """The plane as it was given, the outline in bright cyan, the size of what is shown below."""
    rows, columns = found.image.grey_yx.shape
    scale = _PANEL_PX / max(rows, columns)
    size = (max(1, round(columns * scale)), max(1, round(rows * scale)))
    grey = Image.fromarray((found.image.grey_yx * 255).astype(np.uint8)).resize(size, Image.Resampling.LANCZOS)
    pixels = np.asarray(grey.convert("RGB")).astype(np.float32)
    draw_outline(pixels, found.outline_yx, 2.2, 1.0, FOUND)
    picture = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    scale_bar(picture, scale / found.image.pixel_mm, _LETTER_PX)
    return picture


def views(result: SkullPrediction) -> tuple[Image.Image, Legend]:
    """The head from three sides, coloured by the standard deviation of its surface in mm."""
    painter = HeadPainter(result.distance_mm, result.distance_std_mm, result.spacing_mm, UNCERTAINTY, STD_RANGE_MM,
                          result.planes_used)
    picture = grid([[painter.paint(view, _PANEL_PX) for view in VIEWS]])
    low, high = STD_RANGE_MM
    legend = map_legend("standard deviation of the surface along its normal, mm", UNCERTAINTY, low, high)
    ticks = [(0.0, f"≤ {low:g}"), *(tick for tick in legend.ticks if 10 < tick[0] < 90), (100.0, f"≥ {high:g}")]
    return picture, replace(legend, ticks=ticks)


def sections(result: SkullPrediction, volume_zyx: NDArray[np.float32], colours: Colormap, high: float) -> Image.Image:
    """Axial, coronal and sagittal section through the head's centre, 0…high in `colours`, the mean outline drawn."""
    panels = []
    for plane in PLANES:
        pixels = colours(np.clip(_section(volume_zyx, plane.name) / high, 0, 1))[..., :3].astype(np.float32) * 255
        picture = Image.fromarray(pixels.astype(np.uint8)).resize((_PANEL_PX,) * 2, Image.Resampling.BICUBIC)
        drawn = np.asarray(picture).astype(np.float32)
        inside = np.clip(_section(result.distance_mm, plane.name) / result.spacing_mm + 0.5, 0, 1)
        draw_outline(drawn, inside, 1.4, 0.9, FOUND)
        picture = Image.fromarray(np.clip(drawn, 0, 255).astype(np.uint8))
        edge_letters(picture, plane.letters, plane.name, _LETTER_PX)
        scale_bar(picture, _PANEL_PX / (volume_zyx.shape[0] * result.spacing_mm), _LETTER_PX)
        panels.append(picture)
    return grid([panels])


def _section(volume_zyx: NDArray, plane: str) -> NDArray[np.float32]:
    """The middle section as it is shown: superior or anterior at the top, right or anterior on the left."""
    axis = 2 - AXES[plane][2]  # of zyx
    middle = volume_zyx.shape[axis] // 2
    section = volume_zyx.take((middle - 1, middle), axis).mean(axis)
    return section[::-1, ::-1]
