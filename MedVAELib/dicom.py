"""DICOM folders: which volumes they hold, the choice of one by name, and reading it with its geometry checked.

A volume is one image per slice position. A series with several images per position (b-values of a DWI, echoes) is
several volumes, told apart by the tag that differs; the frames of enhanced DICOM are such images, too. Tags that
identify the patient are never kept.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from .errors import InputError, UsageError
from .file_damage import MAX_SHEAR, text_name, unsaid_orientation

MIN_SLICES = 8
"""Series with fewer slices (localisers, screenshots) are never chosen on their own."""

SUFFIXES = (".dcm", ".ima")
# Storage classes of CT, MR (also enhanced), nuclear, secondary-capture and PET images, as the file's head states them.
_IMAGE_CLASS = re.compile(rb"1\.2\.840\.10008\.5\.1\.4\.1\.1\.(2|4|7|20|128)(\.[1-4])?[^.0-9]")
_KEPT_TAGS = {
    "modality": "0008|0060", "series_description": "0008|103e", "protocol": "0018|1030", "sequence": "0018|0024",
    "image_type": "0008|0008", "manufacturer": "0008|0070", "model": "0008|1090",
}
_KEPT_NUMBERS = {
    "repetition_time_ms": "0018|0080", "echo_time_ms": "0018|0081", "inversion_time_ms": "0018|0082",
    "field_strength_t": "0018|0087", "pixel_bandwidth_hz": "0018|0095",
}
_B_VALUE_TAGS = ("0018|9087", "0019|100c", "0043|1039")  # standard, Siemens, GE
_SPLIT_TAGS = {
    "b-value": "", "gradient": "0018|9089", "echo time": "0018|0081", "image type": "0008|0008",
    "time point": "0020|0100", "acquisition": "0020|0012",
}


_SLICE_DISTANCE_TAGS = ("0018|0088", "0018|0050")  # between slices, and else their thickness
# Of enhanced DICOM: the sequence and the element in it, per frame or shared by all.
_FRAME_NUMBERS = {
    "repetition_time_ms": ("MRTimingAndRelatedParametersSequence", "RepetitionTime"),
    "echo_time_ms": ("MREchoSequence", "EffectiveEchoTime"), "b_value": ("MRDiffusionSequence", "DiffusionBValue"),
}  # fmt: skip
_FRAME_SPLIT = {
    "b-value": ("MRDiffusionSequence", "DiffusionBValue"), "echo time": ("MREchoSequence", "EffectiveEchoTime"),
    "gradient": ("MRDiffusionSequence", "DiffusionDirectionality"),  # where it has no direction: none, or their mean
    "image type": ("MRImageFrameTypeSequence", "FrameType"),
    "time point": ("FrameContentSequence", "TemporalPositionIndex"),
    "acquisition": ("FrameContentSequence", "FrameAcquisitionNumber"),
}  # fmt: skip


@dataclass(frozen=True)
class _Slice:
    """A slice: a file, or a frame of one with several; a whole volume if these do not say where they lie.

    Geometry in LPS mm. sized, oriented: whether the file states the size of a voxel and how the patient lies; instance:
    its SOP instance; frame: which of the file's, None for all; scaled_alike: whether the file's frames have one rescale
    slope and intercept.
    """

    file: str
    size: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    origin_mm: np.ndarray
    direction: np.ndarray  # 3x3
    tags: dict[str, str | float]
    split: dict[str, str]
    uid: str
    components: int
    sized: bool
    oriented: bool
    instance: str
    frame: int | None = None
    scaled_alike: bool = True


@dataclass(frozen=True)
class DicomVolume:
    """One volume that a folder offers. `uid` is the series', `detail` what tells it from others of its series, `copies`
    how many files of its series were there once more."""

    uid: str
    description: str
    slices: tuple[_Slice, ...] = field(repr=False)
    detail: str = ""
    copies: int = 0

    @property
    def count(self) -> int:
        """Number of slices."""
        return sum(s.size[2] for s in self.slices)

    @property
    def label(self) -> str:
        return f"{self.description}, {self.detail}" if self.detail else self.description

    @property
    def tags(self) -> dict[str, str | float]:
        """Tags worth keeping, none of which identifies the patient."""
        return dict(self.slices[0].tags)


def find_volumes(path: Path) -> list[DicomVolume]:
    """All volumes in a folder and its sub-folders, in the order of their descriptions; or those of one file."""
    series: dict[str, list[_Slice]] = defaultdict(list)
    copies: Counter[str] = Counter()
    seen = set()
    for found in (found for file in _files(path) for found in _read_header(file)):
        # Not by the instance alone: some programs give all files of a patient the same one.
        key = (found.instance, found.uid, found.frame, *found.split.values(), *np.round(found.origin_mm, 2))
        if found.instance and key in seen:
            copies[found.uid] += not found.frame
            continue
        seen.add(key)
        # frames that do not say where they lie are a volume by themselves
        series[found.uid if found.size[2] == 1 else f"{found.uid} {found.file}"].append(found)
    volumes = [replace(volume, copies=copies[volume.uid]) for members in series.values() for volume in _split(members)]
    return sorted(volumes, key=lambda v: (v.description.lower(), v.uid, v.detail))


def choose_volume(path: Path, volumes: Sequence[DicomVolume],
                  series: str | int | None) -> tuple[DicomVolume, list[str]]:
    """The volume that `series` names: a series UID, a number in the list or a part of its description.

    Without `series` the only volume of at least MIN_SLICES slices is taken. Returns it with warnings about what was
    passed over and what its header leaves open. Raises UsageError, with the list, where the choice is not unique.
    """
    chosen, notes = _chosen(path, volumes, series)
    if chosen.copies:
        files = "1 file is a copy" if chosen.copies == 1 else f"{chosen.copies} files are copies"
        notes.append(f"{files} of others in {path.name} and passed over.")
    if not all(s.oriented for s in chosen.slices):
        notes.append(unsaid_orientation(path))
    return chosen, notes


def _chosen(path: Path, volumes: Sequence[DicomVolume], series: str | int | None) -> tuple[DicomVolume, list[str]]:
    offered = [v for v in volumes if v.count >= MIN_SLICES] or list(volumes)
    if series is None:
        if len(offered) > 1:
            raise UsageError(f"{path} holds {len(offered)} DICOM series, name one of them (--series): "
                             f"{_listing(offered)}.")  # fmt: skip
        left = [f"{v.label} ({v.count} slices)" for v in volumes if v is not offered[0]]
        return offered[0], ([f"Taken from {path.name}: {offered[0].label}; passed over: {', '.join(left)}."]
                            if left else [])
    wanted = str(series).strip()
    if wanted.isdecimal() and 1 <= int(wanted) <= len(offered):
        return offered[int(wanted) - 1], []
    matches = ([v for v in volumes if v.uid == wanted]
               or [v for v in volumes if wanted.lower() in (v.label.lower(), v.description.lower())]
               or [v for v in volumes if wanted and wanted.lower() in v.label.lower()])
    if len(matches) > 1:
        raise UsageError(f"{path} holds {len(matches)} DICOM series that '{wanted}' can mean, "
                         f"name one of: {_listing(offered)}.")
    if not matches:
        raise UsageError(f"{path} holds no DICOM series '{wanted}', only: {_listing(offered)}.")
    return matches[0], []


def read_volume(path: Path, volume: DicomVolume) -> sitk.Image:
    """The volume as a float32 image, rescale slope and intercept applied.

    Raises InputError if its slices form no regular grid.
    """
    if any(s.components != 1 for s in volume.slices):
        raise InputError(f"{path} ({volume.label}) holds colours: give a series with one intensity per voxel.")
    if len(volume.slices) == 1 and volume.count == 1 and path.is_file():
        raise InputError(f"{path} is a single DICOM slice: give the folder with the whole series.")
    if not all(s.sized for s in volume.slices):
        frames = " or where its frames lie" if len(volume.slices) == 1 else ""
        raise InputError(f"{path} ({volume.label}) does not state the size of a voxel{frames}: export it again.")
    if not all(s.scaled_alike for s in volume.slices):
        raise InputError(f"{path} ({volume.label}) stores its frames on different scales: convert it to NIfTI, for "
                         "example with dcm2niix.")  # fmt: skip
    if len(volume.slices) == 1:
        return _read_file(volume.slices[0].file)
    ordered, gap_mm = _checked_order(f"{path} ({volume.label})", volume)
    image = _read_frames(ordered) if ordered[0].frame is not None else _read_series(ordered)
    first = ordered[0]
    image.SetSpacing((first.spacing_mm[0], first.spacing_mm[1], gap_mm))
    image.SetOrigin(first.origin_mm.tolist())
    image.SetDirection(_right_handed(first.direction).ravel().tolist())
    return image


def _read_file(file: str) -> sitk.Image:
    return sitk.ReadImage(file, sitk.sitkFloat32, imageIO="GDCMImageIO")


def _read_series(ordered: Sequence[_Slice]) -> sitk.Image:
    reader = sitk.ImageSeriesReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileNames([s.file for s in ordered])
    reader.SetOutputPixelType(sitk.sitkFloat32)
    return reader.Execute()


def _read_frames(ordered: Sequence[_Slice]) -> sitk.Image:
    values = {file: sitk.GetArrayFromImage(_read_file(file)) for file in {s.file for s in ordered}}
    return sitk.GetImageFromArray(np.stack([values[s.file][s.frame] for s in ordered]))


def _files(path: Path) -> Iterator[str]:
    """DICOM files below a folder, in a stable order: known by their preamble or suffix. Raises InputError for one that
    cannot be opened or is cut off at its very start: without it the scan would have a gap."""
    if path.is_file():
        yield text_name(path)
        return
    for folder, folders, names in os.walk(path):
        folders.sort()
        for name in sorted(names):
            file = text_name(os.path.join(folder, name))
            suffix = Path(name).suffix.lower()
            try:
                with open(file, "rb") as opened:
                    start = opened.read(132)
            except OSError as error:
                if suffix in ("", *SUFFIXES):
                    raise InputError(f"{file} cannot be read ({error.strerror or 'input/output error'}): ask for "
                                     "permission to read it, or take it out of the folder.") from None  # fmt: skip
                continue
            if suffix in SUFFIXES and len(start) < 132:
                raise _damaged(file)
            if name.upper() != "DICOMDIR" and (start[128:] == b"DICM" or suffix in SUFFIXES):
                yield file


def _damaged(file: str) -> InputError:
    return InputError(f"{file} is damaged or truncated: copy it again, or take it out of the folder.")


def _is_image(file: str) -> bool:
    """Whether the file says that it holds an image of a scanner: then one that cannot be read is damaged."""
    with open(file, "rb") as opened:
        return _IMAGE_CLASS.search(opened.read(1024)) is not None


def _read_header(file: str) -> list[_Slice]:
    """Geometry and tags of one file, or of its frames; none for what holds no image (reports, structure sets)."""
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.LoadPrivateTagsOn()  # b-values of older scanners
    reader.SetFileName(file)
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        if _is_image(file):
            raise _damaged(file) from None
        return []
    size = reader.GetSize()
    if len(size) != 3 or min(size) < 1 or not reader.HasMetaDataKey("0028|0010"):
        return []

    def text(tag: str) -> str:
        # odd bytes in one tag must not lose the slice
        try:
            return " ".join(reader.GetMetaData(tag).split("\x00")[0].split()) if reader.HasMetaDataKey(tag) else ""
        except UnicodeDecodeError:
            return ""

    tags: dict[str, str | float] = {name: text(tag) for name, tag in _KEPT_TAGS.items() if text(tag)}
    tags |= {name: number for name, tag in _KEPT_NUMBERS.items() if (number := _number(text(tag))) is not None}
    b_value = next((b for tag in _B_VALUE_TAGS if (b := _number(text(tag))) is not None), None)
    if b_value is not None:
        tags["b_value"] = b_value % 1e9  # GE adds 10^9 as a mark
    split = {name: text(tag) for name, tag in _SPLIT_TAGS.items() if tag}
    split["b-value"] = f"{tags['b_value']:g}" if "b_value" in tags else ""
    sized = _states_size(reader, text)
    # In nuclear medicine the axes are elsewhere, where GDCM finds them.
    oriented = bool(text("0020|0037")) or not np.allclose(reader.GetDirection(), np.eye(3).ravel())
    found = _Slice(file, size, reader.GetSpacing(), np.array(reader.GetOrigin()),
                   np.array(reader.GetDirection()).reshape(3, 3), tags, split, text("0020|000e"),
                   reader.GetNumberOfComponents(), sized, oriented, text("0008|0018"))  # fmt: skip
    if size[2] == 1 and sized:
        return [found]
    try:
        return _frames(found) or [found]
    except Exception:  # pydicom raises whatever it trips over: sequences that are damaged tell nothing
        return [found]


def _states_size(reader: sitk.ImageFileReader, text: Callable[[str], str]) -> bool:
    """Whether the spacing that GDCM reports is the file's own: where it finds none, or in some kinds of files does not
    look, it silently says 1 mm."""
    if reader.GetSize()[2] == 1:
        return bool(text("0028|0030"))
    in_plane = [_number(part) for part in text("0028|0030").split("\\")][::-1]
    between = next((number for tag in _SLICE_DISTANCE_TAGS if (number := _number(text(tag))) is not None), None)
    stated = [*in_plane, between]
    return len(stated) == 3 and None not in stated and np.allclose(stated, reader.GetSpacing(), rtol=1e-3)


def _frames(whole: _Slice) -> list[_Slice]:
    """The frames of an enhanced DICOM file; none where it does not say of each where it lies.

    SimpleITK gives no access to the sequences that say so; it takes frames for equally spaced in the order in which
    they are stored, which they need not be.
    """
    import pydicom

    header = pydicom.dcmread(whole.file, stop_before_pixels=True, force=True)
    frames = header.get("PerFrameFunctionalGroupsSequence") or []
    shared = (header.get("SharedFunctionalGroupsSequence") or [pydicom.Dataset()])[0]
    if len(frames) != whole.size[2]:
        return []

    def stated(frame: pydicom.Dataset, sequence: str, element: str) -> object:
        items = [item for group in (frame, shared) for item in group.get(sequence) or []]
        return next((item.get(element) for item in items if item.get(element) not in (None, "")), None)

    scales = {(stated(frame, "PixelValueTransformationSequence", "RescaleSlope"),
               stated(frame, "PixelValueTransformationSequence", "RescaleIntercept")) for frame in frames}  # fmt: skip
    found = []
    for index, frame in enumerate(frames):
        position = stated(frame, "PlanePositionSequence", "ImagePositionPatient")
        axes = stated(frame, "PlaneOrientationSequence", "ImageOrientationPatient")
        if position is None or len(position) != 3 or axes is None or len(axes) != 6:
            return []
        rows, columns = np.reshape(np.array(axes, float), (2, 3))
        spacing = stated(frame, "PixelMeasuresSequence", "PixelSpacing") or (1.0, 1.0)
        numbers = {name: float(value) for name, place in _FRAME_NUMBERS.items()
                   if (value := stated(frame, *place)) is not None}  # fmt: skip
        split = {name: text for name, place in _FRAME_SPLIT.items() if (text := _in_words(stated(frame, *place)))}
        directions = stated(frame, "MRDiffusionSequence", "DiffusionGradientDirectionSequence")
        if directions:
            split["gradient"] = _in_words(directions[0].get("DiffusionGradientOrientation"))
        found.append(replace(
            whole, size=(*whole.size[:2], 1), spacing_mm=(float(spacing[1]), float(spacing[0]), 1.0),
            origin_mm=np.array(position, float), direction=np.column_stack([rows, columns, np.cross(rows, columns)]),
            tags=whole.tags | numbers, split=whole.split | split, frame=index,
            sized=stated(frame, "PixelMeasuresSequence", "PixelSpacing") is not None, oriented=True,
            scaled_alike=len(scales) == 1,
        ))  # fmt: skip
    return found


def _in_words(value: object) -> str:
    """A tag's value, several of them with a backslash between, as DICOM has them."""
    if value is None or isinstance(value, str):
        return value or ""
    several = value if isinstance(value, Sequence) else [value]
    return "\\".join(f"{part:g}" if isinstance(part, float) else str(part) for part in several)


def _number(text: str) -> float | None:
    try:
        value = float(text.split("\\")[0])
    except ValueError:
        return None
    return value if np.isfinite(value) else None


def _split(slices: list[_Slice]) -> list[DicomVolume]:
    """One series as volumes with one image per position; as one volume if no tag tells its images apart."""
    description = str(slices[0].tags.get("series_description") or slices[0].tags.get("protocol") or "unnamed")
    uid = slices[0].uid
    whole = DicomVolume(uid, description, tuple(slices))
    if not _has_repeats(slices):
        return [whole]
    for names in (("b-value",), ("echo time",), ("image type",), ("time point",), ("acquisition",),
                  ("b-value", "image type"), ("b-value", "gradient"), ("b-value", "acquisition"), ("file",)):
        groups: dict[str, list[_Slice]] = defaultdict(list)
        for found in slices:
            # A file of its own tells frames apart, never single slices.
            told = found.split if found.frame is None else found.split | {"file": os.path.basename(found.file)}
            groups[", ".join(f"{name} {told.get(name) or 'none'}" for name in names)].append(found)
        if len(groups) > 1 and not any(_has_repeats(group) for group in groups.values()):
            return [DicomVolume(uid, description, tuple(group), detail) for detail, group in groups.items()]
    return [whole]


def _has_repeats(slices: Sequence[_Slice]) -> bool:
    """Whether two images of one orientation lie at one position."""
    keys = [tuple(np.round(np.append(s.origin_mm, s.direction.ravel()), 2)) for s in slices]
    return len(set(keys)) < len(keys)


def _right_handed(direction: np.ndarray) -> np.ndarray:
    """In-plane axes with the normal that slices are ordered along."""
    rows, columns = direction[:, 0], direction[:, 1]
    return np.column_stack([rows, columns, np.cross(rows, columns)])


def _checked_order(name: str, volume: DicomVolume) -> tuple[list[_Slice], float]:
    """Slices along their normal and the distance between them in mm. Raises InputError if they form no grid."""
    first = volume.slices[0]
    if any("MOSAIC" in str(s.tags.get("image_type", "")) for s in volume.slices):
        raise InputError(f"{name} stores its slices as mosaics: convert it to NIfTI, for example with dcm2niix.")
    if any(s.size != first.size for s in volume.slices):
        raise InputError(f"{name} mixes slices of different sizes: export the series on its own.")
    if any(np.abs(s.direction - first.direction).max() > 1e-3 for s in volume.slices):
        raise InputError(f"{name} mixes slices of different orientations, as a localiser does: give a 3D series.")
    if any(not np.allclose(s.spacing_mm[:2], first.spacing_mm[:2], rtol=1e-3) for s in volume.slices):
        raise InputError(f"{name} mixes slices of different pixel spacings: export the series on its own.")
    normal = _right_handed(first.direction)[:, 2]
    ordered = sorted(volume.slices, key=lambda s: float(s.origin_mm @ normal))
    steps = np.diff([s.origin_mm for s in ordered], axis=0)
    gaps = steps @ normal
    gap = float(np.median(gaps))
    if np.any(gaps < 0.01):
        raise InputError(f"{name} holds several images at the same slice position and no tag tells the volumes apart: "
                         "convert it to NIfTI, for example with dcm2niix, and choose one volume.")
    if np.any(np.abs(gaps - gap) > 0.05 * gap + 0.02):
        raise InputError(f"{name} has slices missing, the distance between them varies from {gaps.min():.2f} to "
                         f"{gaps.max():.2f} mm: export the complete series.")
    if np.any(np.linalg.norm(steps - gaps[:, None] * normal, axis=1) > MAX_SHEAR * gap):
        raise InputError(f"{name} was scanned with a tilted gantry, its slices are shifted against each other: "
                         "resample it to a rectangular grid.")
    return ordered, float(gaps.mean())


def _listing(volumes: Sequence[DicomVolume], most: int = 20) -> str:
    entries = [f"{i}: {v.label} ({v.count} slices)" for i, v in enumerate(volumes[:most], 1)]
    if len(volumes) > most:
        entries.append(f"and {len(volumes) - most} more")
    return "; ".join(entries)


__all__ = ["MIN_SLICES", "DicomVolume", "choose_volume", "find_volumes", "read_volume"]
