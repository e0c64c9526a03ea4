"""A set of images as a table of latents."""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError
from ..progress import CancelToken, Progress, no_progress, scaled
from ..training.image_sets import ImageSet, read_images
from .model import PLAIN, LatentModel
from .table import LatentTable


def images_for(
    model: LatentModel, source: str | Path, pattern: str = "", patient: str = "", progress: Progress = no_progress,
    cancel: CancelToken | None = None,
) -> ImageSet:  # fmt: skip
    """The images of a folder, CSV table, glob or idx file as the model takes them, with the split they come with.

    Raises InputError, naming the file, for images of another form.
    """
    try:
        return read_images(source, pattern, model.shape, patient=patient, fit=model.form.fit,
                           scaling=model.form.scaling, progress=progress, cancel=cancel)  # fmt: skip
    except InputError as error:
        if model.preparation == PLAIN:
            raise
        raise InputError(f"{str(error).rstrip('.')}; the model {model.bundle.name} works on images that "
                         f"'medvae prepare --preparation {model.preparation}' makes.") from error  # fmt: skip


def encode_images(
    model: LatentModel, images: ImageSet, progress: Progress = no_progress, cancel: CancelToken | None = None
) -> LatentTable:
    """Mean and log-variance of every image, with all that is known of it."""
    mean, log_variance = model.encode(images.images, scaled(progress, 0.0, 1.0), cancel)
    flat = None if log_variance is None else log_variance.reshape(len(images), -1)
    return LatentTable(images.cases, images.patients, mean.reshape(len(images), -1), flat, images.labels,
                       images.splits, images.tags)  # fmt: skip
