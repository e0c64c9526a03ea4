"""The plain preparation: images of any kind as arrays of one shape in 0…1, and arrays of that shape back on their grid.

Volumes are turned first so that their axes run as in `geometry`: z inferior → superior, y posterior → anterior,
x left → right. Pictures stay as they are stored.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from ..errors import InputError
from .geometry import SMOOTHING, like

FITS = ("exact", "crop", "stretch")
SCALINGS = ("auto", "unit", "byte", "percentile", "range")
PERCENTILE = 99.5
_MOST_BELOW_0, _CLEARLY = 0.01, 0.02
"""Share of voxels that may lie clearly below 0, by this share of the percentile, where what is below 0 is cut off."""
_UNIT_TOLERANCE = 1e-3


class FormError(InputError):
    """An image does not have the form that is asked for. found: what is wrong with it, without what to do."""

    def __init__(self, found: str, advice: str):
        super().__init__(f"{found}: {advice}.")
        self.found = found


@dataclass(frozen=True)
class ImageForm:
    """shape: (y, x) or (z, y, x) in voxels. fit: "exact" takes only images of that shape, "crop" cuts or pads with 0
    around the middle, "stretch" brings the whole field of view onto it. scaling: "unit" values lie in 0…1 already,
    "byte" divides by 255, "percentile" clips each image to 0 … its 99.5th percentile and divides by that, "range"
    clips each to its 0.5th … 99.5th percentile and brings them to 0…1, "auto" is one of these, decided once for all
    images of a set (see `choose_scaling`)."""

    shape: tuple[int, ...]
    fit: str = "exact"
    scaling: str = "auto"

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(int(side) for side in self.shape))
        if len(self.shape) not in (2, 3) or min(self.shape) < 1:
            raise ValueError(f"shape must have 2 or 3 positive sides, not {list(self.shape)}")
        if self.fit not in FITS or self.scaling not in SCALINGS:
            raise ValueError(f"fit must be one of {', '.join(FITS)}, scaling one of {', '.join(SCALINGS)}")

    def apply(self, image: sitk.Image, name: str) -> NDArray[np.float32]:
        """The image as (*shape) in 0…1. Raises FormError, naming it as `name`, for another shape, or another range
        than its scaling allows."""
        return scaled(self.fitted(image, name), self.scaling, name)

    def fitted(self, image: sitk.Image, name: str) -> NDArray[np.float32]:
        """The image as (*shape) in its own intensities."""
        image = self.placed(image, name)
        if image.GetSize() == self.shape[::-1]:
            return sitk.GetArrayFromImage(image).astype(np.float32)
        if self.fit == "exact":
            found = " × ".join(map(str, image.GetSize()[::-1]))
            raise FormError(f"{name} has {found} voxels where {' × '.join(map(str, self.shape))} are asked for",
                            "set fit to crop or stretch, or prepare the images first")
        values = sitk.GetArrayViewFromImage(image)
        low, high = float(values.min()), float(values.max())
        # Where 0 is not the least that an image can hold, it would be a grey between others.
        outside = min(low, 0.0) if self.scaling in ("auto", "range") else 0.0
        made = sitk.GetArrayFromImage(_onto(_smoothed(image, self.grid(image)), self.grid(image), outside))
        if self.scaling in ("unit", "byte"):  # smoothing goes a little beyond what is there
            made = made.clip(min(low, 0.0), max(high, 255.0 if self.scaling == "byte" else 1.0))
        return made

    def placed(self, image: sitk.Image, name: str) -> sitk.Image:
        """The image with as many axes as the shape has, and a volume's turned. Raises FormError."""
        return as_dimensions(turned(image, len(self.shape)), len(self.shape), name)

    def grid(self, image: sitk.Image) -> sitk.Image:
        """The empty grid of this shape that an image, turned and of as many axes, is resampled to."""
        old, new = np.array(image.GetSize(), float), np.array(self.shape[::-1], float)
        spacing = np.array(image.GetSpacing()) * (old / new if self.fit == "stretch" else 1.0)
        grid = sitk.Image([int(n) for n in new], sitk.sitkUInt8)
        grid.SetSpacing(spacing.tolist())
        grid.SetDirection(image.GetDirection())
        middle = np.array(image.TransformContinuousIndexToPhysicalPoint(((old - 1) / 2).tolist()))
        axes = np.array(image.GetDirection()).reshape(len(new), len(new))
        # Cut or padded, its voxels are the image's own: without the half voxel, they would lie between them.
        half = (old - new) % 2 / 2 if self.fit == "crop" else 0.0
        grid.SetOrigin((middle - axes @ (spacing * ((new - 1) / 2 + half))).tolist())
        return grid

    def restored(self, array: NDArray[np.float32], image: sitk.Image) -> sitk.Image:
        """An array (*shape) on the very grid of the image that it was made from or stands for, in the array's units;
        0 where that grid reaches beyond it."""
        plane_or_volume = self.placed(image, "the image")
        made = like(np.asarray(array, np.float32), self.grid(plane_or_volume))
        if len(self.shape) == image.GetDimension():
            return _onto(made, image)
        plane = sitk.GetArrayFromImage(_onto(made, plane_or_volume))  # of a volume of one slice, along any axis
        return like(plane.reshape(image.GetSize()[::-1]), image)


def choose_scaling(ranges: Sequence[tuple[float, float]], all_bytes: bool, negative: bool = False) -> str:
    """What "auto" means for a set, from every image's (minimum, maximum), whether all are stored in 8 bits and whether
    any is `below_0`: "unit" if no value lies outside 0…1, else "byte" for 8-bit images, else "range" for images below
    0 and "percentile" for others."""
    if all(lies_in_unit(*each) for each in ranges):
        return "unit"
    if all_bytes:
        return "byte"
    return "range" if negative else "percentile"


def lies_in_unit(low: float, high: float) -> bool:
    """Whether values with these extremes lie in 0…1 but for rounding; not if one of them is no number (NaN)."""
    return low >= -_UNIT_TOLERANCE and high <= 1 + _UNIT_TOLERANCE


def below_0(values: NDArray[np.float32]) -> float:
    """The share of voxels that lie clearly below 0, if it is more than a few that filters leave, else 0."""
    if not values.min() < 0:
        return 0.0
    top = max(float(np.percentile(values, PERCENTILE)), 0.0)
    share = float(np.mean(values < -_CLEARLY * top))
    return share if share > _MOST_BELOW_0 else 0.0


def scaled(values: NDArray[np.float32], scaling: str, name: str) -> NDArray[np.float32]:
    """Intensities in 0…1 as "unit", "byte", "percentile" or "range" say. Raises InputError, naming the image as `name`,
    and FormError for another range."""
    if scaling == "range":
        low, top = (float(value) for value in np.percentile(values, (100 - PERCENTILE, PERCENTILE)))
        if not top > low:
            raise InputError(f"{name} is empty: nearly all of its voxels have the same value.")
        return np.clip((values - low) / (top - low), 0, 1, dtype=np.float32)
    if scaling == "percentile":
        if share := below_0(values):
            raise FormError(f"{name} holds values below 0 in {100 * share:.0f} % of its voxels, which the scaling "
                            "percentile would make 0", "set scaling to range, or prepare the images first")
        top = float(np.percentile(values, PERCENTILE))
        if not top > 0:
            raise InputError(f"{name} is empty: {PERCENTILE:g} % of its voxels are not above 0.")
        return np.clip(values / top, 0, 1, dtype=np.float32)
    values = values / 255 if scaling == "byte" else values
    low, high = float(values.min()), float(values.max())
    if not lies_in_unit(low, high):
        better = "range" if below_0(values) else "percentile"
        raise FormError(f"{name} has intensities from {low:.4g} to {high:.4g} where 0 to 1 are asked for",
                        f"set scaling to {better}, or prepare the images first")
    return np.clip(values, 0, 1, dtype=np.float32)


def turned(image: sitk.Image, dimensions: int = 3) -> sitk.Image:
    """A volume with its axes in the order and directions stated above, nearest to the patient's; a picture as it is, as
    is a volume of one slice along any axis where two `dimensions` are asked for."""
    picture = image.GetDimension() == 2 or image.GetSize()[2] == 1 or (dimensions == 2 and 1 in image.GetSize())
    return image if picture else sitk.DICOMOrient(image, "RAS")


def as_dimensions(image: sitk.Image, dimensions: int, name: str) -> sitk.Image:
    """The image with 2 or 3 axes: a volume of one slice, along any axis, is a picture. Raises FormError where that is
    not so."""
    if image.GetDimension() == dimensions and (dimensions == 2 or image.GetSize()[2] > 1):
        return image
    if image.GetDimension() == 3 and dimensions == 2 and 1 in image.GetSize():
        thin = max(axis for axis, size in enumerate(image.GetSize()) if size == 1)
        return image[tuple(0 if axis == thin else slice(None) for axis in range(3))]
    if dimensions == 3:
        raise FormError(f"{name} is a picture, and volumes are asked for",
                        "give volumes, or use a model of pictures (a shape of two sides)")
    raise FormError(f"{name} is a volume of {image.GetSize()[-1]} slices, and pictures are asked for",
                    "make slices with 'medvae prepare --preparation slices', or use a model of volumes (a shape of "
                    "three sides)")


def _smoothed(image: sitk.Image, grid: sitk.Image) -> sitk.Image:
    """Without what the coarser grid cannot show, along each axis where it is coarser."""
    image = sitk.Cast(image, sitk.sitkFloat32)
    for axis, (fine, coarse) in enumerate(zip(image.GetSpacing(), grid.GetSpacing(), strict=True)):
        if coarse > 1.01 * fine and image.GetSize()[axis] >= 4:
            sigma = SMOOTHING * math.sqrt(coarse**2 - fine**2)
            image = sitk.RecursiveGaussian(image, sigma, direction=axis)
    return image


def _onto(image: sitk.Image, grid: sitk.Image, outside: float = 0.0) -> sitk.Image:
    return sitk.Resample(image, grid, sitk.Transform(image.GetDimension(), sitk.sitkIdentity), sitk.sitkLinear, outside,
                         sitk.sitkFloat32)
