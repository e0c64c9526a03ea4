"""What an image file claims against what it holds: the damage that image readers pass over in silence.

SimpleITK reads a truncated NIfTI file without an error, replaces NaN and Inf in NIfTI data by 0 and a zero voxel size
by 1 mm, and prefers one of two contradicting orientations; others of its errors are a page long. Everything here
raises `InputError` with one sentence that names the file and says what to do.
"""

from __future__ import annotations

import gzip
import io
import math
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

from ..errors import InputError
from .file_damage import CHUNK, FileNotes, gzip_errors, text_name, truncated, unsaid_orientation
from .nifti_header import check_nifti, nifti_pair

_ANATOMICAL = ("ras", "las", "lps", "right", "left")
_NRRD_BYTES = {"char": 1, "uchar": 1, "int8": 1, "uint8": 1, "short": 2, "ushort": 2, "int16": 2, "uint16": 2, "int": 4,
               "uint": 4, "int32": 4, "uint32": 4, "float": 4, "int64": 8, "uint64": 8, "double": 8}
_META_BYTES = {"MET_CHAR": 1, "MET_UCHAR": 1, "MET_SHORT": 2, "MET_USHORT": 2, "MET_INT": 4, "MET_UINT": 4,
               "MET_FLOAT": 4, "MET_DOUBLE": 8, "MET_LONG_LONG": 8, "MET_ULONG_LONG": 8}


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
            return check_nifti(path, start)
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
            raise truncated(path, len(content), declared)
    elif _jpeg_ends_early(content):
        raise InputError(f"{path} is truncated, the picture ends early: copy or export it again.")


def _jpeg_ends_early(content: bytes) -> bool:
    """Whether no end of image follows the start of the picture's scan; its compressed data cannot hold one. What lies
    before, such as a preview, and behind, as a phone's film, may hold both."""
    at = 2
    while content[at : at + 1] == b"\xff" and len(content) >= at + 4:
        marker, length = struct.unpack_from(">BH", content, at + 1)
        if marker == 0xDA:
            return content.find(b"\xff\xd9", at) < 0
        at += 1 if marker == 0xFF else 2 + length
    return False  # no scan: the reader says so


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


def data_files(path: Path) -> list[Path]:
    """The files of an image: itself, and the one that its header names or that forms a pair with it."""
    name = path.name.lower()
    try:
        if name.endswith((".hdr", ".img", ".hdr.gz", ".img.gz")):
            return sorted(set(nifti_pair(path)))
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
        raise truncated(path, found, expected)
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
        raise truncated(path, found, expected)
    return notes


def _count_gzip(path: Path, file: BinaryIO) -> int:
    """Bytes of data in the gzip stream that starts at the file's position; its checksum is verified."""
    count = 0
    with gzip_errors(path), gzip.GzipFile(fileobj=file) as stream:
        while chunk := stream.read(CHUNK):
            count += len(chunk)
    return count


def _count_zlib(path: Path, file: io.BufferedReader) -> int:
    stream = zlib.decompressobj(zlib.MAX_WBITS | 32)  # zlib or gzip
    count = 0
    try:
        while not stream.eof and (chunk := file.read(CHUNK)):
            count += len(stream.decompress(chunk))
    except zlib.error:
        raise InputError(f"{path} is damaged, its compressed data cannot be read: copy or export it again.") from None
    if not stream.eof:
        raise InputError(f"{path} is truncated, its compressed data ends early: copy or export it again.")
    return count
