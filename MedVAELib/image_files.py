"""What an image file claims against what it holds: the damage that image readers pass over in silence.

SimpleITK reads a truncated NIfTI file without an error, replaces NaN and Inf in NIfTI data by 0 and a zero voxel size
by 1 mm, and prefers one of two contradicting orientations; others of its errors are a page long. Everything here
raises `InputError` with one sentence that names the file and says what to do.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from .errors import InputError

MAX_SHEAR = 1e-2
"""Largest |cosine| between two index axes (and deviation of an axis' length from 1) taken for rounding."""

_ITK_SHEAR = 1e-4  # above it ITK leaves the sform for the qform

MAX_NONFINITE_FRACTION = 1e-4
"""Up to this share of voxels that are NaN or infinite is replaced by 0 with a warning; more is refused."""

_CHUNK = 1 << 20
_ANATOMICAL = ("ras", "las", "lps", "right", "left")
_NIFTI_FLOATS = {16: "f4", 64: "f8"}
_NRRD_BYTES = {"char": 1, "uchar": 1, "int8": 1, "uint8": 1, "short": 2, "ushort": 2, "int16": 2, "uint16": 2, "int": 4,
               "uint": 4, "int32": 4, "uint32": 4, "float": 4, "int64": 8, "uint64": 8, "double": 8}
_META_BYTES = {"MET_CHAR": 1, "MET_UCHAR": 1, "MET_SHORT": 2, "MET_USHORT": 2, "MET_INT": 4, "MET_UINT": 4,
               "MET_FLOAT": 4, "MET_DOUBLE": 8, "MET_LONG_LONG": 8, "MET_ULONG_LONG": 8}


@dataclass(frozen=True)
class FileNotes:
    """What the checks found worth knowing about a usable file."""

    warnings: tuple[str, ...] = ()
    nearest: NDArray[np.float64] | None = None
    """Of a NIfTI orientation off by rounding: the direction (3, 3), LPS, of the rectangular grid next to it. ITK has to
    be told to accept such a file, and then takes the inverse of that direction (mended by ITK pull request 4847)."""
    states_spacing: bool = True  # False where a NRRD or MetaImage header leaves out the voxel size


def text_name(path: str | Path) -> str:
    """Raises InputError for a name that is no UTF-8."""
    name = str(path)
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise InputError(f"{ascii(name)} has a name that is no UTF-8: rename it.") from None
    return name


def check_file(path: Path) -> FileNotes:
    """Checks that a file exists, can be opened and holds all the data that its header declares.

    NIfTI-1 (single file and pair), NRRD and MetaImage are checked byte for byte, compressed or not, JPEG and BMP for
    their end; for other formats only existence and emptiness are. Raises InputError.
    """
    text_name(path)
    try:
        if not path.exists():
            raise InputError(f"{path} does not exist: check the path.")
        if path.stat().st_size == 0:
            raise InputError(f"{path} is empty: copy or export it again.")
        with path.open("rb") as file:
            start = file.read(8)
        suffixes = "".join(path.suffixes[-2:]).lower()
        if suffixes.endswith((".nii", ".nii.gz", ".hdr", ".img", ".img.gz", ".hdr.gz")):
            return _check_nifti(path, start)
        if start.startswith(b"NRRD"):
            return _check_nrrd(path)
        if suffixes.endswith((".mha", ".mhd")):
            return _check_meta(path)
        if start.startswith((b"\xff\xd8", b"BM")):
            _check_picture(path)
        if suffixes.endswith((".vtk", ".gipl", ".gipl.gz")):
            return FileNotes((unsaid_orientation(path),))
    except PermissionError:
        raise InputError(f"{path} may not be read: ask for permission to read it, or copy it.") from None
    except ValueError:  # text where the header should hold a number
        raise InputError(f"{path} has a damaged header: export it again.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or 'input/output error'}): copy it again.") from None
    return FileNotes()


def _check_picture(path: Path) -> None:
    """Refuses a JPEG or BMP that ends early: readers fill up what is missing without a word."""
    content = path.read_bytes()
    if content.startswith(b"BM"):
        declared = struct.unpack_from("<I", content, 2)[0] if len(content) >= 6 else 0
        if len(content) < declared:
            raise _truncated(path, len(content), declared)
    elif content.rfind(b"\xff\xd9") < content.rfind(b"\xff\xda"):  # no end of image after the last start of a scan
        raise InputError(f"{path} is truncated, the picture ends early: copy or export it again.")


def _truncated(path: Path, found: int, expected: int) -> InputError:
    return InputError(f"{path} is truncated, it holds {found} of the {expected} bytes that its header declares: "
                      "copy or export it again.")


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


@contextlib.contextmanager
def _gzip_errors(path: Path) -> Iterator[None]:
    """Says in one sentence what is wrong with compressed data that is read inside."""
    try:
        yield
    except EOFError:
        raise InputError(f"{path} is truncated, its compressed data ends early: copy or export it again.") from None
    except (gzip.BadGzipFile, zlib.error):
        raise InputError(f"{path} is damaged, its compressed data does not match its checksum: "
                         "copy or export it again.") from None


def _count_gzip(path: Path, file: BinaryIO) -> int:
    """Bytes of data in the gzip stream that starts at the file's position; its checksum is verified."""
    count = 0
    with _gzip_errors(path), gzip.GzipFile(fileobj=file) as stream:
        while chunk := stream.read(_CHUNK):
            count += len(chunk)
    return count


def judge_nonfinite(name: str, nan: int, infinite: int, total: int) -> tuple[str, ...]:
    """A warning about voxels that are no finite numbers, () without any; raises InputError if they are many."""
    bad = nan + infinite
    if bad == 0:
        return ()
    if bad > MAX_NONFINITE_FRACTION * total:
        kind = "not numbers (NaN)" if nan >= infinite else "infinite"
        raise InputError(f"{name} has {100 * bad / total:.3g} % of its voxels {kind}: replace them, by 0 where "
                         "nothing was scanned, or export it again.")
    return (f"{name} has {bad} voxels that are not finite numbers: they were set to 0.",)


# --- NIfTI ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _NiftiHeader:
    order: str  # byte order, "<" or ">"
    magic: bytes
    dim: tuple[int, ...]
    datatype: int
    bitpix: int
    pixdim: tuple[float, ...]
    vox_offset: float
    qform_code: int
    sform_code: int
    quaternion: tuple[float, ...]
    qoffset: tuple[float, ...]
    sform: np.ndarray  # 3x4
    intent_code: int

    @property
    def qform(self) -> np.ndarray:
        """From voxel indices to RAS mm, 3x4, as the quaternion says it."""
        b, c, d = self.quaternion
        a = math.sqrt(max(0.0, 1.0 - b * b - c * c - d * d))
        turn = np.array([[a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
                         [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
                         [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c]])  # fmt: skip
        sizes = np.array(self.pixdim[1:4]) * (1, 1, -1 if self.pixdim[0] < 0 else 1)
        return np.column_stack([turn * sizes, self.qoffset])


def _parse_nifti(path: Path, header: bytes) -> _NiftiHeader:
    """Fields of a NIfTI-1 or Analyze 7.5 header, in either byte order."""
    for order in "<>":
        size = struct.unpack_from(f"{order}i", header)[0] if len(header) >= 4 else 0
        if size == 540:
            raise InputError(f"{path} is in the NIfTI-2 format, which cannot be read: convert it to NIfTI-1.")
        if size == 348 and len(header) >= 348:
            def field(form: str, offset: int, order: str = order) -> tuple:
                return struct.unpack_from(order + form, header, offset)

            return _NiftiHeader(
                order=order, magic=header[344:348], dim=field("8h", 40), datatype=field("h", 70)[0],
                bitpix=field("h", 72)[0], pixdim=field("8f", 76), vox_offset=field("f", 108)[0],
                qform_code=field("h", 252)[0], sform_code=field("h", 254)[0],
                quaternion=field("3f", 256), qoffset=field("3f", 268),
                sform=np.array(field("12f", 280)).reshape(3, 4), intent_code=field("h", 68)[0])
    raise InputError(f"{path} has no NIfTI header, its content is something else or damaged: "
                     "export the scan again as NIfTI.")


def _nifti_pair(path: Path) -> tuple[Path, Path]:
    """(header file, data file) of a .hdr/.img pair, named by either; both the same for a single file."""
    name = path.name
    bare = name[:-3] if name.lower().endswith(".gz") else name
    if bare.lower().endswith(".nii"):
        return path, path
    stem = bare[:-4]
    found = {kind: [path.with_name(stem + kind + gz) for gz in ("", ".gz") if path.with_name(stem + kind + gz).exists()]
             for kind in (".hdr", ".img")}
    for kind, what in ((".hdr", "header"), (".img", "data")):
        if not found[kind]:
            raise InputError(f"{path} needs its {what} file {stem + kind} beside it: copy both files.")
    return found[".hdr"][0], found[".img"][0]


def _check_nifti(path: Path, start: bytes) -> FileNotes:
    if start.startswith(b"\x1f\x8b") and not path.name.lower().endswith(".gz"):
        raise InputError(f"{path} is gzip-compressed but not named so: rename it to {path.name}.gz.")
    header_file, data_file = _nifti_pair(path)
    opened = gzip.open if _is_gzip(header_file) else open
    try:
        with opened(header_file, "rb") as file:
            header = _parse_nifti(path, file.read(348))
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise InputError(f"{path} is truncated or damaged, its compressed header cannot be read: "
                         "copy or export it again.") from None
    axes = header.dim[0]
    if not 1 <= axes <= 7 or any(n < 1 for n in header.dim[1 : axes + 1]):
        raise InputError(f"{path} declares an impossible image size {header.dim[1:5]}: export it again.")
    if not math.isfinite(header.vox_offset):
        raise InputError(f"{path} has a damaged header, its data offset is no number: export it again.")
    _check_nifti_intent(path, header.intent_code)
    for length in header.pixdim[1 : min(axes, 3) + 1]:
        if not (math.isfinite(length) and length > 0):  # the reader would take 1 mm without a word
            raise InputError(f"{path} has an impossible voxel size {_numbers(header.pixdim[1:4])}: "
                             "correct its header or export it again.")
    warnings = _check_nifti_data(path, data_file, header)
    orientation = _nifti_orientation(path, header)
    return replace(orientation, warnings=orientation.warnings + warnings)


def _check_nifti_data(path: Path, data_file: Path, header: _NiftiHeader) -> tuple[str, ...]:
    """Reads the data once: its length, its checksum if compressed, and its values if they are floating-point."""
    offset = max(int(header.vox_offset), 0)
    voxels = math.prod(header.dim[1 : header.dim[0] + 1])
    expected = offset + voxels * header.bitpix // 8
    kind = _NIFTI_FLOATS.get(header.datatype)
    if not _is_gzip(data_file):
        found = data_file.stat().st_size
        if found < expected:
            raise _truncated(path, found, expected)
        if kind is None:
            return ()
    nan = infinite = 0
    with data_file.open("rb") as raw:
        stream = gzip.GzipFile(fileobj=raw) if _is_gzip(data_file) else raw
        with _gzip_errors(path):
            found = len(stream.read(offset))
            while chunk := stream.read(_CHUNK):
                if kind is not None:
                    values = np.frombuffer(chunk, header.order + kind, max(min(len(chunk), expected - found), 0)
                                           // int(kind[1]))
                    if not np.isfinite(values).all():
                        nan += int(np.isnan(values).sum())
                        infinite += int(np.isinf(values).sum())
                found += len(chunk)
    if found < expected:
        raise _truncated(path, found, expected)
    return judge_nonfinite(str(path), nan, infinite, voxels)


def _check_nifti_intent(path: Path, code: int) -> None:
    if code == 1002:
        raise InputError(f"{path} says that it is a label map: give the scan itself.")
    if 2 <= code <= 24 and code != 5:  # 5, z-score, may well be a normalised scan
        raise InputError(f"{path} says that it is a statistical map: give the scan itself.")


def _nifti_orientation(path: Path, header: _NiftiHeader) -> FileNotes:
    """Whether the header knows where the patient is, and does not contradict itself."""
    if header.magic[:3] not in (b"n+1", b"ni1", b"n+2", b"ni2"):
        return FileNotes((f"{path.name} is in the old Analyze format, which does not say how the patient lies: "
                          "left and right may be exchanged.",))
    if header.qform_code <= 0 and header.sform_code <= 0:
        return FileNotes((unsaid_orientation(path),))
    if header.sform_code <= 0:
        return FileNotes()
    columns = header.sform[:, :3]
    lengths = np.linalg.norm(columns, axis=0)
    if not np.all(np.isfinite(header.sform)) or np.any(lengths == 0):
        raise InputError(f"{path} has a damaged orientation (sform): export it again.")
    cosines = (columns / lengths).T @ (columns / lengths)
    shear = float(np.abs(cosines - np.eye(3)).max())
    stretched = bool(np.any(np.abs(lengths / np.abs(np.array(header.pixdim[1:4])) - 1) > 0.05))
    if header.qform_code > 0:
        used = "sform" if header.sform_code == 1 and shear < _ITK_SHEAR else "qform"  # as ITK decides
        _refuse_mirrored(path, header)
        if shear > MAX_SHEAR or stretched:
            return FileNotes((f"The two orientations of {path.name} (qform and sform) contradict each other: "
                              f"the {used} and the voxel size are used.",))
        return _two_orientations(path, header, used)
    if shear > MAX_SHEAR:
        raise InputError(f"{path} has sheared axes (its direction cosines are not orthonormal): "
                         "resample it to a rectangular grid.")
    if stretched:
        raise InputError(f"{path} contradicts itself on its voxel size, {_numbers(header.pixdim[1:4])} mm and "
                         f"{_numbers(lengths)} mm: correct its header or export it again.")
    u, _, vt = np.linalg.svd(columns / lengths)
    return FileNotes(nearest=np.diag([-1.0, -1.0, 1.0]) @ u @ vt if shear > 1e-5 else None)


def _refuse_mirrored(path: Path, header: _NiftiHeader) -> None:
    if np.linalg.det(header.qform[:, :3]) * np.linalg.det(header.sform[:, :3]) < 0:
        raise InputError(f"{path} contradicts itself on which side is left: its two orientations (qform and sform) are "
                         "mirror images; correct its header or export it again.")  # fmt: skip


def _two_orientations(path: Path, header: _NiftiHeader, used: str) -> FileNotes:
    """Programs differ in which of two orientations they believe: maps on the scan's grid then lie elsewhere in some."""
    qform, sform = header.qform, header.sform
    corners = np.array([(*corner, 1) for corner in np.ndindex(2, 2, 2)]) * (*np.array(header.dim[1:4]) - 1, 1)
    apart = float(np.linalg.norm(corners @ (qform - sform).T, axis=1).max())
    if apart <= np.abs(header.pixdim[1:4]).min() / 2:
        return FileNotes()
    return FileNotes((f"The two orientations of {path.name} (qform and sform) lie up to {apart:.3g} mm apart, which is "
                      f"usual after a registration: the {used} is used, and the results lie where it says.",))


def _numbers(values: object) -> str:
    return " x ".join(f"{float(v):.4g}" for v in values)  # type: ignore[attr-defined]


# --- NRRD and MetaImage ----------------------------------------------------------------------------------------------


def _text_header(path: Path, last_key: str | None, separator: str) -> tuple[dict[str, str], int]:
    """Fields (lower-case keys) and length in bytes of a text header that ends at an empty line or after `last_key`."""
    fields: dict[str, str] = {}
    with path.open("rb") as file:
        for line in iter(lambda: file.readline(4096), b""):
            text = line.decode("latin-1").strip()
            if last_key is None and not text:
                break
            key, found, value = text.partition(separator)
            if found:
                fields[key.strip().lower()] = value.strip()
            if last_key is not None and key.strip().lower() == last_key:
                break
        return fields, file.tell()


def _detached(path: Path, name: str) -> Path | None:
    """The data file that a header names, checked to exist; None where it names a list or pattern of files."""
    if name.split()[0].upper() == "LIST" or "%" in name:
        return None
    data = path.parent / name
    if not data.exists():
        raise InputError(f"{path} needs its data file {name} beside it: copy both files.")
    return data


def _geometry_notes(path: Path, spacing: str, orientation: bool, dimension: str) -> FileNotes:
    """What a text header leaves open: its readers take 1 mm and the patient axes for it without a word."""
    states_spacing = bool(spacing) and "nan" not in spacing.lower()
    if orientation or dimension == "2":  # a single plane has no side
        return FileNotes(states_spacing=states_spacing)
    return FileNotes((unsaid_orientation(path),), states_spacing=states_spacing)


def unsaid_orientation(path: Path) -> str:
    """The warning for a file or folder that leaves the patient's axes to its reader."""
    return (f"The header of {path.name} does not say how the patient lies: axes are taken as stored, so left and right "
            "may be exchanged.")  # fmt: skip


def data_files(path: Path) -> list[Path]:
    """The files of an image: itself, and the one that its header names or that forms a pair with it."""
    name = path.name.lower()
    try:
        if name.endswith((".hdr", ".img", ".hdr.gz", ".img.gz")):
            return sorted(set(_nifti_pair(path)))
        if name.endswith((".nhdr", ".mhd")):
            nrrd = name.endswith(".nhdr")
            fields, _ = _text_header(path, None, ":") if nrrd else _text_header(path, "elementdatafile", "=")
            named = fields.get("data file") or fields.get("datafile") or fields.get("elementdatafile") or "LOCAL"
            data = None if named.upper() == "LOCAL" else _detached(path, named)
            return [path] if data is None else [path, data]
    except (InputError, OSError):
        pass  # said when the scan is read
    return [path]


def _check_nrrd(path: Path) -> FileNotes:
    fields, length = _text_header(path, None, ":")
    directions = fields.get("space directions", "")
    # ITK knows these spaces by their names alone, and takes any other for the patient's.
    oriented = bool(directions) and fields.get("space", "").lower().replace("-", "").startswith(_ANATOMICAL)
    notes = _geometry_notes(path, fields.get("spacings", "") or directions, oriented, fields.get("dimension", ""))
    name = fields.get("data file", fields.get("datafile", ""))
    data = _detached(path, name) if name else path
    width = _NRRD_BYTES.get(fields.get("type", "").removeprefix("signed ").replace("unsigned ", "u").removesuffix("_t"))
    if data is None or width is None or "line skip" in fields or "byte skip" in fields:
        return notes
    expected = math.prod(int(n) for n in fields.get("sizes", "").split()) * width
    start = length if data == path else 0
    encoding = fields.get("encoding", "").lower()
    if encoding == "raw":
        found = data.stat().st_size - start
    elif encoding in ("gzip", "gz"):
        with data.open("rb") as file:
            file.seek(start)
            found = _count_gzip(path, file)
    else:
        return notes
    if found < expected:
        raise _truncated(path, found, expected)
    return notes


def _check_meta(path: Path) -> FileNotes:
    fields, length = _text_header(path, "elementdatafile", "=")
    if not fields.get("elementdatafile") or not fields.get("dimsize"):
        raise InputError(f"{path} has no MetaImage header, its content is something else or damaged: "
                         "export the scan again.")
    oriented = any(name in fields for name in ("transformmatrix", "orientation", "rotation"))
    spacing = fields.get("elementspacing", "") or fields.get("elementsize", "")
    notes = _geometry_notes(path, spacing, oriented, fields.get("ndims", ""))
    local = fields["elementdatafile"].upper() == "LOCAL"
    data = path if local else _detached(path, fields["elementdatafile"])
    width = _META_BYTES.get(fields.get("elementtype", ""))
    if data is None or width is None or fields.get("binarydata", "true").lower() == "false":
        return notes
    channels = int(fields.get("elementnumberofchannels", "1"))
    expected = math.prod(int(n) for n in fields["dimsize"].split()) * width * channels
    start = length if local else max(int(fields.get("headersize", "0")), 0)
    with data.open("rb") as file:
        file.seek(start)
        compressed = fields.get("compresseddata", "false").lower() == "true"
        found = _count_zlib(path, file) if compressed else data.stat().st_size - start
    if found < expected:
        raise _truncated(path, found, expected)
    return notes


def _count_zlib(path: Path, file: io.BufferedReader) -> int:
    stream = zlib.decompressobj(zlib.MAX_WBITS | 32)  # zlib or gzip
    count = 0
    try:
        while not stream.eof and (chunk := file.read(_CHUNK)):
            count += len(stream.decompress(chunk))
    except zlib.error:
        raise InputError(f"{path} is damaged, its compressed data cannot be read: copy or export it again.") from None
    if not stream.eof:
        raise InputError(f"{path} is truncated, its compressed data ends early: copy or export it again.")
    return count
