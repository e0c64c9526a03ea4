"""Files into a latent space and out of it: an image encoded with its way back, decoded images with their own place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from ..files.itk_files import alone, itk_name
from ..files.nifti_files import MNI, SCANNER
from ..preprocessing.geometry import like, ras_grid
from ..progress import CancelToken, Progress, no_progress
from ..scan import Scan
from ..training.image_listing import ImageRecord
from ..training.image_sets import read_image
from .model import LatentModel


@dataclass(frozen=True, eq=False)
class EncodedImage:
    """image: (1, *shape) as the model takes it; mean, log_variance: (Z,), None for the latter if the model is not
    variational; to_scan: from (*shape) in 0…1 onto the file's own grid; warnings: sentences the user should see."""

    name: str
    image: NDArray[np.float32]
    mean: NDArray[np.float32]
    log_variance: NDArray[np.float32] | None
    to_scan: Callable[[NDArray[np.float32]], sitk.Image]
    warnings: tuple[str, ...] = ()


def encode_file(
    model: LatentModel, source: str | Path | ImageRecord, progress: Progress = no_progress,
    cancel: CancelToken | None = None,
) -> EncodedImage:
    """A picture, or a volume, which is prepared as the model was trained unless it is so already. source: a file, or a
    record of one that holds several images. Raises InputError."""
    record = source if isinstance(source, ImageRecord) else ImageRecord(Path(source), "", "")
    if model.plain or _holds_prepared(model, record.file):
        prepared, warnings = model.prepare_image(read_image(record), record.name), ()
    else:
        scan = Scan.read(record.file, series=record.series or None)
        prepared, warnings = model.prepare(scan, progress, cancel), scan.warnings
    mean, variance = model.encode(prepared.image[None], cancel=cancel)
    variance = None if variance is None else variance.ravel()
    return EncodedImage(record.file.name, prepared.image, mean.ravel(), variance, prepared.to_scan,
                        (*warnings, *prepared.warnings))


def own_grid(model: LatentModel) -> sitk.Image:
    """Where the model's images lie without a scan: in MNI space if it was trained there, else around the origin, with
    the spacing of its training images, or 1 mm where they state none."""
    spacing = model.spacing_mm or (1.0,) * len(model.shape)
    if model.mni_place is not None:
        return model.mni_place
    if len(model.shape) == 3:
        return ras_grid((0.0, 0.0, 0.0), model.shape, spacing)
    grid = sitk.Image(list(model.shape[::-1]), sitk.sitkUInt8)
    grid.SetSpacing(spacing[::-1])
    return grid


def space(model: LatentModel) -> int:
    """What NIfTI calls the space of that grid."""
    return SCANNER if model.mni_place is None else MNI


def own_image(model: LatentModel, array: NDArray[np.float32]) -> sitk.Image:
    """A decoded image (*shape) on the model's own grid, float32 in 0…1."""
    return like(np.asarray(array, np.float32), own_grid(model))


def series(model: LatentModel, images: NDArray[np.float32]) -> sitk.Image:
    """Volumes (N, 1, *shape) one after the other as one four-dimensional image on the model's own grid."""
    return sitk.JoinSeries([own_image(model, image[0]) for image in images])


def _holds_prepared(model: LatentModel, path: Path) -> bool:
    if not path.is_file():
        return False
    reader = sitk.ImageFileReader()
    with alone(path) as file:
        reader.SetFileName(itk_name(file))
        try:
            reader.ReadImageInformation()  # a scan is told from a prepared volume by its size, without reading it
            return sorted(reader.GetSize()) == sorted(model.shape) and model.is_prepared(reader.Execute())
        except RuntimeError:
            return False
