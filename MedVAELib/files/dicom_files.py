"""DICOM files one by one: which files below a folder are DICOM, and the slices that each holds, with geometry and tags.

Tags that identify the patient are never kept: whose a file is stays in memory alone, as a salted hash.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ..errors import InputError
from .file_damage import text_name
from .folders import files_below, unreadable
from .itk_files import itk_name

SUFFIXES = (".dcm", ".ima")
_CLASS = re.compile(rb"1\.2\.840\.10008\.5\.1\.4\.1\.1\.([.0-9]+)")
# Storage classes of CT, MR (also enhanced), nuclear, secondary-capture and PET images; 4.2 are spectra.
_IMAGE_CLASS = re.compile(rb"(?!4\.2$)(2|4|7|20|128)(\.[1-4])?")
_KEPT_TAGS = {
    "modality": "0008|0060", "series_description": "0008|103e", "protocol": "0018|1030", "sequence": "0018|0024",
    "image_type": "0008|0008", "manufacturer": "0008|0070", "model": "0008|1090",
}
_KEPT_NUMBERS = {
    "repetition_time_ms": "0018|0080", "echo_time_ms": "0018|0081", "inversion_time_ms": "0018|0082",
    "field_strength_t": "0018|0087", "pixel_bandwidth_hz": "0018|0095",
}
SCANNER_TAGS = frozenset({*_KEPT_TAGS, *_KEPT_NUMBERS, "b_value"})
"""What tags of a slice are called."""
_B_VALUE_TAGS = ("0018|9087", "0019|100c", "0043|1039", "2001|1003")  # standard, Siemens, GE, Philips
_GRADIENT_TAGS = ("0018|9089", "0019|100e", "0043|1030")  # standard, Siemens, GE
_SPLIT_TAGS = {
    "b-value": "", "gradient": "", "echo time": "0018|0081", "image type": "0008|0008",
    "time point": "0020|0100", "acquisition": "0020|0012",
}
_NOBODY = re.compile(r"[\W_0x]*|anon\D*|\W*(unknown|undefined|null|none|n/?a|no.?(id|name)|removed|de-?identified"
                     r"|(phantom|test)([\W_]*(id|name|patient))?)\W*", re.IGNORECASE)
"""PatientIDs that stand where one was taken out, the same for everybody; with a number, as ANON01, they may tell people
apart."""
_SALT = secrets.token_bytes(16)
PIXEL_SPACING = "0028|0030"
_CHARACTERS = "0008|0005"
_BARE = tuple(b"\x08\0" + element for element in (b"\0\0", b"\x01\0", b"\x05\0", b"\x08\0", b"\x16\0"))
"""How DICOM without a preamble begins, as old archives keep it: with an element of group 8."""
_SLICE_DISTANCE_TAGS = ("0018|0088", "0018|0050")  # between slices, and else their thickness
# Of enhanced DICOM: the sequence and the element in it, per frame or shared by all.
_FRAME_NUMBERS = {
    "repetition_time_ms": ("MRTimingAndRelatedParametersSequence", "RepetitionTime"),
    "echo_time_ms": ("MREchoSequence", "EffectiveEchoTime"), "b_value": ("MRDiffusionSequence", "DiffusionBValue"),
}
_FRAME_SPLIT = {
    "b-value": ("MRDiffusionSequence", "DiffusionBValue"), "echo time": ("MREchoSequence", "EffectiveEchoTime"),
    "gradient": ("MRDiffusionSequence", "DiffusionDirectionality"),  # where it has no direction: none, or their mean
    "image type": ("MRImageFrameTypeSequence", "FrameType"),
    "time point": ("FrameContentSequence", "TemporalPositionIndex"),
    "acquisition": ("FrameContentSequence", "FrameAcquisitionNumber"),
}


@dataclass(frozen=True)
class Slice:
    """A slice: a file, or a frame of one with several; a whole volume if these do not say where they lie.

    Geometry in LPS mm. sized, oriented: whether the file states the size of a voxel and how the patient lies; instance:
    its SOP instance; frame: which of the file's, None for all; scaled_alike: whether the file's frames have one rescale
    slope and intercept; patient: the same for what has one PatientID, or without it one study, within this process;
    study: the same for one study, where it is stated.
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
    patient: str = ""
    study: str = ""


def dicom_files(path: Path, below: bool = True) -> Iterator[str]:
    """DICOM files in a folder and, unless not `below`, in its sub-folders, in a stable order: known by their preamble,
    suffix or first element. Raises InputError for one, or a folder, that cannot be opened, or one that is cut off at
    its very start: without it the scan would have a gap."""
    if path.is_file():
        yield text_name(path)
        return
    for found in files_below(path, below):
        file, suffix = text_name(found), found.suffix.lower()
        try:
            with open(file, "rb") as opened:
                start = opened.read(132)
        except OSError as error:
            if suffix in ("", *SUFFIXES):
                raise unreadable(error) from None
            continue
        if suffix in SUFFIXES and len(start) < 132:
            raise _damaged(file)
        known = start[128:] == b"DICM" or suffix in SUFFIXES or start.startswith(_BARE)
        if known and found.name.upper() != "DICOMDIR":
            yield file


def _damaged(file: str) -> InputError:
    return InputError(f"{file} is damaged or truncated, or compressed in an unknown way: copy or export it again, or "
                      "take it out of the folder.")


def _is_image(file: str) -> bool:
    """Whether the file says that it holds an image of a scanner: then one that cannot be read is damaged. Raises
    InputError for one that cannot be opened."""
    try:
        with open(file, "rb") as opened:
            stated = _CLASS.search(opened.read(1024))  # the first: others are of images that it refers to
    except OSError as error:
        raise unreadable(error) from None
    return stated is not None and _IMAGE_CLASS.fullmatch(stated[1]) is not None


def read_slices(file: str) -> list[Slice]:
    """Geometry and tags of one file, or of its frames; none for what holds no image (reports, structure sets)."""
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.LoadPrivateTagsOn()  # b-values of older scanners
    reader.SetFileName(itk_name(file))
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
        return " ".join(_letters(reader, tag).split("\x00")[0].split()) if reader.HasMetaDataKey(tag) else ""

    tags: dict[str, str | float] = {name: text(tag) for name, tag in _KEPT_TAGS.items() if text(tag)}
    tags |= {name: number for name, tag in _KEPT_NUMBERS.items() if (number := _number(text(tag))) is not None}
    b_value = next((b for tag in _B_VALUE_TAGS if (b := _number(text(tag))) is not None), None)
    if b_value is not None:
        tags["b_value"] = b_value % 1e9  # GE adds 10^9 as a mark
    split = {name: text(tag) for name, tag in _SPLIT_TAGS.items() if tag}
    split["gradient"] = next((value for tag in _GRADIENT_TAGS if (value := text(tag))), "")
    split["b-value"] = f"{tags['b_value']:g}" if "b_value" in tags else ""
    sized, spacing, in_plane = _states_size(reader, text), reader.GetSpacing(), pixel_spacing(reader)
    if in_plane is not None and size[2] == 1:
        spacing = (*in_plane[::-1], spacing[2])
    # In nuclear medicine the axes are elsewhere, where GDCM finds them.
    oriented = bool(text("0020|0037")) or not np.allclose(reader.GetDirection(), np.eye(3).ravel())
    found = Slice(file, size, spacing, np.array(reader.GetOrigin()),
                   np.array(reader.GetDirection()).reshape(3, 3), tags, split, text("0020|000e"),
                   reader.GetNumberOfComponents(), sized, oriented, text("0008|0018"),
                   patient=_hashed(text("0010|0020"), text("0020|000d")),
                   study=_hashed("", text("0020|000d")))
    if size[2] == 1 and sized:
        return [found]
    try:
        return _frames(found) or [found]
    except Exception:  # pydicom raises whatever it trips over: sequences that are damaged tell nothing
        return [found]


def _letters(reader: sitk.ImageFileReader, tag: str) -> str:
    """A tag as text that any file can be written with: bytes that are no UTF-8 come from SimpleITK as lone surrogates.
    """
    try:
        raw = reader.GetMetaData(tag).encode("utf-8", "surrogateescape")
    except UnicodeError:  # odd bytes in one tag must not lose the slice
        return ""
    if raw.isascii() and b"\x1b" not in raw:  # in Japanese letters may be escaped
        return raw.decode()
    from pydicom.charset import convert_encodings, decode_bytes

    names = reader.GetMetaData(_CHARACTERS).strip() if reader.HasMetaDataKey(_CHARACTERS) else ""
    try:
        encodings = convert_encodings([name.strip() for name in names.split("\\")])
        return decode_bytes(raw, encodings, set()) if names else raw.decode()
    except (LookupError, UnicodeError):
        return raw.decode("utf-8", "replace")


def pixel_spacing(header: sitk.ImageFileReader | sitk.Image) -> tuple[float, float] | None:
    """(row, column) spacing in mm that a DICOM file states for all of its pixels; None where it states none, or 0."""
    pair = two_numbers(header, PIXEL_SPACING)
    return pair if pair is not None and min(pair) > 0 and all(map(np.isfinite, pair)) else None


def spaced(image: sitk.Image) -> sitk.Image:
    """The image of a DICOM file, changed to have its pixel spacing: of radiographs GDCM takes that at the detector even
    where the pixels' own is stated, and 1 mm where it alone is."""
    pair = pixel_spacing(image)
    if pair is not None:
        image.SetSpacing((*pair[::-1], *image.GetSpacing()[2:]))
    return image


def two_numbers(header: sitk.ImageFileReader | sitk.Image, tag: str) -> tuple[float, float] | None:
    """Of a DICOM tag that holds first what concerns rows, then columns; None where they are not there."""
    try:
        first, second = (float(text) for text in header.GetMetaData(tag).split("\\")[:2])
    except (ValueError, RuntimeError):
        return None
    return first, second


def _hashed(patient_id: str, study: str) -> str:
    """"" where neither is stated."""
    owner = f"study {study}" * bool(study) if _NOBODY.fullmatch(patient_id) else f"patient {patient_id}"
    return hashlib.blake2b(owner.encode(), key=_SALT, digest_size=16).hexdigest() if owner else ""


def _states_size(reader: sitk.ImageFileReader, text: Callable[[str], str]) -> bool:
    """Whether a slice states the spacing of its pixels, or of a volume the spacing that GDCM reports is the file's own:
    where it finds none, or in some kinds of files does not look, it silently says 1 mm."""
    in_plane = pixel_spacing(reader)
    if in_plane is None or reader.GetSize()[2] == 1:
        return in_plane is not None
    between = next((number for tag in _SLICE_DISTANCE_TAGS if (number := _number(text(tag))) is not None), None)
    return between is not None and np.allclose((*in_plane[::-1], between), reader.GetSpacing(), rtol=1e-3)


def _frames(whole: Slice) -> list[Slice]:
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
               stated(frame, "PixelValueTransformationSequence", "RescaleIntercept")) for frame in frames}
    found = []
    for index, frame in enumerate(frames):
        position = stated(frame, "PlanePositionSequence", "ImagePositionPatient")
        axes = stated(frame, "PlaneOrientationSequence", "ImageOrientationPatient")
        if position is None or len(position) != 3 or axes is None or len(axes) != 6:
            return []
        rows, columns = np.reshape(np.array(axes, float), (2, 3))
        spacing = stated(frame, "PixelMeasuresSequence", "PixelSpacing") or (1.0, 1.0)
        numbers = {name: float(value) for name, place in _FRAME_NUMBERS.items()
                   if (value := stated(frame, *place)) is not None}
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
        ))
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
