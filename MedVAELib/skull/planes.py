"""A standard plane of an ultrasound examination as a grey image with square pixels of known size."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class PlaneImage:
    """A usable plane image.

    grey_yx: (H, W) float32 in 0…1, finite. pixel_mm: edge of its square pixels. spacing_source: where the size comes
    from, in words. name, path: as in `Scan`. warnings: sentences the user should see.
    """

    grey_yx: NDArray[np.float32]
    pixel_mm: float
    spacing_source: str = ""
    name: str = "plane"
    path: Path | None = None
    warnings: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: str | Path, spacing_mm: float | None = None, slice_index: int | None = None) -> PlaneImage:
        """Reads PNG, JPEG, DICOM, NIfTI, NRRD and whatever else SimpleITK reads.

        spacing_mm: pixel size, needed where the file has none. slice_index: which slice along the last axis of a
        volume, from 0. Raises InputError, UsageError.
        """
        raise NotImplementedError

    @classmethod
    def from_image(
        cls, image: sitk.Image, spacing_mm: float | None = None, slice_index: int | None = None, name: str = "plane"
    ) -> PlaneImage:
        """A plane from an image in memory whose own spacing is true, unless spacing_mm is given. Raises as `read`."""
        raise NotImplementedError

    @classmethod
    def from_array(cls, grey_yx: NDArray, spacing_mm: float, name: str = "plane") -> PlaneImage:
        """A plane from grey values (H, W) or colours (H, W, 3 or 4). Raises as `read`."""
        raise NotImplementedError
