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
    from numpy.typing import NDArray

_GEOMETRY = {"spacing": 3, "origin": 3, "direction": 9}
_CHUNK_BYTES = 16 << 20


def given_scan(given: Mapping[str, Any], modality: str = "auto") -> Scan:
    """The scan that a request names: {"file"}, or {"array", "spacing", "origin", "direction", "name"}.

    array: `.npy` file, zyx, any numeric type; geometry as SimpleITK has it (xyz, LPS mm). Raises InputError for a
    scan that cannot be used, UsageError for a request without one.
    """
    if isinstance(given.get("file"), str):
        return Scan.read(given["file"], modality=modality)
    if not isinstance(given.get("array"), str):
        raise UsageError("The request's scan needs a 'file' or an 'array'.")
    import SimpleITK as sitk

    values = _read_array(Path(given["array"]))
    image = sitk.GetImageFromArray(values)
    if image.GetDimension() == 3:
        image.SetSpacing(_numbers(given, "spacing"))
        image.SetOrigin(_numbers(given, "origin"))
        try:
            image.SetDirection(_numbers(given, "direction"))
        except RuntimeError:
            raise InputError("The scan's axes lie in one plane: correct its directions.") from None
    name = given.get("name")
    return Scan.from_image(image, modality=modality, name=name if isinstance(name, str) and name else "scan")


def write_array(path: Path, array: NDArray) -> None:
    """Writes a `.npy` file; unlike `numpy.save`, a full disk gives an OSError that says so."""
    import numpy as np

    array = np.ascontiguousarray(array)
    raw = memoryview(array.reshape(-1).view(np.uint8))
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        for start in range(0, len(raw), _CHUNK_BYTES):
            file.write(raw[start : start + _CHUNK_BYTES])


def _read_array(path: Path) -> NDArray:
    import numpy as np

    try:
        values = np.load(path, allow_pickle=False)
    except OSError as error:
        raise InputError(f"The scan's values are not at {path} ({error.strerror or error}): try again.") from None
    except (ValueError, EOFError):
        raise InputError(f"The scan's values in {path} are damaged: try again.") from None
    if not isinstance(values, np.ndarray) or values.ndim not in (2, 3, 4) or values.dtype.kind not in "biufc":
        raise InputError("The scan does not hold one number per voxel: choose a scalar volume.")
    return np.ascontiguousarray(values, _type_for_itk(values.dtype))


def _type_for_itk(dtype: np.dtype) -> Any:
    """The number type to hand to SimpleITK: it knows neither bool nor half floats nor foreign byte orders."""
    if dtype.kind == "b":
        return "uint8"
    if dtype.kind == "f" and dtype.itemsize not in (4, 8):
        return "float32" if dtype.itemsize < 4 else "float64"
    return dtype.newbyteorder("=")


def _numbers(given: Mapping[str, Any], name: str) -> list[float]:
    values = given.get(name)
    if not isinstance(values, list) or len(values) != _GEOMETRY[name] or not all(
        isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) for value in values
    ):
        raise UsageError(f"The request's scan needs '{name}' as {_GEOMETRY[name]} numbers.")
    return [float(value) for value in values]
