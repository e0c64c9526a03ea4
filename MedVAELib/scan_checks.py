"""Whether an image can be a scan of a head: what its header says, and its voxels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk

from .errors import InputError
from .files.file_damage import MAX_SHEAR, judge_nonfinite, times

if TYPE_CHECKING:
    from numpy.typing import NDArray

MIN_VOXELS_PER_AXIS = 8
MAX_VOXELS = 500_000_000
SPACING_MM = (0.05, 15.0)
FIELD_OF_VIEW_MM = (60.0, 600.0)

_WRAP = 2**16


@dataclass(frozen=True)
class Header:
    """What an image says of itself before its voxels are read."""

    size: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    direction: NDArray[np.float64]
    components: int
    pixel: int

    @classmethod
    def of_reader(cls, reader: sitk.ImageFileReader) -> Header:
        return cls._build(reader, reader.GetNumberOfComponents(), reader.GetPixelID())

    @classmethod
    def of_image(cls, image: sitk.Image) -> Header:
        return cls._build(image, image.GetNumberOfComponentsPerPixel(), image.GetPixelID())

    @classmethod
    def _build(cls, source: sitk.Image | sitk.ImageFileReader, components: int, pixel: int) -> Header:
        axes = source.GetDimension()
        return cls(tuple(source.GetSize()), tuple(source.GetSpacing()),
                   np.array(source.GetDirection()).reshape(axes, axes), components, pixel)


def check_header(name: str, header: Header) -> None:
    """Raises InputError if an image of this header cannot be a scan of a head."""
    check_size(name, header.size)
    if header.pixel in (sitk.sitkComplexFloat32, sitk.sitkComplexFloat64):
        raise InputError(f"{name} holds complex numbers: save the magnitude image.")
    if header.components != 1:
        what = "colours" if header.components in (3, 4) and header.pixel == sitk.sitkVectorUInt8 else "vectors"
        raise InputError(f"{name} holds {what}, {header.components} values per voxel: "
                         "give a scan with one intensity per voxel.")
    spacing = np.array(header.spacing_mm[:3])
    if not np.all(np.isfinite(spacing)) or spacing.min() < SPACING_MM[0] or spacing.max() > SPACING_MM[1]:
        raise InputError(f"{name} has an impossible voxel size of {times(spacing)} mm: correct its header "
                         f"(between {SPACING_MM[0]} and {SPACING_MM[1]:g} mm) or export it again.")
    direction = header.direction[:3, :3]
    if not np.all(np.isfinite(direction)) or np.abs(direction.T @ direction - np.eye(3)).max() > MAX_SHEAR:
        raise InputError(f"{name} has direction cosines that are not orthonormal: resample it to a rectangular grid.")
    extent = spacing * header.size[:3]
    if extent.min() < FIELD_OF_VIEW_MM[0]:
        raise InputError(f"{name} covers only {times(extent)} mm, too little of a head: "
                         "check its voxel size or give the whole scan.")
    if extent.max() > FIELD_OF_VIEW_MM[1]:
        raise InputError(f"{name} covers {times(extent)} mm, too much for a head: "
                         "check its voxel size or crop it to the head.")


def check_size(name: str, size: Sequence[int]) -> None:
    """Raises InputError for a picture, a slice, several volumes, and for far too many voxels; size: (x, y, z, …)."""
    if len(size) < 3:
        raise InputError(f"{name} is a two-dimensional picture: give the whole three-dimensional scan.")
    volumes = math.prod(size[3:])
    if volumes > 1:  # an image in memory: of a file one can be chosen
        raise InputError(f"{name} holds {volumes} volumes (4D): give one of them, for a DWI with the highest b-value.")
    if min(size[:3]) == 1:
        raise InputError(f"{name} is a single slice: give the whole three-dimensional scan.")
    if min(size[:3]) < MIN_VOXELS_PER_AXIS:
        raise InputError(f"{name} has only {times(size[:3])} voxels, at least {MIN_VOXELS_PER_AXIS} along each axis "
                         "are needed: give the whole scan.")
    if math.prod(size[:3]) > MAX_VOXELS:
        raise InputError(f"{name} declares {times(size[:3])} voxels, more than {MAX_VOXELS:,}: "
                         "crop or resample it, or export it again if its header is damaged.")


def made_finite(image: sitk.Image, source: str) -> tuple[sitk.Image, list[str]]:
    """The image with 0 in place of values that are no numbers, and warnings of it. Raises InputError for too many."""
    values = sitk.GetArrayViewFromImage(image)
    finite = np.isfinite(values)
    if finite.all():
        return image, []
    nan = int(np.isnan(values).sum())
    notes = judge_nonfinite(source, nan, int(values.size - finite.sum()) - nan, values.size)
    cleaned = sitk.GetImageFromArray(np.where(finite, values, np.float32(0)))
    cleaned.CopyInformation(image)
    return cleaned, list(notes)


def made_signed(image: sitk.Image, source: str) -> tuple[sitk.Image, list[str]]:
    """The image with negative values that were saved as 16 bits without a sign, -1 as 65,535, and a warning of them.

    Splines overshoot below 0 when a scan is resampled. Such values are told by the gap: they are no farther below
    65,536 than the others reach above 0, and half of the range or more between them is empty. One value alone up there
    is padding or saturation.
    """
    values = sitk.GetArrayViewFromImage(image)
    if values.max() != _WRAP - 1 or values.min() < 0:
        return image, []
    high = values >= _WRAP / 2
    largest = float(values.max(initial=0, where=~high))
    overshoot = _WRAP - float(values.min(initial=_WRAP, where=high))
    gap = largest < _WRAP / 4 and 1 < overshoot <= largest
    if not gap or np.any(values != np.round(values)):
        return image, []
    signed = sitk.GetImageFromArray(np.where(high, values - np.float32(_WRAP), values))
    signed.CopyInformation(image)
    return signed, [f"{source} has {int(high.sum())} voxels just below {_WRAP:,} and no others above {largest:,.0f}: "
                    f"{_WRAP:,} was taken off them, as they seem negative values that were saved without their sign."]


def check_content(image: sitk.Image, source: str) -> None:
    """Raises InputError for an image that is constant or a label map."""
    values = sitk.GetArrayViewFromImage(image)
    low, high = float(values.min()), float(values.max())
    if low == high:
        raise InputError(f"{source} is constant, every voxel is {low:g}: export the scan again.")
    if _looks_like_labels(values):
        raise InputError(f"{source} looks like a label map, not a scan: give the image that it was drawn on.")


def _looks_like_labels(values: NDArray[np.float32]) -> bool:
    """Few distinct values, or whole numbers that hardly ever change between neighbours (a scan has noise)."""
    few, some = 8, 256
    if np.unique(values.ravel()[:: max(values.size // 100_000, 1)]).size > some:
        return False
    distinct = np.unique(values)
    if distinct.size <= few:
        return True
    if distinct.size > some or np.any(distinct != np.round(distinct)):
        return False
    foreground = values[..., :-1] != distinct[np.argmax(np.bincount(np.searchsorted(distinct, values.ravel())))]
    same = values[..., :-1] == values[..., 1:]
    return bool(foreground.any() and same[foreground].mean() > 0.7)
