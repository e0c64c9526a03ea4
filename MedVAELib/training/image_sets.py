"""Images to learn from: read once, brought to one shape and to 0…1, in memory or mapped into it, split by patient.

    images = read_images("knees", shape=(224, 224), validation=0.1)
    images.part("train").images      # float32 (N, 1, 224, 224)
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from ..errors import InputError, UsageError
from ..files import dicom
from ..files.csv_files import MISSING
from ..files.dicom_files import pixel_spacing, spaced
from ..files.folders import files_below
from ..files.image_files import check_file
from ..files.itk_files import accept_rounded_axes, placed, quiet, stored_image
from ..files.png_files import grey_without_opacity
from ..files.whole_files import replaced, writing_to
from ..preprocessing.image_form import ImageForm, as_dimensions, below_0, choose_scaling, scaled, turned
from ..progress import CancelToken, Progress, no_progress
from ..scan import is_dicom_file
from .idx_files import read_idx
from .image_listing import GENERATED_BY, PARTS, ImageRecord, Tag, find_images
from .image_split import assign_parts

_SCREEN_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".gif")
_SAME_SPACING = 0.01
_PLACEHOLDER_MM = (1.0, 1.0)  # what GDCM says where it finds none


@dataclass(frozen=True, eq=False)
class ImageSet:
    """images: float32 (N, 1, *shape) in 0…1, an array or a read-only map of a file. cases, patients, labels ("" for
    none), splits (train, validation, test or ""): N each; tags: N values each by name, numbers or text. spacing_mm: of
    the voxels in the order of shape, their median, None where one does not state it; of radiographs that state nothing
    else the spacing at the detector. scaling: how intensities were brought to 0…1 (see `preprocessing.image_form`).
    files: where each came from; series, indices: which one of those in it, scans: what it was made from, as in
    `ImageRecord`."""

    images: NDArray[np.float32]
    cases: list[str]
    patients: list[str]
    labels: list[str]
    splits: list[str]
    tags: dict[str, list[Tag]] = field(default_factory=dict)
    spacing_mm: tuple[float, ...] | None = None
    scaling: str = "unit"
    files: list[str] = field(default_factory=list)
    series: list[str] = field(default_factory=list)
    indices: list[int] = field(default_factory=list)
    scans: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.cases)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.images.shape[2:]

    def select(self, rows: Sequence[int]) -> ImageSet:
        """Those rows; without a copy of the images where they follow one another."""
        rows = list(rows)
        follow = bool(rows) and rows == list(range(rows[0], rows[0] + len(rows)))
        images = self.images[rows[0] : rows[0] + len(rows)] if follow else self.images[rows]
        tags = {name: [values[i] for i in rows] for name, values in self.tags.items()}
        names = ("cases", "patients", "labels", "splits", "files", "series", "indices", "scans")
        columns = {name: [getattr(self, name)[i] for i in rows] for name in names if getattr(self, name)}
        return replace(self, images=images, tags=tags, **columns)

    def part(self, name: str) -> ImageSet:
        """The images of train, validation or test; may be empty."""
        return self.select([i for i, split in enumerate(self.splits) if split == name])

    def with_split(self, validation: float, test: float, seed: int) -> ImageSet:
        """The same with a part for every image, by patient, as `image_split.assign_parts` says. Raises InputError."""
        made = self.tags.get(GENERATED_BY, [""] * len(self))
        parts = assign_parts(self.patients, self.labels, self.splits, validation, test, seed,
                             _made_up(self.patients, made))
        return replace(self, splits=parts)


def read_images(
    source: str | Path, pattern: str = "", shape: Sequence[int] | None = None, labels: Sequence[str] = (),
    patient: str = "", fit: str = "exact", scaling: str = "auto", validation: float | None = None, test: float = 0.0,
    seed: int = 0, limit: int = 0, store: Path | None = None, progress: Progress = no_progress,
    cancel: CancelToken | None = None,
) -> ImageSet:
    """All images of a source (see `image_listing`), as `ImageForm` brings them to one shape and to 0…1.

    shape: that of the first image if None. validation, test: shares of the patients that are split off, ordered by
    part then; None: the source's own split and order. limit: at most so many, drawn by the seed. store: a file to keep
    the array in, which is mapped into memory, and read again while nothing of it changed. Raises InputError, naming
    the file, for whatever cannot be used, Cancelled.
    """
    source = Path(os.path.expanduser(source))
    records = find_images(source, pattern, labels, patient, len(shape) if shape else None, progress)
    records = _limited(records, limit, seed)
    if validation is not None:
        records = with_parts(records, validation, test, seed)
    if shape is None:
        first = read_image(records[0])
        dimensions = 2 if first.GetDimension() == 2 or 1 in first.GetSize() else 3
        first = as_dimensions(turned(first, dimensions), dimensions, records[0].name)
        shape = first.GetSize()[::-1]
    return load_images(records, ImageForm(tuple(shape), fit, scaling), store, progress, cancel)


def with_parts(records: Sequence[ImageRecord], validation: float, test: float, seed: int) -> list[ImageRecord]:
    """The records with a part for each, sorted by it."""
    parts = assign_parts([r.patient for r in records], [r.label for r in records], [r.split for r in records],
                         validation, test, seed,
                         _made_up([r.patient for r in records], [r.tags.get(GENERATED_BY, "") for r in records]))
    told = [replace(record, split=part) for record, part in zip(records, parts, strict=True)]
    return sorted(told, key=lambda record: PARTS.index(record.split))


def _made_up(patients: Sequence[str], made_by: Sequence[Tag]) -> set[str]:
    """The patients that a model made up."""
    return {patient for patient, by in zip(patients, made_by, strict=True) if _is_made_up(by)}


def _is_made_up(made_by: Tag) -> bool:
    return made_by == made_by and str(made_by).strip().lower() not in MISSING


def load_images(
    records: Sequence[ImageRecord], form: ImageForm, store: Path | None = None, progress: Progress = no_progress,
    cancel: CancelToken | None = None,
) -> ImageSet:
    """The pixels of records. Raises InputError, Cancelled; a store is complete or not there."""
    if store is None:
        images = np.empty((len(records), 1, *form.shape), np.float32)
        scaling, spacing = _fill(images, records, form, progress, cancel)
    else:
        images, scaling, spacing = _stored(Path(store), records, form, progress, cancel)
    names = sorted({name for record in records for name in record.tags})
    return ImageSet(
        images, [r.case for r in records], [r.patient for r in records], [r.label for r in records],
        [r.split for r in records], {name: _column(records, name) for name in names}, spacing, scaling,
        [str(r.file) for r in records], [r.series for r in records], [r.index for r in records],
        [r.scan for r in records],
    )


def read_image(record: ImageRecord, listed: dict[Path, list[dicom.DicomVolume]] | None = None) -> sitk.Image:
    """One image as it is stored, one grey value per voxel, all finite, 2 or 3 axes. Raises InputError.

    listed: keeps what the last DICOM folder holds, for the next of its series.
    """
    listed = {} if listed is None else listed
    if record.index >= 0:
        return sitk.GetImageFromArray(read_idx(record.file)[record.index])
    if record.series or record.file.is_dir():
        with quiet():
            if record.file not in listed:
                listed.clear()
                listed[record.file] = dicom.find_volumes(record.file, below=False)
            volumes = listed[record.file]
            if not any(record.series in ("", volume.key, volume.uid) for volume in volumes):  # a table's parent folder
                volumes = dicom.find_volumes(record.file)
            if not volumes:
                raise InputError(f"{record.file} is a folder without DICOM images: give one image.")
            volume, _ = dicom.choose_volume(record.file, volumes, record.series or None)
            return dicom.read_volume(record.file, volume)
    notes = check_file(record.file)
    with quiet(), accept_rounded_axes(notes):
        try:
            image = placed(stored_image(record.file), notes)
        except RuntimeError as error:
            image = grey_without_opacity(record.file)
            if image is None:
                raise InputError(f"{record.file} is no image that can be read: take it out, or choose others with a "
                                 "pattern.") from error
    return checked(spaced(image) if is_dicom_file(record.file) else image, record)


def checked(image: sitk.Image, record: ImageRecord) -> sitk.Image:
    """The image with one value per voxel. Raises InputError, naming the record's file, for one that cannot be used."""
    if image.GetNumberOfComponentsPerPixel() > 1:
        channels = sitk.GetArrayViewFromImage(image)[..., : min(3, image.GetNumberOfComponentsPerPixel())]
        if not (channels == channels[..., :1]).all():
            raise InputError(f"{record.file} holds colours: give grey images.")
        image = sitk.VectorIndexSelectionCast(image, 0)
    if image.GetDimension() == 4 and image.GetSize()[3] == 1:
        image = image[:, :, :, 0]
    if image.GetDimension() not in (2, 3):
        raise InputError(f"{record.file} has {image.GetDimension()} axes: give pictures or volumes, one per file.")
    if image.GetPixelID() in (sitk.sitkComplexFloat32, sitk.sitkComplexFloat64):
        raise InputError(f"{record.file} holds complex numbers: save the magnitude image.")
    if not np.isfinite(sitk.GetArrayViewFromImage(image)).all():
        raise InputError(f"{record.file} has voxels that are not numbers (NaN) or infinite: replace them by 0 where "
                         "nothing was scanned.")
    return image


# --- Inside ----------------------------------------------------------------------------------------------------------


def _fill(
    images: NDArray[np.float32], records: Sequence[ImageRecord], form: ImageForm, progress: Progress,
    cancel: CancelToken | None,
) -> tuple[str, tuple[float, ...] | None]:
    """Reads every record into its row; returns the scaling, which all have in common, and the usual spacing. That it is
    not the spacing of all is told as progress of the stage "warning"."""
    cancel, intensities, spacings, listed = cancel or CancelToken(), [], [], {}
    for i, record in enumerate(records):
        cancel.check()
        image = read_image(record, listed)
        images[i, 0] = form.fitted(image, record.name)
        intensities.append(_Intensities(
            (float(images[i].min()), float(images[i].max())), image.GetPixelID() == sitk.sitkUInt8,
            form.scaling == "auto" and below_0(images[i]) > 0))
        spacings.append(_spacing(image, record, form))
        progress("images", (i + 1) / len(records), f"{i + 1} of {len(records)} images")
    scaling = _common_scaling(records, intensities) if form.scaling == "auto" else form.scaling
    for i, record in enumerate(records):
        if form.scaling == "auto" and scaling == "byte":
            images[i] = images[i].clip(0, 255)  # smoothing goes a little beyond what bytes can hold
        images[i] = scaled(images[i], scaling, record.name)
    spacing, alike = _usual(spacings)
    if not alike:
        progress("warning", 1.0, f"The images' voxels differ in size: what the model generates gets their median, "
                                 f"{' × '.join(f'{side:.3g}' for side in spacing or ())} mm.")
    return scaling, spacing


@dataclass(frozen=True)
class _Intensities:
    """Of an image as stored: minimum and maximum, whether in 8 bits, and whether it is `below_0`."""

    range: tuple[float, float]
    bytes: bool
    negative: bool


def _common_scaling(records: Sequence[ImageRecord], intensities: Sequence[_Intensities]) -> str:
    """What "auto" means for all. Raises InputError where generated images alone would make it another."""

    def chosen(some: Sequence[_Intensities]) -> str:
        return choose_scaling([one.range for one in some], all(one.bytes for one in some),
                              any(one.negative for one in some))

    scaling = chosen(intensities)
    generated = [_is_made_up(record.tags.get(GENERATED_BY, "")) for record in records]
    real = [one for one, made in zip(intensities, generated, strict=True) if not made]
    if real and chosen(real) != scaling:
        raise InputError(f"{records[generated.index(True)].file}: generated images are stored on another scale than "
                         f"the others, so that all would be scaled by {scaling} instead of {chosen(real)}: generate "
                         "them anew, by 'medvae generate' with a model of such images, or leave them out.")
    return scaling


def _stored(
    store: Path, records: Sequence[ImageRecord], form: ImageForm, progress: Progress, cancel: CancelToken | None
) -> tuple[NDArray[np.float32], str, tuple[float, ...] | None]:
    """The store's array, made first unless it holds these very images."""
    notes, key = store.with_name(store.name + ".json"), _fingerprint(records, form)
    known = _known(notes) if store.exists() else {}
    if known.get("images") != key:
        if store.exists() and not notes.exists():
            raise InputError(f"{store} exists and holds something else: name another store.")
        with writing_to(store.parent, "data.store"):  # Windows replaces none that another training reads
            store.parent.mkdir(parents=True, exist_ok=True)
            with replaced(store) as partial:
                _check_room(partial.parent, len(records) * math.prod(form.shape) * 4, store)
                images = np.lib.format.open_memmap(partial, "w+", np.float32, (len(records), 1, *form.shape))
                try:
                    scaling, spacing = _fill(images, records, form, progress, cancel)
                    images.flush()
                except BaseException as error:
                    traceback.clear_frames(error.__traceback__)  # they hold it open: Windows would not remove it
                    raise
                finally:
                    del images
                _note(notes, {})  # killed between here and below, the next run fills it anew
            known = {"images": key, "scaling": scaling, "spacing_mm": spacing}
            _note(notes, known)
    spacing = known["spacing_mm"]
    return np.load(store, mmap_mode="r"), known["scaling"], None if spacing is None else tuple(spacing)


def _known(notes: Path) -> dict[str, Any]:
    """What is noted of a store; nothing where that cannot be read."""
    try:
        known = json.loads(notes.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _note(notes: Path, known: dict[str, object]) -> None:
    with replaced(notes) as partial:
        partial.write_text(json.dumps(known), encoding="utf-8")


def _check_room(folder: Path, size: int, store: Path) -> None:
    """Raises UsageError: a disk that is full while a mapped file is filled would end the process."""
    free = shutil.disk_usage(folder).free
    if free < size:
        raise UsageError(f"{store} needs {size / 2**30:.1f} GiB, and its disk has {free / 2**30:.1f} left: make room "
                         "there, or name another store.")


def _fingerprint(records: Iterable[ImageRecord], form: ImageForm) -> str:
    """Changes with any file, their order, or how they are brought to one form."""
    digest, seen = hashlib.sha256(json.dumps(asdict(form)).encode()), {}
    if form.scaling in ("auto", "percentile"):
        digest.update(b"values below 0 are kept or refused")  # older stores may have lost them
    for record in records:
        if record.file not in seen:
            files = list(files_below(record.file)) if record.file.is_dir() else [record.file]
            seen[record.file] = [(s.st_size, s.st_mtime_ns) for file in files if file.exists() and (s := file.stat())]
        digest.update(f"{record.name}|{record.series}|{seen[record.file]}\n".encode())
    return digest.hexdigest()


def _limited(records: list[ImageRecord], limit: int, seed: int) -> list[ImageRecord]:
    if not 0 < limit < len(records):
        return records
    chosen = np.random.default_rng(seed).permutation(len(records))[:limit]
    return [records[i] for i in sorted(chosen)]


def _spacing(image: sitk.Image, record: ImageRecord, form: ImageForm) -> tuple[float, ...] | None:
    """In the order of shape; pictures for screens do not know theirs, nor DICOM files that state none."""
    if record.index >= 0:
        return None
    if record.series or record.file.is_dir():  # whose size was checked
        known = True
    elif is_dicom_file(record.file):
        known = pixel_spacing(image) is not None or image.GetSpacing()[:2] != _PLACEHOLDER_MM
    else:
        known = record.file.suffix.lower() not in _SCREEN_SUFFIXES
    if not known:
        return None
    return form.grid(form.placed(image, record.name)).GetSpacing()[::-1]


def _usual(spacings: Sequence[tuple[float, ...] | None]) -> tuple[tuple[float, ...] | None, bool]:
    """The median, None where one is not known, and whether all known ones are like it."""
    if None in spacings:
        return None, True
    array = np.array(spacings)
    median = np.median(array, 0)
    return tuple(round(float(value), 6) for value in median), bool((np.abs(array / median - 1) < _SAME_SPACING).all())


def _column(records: Sequence[ImageRecord], name: str) -> list[Tag]:
    numbers = all(isinstance(record.tags.get(name, 0.0), float | int) for record in records)
    return [record.tags.get(name, float("nan") if numbers else "") for record in records]
