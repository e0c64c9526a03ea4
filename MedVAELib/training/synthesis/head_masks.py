"""Masks of brains or heads as filled skulls: closed, cut free of the brainstem, smooth, in the head's own frame.

A *head* is the filled volume inside the skull's outer table. Its frame is RAS mm about its centroid, with the longest
axis of its second moments along y (as the outline of a plane is turned) and the symmetric roll about that axis.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import InputError
from ...files.itk_files import stored_image
from ...growth_charts import HC
from ...preprocessing.outlines import MARGIN, SIZE
from . import star_shapes

GRID_MM = 1.0
# As parts of the cube root of a brain's volume:
CLOSING = 0.25  # fills the gaps between hemispheres, lobes and cerebellum, which the skull's base spans
OPENING = 0.16  # what is thinner, as the brainstem, lies outside the skull
LIGHT_CLOSING, LIGHT_OPENING = 0.08, 0.06  # a mask's own base, with part of the brainstem
SUBARACHNOID = 0.012  # fluid between brain and inner table
SMOOTHING_MM = {"brain": 4.0, "head": 1.5}
BRAIN_COMPANIONS = ("parcellation", "srr")  # files beside a mask that show it to be a brain's
ROLLS_DEG = range(-12, 13, 3)
_SMALLEST_MM, _LARGEST_MM = 20.0, 200.0
_ALONG = 128  # samples along a direction, between which its crossing is interpolated
_YOUNGEST, _OLDEST = 14, 42  # weeks that a number in a file's name may mean


@dataclass(frozen=True)
class HeadMask:
    """A head from a mask: sdf (96, 96, 96) in mm, positive inside, zyx in the head's frame, at `spacing_mm`.

    ga_weeks: from the name, else the age at which a head of this circumference is average.
    """

    name: str
    sdf: Tensor
    spacing_mm: float
    ga_weeks: float


def skull_thickness_mm(ga_weeks: float) -> float:
    """From the inner to the outer table: about 0.7 mm at 20 and 2 mm at 36 weeks."""
    return 0.7 + 0.08 * (ga_weeks - 20.0)


def mask_files(folder: Path) -> dict[str, Path]:
    """Masks below a folder by name: files called mask.nii(.gz) by their folder, else every NIfTI file by its own.

    Raises InputError when there is none, or two of one name.
    """
    files = [path for path in sorted(folder.rglob("*.nii*")) if path.name.endswith((".nii", ".nii.gz"))]
    named = [(path.parent.name, path) for path in files if path.name.split(".")[0] == "mask"]
    named = named or [(path.name.split(".nii")[0], path) for path in files]
    if not named:
        raise InputError(f"{folder}: no head masks (NIfTI files) in this folder.")
    masks: dict[str, Path] = {}
    for name, path in named:
        if name in masks:
            raise InputError(f"{masks[name]} and {path} would both be the head '{name}': give each a folder named "
                             "after it, or a file name of its own.")
        masks[name] = path
    return masks


def read_mask(name: str, path: Path, closing: float = CLOSING, opening: float = OPENING) -> HeadMask:
    """A mask of a brain (beside a parcellation or reconstruction) or else of a whole head, as a head.

    closing, opening: of a brain's mask, in parts of the cube root of its volume; a head's mask stays as it is.
    Raises InputError for an unreadable or empty mask.
    """
    companions = [file for other in BRAIN_COMPANIONS for file in path.parent.glob(f"{other}.nii*")]
    content = "brain" if companions else "head"
    mask = _isotropic(path)
    age = _age_of(name)
    if content == "brain":
        distance = _inner_table(mask, closing, opening) + skull_thickness_mm(age or 28.0)
    else:
        distance = _smooth(mask, content)
    sdf, spacing_mm = _in_head_frame(distance)
    radii = radii_of(sdf, spacing_mm)
    return HeadMask(name, sdf, spacing_mm, age or HC.age_weeks(AxialSection.of(radii).circumference_mm))


def _isotropic(path: Path) -> sitk.Image:
    """The largest piece of a mask, holes filled, RAS, on GRID_MM with room around it."""
    try:
        image = stored_image(path)
    except RuntimeError as error:
        raise InputError(f"{path}: not a readable image.") from error
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise InputError(f"{path}: a head mask must be a 3D image with one value per voxel.")
    image = sitk.Cast(sitk.DICOMOrient(image, "RAS") > 0.5, sitk.sitkUInt8)
    pieces = sitk.RelabelComponent(sitk.ConnectedComponent(image))
    image = sitk.Cast(pieces == 1, sitk.sitkFloat32)
    if not sitk.GetArrayViewFromImage(image).any():
        raise InputError(f"{path}: the mask is empty.")
    shape = sitk.LabelShapeStatisticsImageFilter()
    shape.Execute(sitk.Cast(image, sitk.sitkUInt8))
    box, spacing = np.array(shape.GetBoundingBox(1)), np.array(image.GetSpacing())
    extent_mm = float((box[3:] * spacing).max())
    if not _SMALLEST_MM <= extent_mm <= _LARGEST_MM:
        raise InputError(f"{path}: the mask spans {extent_mm:.3g} mm, which no fetal head does; check its spacing.")
    room = 0.2 * extent_mm + 6.0  # mm, more than closing a sphere of this extent reaches, and the skull
    direction = np.array(image.GetDirection()).reshape(3, 3)
    corner = image.TransformContinuousIndexToPhysicalPoint((box[:3] - 0.5).tolist())
    origin = (np.array(corner) - direction @ np.full(3, room)).tolist()
    grid = [int(n) for n in np.ceil((box[3:] * spacing + 2 * room) / GRID_MM)]
    image = sitk.Resample(image, grid, sitk.Transform(), sitk.sitkLinear, origin, [GRID_MM] * 3,
                          image.GetDirection(), 0.0)
    return sitk.BinaryFillhole(image > 0.5)


def _distance(mask: sitk.Image) -> sitk.Image:
    """Signed distance in mm from a mask's edge, positive inside; the filter's own is from the outermost voxel centres
    inside, about half a voxel short of the edge."""
    return _short_distance(mask) + 0.5 * GRID_MM


def _short_distance(mask: sitk.Image) -> sitk.Image:
    return sitk.SignedMaurerDistanceMap(mask, insideIsPositive=True, squaredDistance=False, useImageSpacing=True)


def _inner_table(brain: sitk.Image, closing: float, opening: float) -> Tensor:
    """Signed distance (zyx, mm, positive inside) to the inside of the skull that holds a brain."""
    size_mm = float(sitk.GetArrayViewFromImage(brain).sum() * GRID_MM**3) ** (1 / 3)
    closed = _distance(_distance(brain) > -closing * size_mm) > closing * size_mm
    opened = _distance(_distance(closed) > opening * size_mm) > -opening * size_mm
    return _smooth(opened, "brain") + SUBARACHNOID * size_mm


def _smooth(mask: sitk.Image, content: str) -> Tensor:
    """Signed distance (zyx, mm, positive inside) from a smoothed edge.

    Seen from both sides, so that oblique edges lie midway; distances between voxels understate oblique ones, so they
    are scaled after smoothing.
    """
    distance = 0.5 * (_short_distance(mask) - _short_distance(mask == 0))
    smooth = sitk.SmoothingRecursiveGaussian(distance, SMOOTHING_MM[content])
    field = torch.from_numpy(sitk.GetArrayFromImage(smooth).astype(np.float32))
    return star_shapes.rescaled_to_distance(field, GRID_MM)


def _in_head_frame(distance: Tensor) -> tuple[Tensor, float]:
    """A distance volume on GRID_MM resampled about the head's centroid and axes: 96³ and its spacing in mm."""
    inside = torch.nonzero(distance > 0).float().flip(-1) * GRID_MM  # x, y, z
    centroid = inside.mean(0)
    turn = star_shapes.turn_of_long_axis(torch.cov(inside.T))
    length = (inside - centroid) @ turn.T
    spacing_mm = MARGIN * float(length[:, 1].max() - length[:, 1].min() + GRID_MM) / SIZE
    turn = _upright(distance, centroid, turn, spacing_mm) @ turn
    return _resampled(distance, centroid, turn, SIZE, spacing_mm), spacing_mm


def _upright(distance: Tensor, centroid: Tensor, turn: Tensor, spacing_mm: float) -> Tensor:
    """Rotation about y after which left and right agree best."""
    differences, rolls = [], [roll * torch.pi / 180 for roll in ROLLS_DEG]
    for roll in rolls:
        small = _resampled(distance, centroid, _about_y(roll) @ turn, SIZE // 2, 2 * spacing_mm)
        differences.append(float((small.sigmoid() - small.flip(2).sigmoid()).square().sum()))
    best = min(max(int(np.argmin(differences)), 1), len(rolls) - 2)
    before, middle, after = differences[best - 1 : best + 2]
    bend = before - 2 * middle + after
    offset = 0.5 * (before - after) / bend if bend > 0 else 0.0
    return _about_y(rolls[best] + min(max(offset, -1.0), 1.0) * (rolls[1] - rolls[0]))


def _about_y(angle: float) -> Tensor:
    cos, sin = float(np.cos(angle)), float(np.sin(angle))
    return torch.tensor([[cos, 0.0, sin], [0.0, 1.0, 0.0], [-sin, 0.0, cos]])


def _resampled(distance: Tensor, centroid: Tensor, turn: Tensor, size: int, spacing_mm: float) -> Tensor:
    axis = (torch.arange(size) - (size - 1) / 2) * spacing_mm
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    points = (torch.stack([x, y, z], -1) @ turn + centroid) / GRID_MM  # turn's inverse, applied to row vectors
    extent = points.new_tensor([n - 1.0 for n in reversed(distance.shape)])
    grid = (points * 2 / extent - 1)[None]
    return F.grid_sample(distance[None, None], grid, padding_mode="border", align_corners=True)[0, 0]


def _age_of(name: str) -> float | None:
    ages = [int(number) for number in re.findall(r"(?<!\d)\d\d(?!\d)", name)]
    return next((float(age) for age in ages if _YOUNGEST <= age <= _OLDEST), None)


def radii_of(sdf: Tensor, spacing_mm: float) -> Tensor:
    """Radii (mm) of a head's surface from its sdf volume: the outermost crossing along every direction."""
    reach = spacing_mm * (sdf.shape[0] - 1) / 2
    distance = torch.linspace(0, reach, _ALONG, device=sdf.device)
    points = star_shapes.directions(sdf.device)[:, :, None] * distance[:, None] / reach
    along = F.grid_sample(sdf[None, None], points.view(1, star_shapes.ROWS, -1, _ALONG, 3), align_corners=True)[0, 0]
    last = _ALONG - 1 - (along > 0).flip(-1).to(torch.uint8).argmax(-1, keepdim=True)
    last = last.clamp(max=_ALONG - 2)
    inner, outer = along.gather(-1, last), along.gather(-1, last + 1)
    radii = (last + inner / (inner - outer).clamp(min=1e-6)).squeeze(-1) * (reach / (_ALONG - 1))
    return torch.cat([radii[:1].mean().expand(1, radii.shape[1]), radii[1:-1],
                      radii[-1:].mean().expand(1, radii.shape[1])])


@dataclass(frozen=True)
class AxialSection:
    """Outer biometry in the plane z = 0 of a head's frame, in mm."""

    bpd_mm: float
    ofd_mm: float
    circumference_mm: float

    @classmethod
    def of(cls, radii: Tensor) -> AxialSection:
        equator = radii[star_shapes.ROWS // 2]
        points = equator[:, None] * star_shapes.directions(radii.device)[star_shapes.ROWS // 2]
        extent = points.max(0).values - points.min(0).values
        length = (points - points.roll(-1, 0)).norm(dim=1).sum()
        return cls(float(extent[0]), float(extent[1]), float(length))
