"""Masks from files, brought to the voxels of the scan that they belong to."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from ..errors import InputError
from ..files.itk_files import stored_image
from .geometry import ijk_to_ras_mm, like, ras_mm_to_ijk, same_grid, to_grid

_MOST_BEYOND = 0.2
"""Of a mask that may lie outside its scan: a little, where the field of view was cut."""
_VOXELS_LOOKED_AT = 100_000


def read_mask(path: Path, scan: sitk.Image) -> NDArray[np.bool_]:
    """The mask in `path` as bool (zyx) on the scan's voxels: every value above 0; on another grid, of what is nearest.
    Otherwise as `read_fractions`."""
    nearest = partial(sitk.Resample, transform=sitk.Transform(), interpolator=sitk.sitkNearestNeighbor)
    return sitk.GetArrayFromImage(_read(path, scan, nearest)) > 0


def read_fractions(path: Path, scan: sitk.Image) -> sitk.Image:
    """How much of each of the scan's voxels belongs to the mask in `path`: float32 in 0…1, on exactly the scan's grid.

    A value between 0 and 1 is a fraction, all that is larger a label (1, 255 …) and counts as 1. A header that differs
    by less than half a voxel (rounding between programs) counts as the same grid; another grid is resampled as
    `to_grid` does. Raises InputError for a file that cannot be read, or of which much lies outside the scan.
    """
    return _read(path, scan, to_grid)


def _read(path: Path, scan: sitk.Image, placed_on: Callable[[sitk.Image, sitk.Image], sitk.Image]) -> sitk.Image:
    try:
        mask = stored_image(path)
    except RuntimeError:
        if not path.exists():
            raise InputError(f"{path} does not exist: check the path.") from None
        raise InputError(f"{path} cannot be read as a mask: export it again as NIfTI.") from None
    if mask.GetDimension() != 3 or mask.GetNumberOfComponentsPerPixel() != 1:
        raise InputError(f"{path} is not a three-dimensional mask with one value per voxel: export it again.")
    values = np.nan_to_num(_values(mask)).clip(0, 1)
    if same_grid(mask, scan):
        return like(values, scan)
    fractions = like(values, mask)
    placed = placed_on(fractions, scan)
    beyond = _share_beyond(values, mask, scan)
    if beyond > _MOST_BEYOND:
        raise InputError(f"{path} lies outside its scan ({beyond:.0%} of it): check that both are of the same "
                         "examination.")
    return placed


def _share_beyond(values: NDArray[np.float32], mask: sitk.Image, scan: sitk.Image) -> float:
    """Of the mask's voxels (zyx), those whose centre no voxel of the scan holds."""
    flat = np.flatnonzero(values > 0)
    zyx = np.stack(np.unravel_index(flat[:: max(1, len(flat) // _VOXELS_LOOKED_AT)], values.shape), 1)
    points = ijk_to_ras_mm(mask, zyx[:, ::-1])
    nearest = np.round(ras_mm_to_ijk(scan, points))
    return float(((nearest < 0) | (nearest >= scan.GetSize())).any(1).mean()) if len(points) else 0.0


def _values(image: sitk.Image) -> NDArray[np.float32]:
    return sitk.GetArrayViewFromImage(image).astype(np.float32)
