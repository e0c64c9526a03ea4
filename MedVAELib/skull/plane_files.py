"""Files that hold an ultrasound plane: what is in them, and the pixel size they state, if they state one.

Screen formats (PNG, JPEG, TIFF ...) know a size for printing at most, never one of tissue; DICOM states it as pixel
spacing or, for ultrasound, per region of the frame. Pictures may say how they are to be turned (Exif, TIFF), and that
white is 0 (TIFF).
"""

from __future__ import annotations

import math
import os
import re
import struct
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from ..errors import InputError
from ..files.dicom_files import PIXEL_SPACING, pixel_spacing, two_numbers
from ..files.image_files import check_file
from ..files.itk_files import accept_rounded_axes, alone, itk_name, quiet
from ..files.png_files import PNG, grey_without_opacity, png_chunks
from ..scan import is_dicom_file

MAX_PIXELS = 64_000_000
_STATE_SIZE = ("Nifti", "Nrrd", "Meta", "MINC", "VTK", "Gipl")
"""Formats whose spacing is one of tissue, if they state one; every other reader makes up 1 mm or a size on paper."""
_CUT = re.compile(r"^(?P<file>.+)@(?P<axis>[xyz]?)(?P<index>\d+)$", re.S)
_EXIF_BYTES = 1 << 18  # of a JPEG file
_REGIONS, _SHARED = "SequenceOfUltrasoundRegions", "SharedFunctionalGroupsSequence"
_ORIENTATION, _WHITE_IS, _SHORT = 0x0112, 0x0106, 3  # two tags of TIFF and Exif, and the kind of their value
SAME_SIZE = 0.02
"""Pixel sizes that differ by no larger share are one, written down twice."""
_PLACEHOLDER_MM = (1.0, 1.0)  # a pixel spacing that programs write where they know none
_SPACING_TAGS = (0x00280030, 0x00181164, 0x00182010)  # of pixels, at the detector, as scanned: GDCM takes any of them


@dataclass(frozen=True)
class Cut:
    """A slice of a volume as it is stored: axis 0, 1 or 2 (x, y, z), index from 0."""

    axis: int
    index: int


@dataclass(frozen=True, eq=False)
class StoredPlane:
    """A plane's values, (H, W) or (H, W, C), as stored, photographs upright; spacing_yx_mm: None where the file does
    not state it, or states several; other_sizes_yx_mm: what else it states; aspect: how many times as high as wide its
    pixels are, where it says that alone."""

    values: NDArray
    spacing_yx_mm: tuple[float, float] | None
    spacing_source: str
    warnings: tuple[str, ...] = ()
    aspect: float = 1.0
    other_sizes_yx_mm: tuple[tuple[float, float], ...] = ()

    @property
    def states_size(self) -> bool:
        return self.spacing_yx_mm is not None and all(math.isfinite(mm) and mm > 0 for mm in self.spacing_yx_mm)

    @property
    def pixel_aspect(self) -> float:
        """Height over width of a pixel, by the size that the file states or by what it says of that alone."""
        return self.spacing_yx_mm[0] / self.spacing_yx_mm[1] if self.states_size else self.aspect


def parse_cut(text: str | Path) -> tuple[Path, Cut | None]:
    """A file, and the slice asked for after '@': "volume.nii.gz@40" (third axis) or "volume.nii.gz@x40"."""
    match = _CUT.match(str(text))
    if match is None or os.path.exists(text):
        return Path(text), None
    return Path(match["file"]), Cut("xyz".index(match["axis"] or "z"), int(match["index"]))


def read_stored_plane(path: Path, cut: Cut | None = None) -> StoredPlane:
    """Raises InputError (one sentence naming the file and what to do) for what holds no single plane."""
    if os.path.isdir(path):
        raise InputError(f"{path} is a folder: give the file of one frame.")
    notes = check_file(path)
    reader = sitk.ImageFileReader()
    dicom = is_dicom_file(path)
    if dicom:
        reader.SetImageIO("GDCMImageIO")
    with alone(path) as file, quiet(), accept_rounded_axes(notes):
        reader.SetFileName(itk_name(file))
        try:
            reader.ReadImageInformation()
            _check_size(path, reader.GetSize(), reader.GetPixelID())
            # What GDCM makes of a spacing that is no two numbers is whatever lay in memory.
            unsized = dicom and (0.0 in reader.GetSpacing()[:2]
                                 or reader.HasMetaDataKey(PIXEL_SPACING) and pixel_spacing(reader) is None)
            image = _without_pixel_spacing(path) if unsized else reader.Execute()
        except (RuntimeError, MemoryError):
            image = grey_without_opacity(path)
            if image is None:
                raise InputError(f"{path} cannot be read as an image, it is damaged or in no known format: give a PNG, "
                                 "JPEG, DICOM, NIfTI or NRRD file.") from None
    if dicom:
        spacing, source, others = _dicom_spacing(path, reader)
        plane = plane_of_image(image, str(path), cut, spacing, source, notes.warnings)
        if cut is None or cut.axis == 2:  # of a frame, not of what lies across frames
            plane = replace(plane, other_sizes_yx_mm=others)
        return replace(plane, aspect=_dicom_aspect(reader)) if plane.spacing_yx_mm is None else plane
    kind = sitk.ImageFileReader.GetImageIOFromFileName(itk_name(path))
    if kind.startswith(_STATE_SIZE) and notes.states_spacing:
        return plane_of_image(image, str(path), cut, image.GetSpacing()[:3], "file header", notes.warnings)
    plane = plane_of_image(image, str(path), cut, None, "", notes.warnings)
    tags, values = _tags(path), plane.values
    orientation = tags.get(_ORIENTATION, 1)
    orientation = orientation if 1 <= orientation <= 8 else 1
    if kind.startswith("TIFF"):  # the reader has mirrored it already, and has not exchanged rows and columns
        values = _turned(values, (orientation - 1) % 4 + 1)
        if tags.get(_WHITE_IS) == 0 and values.ndim == 2:  # black and white pictures come as colours, and turned round
            values = _negative(values)
    return replace(plane, values=_turned(values, orientation))


def plane_of_image(
    image: sitk.Image, name: str, cut: Cut | None, spacing_xyz_mm: tuple[float | None, ...] | None, source: str,
    warnings: tuple[str, ...] = (),
) -> StoredPlane:
    """The plane in an image: its only slice, or the slice asked for. Raises InputError, naming `name`."""
    _check_size(Path(name), image.GetSize(), image.GetPixelID())
    while image.GetDimension() > 3:
        image = image[(slice(None),) * (image.GetDimension() - 1) + (0,)]
    values = sitk.GetArrayFromImage(image)
    if image.GetDimension() == 2:
        values = values[None]
    axis, index = _chosen_slice(name, values.shape[:3][::-1], cut)
    plane = np.take(values, index, axis=2 - axis)
    kept = [k for k in (0, 1, 2) if k != axis]
    spacing = None
    if spacing_xyz_mm is not None:
        xyz = (*spacing_xyz_mm, None)[:3]
        row, column = xyz[kept[1]], xyz[kept[0]]
        spacing = (float(row), float(column)) if row is not None and column is not None else None
    return StoredPlane(plane, spacing, source if spacing else "", warnings)


def _chosen_slice(name: str, size_xyz: tuple[int, ...], cut: Cut | None) -> tuple[int, int]:
    if cut is not None:
        if cut.index >= size_xyz[cut.axis]:
            raise InputError(f"{name} has {size_xyz[cut.axis]} slices along {'xyz'[cut.axis]}, counted from 0: "
                             f"there is no slice {cut.index}.")
        return cut.axis, cut.index
    thin = [axis for axis in (2, 1, 0) if size_xyz[axis] == 1]
    if not thin:
        size = " x ".join(str(n) for n in size_xyz)
        raise InputError(f"{name} is a volume ({size}), not a plane: choose a slice by its number, as in "
                         f"{Path(name).name}@{size_xyz[2] // 2} (or @x…, @y… for another axis).")
    return thin[0], 0


def _check_size(path: Path, size: tuple[int, ...], pixel: int) -> None:
    if len(size) > 3 and int(np.prod(size[3:])) > 1:
        raise InputError(f"{path} holds {int(np.prod(size[3:]))} volumes (4D): give the file of one frame.")
    if pixel in (sitk.sitkComplexFloat32, sitk.sitkComplexFloat64):
        raise InputError(f"{path} holds complex numbers: save the magnitude image.")
    if int(np.prod(size)) > 8 * MAX_PIXELS or (len(size) == 2 and int(np.prod(size)) > MAX_PIXELS):
        raise InputError(f"{path} declares {' x '.join(str(n) for n in size)} pixels, too many for a plane: crop it.")


def _tags(path: Path) -> dict[int, int]:
    """What a TIFF file, or the Exif in a JPEG or PNG file, says by tag in a single short number: _ORIENTATION, how a
    picture is to be turned before it is shown, 1 (not at all) to 8; _WHITE_IS, 0 where white is."""
    data, tags = path.read_bytes(), {}
    at = 0 if data[:4] in (b"II*\0", b"MM\0*") else _exif_place(data)
    order = {b"II": "<", b"MM": ">"}.get(data[at : at + 2])
    if order is None:
        return tags
    try:
        directory = at + struct.unpack_from(f"{order}I", data, at + 4)[0]
        for entry in range(struct.unpack_from(f"{order}H", data, directory)[0]):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", data, directory + 2 + 12 * entry)
            if kind == _SHORT:
                tags.setdefault(tag, value)
    except struct.error:
        pass
    return tags


def _exif_place(data: bytes) -> int:
    """Where a JPEG or PNG file's Exif begins, behind all where it has none."""
    if data.startswith(b"\xff\xd8"):
        at = data.find(b"Exif\0\0", 0, _EXIF_BYTES)
        return at + 6 if at >= 0 else len(data)
    if data.startswith(PNG):
        return next((start for kind, start, _ in png_chunks(data) if kind == b"eXIf"), len(data))
    return len(data)


def _turned(values: NDArray, orientation: int) -> NDArray:
    """A picture (H, W) or (H, W, C) as Exif's orientation says that it is to be seen."""
    if orientation in (5, 6, 7, 8):
        values = values.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    return values[:, ::-1] if orientation in (2, 3, 6, 7) else values


def _negative(values: NDArray) -> NDArray:
    """Bright where they are dark, within the range of their kind, or of their own where that has no end."""
    if values.dtype.kind == "u":
        return np.iinfo(values.dtype).max - values
    return values.min() + (values.max() - values)


# --- DICOM -----------------------------------------------------------------------------------------------------------


def _without_pixel_spacing(path: Path) -> sitk.Image:
    """The image of a DICOM file that states a pixel spacing of 0, as some ultrasound machines do: SimpleITK refuses it,
    so a copy that states none is read. Raises RuntimeError."""
    import pydicom

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        copy = os.path.join(folder, "frame.dcm")
        try:
            frame = pydicom.dcmread(path, force=True)
            for tag in _SPACING_TAGS:
                frame.pop(tag, None)
            frame.save_as(copy)
        except Exception as error:  # pydicom raises whatever it trips over
            raise RuntimeError(str(error)) from error
        return sitk.ReadImage(itk_name(copy), imageIO="GDCMImageIO")


def _dicom_spacing(
    path: Path, reader: sitk.ImageFileReader
) -> tuple[tuple[float | None, ...] | None, str, tuple[tuple[float, float], ...]]:
    """Column and row spacing in mm: the pixel spacing, of all frames alike, unless it is 0, or that of the frame's 2D
    ultrasound regions where they agree, which also go before a spacing of 1 mm; where it comes from; and (row, column)
    sizes that the regions state instead. Frames may be moments as well as slices, so what lies between them is None."""
    regions = ultrasound_region_spacings(path)
    others = tuple((row, column) for column, row in regions)
    pair = pixel_spacing(reader) or _shared_spacing(path)
    if pair is not None and all(pair) and not (pair == _PLACEHOLDER_MM and regions):
        agree = any(same_size(pair, other) for other in others)
        return (pair[1], pair[0], None), "DICOM pixel spacing", () if agree else others
    if len(regions) == 1:
        return (*regions[0], None), "DICOM ultrasound region", ()
    return None, "", others


def same_size(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return all(math.isclose(a, b, rel_tol=SAME_SIZE) for a, b in zip(one, other, strict=True))


def _dicom_aspect(reader: sitk.ImageFileReader) -> float:
    """Height over width of a pixel, by PixelAspectRatio."""
    height, width = two_numbers(reader, "0028|0034") or (1.0, 1.0)
    return height / width if height > 0 and width > 0 else 1.0


def ultrasound_region_spacings(path: Path) -> list[tuple[float, float]]:
    """(column, row) pixel sizes in mm of the 2D tissue regions in a DICOM file, wherever in its header they stand, each
    but once; none where they are damaged."""
    found: list[tuple[float, float]] = []
    try:
        for region in _sequence(path, _REGIONS):
            units = [region.get(f"PhysicalUnits{axis}Direction") for axis in "XY"]
            column, row = (abs(float(region.get(f"PhysicalDelta{axis}") or 0)) for axis in "XY")
            size = (column * 10, row * 10)
            two_dimensional_in_cm = region.get("RegionSpatialFormat") == 1 and units == [3, 3]
            if two_dimensional_in_cm and all(size) and not any(same_size(size, other) for other in found):
                found.append(size)
    except Exception:  # pydicom raises whatever it trips over
        return []
    return found


def _shared_spacing(path: Path) -> tuple[float, float] | None:
    """Row and column spacing in mm that an enhanced DICOM file states for all of its frames."""
    try:
        measures = _sequence(path, _SHARED)[0].PixelMeasuresSequence[0]
        row, column = (float(mm) for mm in measures.PixelSpacing)
    except Exception:  # pydicom raises whatever it trips over
        return None
    return row, column


def _sequence(path: Path, name: str) -> Sequence[Any]:
    """A sequence at the top of a DICOM file's header, empty where it has none."""
    import pydicom

    return pydicom.dcmread(path, force=True, stop_before_pixels=True, specific_tags=[name]).get(name) or ()
