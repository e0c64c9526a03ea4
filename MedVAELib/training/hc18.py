"""The HC18 set of real axial ultrasound planes with the drawn outline of the head (van den Heuvel et al. 2018).

One folder `images` of PNG files, `NAME.png` and `NAME_Annotation.png` with an ellipse one line wide, and a table of
millimetres per pixel and head circumferences. The number that a name begins with is an examination's:
the planes are of fewer women than examinations, and nothing tells which.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from numpy.typing import NDArray

from ..errors import InputError
from ..files.itk_files import itk_name
from ..preprocessing.outlines import MomentEllipse, ellipse_map

TABLE = "pixel_size_and_HC.csv"
PARTS = {0: "test", 1: "validation"}
"""Part of an examination by its number modulo 5; the rest may train."""
_FLATTEST = 1e-3  # minor over major axis: a conic that is flatter is no head's outline


@dataclass(frozen=True)
class DrawnEllipse:
    """centre_yx_px: row and column, pixel centres at whole numbers; semi_axes_px: major and minor; angle_rad: of the
    major axis, from the direction of rising rows towards that of rising columns."""

    centre_yx_px: tuple[float, float]
    semi_axes_px: tuple[float, float]
    angle_rad: float


@dataclass(frozen=True)
class Plane:
    """grey_yx: (H, W) float32 0…1; outline_yx: (H, W) float32, fraction of head, cut off at the image's edge."""

    name: str
    number: int
    grey_yx: NDArray[np.float32]
    outline_yx: NDArray[np.float32]
    ellipse: DrawnEllipse
    pixel_mm: float
    circumference_mm: float


def part_of(number: int) -> str:
    """train, validation or test, by the examination's number."""
    return PARTS.get(number % 5, "train")


def plane_names(folder: Path, part: str | None = None) -> list[str]:
    """The planes of a part, or all. Raises InputError for a folder that is not the set."""
    return [name for name in _table(folder) if part in (None, part_of(_number(name)))]


def read_plane(folder: Path, name: str) -> Plane:
    """One plane with its outline. Raises InputError for one that is not there or has no usable outline."""
    table = _table(folder)
    if name not in table:
        raise InputError(f"{folder}: {TABLE} has no plane {name}.")
    grey = _grey(folder / "images" / f"{name}.png")
    line = _grey(folder / "images" / f"{name}_Annotation.png")
    if line.shape != grey.shape:
        raise InputError(f"{folder}: the annotation of {name} is not as large as its image.")
    ellipse = fit_ellipse(np.argwhere(line > 0.5).astype(np.float64))
    if ellipse is None:
        raise InputError(f"{folder}: the annotation of {name} is no ellipse.")
    pixel_mm, circumference_mm = table[name]
    return Plane(name, _number(name), grey, fill(ellipse, *grey.shape), ellipse, pixel_mm, circumference_mm)


def fit_ellipse(points_yx: NDArray[np.float64]) -> DrawnEllipse | None:
    """The conic with the least algebraic error over points (n, 2), or None if that is no ellipse.

    Unlike the moments of a filled outline it also holds for one that leaves the image.
    """
    if len(points_yx) < 6:
        return None
    middle, scale = points_yx.mean(0), points_yx.std() or 1.0
    y, x = ((points_yx - middle) / scale).T
    _, _, modes = np.linalg.svd(np.stack([y * y, y * x, x * x, y, x, np.ones_like(x)], 1), full_matrices=False)
    a, b, c, d, e, f = modes[-1]
    quadratic = np.array([[a, b / 2], [b / 2, c]])
    if np.linalg.det(quadratic) <= _FLATTEST**2 * np.trace(quadratic) ** 2:  # a parabola's is 0 but for rounding
        return None
    centre = -np.linalg.solve(2 * quadratic, np.array([d, e]))
    level = centre @ quadratic @ centre - f
    size, axes = np.linalg.eigh(quadratic / level)
    if not (np.isfinite(size).all() and size[0] > 0):
        return None
    major = axes[:, 0]
    angle = float(np.arctan2(major[1], major[0]))
    semi_axes = scale / np.sqrt(size)
    row, column = centre * scale + middle
    return DrawnEllipse((float(row), float(column)), (float(semi_axes[0]), float(semi_axes[1])), angle)


def fill(ellipse: DrawnEllipse, height: int, width: int) -> NDArray[np.float32]:
    """The filled ellipse, antialiased, (H, W)."""
    one = MomentEllipse(torch.tensor([ellipse.centre_yx_px]), torch.tensor([ellipse.semi_axes_px]),
                        torch.tensor([ellipse.angle_rad]), torch.zeros(1))
    return ellipse_map(one, height, width)[0].numpy()


def _number(name: str) -> int:
    digits = name.split("_")[0]
    if not digits.isdigit():
        raise InputError(f"{name}: the planes of this set are named by a number, such as 012_HC.")
    return int(digits)


def _table(folder: Path) -> dict[str, tuple[float, float]]:
    """Millimetres per pixel and head circumference in mm by plane."""
    try:
        with open(folder / TABLE, encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file))[1:]
        return {row[0].removesuffix(".png"): (float(row[1]), float(row[2])) for row in rows}
    except OSError as error:
        raise InputError(f"{folder}: no readable {TABLE} ({error.strerror}); name the folder of HC18.") from error
    except (ValueError, IndexError) as error:
        raise InputError(f"{folder / TABLE}: not the table of the HC18 set ({error}).") from error


def _grey(path: Path) -> NDArray[np.float32]:
    try:
        values = sitk.GetArrayFromImage(sitk.ReadImage(itk_name(path))).astype(np.float32)
    except RuntimeError as error:
        raise InputError(f"{path}: not a readable image.") from error
    if values.ndim == 3:
        values = values[..., :3].mean(-1)
    return values / 255.0
