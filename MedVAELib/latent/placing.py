"""Files into a latent space and out of it: an image encoded with its way back, decoded images with their own place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from ..preprocessing.geometry import ras_grid
from ..preprocessing.image_form import turned
from ..preprocessing.mni import mni_grid
from ..preprocessing.published import NAME as MNI_4MM
from ..preprocessing.published import SPACING_MM as MNI_SPACING_MM
from ..progress import CancelToken, Progress, no_progress
from ..scan import Scan
from ..training.image_listing import ImageRecord
from ..training.image_sets import read_image
from .model import LatentModel


@dataclass(frozen=True, eq=False)
class Encoded:
    """image: (1, *shape) as the model takes it; mean: (Z,); to_scan: from (*shape) in 0…1 onto the file's own grid."""

    name: str
    image: NDArray[np.float32]
    mean: NDArray[np.float32]
    to_scan: Callable[[NDArray[np.float32]], sitk.Image]


def encode_file(
    model: LatentModel, path: str | Path, progress: Progress = no_progress, cancel: CancelToken | None = None
) -> Encoded:
    """A picture, or a volume, which is prepared as the model was trained unless it is so already. Raises InputError."""
    path = Path(path)
    if len(model.shape) == 2 or _is_prepared(model, path):
        stored = read_image(ImageRecord(path, path.name, path.name))
        image = model.form.apply(stored, str(path))[None]

        def to_scan(array: NDArray[np.float32]) -> sitk.Image:
            return model.form.restored(array, stored)
    else:
        prepared = model.prepare(Scan.read(path), progress, cancel)
        image, to_scan = prepared.image, prepared.to_scan
    return Encoded(path.name, image, model.encode(image[None], cancel=cancel)[0].ravel(), to_scan)


def own_grid(model: LatentModel) -> sitk.Image:
    """Where the model's images lie without a scan: in MNI space if it was trained there, else around the origin, with
    the spacing of its training images, or 1 mm where they state none."""
    spacing = model.spacing_mm or (1.0,) * len(model.shape)
    if model.preparation == MNI_4MM:
        return mni_grid(MNI_SPACING_MM)
    if len(model.shape) == 3:
        return ras_grid((0.0, 0.0, 0.0), model.shape, spacing)
    grid = sitk.Image(list(model.shape[::-1]), sitk.sitkUInt8)
    grid.SetSpacing(spacing[::-1])
    return grid


def own_image(model: LatentModel, array: NDArray[np.float32]) -> sitk.Image:
    """A decoded image (*shape) on the model's own grid, float32 in 0…1."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(array, np.float32))
    image.CopyInformation(own_grid(model))
    return image


def series(model: LatentModel, images: NDArray[np.float32]) -> sitk.Image:
    """Volumes (N, 1, *shape) one after the other as one four-dimensional image on the model's own grid."""
    return sitk.JoinSeries([own_image(model, image[0]) for image in images])


def _is_prepared(model: LatentModel, path: Path) -> bool:
    """Whether a file has the very voxels that preparing would give."""
    if model.spacing_mm is None or not path.is_file():
        return False
    try:
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(path))
        reader.ReadImageInformation()
        if reader.GetDimension() != 3:
            return False
        image = turned(sitk.ReadImage(str(path)))
    except RuntimeError:
        return False
    return image.GetSize()[::-1] == model.shape and np.allclose(image.GetSpacing()[::-1], model.spacing_mm, rtol=1e-3)
