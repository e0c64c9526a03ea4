"""A set of images as a table of latents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import InputError, UsageError
from ..progress import CancelToken, Progress, no_progress
from ..training.image_listing import ImageRecord, find_images
from ..training.image_sets import ImageSet, read_images
from .model import LatentModel
from .placing import encode_file
from .table import LatentTable


@dataclass(frozen=True)
class EncodedCohort:
    """failed: by case, why it could not be encoded; warnings: sentences that name the case."""

    table: LatentTable
    failed: dict[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def encode_cohort(
    model: LatentModel, source: str | Path, pattern: str = "", patient: str = "", progress: Progress = no_progress,
    cancel: CancelToken | None = None,
) -> EncodedCohort:
    """The images of a folder, CSV table, glob or idx file, for a model of whole brains also scans as they are.

    One after the other, so that they need not fit into memory, as `encode_records`. Raises InputError where nothing can
    be encoded.
    """
    records = find_images(Path(source).expanduser(), pattern, patient=patient, dimensions=len(model.shape))
    return encode_records(model, records, progress, cancel)


def images_for(
    model: LatentModel, source: str | Path, pattern: str = "", patient: str = "", progress: Progress = no_progress,
    cancel: CancelToken | None = None,
) -> ImageSet:
    """The images of a folder, CSV table, glob or idx file as the model takes them, with the split they come with.

    Raises InputError, naming the file, for images of another form.
    """
    with model.prescribing():
        return read_images(source, pattern, model.shape, patient=patient, fit=model.form.fit,
                           scaling=model.form.scaling, progress=progress, cancel=cancel)


def encode_images(model: LatentModel, images: ImageSet, cancel: CancelToken | None = None) -> LatentTable:
    """Mean and log-variance of every image, with all that is known of it."""
    mean, log_variance = model.encode(images.images, cancel=cancel)
    flat = None if log_variance is None else log_variance.reshape(len(images), -1)
    scans = images.scans or [""] * len(images.files)
    return LatentTable(images.cases, images.patients, mean.reshape(len(images), -1), flat, images.labels,
                       images.splits, images.tags, _absolute(scans, images.files))


def encode_records(
    model: LatentModel, records: Sequence[ImageRecord], progress: Progress = no_progress,
    cancel: CancelToken | None = None,
) -> EncodedCohort:
    """One image after the other, each prepared unless it is so already; what cannot be encoded is told of beside the
    rest. Raises InputError if nothing can."""
    cancel = cancel or CancelToken()
    done, encoded, failed, warnings = [], [], {}, []
    for index, record in enumerate(records):
        cancel.check()
        progress("encode", index / len(records), f"Encoding {index + 1} of {len(records)}")
        try:
            made = encode_file(model, record, cancel=cancel)
        except (InputError, UsageError) as error:  # whatever else goes wrong concerns all of them
            failed[record.case] = str(error)
            continue
        done.append(record)
        encoded.append((made.mean, made.log_variance))
        warnings += [f"{record.case}: {warning}" for warning in made.warnings]
    if not done:
        first = next(iter(failed.values()))
        raise InputError(f"None of the {len(records)} images could be encoded; the first: {first}")
    progress("encode", 1.0, f"{len(done)} images")
    mean, log_variance = zip(*encoded, strict=True)
    tags = {name: [record.tags.get(name, "") for record in done]
            for name in dict.fromkeys(name for record in done for name in record.tags)}
    table = LatentTable(
        [record.case for record in done], [record.patient for record in done], np.stack(mean),
        np.stack(log_variance) if model.variational else None, [record.label for record in done],
        [record.split for record in done], tags,
        _absolute([record.scan for record in done], [str(record.file) for record in done]))
    return EncodedCohort(table, failed, tuple(warnings))


def _absolute(scans: Sequence[str], files: Sequence[str]) -> list[str]:
    """What to open of each image: the whole scan if it is known, else the image."""
    return [str(Path(scan or file).absolute()) for scan, file in zip(scans, files, strict=True)]
