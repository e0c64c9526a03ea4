"""Volumes in and out of the worker: NumPy files and geometry in, NumPy files out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, UsageError
from ..scan import Scan

if TYPE_CHECKING:
    import numpy as np
    import SimpleITK as sitk
    from numpy.typing import NDArray

    from ..skull.planes import PlaneImage

_CHUNK_BYTES = 16 << 20


def given_scan(given: Mapping[str, Any], modality: str = "auto") -> Scan:
    """The scan that a request names: {"file"}, or {"array", "spacing", "origin", "direction", "name"}.

    array: `.npy` file, zyx, any numeric type; geometry as SimpleITK has it (xyz, LPS mm). Raises InputError for a
    scan that cannot be used, UsageError for a request without one.
    """
    if isinstance(given.get("file"), str):
        return Scan.read(given["file"], modality=modality)
    return Scan.from_image(_given_volume(given), modality=modality, name=_name(given, "scan"))


def given_image(given: Mapping[str, Any]) -> tuple[sitk.Image, str]:
    """The image of anything that a request names as `given_scan` has it, and its name. Raises InputError for one that
    cannot be used, UsageError for a request without one."""
    from ..training.image_listing import ImageRecord
    from ..training.image_sets import checked, read_image

    if isinstance(given.get("file"), str):
        record = ImageRecord(Path(given["file"]), "", "")
        return read_image(record), record.name
    name = _name(given, "image")
    return checked(_given_volume(given), ImageRecord(Path(name), "", "")), name


def _given_volume(given: Mapping[str, Any]) -> sitk.Image:
    if not isinstance(given.get("array"), str):
        raise UsageError("The request's scan needs a 'file' or an 'array'.")
    import SimpleITK as sitk

    values = read_array(Path(given["array"]))
    image = sitk.GetImageFromArray(values)
    if image.GetDimension() == 3:
        image.SetSpacing(_numbers(given, "spacing", 3))
        image.SetOrigin(_numbers(given, "origin", 3))
        try:
            image.SetDirection(_numbers(given, "direction", 9))
        except RuntimeError:
            raise InputError("The scan's axes lie in one plane: correct its directions.") from None
    return image


def _name(given: Mapping[str, Any], default: str) -> str:
    name = given.get("name")
    return name if isinstance(name, str) and name else default


def given_plane(given: Mapping[str, Any]) -> PlaneImage:
    """The plane that a request names: {"file"}, or {"array", "spacing", "name"}; both with "spacing_mm" if need be.

    array: `.npy` file, (rows, columns) or (rows, columns, values); spacing: its pixels' size in mm along a row and
    along a column, as far as the image states it; spacing_mm: as the user gave it. Raises InputError for an image
    that cannot be used, UsageError for a request without one or without a pixel size.
    """
    from ..skull.planes import PlaneImage

    told = given.get("spacing_mm")
    if told is not None and (isinstance(told, bool) or not isinstance(told, (int, float))):
        raise UsageError("The request's plane needs 'spacing_mm' as a number.")
    if isinstance(given.get("file"), str):
        return PlaneImage.read(given["file"], told)
    if not isinstance(given.get("array"), str):
        raise UsageError("The request's plane needs a 'file' or an 'array'.")
    values, name = read_array(Path(given["array"])), _name(given, "plane")
    if "spacing" not in given:
        if told is None:
            raise UsageError(f"{name} does not say how large its pixels are: give their size in mm.")
        return PlaneImage.from_array(values, told, name)
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(values, isVector=values.ndim == 3)
    image.SetSpacing(_numbers(given, "spacing", 2))
    return PlaneImage.from_image(image, told, name=name)


def write_array(path: Path, array: NDArray) -> None:
    """Writes a `.npy` file; unlike `numpy.save`, a full disk gives an OSError that says so."""
    import numpy as np

    array = np.ascontiguousarray(array)
    raw = memoryview(array.reshape(-1).view(np.uint8))
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        for start in range(0, len(raw), _CHUNK_BYTES):
            file.write(raw[start : start + _CHUNK_BYTES])


def read_array(path: Path, dimensions: tuple[int, ...] = (2, 3, 4)) -> NDArray:
    """A `.npy` file of numbers that has one of these numbers of axes. Raises InputError for anything else."""
    import numpy as np

    try:
        values = np.load(path, allow_pickle=False)
    except OSError as error:
        raise InputError(f"The scan's values are not at {path} ({error.strerror or error}): try again.") from None
    except (ValueError, EOFError):
        raise InputError(f"The scan's values in {path} are damaged: try again.") from None
    if not isinstance(values, np.ndarray) or values.ndim not in dimensions or values.dtype.kind not in "biufc":
        raise InputError("The scan does not hold one number per voxel: choose a scalar volume.")
    return np.ascontiguousarray(values, _type_for_itk(values.dtype))


def _type_for_itk(dtype: np.dtype) -> Any:
    """The number type to hand to SimpleITK: it knows neither bool nor half floats nor foreign byte orders."""
    if dtype.kind == "b":
        return "uint8"
    if dtype.kind == "f" and dtype.itemsize not in (4, 8):
        return "float32" if dtype.itemsize < 4 else "float64"
    return dtype.newbyteorder("=")


def _numbers(given: Mapping[str, Any], name: str, count: int) -> list[float]:
    values = given.get(name)
    if not isinstance(values, list) or len(values) != count or not all(
        isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) for value in values
    ):
        raise UsageError(f"The request's image needs '{name}' as {count} numbers.")
    return [float(value) for value in values]


def ijk_to_ras(image: sitk.Image) -> list[list[float]]:
    """(4, 4), from the voxels of an image, as a reply has it."""
    from ..preprocessing.geometry import ras_affine_mm

    return ras_affine_mm(image).tolist()
