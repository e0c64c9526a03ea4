"""NIfTI files: what their headers claim, of the data and of where the patient is, against what they hold."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..errors import InputError
from .file_damage import (
    CHUNK,
    MAX_SHEAR,
    FileNotes,
    gzip_errors,
    is_gzip,
    judge_nonfinite,
    times,
    truncated,
    unsaid_orientation,
)

_ITK_SHEAR = 1e-4  # above it ITK leaves the sform for the qform
_FLOATS = {16: "f4", 64: "f8"}


@dataclass(frozen=True)
class _Header:
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
                         [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c]])
        sizes = np.array(self.pixdim[1:4]) * (1, 1, -1 if self.pixdim[0] < 0 else 1)
        return np.column_stack([turn * sizes, self.qoffset])


def _parse(path: Path, header: bytes) -> _Header:
    """Fields of a NIfTI-1 or Analyze 7.5 header, in either byte order."""
    for order in "<>":
        size = struct.unpack_from(f"{order}i", header)[0] if len(header) >= 4 else 0
        if size == 540:
            raise InputError(f"{path} is in the NIfTI-2 format, which cannot be read: convert it to NIfTI-1.")
        if size == 348 and len(header) >= 348:
            def field(form: str, offset: int, order: str = order) -> tuple:
                return struct.unpack_from(order + form, header, offset)

            return _Header(
                order=order, magic=header[344:348], dim=field("8h", 40), datatype=field("h", 70)[0],
                bitpix=field("h", 72)[0], pixdim=field("8f", 76), vox_offset=field("f", 108)[0],
                qform_code=field("h", 252)[0], sform_code=field("h", 254)[0],
                quaternion=field("3f", 256), qoffset=field("3f", 268),
                sform=np.array(field("12f", 280)).reshape(3, 4), intent_code=field("h", 68)[0])
    raise InputError(f"{path} has no NIfTI header, its content is something else or damaged: "
                     "export the scan again as NIfTI.")


def nifti_pair(path: Path) -> tuple[Path, Path]:
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


def check_nifti(path: Path, start: bytes) -> FileNotes:
    """As `check_file`, for a NIfTI-1 or Analyze file, or one of a pair; start: the file's first bytes."""
    if start.startswith(b"\x1f\x8b") and not path.name.lower().endswith(".gz"):
        raise InputError(f"{path} is gzip-compressed but not named so: rename it to {path.name}.gz.")
    header_file, data_file = nifti_pair(path)
    opened = gzip.open if is_gzip(header_file) else open
    try:
        with opened(header_file, "rb") as file:
            header = _parse(path, file.read(348))
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise InputError(f"{path} is truncated or damaged, its compressed header cannot be read: "
                         "copy or export it again.") from None
    axes = header.dim[0]
    if not 1 <= axes <= 7 or any(n < 1 for n in header.dim[1 : axes + 1]):
        raise InputError(f"{path} declares an impossible image size {header.dim[1:5]}: export it again.")
    if not math.isfinite(header.vox_offset):
        raise InputError(f"{path} has a damaged header, its data offset is no number: export it again.")
    _check_intent(path, header.intent_code)
    for length in header.pixdim[1 : min(axes, 3) + 1]:
        if not (math.isfinite(length) and length > 0):  # the reader would take 1 mm without a word
            raise InputError(f"{path} has an impossible voxel size {times(header.pixdim[1:4])}: "
                             "correct its header or export it again.")
    warnings = _check_data(path, data_file, header)
    orientation = _orientation(path, header)
    return replace(orientation, warnings=orientation.warnings + warnings)


def _check_data(path: Path, data_file: Path, header: _Header) -> tuple[str, ...]:
    """Reads the data once: its length, its checksum if compressed, and its values if they are floating-point."""
    offset = max(int(header.vox_offset), 0)
    voxels = math.prod(header.dim[1 : header.dim[0] + 1])
    expected = offset + voxels * header.bitpix // 8
    kind = _FLOATS.get(header.datatype)
    if not is_gzip(data_file):
        found = data_file.stat().st_size
        if found < expected:
            raise truncated(path, found, expected)
        if kind is None:
            return ()
    nan = infinite = 0
    with data_file.open("rb") as raw:
        stream = gzip.GzipFile(fileobj=raw) if is_gzip(data_file) else raw
        with gzip_errors(path):
            found = len(stream.read(offset))
            while chunk := stream.read(CHUNK):
                if kind is not None:
                    values = np.frombuffer(chunk, header.order + kind, max(min(len(chunk), expected - found), 0)
                                           // int(kind[1]))
                    if not np.isfinite(values).all():
                        nan += int(np.isnan(values).sum())
                        infinite += int(np.isinf(values).sum())
                found += len(chunk)
    if found < expected:
        raise truncated(path, found, expected)
    return judge_nonfinite(str(path), nan, infinite, voxels)


def _check_intent(path: Path, code: int) -> None:
    if code == 1002:
        raise InputError(f"{path} says that it is a label map: give the scan itself.")
    if 2 <= code <= 24 and code != 5:  # 5, z-score, may well be a normalised scan
        raise InputError(f"{path} says that it is a statistical map: give the scan itself.")


def _orientation(path: Path, header: _Header) -> FileNotes:
    """Whether the header knows where the patient is, and does not contradict itself."""
    if header.magic[:3] not in (b"n+1", b"ni1"):
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
        raise InputError(f"{path} contradicts itself on its voxel size, {times(header.pixdim[1:4])} mm and "
                         f"{times(lengths)} mm: correct its header or export it again.")
    u, _, vt = np.linalg.svd(columns / lengths)
    return FileNotes(nearest=np.diag([-1.0, -1.0, 1.0]) @ u @ vt if shear > 1e-5 else None)


def _refuse_mirrored(path: Path, header: _Header) -> None:
    if np.linalg.det(header.qform[:, :3]) * np.linalg.det(header.sform[:, :3]) < 0:
        raise InputError(f"{path} contradicts itself on which side is left: its two orientations (qform and sform) are "
                         "mirror images; correct its header or export it again.")


def _two_orientations(path: Path, header: _Header, used: str) -> FileNotes:
    """Programs differ in which of two orientations they believe: maps on the scan's grid then lie elsewhere in some."""
    qform, sform = header.qform, header.sform
    corners = np.array([(*corner, 1) for corner in np.ndindex(2, 2, 2)]) * (*np.array(header.dim[1:4]) - 1, 1)
    apart = float(np.linalg.norm(corners @ (qform - sform).T, axis=1).max())
    if apart <= np.abs(header.pixdim[1:4]).min() / 2:
        return FileNotes()
    return FileNotes((f"The two orientations of {path.name} (qform and sform) lie up to {apart:.3g} mm apart, which is "
                      f"usual after a registration: the {used} is used, and the results lie where it says.",))
