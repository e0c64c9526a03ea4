"""A head seen from outside, drawn by following rays through its signed distance: no graphics card, no display."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.colors import Colormap
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter, map_coordinates, minimum_filter

from ..standard_planes import AXES
from .pictures import BACKGROUND, LETTER, font, write_text

_OVERSAMPLED, _COARSER = 1.5, 5
_STEPS = 48
_CLOSE_MM = 0.05
_SMOOTHING_VOX = 1.0  # hides the creases of a field that was interpolated from a coarser grid
_LIGHT = np.array([-0.35, 0.55, 0.76])  # in the camera's right, up and towards it


@dataclass(frozen=True)
class View:
    """Where the camera is, as a direction in RAS, and which way is up."""

    title: str
    towards_camera: tuple[float, float, float]
    up: tuple[float, float, float] = (0.0, 0.0, 1.0)

    def axes(self) -> NDArray[np.float64]:
        """Unit vectors to the right, up and towards the camera, as rows."""
        towards = np.array(self.towards_camera) / np.linalg.norm(self.towards_camera)
        right = np.cross(self.up, towards)
        right /= np.linalg.norm(right)
        return np.stack([right, np.cross(towards, right), towards])


VIEWS = (
    View("from the front, left and above", (-0.62, 0.72, 0.42)),
    View("from the left", (-1.0, 0.0, 0.0)),
    View("from above, front upwards", (0.0, 0.0, 1.0), (0.0, 1.0, 0.0)),
)


class HeadPainter:
    """Draws one head. distance_mm, std_mm: (z, y, x) on an isotropic grid about the origin, distance > 0 inside.
    std is shown in `colours` from low to high. planes: names of those to be drawn as lines."""

    def __init__(self, distance_mm: NDArray, std_mm: NDArray, spacing_mm: float, colours: Colormap,
                 std_range_mm: tuple[float, float], planes: list[str]):
        self._distance = gaussian_filter(distance_mm.astype(np.float32), _SMOOTHING_VOX)
        self._gradient = [np.gradient(self._distance, axis=axis) for axis in (2, 1, 0)]
        self._std, self._spacing_mm = std_mm.astype(np.float32), spacing_mm
        self._colours, self._range = colours, std_range_mm
        self._normals = [AXES[plane][2] for plane in planes]
        inside = np.argwhere(self._distance > 0)
        middle = (np.array(distance_mm.shape) - 1) / 2
        self._half_mm = 1.14 * float(np.linalg.norm(inside - middle, axis=1).max()) * spacing_mm

    def paint(self, view: View, size_px: int) -> Image.Image:
        """A square picture with the view's title."""
        coarse = round(size_px * _OVERSAMPLED / _COARSER)
        axes = view.axes()
        # Where rays arrive on a coarse picture, the neighbours' rays arrive nearby: most of the way is saved.
        far = self._depths(axes, coarse, np.zeros((coarse, coarse)))
        near = minimum_filter(far, 3, mode="nearest") - 2 * self._spacing_mm
        fine = coarse * _COARSER
        depths = self._depths(axes, fine, near.repeat(_COARSER, 0).repeat(_COARSER, 1))
        hit = np.isfinite(depths)
        pixels = np.full((fine, fine, 3), BACKGROUND, np.float32)
        pixels[hit] = self._shade(self._points(axes, fine, hit) - depths[hit][:, None] * axes[2], axes)
        picture = Image.fromarray(pixels.astype(np.uint8))
        picture = picture.resize((size_px, size_px), Image.Resampling.LANCZOS)
        return titled(picture, view.title)

    def _points(self, axes: NDArray, size: int, where: NDArray[np.bool_]) -> NDArray[np.float64]:
        """The places of a picture's pixels, in RAS mm, on a plane before the head."""
        place = ((np.arange(size) + 0.5) / size * 2 - 1) * self._half_mm
        rows, columns = np.nonzero(where)
        return place[columns, None] * axes[0] - place[rows, None] * axes[1] + self._half_mm * axes[2]

    def _depths(self, axes: NDArray, size: int, start_mm: NDArray) -> NDArray[np.float64]:
        """How far each pixel's ray goes from that plane to the head, (size, size) mm, infinite where it misses; it
        starts at `start_mm`, where that is finite."""
        depths = np.full((size, size), np.inf)
        wanted = np.isfinite(start_mm)
        points, travelled = self._points(axes, size, wanted), start_mm[wanted]
        reached = np.full(len(points), np.inf)
        alive = np.arange(len(points))
        for _ in range(_STEPS):
            gap = -self._at(self._distance, points[alive] - travelled[alive, None] * axes[2])
            travelled[alive] += gap
            close = gap < _CLOSE_MM
            reached[alive[close]] = travelled[alive[close]]
            alive = alive[~close & (travelled[alive] < 2 * self._half_mm)]
            if not alive.size:
                break
        depths[wanted] = reached
        return depths

    def _shade(self, points: NDArray, axes: NDArray) -> NDArray[np.float32]:
        std = self._at(self._std, points)
        low, high = self._range
        colour = self._colours(np.clip((std - low) / (high - low), 0, 1))[:, :3]
        for normal in self._normals:
            line = np.clip(1.4 - np.abs(points[:, normal]) / (0.3 * self._spacing_mm), 0, 1)[:, None]
            colour = colour * (1 - 0.8 * line)
        outwards = -np.stack([self._at(part, points) for part in self._gradient], 1)
        outwards /= np.maximum(np.linalg.norm(outwards, axis=1, keepdims=True), 1e-6)
        seen = outwards @ axes.T
        diffuse = np.clip(seen @ (_LIGHT / np.linalg.norm(_LIGHT)), 0, 1)
        light = 0.42 + 0.62 * diffuse
        shine = 0.06 * np.clip(seen[:, 2], 0, 1) ** 24
        return (255 * np.clip(colour * light[:, None] + shine[:, None], 0, 1)).astype(np.float32)

    def _at(self, volume: NDArray, points: NDArray) -> NDArray[np.float32]:
        middle = (np.array(volume.shape) - 1) / 2
        places = points[:, ::-1].T / self._spacing_mm + middle[:, None]
        return map_coordinates(volume, places, order=1, mode="nearest")


def titled(picture: Image.Image, title: str) -> Image.Image:
    """The picture with a line of text in its upper left corner, as small as it must be to fit."""
    draw = ImageDraw.Draw(picture)
    size = next(s for s in (17, 15, 13, 11) if draw.textlength(title, font(s)) < picture.width - 16 or s == 11)
    write_text(draw, (8, 8), title, size, "lt", LETTER)
    return picture
