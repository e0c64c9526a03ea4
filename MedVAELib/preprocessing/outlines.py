"""Geometry of a head's outline in a standard plane: its ellipse in mm, the case's grid, and the canonical map.

An outline map holds the filled head in a plane: (B, H, W), the fraction 0..1 of each pixel inside the skull's outer
table. Training, prediction and evaluation bring such maps to one form here, so that a network sees nothing of how a
plane was stored: centred on the outline's centroid, at the case's spacing, axial and sagittal planes turned until the
long axis lies along y. Front and back, up and down, and mirroring stay as they are, because an image does not say.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..standard_planes import PLANES

SIZE = 96
"""Pixels along an edge of a canonical map, and voxels along an edge of the volume."""
MARGIN = 1.30
"""Edge of the volume over the head's estimated occipitofrontal diameter."""
OFD_PER_MAJOR_AXIS = {"axial": 1.0, "sagittal": 1.0, "coronal": 1.21}
"""Occipitofrontal diameter over the major axis of a plane's outline; the coronal plane does not show it."""
_MOST_SUPERSAMPLES = 8


@dataclass(frozen=True)
class MomentEllipse:
    """The ellipses with the area moments of B outlines, in pixels of their maps.

    centre: (B, 2) row and column, pixel centres at whole numbers; semi_axes: (B, 2) major and minor; angle: (B,)
    radians from the direction of rising rows towards that of rising columns, in (-π/2, π/2]; area: (B,) of the
    outline. An empty map gives zeros with its centre in the middle.
    """

    centre: Tensor
    semi_axes: Tensor
    angle: Tensor
    area: Tensor


def moment_ellipse(outline: Tensor) -> MomentEllipse:
    """The ellipse whose zeroth to second moments are those of an outline map, (B, H, W)."""
    outline = outline.float()
    rows = torch.arange(outline.shape[1], device=outline.device, dtype=torch.float32)
    columns = torch.arange(outline.shape[2], device=outline.device, dtype=torch.float32)
    area = outline.sum((1, 2))
    weight = outline / area.clamp(min=1e-6).view(-1, 1, 1)
    by_row, by_column = weight.sum(2), weight.sum(1)
    middle = area.new_tensor([(outline.shape[1] - 1) / 2, (outline.shape[2] - 1) / 2])
    centre = torch.stack([by_row @ rows, by_column @ columns], 1)
    centre = torch.where(area[:, None] > 0, centre, middle)
    from_row, from_column = rows - centre[:, :1], columns - centre[:, 1:]
    # The edge's fractions are the shape smeared by a pixel, which adds the second moment of a pixel along each axis.
    row_row = (by_row * from_row.square()).sum(1) - 1 / 12
    column_column = (by_column * from_column.square()).sum(1) - 1 / 12
    row_column = torch.einsum("bhw,bh,bw->b", weight, from_row, from_column)
    mean = (row_row + column_column) / 2
    spread = torch.hypot((row_row - column_column) / 2, row_column)
    semi_axes = 2 * torch.stack([mean + spread, mean - spread], 1).clamp(min=0).sqrt()
    angle = 0.5 * torch.atan2(2 * row_column, row_row - column_column)
    return MomentEllipse(centre, semi_axes, angle, area)


def ellipse_map(ellipse: MomentEllipse, height: int, width: int) -> Tensor:
    """The filled ellipses as antialiased maps, (B, H, W), from four samples per pixel: where an ellipse is sharply
    curved, one would be wrong by hundredths of a pixel."""
    fine = MomentEllipse(2 * ellipse.centre + 0.5, 2 * ellipse.semi_axes, ellipse.angle, 4 * ellipse.area)
    return F.avg_pool2d(_sampled_ellipse(fine, 2 * height, 2 * width), 2)


def _sampled_ellipse(ellipse: MomentEllipse, height: int, width: int) -> Tensor:
    """As `ellipse_map`, by the distance of a pixel's centre to the edge."""
    rows = torch.arange(height, device=ellipse.angle.device) - ellipse.centre[:, :1]
    columns = torch.arange(width, device=ellipse.angle.device) - ellipse.centre[:, 1:]
    cos, sin = ellipse.angle.cos().view(-1, 1, 1), ellipse.angle.sin().view(-1, 1, 1)
    along = rows[:, :, None] * cos + columns[:, None, :] * sin
    across = columns[:, None, :] * cos - rows[:, :, None] * sin
    major, minor = (ellipse.semi_axes[:, axis].clamp(min=1e-3).view(-1, 1, 1) for axis in (0, 1))
    radius = torch.hypot(along / major, across / minor)
    slope = torch.hypot(along / major.square(), across / minor.square()) / radius.clamp(min=1e-6)
    return (0.5 + (1 - radius) / slope.clamp(min=1e-6)).clamp(0, 1)


def spacing_of_axes(major_axis_mm: Tensor, present: Tensor) -> Tensor:
    """Spacing in mm of each case's grid, (B,), from the full major axes of its outlines and which planes are there.

    major_axis_mm, present: (B, 3) in the order of PLANES. The first plane present decides, so the same planes give the
    same grid. Raises ValueError for a case without a plane.
    """
    if not bool(present.any(1).all()):
        raise ValueError("every case needs one plane at least")
    factors = major_axis_mm.new_tensor([OFD_PER_MAJOR_AXIS[plane] for plane in PLANES])
    first = present.to(torch.uint8).argmax(1, keepdim=True)
    return MARGIN / SIZE * (major_axis_mm * factors).gather(1, first).squeeze(1)


def case_spacing(outlines: Mapping[str, tuple[Tensor, Tensor | float]]) -> Tensor:
    """Spacing in mm of the grids of B cases, (B,), from their outline maps (B, H, W) and pixel sizes in mm by plane."""
    plane = next((plane for plane in PLANES if plane in outlines), None)
    if plane is None:
        raise ValueError("every case needs one plane at least")
    outline, pixel_mm = outlines[plane]
    return MARGIN / SIZE * OFD_PER_MAJOR_AXIS[plane] * 2 * moment_ellipse(outline).semi_axes[:, 0] * pixel_mm


def rotation(ellipse: MomentEllipse, plane: str) -> Tensor:
    """Radians, (B,) in (-π/2, π/2], by which a plane's canonical axes are turned against its map's."""
    if plane == "coronal":
        return torch.zeros_like(ellipse.angle)
    if plane == "axial":
        return ellipse.angle
    turn = ellipse.angle - math.pi / 2  # y runs along the columns of a sagittal plane
    return torch.where(turn <= -math.pi / 2, turn + math.pi, turn)


def canonical_map(outline: Tensor, pixel_mm: Tensor | float, plane: str, spacing_mm: Tensor | float) -> Tensor:
    """Outline maps (B, H, W) of square pixels as the networks see them, (B, 96, 96) at the cases' spacing.

    pixel_mm, spacing_mm: numbers, or (B,). Rows and columns rise along y and x (axial), z and y (sagittal), z and x
    (coronal), up to the flips that an image cannot tell; the centroid lies in the middle of the map.
    """
    if plane not in PLANES:
        raise ValueError(f"there is no plane '{plane}'")
    outline = outline.float()
    ellipse = moment_ellipse(outline)
    turn = rotation(ellipse, plane)
    step = (torch.as_tensor(spacing_mm, device=outline.device, dtype=torch.float32)
            / torch.as_tensor(pixel_mm, device=outline.device, dtype=torch.float32)).expand(len(outline))
    # Coarser than the map: the mean of several samples per pixel keeps the edge's fractions right.
    fine = min(max(1, math.ceil(float(step.max()) - 1e-3)), _MOST_SUPERSAMPLES)
    offset = (torch.arange(SIZE * fine, device=outline.device) + 0.5) / fine - SIZE / 2
    away = offset * step[:, None]
    cos, sin = turn.cos().view(-1, 1, 1), turn.sin().view(-1, 1, 1)
    row = ellipse.centre[:, :1, None] + away[:, :, None] * cos - away[:, None, :] * sin
    column = ellipse.centre[:, 1:, None] + away[:, :, None] * sin + away[:, None, :] * cos
    height, width = outline.shape[1:]
    grid = torch.stack([(2 * column + 1) / width - 1, (2 * row + 1) / height - 1], -1)
    sampled = F.grid_sample(outline[:, None], grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return F.avg_pool2d(sampled, fine).squeeze(1) if fine > 1 else sampled.squeeze(1)
