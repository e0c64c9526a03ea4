"""2D images from volumes: slices of a chosen range and size, and non-overlapping patches that know their lesion.

Both come from the scan on a patient-aligned grid: its own distance between slices, square pixels, brain masked and
scaled to 0…1 once per scan (`model_image`), so that slices of one scan stay comparable. Rows of an image run inferior →
superior or posterior → anterior, columns left → right or posterior → anterior.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from .geometry import field_of_view_ras_mm, like, ras_grid, to_grid
from .masked import MaskedScan
from .model_image import model_image

AXES = {"axial": 0, "coronal": 1, "sagittal": 2}
"""The axis (zyx) that a slice is perpendicular to."""
HEALTHY, LESION = "healthy", "lesion"
LESION_FRACTION = "lesion_fraction"
"""Column of a table of patches: the share of a patch that is lesion, from which its label is made."""
POSITION, PIXEL = "position_mm", "pixel_mm"
"""Columns of a table of slices: where its plane lies along the axis, RAS, and the edge of its pixels."""
FIELD_MM = 224.0
"""What a square slice shows unless its pixels are chosen: more than the largest brains, in any plane."""


@dataclass(frozen=True)
class SliceSettings:
    """axis: axial, coronal or sagittal. first, last: which part of the brain's extent along it, 0 its lower, hind or
    left end and 1 the other. size: pixels of the square image. pixel_mm: their edge, 0 for that with which the
    square shows FIELD_MM, the same for all scans. every: 2 takes every other slice of the range, and so on."""

    axis: str = "axial"
    first: float = 0.3
    last: float = 0.8
    size: int = 224
    pixel_mm: float = 0.0
    every: int = 1

    def __post_init__(self) -> None:
        if self.axis not in AXES:
            raise ValueError(f"the axis is one of {', '.join(AXES)}, not {self.axis}")
        if not 0 <= self.first < self.last <= 1:
            raise ValueError("the range goes from a share of the brain to a larger one, between 0 and 1")
        if not 8 <= self.size <= 1024 or self.pixel_mm < 0 or self.every < 1:
            raise ValueError("the size lies between 8 and 1024 pixels, their edge is not negative, every is 1 or more")

    @property
    def edge_mm(self) -> float:
        """Of a pixel, chosen or not."""
        return self.pixel_mm or FIELD_MM / self.size


@dataclass(frozen=True)
class PatchSettings:
    """side: pixels. pixel_mm: their edge. brain: the least share of a patch that is brain. lesion: from which share of
    lesion a patch is called one; those with less, but some, get no label. every: 2 takes every other slice, and so
    on."""

    side: int = 28
    pixel_mm: float = 1.0
    brain: float = 0.5
    lesion: float = 0.05
    every: int = 1

    def __post_init__(self) -> None:
        if not 4 <= self.side <= 512 or not self.pixel_mm > 0:
            raise ValueError("the side lies between 4 and 512 pixels, and their edge is positive")
        if not (0 <= self.brain <= 1 and 0 < self.lesion <= 1) or self.every < 1:
            raise ValueError("brain and lesion are shares, every is 1 or more")


@dataclass(frozen=True)
class Slice:
    """image: (size, size) in 0…1. position_mm: of its plane along the axis, RAS. outside: share of the plane's brain
    that lies outside the square."""

    image: NDArray[np.float32]
    position_mm: float
    outside: float


@dataclass(frozen=True)
class Patch:
    """image: (side, side) in 0…1; label: healthy, lesion or ""; place_zyx: its first voxel on the grid."""

    image: NDArray[np.float32]
    label: str
    lesion_fraction: float
    place_zyx: tuple[int, int, int]


def slices_of(masked: MaskedScan, settings: SliceSettings) -> list[Slice]:
    """The scan's slices within the range, from below, behind or left."""
    axis = AXES[settings.axis]
    grid = _grid(masked.image, axis, settings.edge_mm)
    values, brain = _on_grid(masked, grid)
    volume, inside = (np.moveaxis(array, axis, 0) for array in (model_image(values, brain, 1), brain))
    shown = np.flatnonzero(inside.any((1, 2)))
    extent = shown[-1] - shown[0]
    low, high = np.ceil(shown[0] + settings.first * extent), np.floor(shown[0] + settings.last * extent)
    middle = _middle_of(brain, axis)
    origin = grid.GetOrigin()[2 - axis] * (1 if axis == 0 else -1)  # LPS to RAS
    return [Slice(_square(volume[n], middle, settings.size), origin + n * grid.GetSpacing()[2 - axis],
                  1 - _square(inside[n], middle, settings.size).sum() / inside[n].sum() if inside[n].any() else 0.0)
            for n in range(int(low), int(high) + 1, settings.every)]


def patches_of(masked: MaskedScan, lesion: sitk.Image | None, settings: PatchSettings) -> Iterator[Patch]:
    """The patches of every axial slice that are brain enough; lesion: its fraction of every voxel (0…1), on any grid in
    the scan's space.

    Without a lesion image nothing is known, and no patch has a label.
    """
    grid, side = _grid(masked.image, 0, settings.pixel_mm), settings.side
    values, brain = _on_grid(masked, grid)
    sick = None if lesion is None else sitk.GetArrayFromImage(to_grid(sitk.Cast(lesion, sitk.sitkFloat32), grid))
    volume = model_image(values, brain, 1)
    for z in range(0, volume.shape[0], settings.every):
        for y in range(0, volume.shape[1] - side + 1, side):
            for x in range(0, volume.shape[2] - side + 1, side):
                part = (z, slice(y, y + side), slice(x, x + side))
                if brain[part].mean() < settings.brain:
                    continue
                fraction = float("nan") if sick is None else float((sick[part] > 0.5).mean())
                yield Patch(volume[part], _label(fraction, settings.lesion), fraction, (z, y, x))


@dataclass(frozen=True, eq=False)
class Tiles:
    """Squares cut from every axial plane with brain in it: images (N, side, side) in 0…1; places: the first voxel (zyx)
    of each on the grid, whose size may be left; grid: see `patches_of`."""

    images: NDArray[np.float32]
    places: list[tuple[int, int, int]]
    grid: sitk.Image

    def restacked(self, values: NDArray[np.float32]) -> sitk.Image:
        """Values (N, side, side) where their squares lie on the grid; 0 elsewhere."""
        side = values.shape[1]
        padded = np.zeros([n + 2 * side * (axis > 0) for axis, n in enumerate(self.grid.GetSize()[::-1])], np.float32)
        for (z, y, x), square in zip(self.places, values, strict=True):
            padded[z, y + side : y + 2 * side, x + side : x + 2 * side] = square
        return like(padded[:, side:-side, side:-side], self.grid)


def tiles_of(masked: MaskedScan, side: int, pixel_mm: float, around_middle: bool) -> Tiles:
    """What `slices_of` would cut from every plane (around_middle), or patches that cover all of it."""
    grid = _grid(masked.image, 0, pixel_mm)
    values, brain = _on_grid(masked, grid)
    margin = ((0, 0), (side, side), (side, side))
    volume, inside = (np.pad(array, margin) for array in (model_image(values, brain, 1), brain))
    if around_middle:
        y, x = (middle - side // 2 for middle in _middle_of(brain, 0))
        starts = [(y, x)]
    else:
        starts = [(y, x) for y in range(0, brain.shape[1], side) for x in range(0, brain.shape[2], side)]
    places = [(z, y, x) for z in range(len(brain)) for y, x in starts
              if inside[z, y + side : y + 2 * side, x + side : x + 2 * side].any()]
    images = [volume[z, y + side : y + 2 * side, x + side : x + 2 * side] for z, y, x in places]
    return Tiles(np.stack(images), places, grid)


def _label(fraction: float, least: float) -> str:
    if fraction == 0:
        return HEALTHY
    return LESION if fraction >= least else ""


def _grid(image: sitk.Image, axis: int, pixel_mm: float) -> sitk.Image:
    """Over the field of view, along the patient's axes: the scan's own distance along `axis` (zyx), else pixels."""
    low, high = field_of_view_ras_mm(image)
    step = np.full(3, pixel_mm)  # zyx
    step[axis] = image.GetSpacing()[2 - axis]
    shape = np.maximum(1, np.round((high - low)[::-1] / step).astype(int) + 1)
    return ras_grid((low + high) / 2, shape.tolist(), step.tolist())


def _on_grid(masked: MaskedScan, grid: sitk.Image) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    brain = sitk.GetArrayFromImage(to_grid(sitk.Cast(masked.brain, sitk.sitkFloat32), grid)) > 0.5
    return sitk.GetArrayFromImage(to_grid(masked.image, grid)), brain


def _middle_of(brain: NDArray[np.bool_], axis: int) -> tuple[int, int]:
    """Middle of the brain's box in the plane, the same for all slices of a scan."""
    flat = np.argwhere(brain.any(axis))
    return tuple(int(v) for v in np.round((flat.min(0) + flat.max(0)) / 2))  # type: ignore[return-value]


def _square(plane: NDArray, middle: tuple[int, int], size: int) -> NDArray:
    """The square of `size` pixels around the middle, 0 beyond the plane."""
    padded = np.pad(plane, size)
    y, x = (m - size // 2 + size for m in middle)
    return padded[y : y + size, x : x + size]
