"""Star-shaped closed surfaces as radii in every direction: cheap to mix, stretch and turn, and continuous in space.

`radii` is a tensor (ROWS, COLUMNS) of mm on a grid over the sphere: rows run from the direction −z to +z (both poles
are rows), columns from +x over +y round to just before +x again. Points and directions are (…, 3) in the order x, y,
z. A cleaned head seen from its centroid is such a surface; everything here takes a millisecond or so on one core.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

ROWS, COLUMNS = 73, 144
_FIXED_POINT_STEPS = 6  # each step shrinks the error by the slope of the surface seen from the new centre


@cache
def directions(device: torch.device) -> Tensor:
    """Unit vectors of the grid, (ROWS, COLUMNS, 3)."""
    polar = torch.linspace(0, math.pi, ROWS, device=device)[:, None]
    azimuth = (torch.arange(COLUMNS, device=device) * (2 * math.pi / COLUMNS))[None]
    xyz = [polar.sin() * azimuth.cos(), polar.sin() * azimuth.sin(), -polar.cos().expand(ROWS, COLUMNS)]
    return torch.stack(xyz, -1)


@cache
def solid_angles(device: torch.device) -> Tensor:
    """The part of the sphere that each direction stands for, (ROWS, 1); the sum over the whole grid is 4π."""
    edges = torch.linspace(0, math.pi, ROWS, dtype=torch.float64)  # on the CPU: not every device has float64
    step = math.pi / (ROWS - 1)
    upper, lower = (edges + step / 2).clamp(max=math.pi), (edges - step / 2).clamp(min=0)
    return ((lower.cos() - upper.cos()) * (2 * math.pi / COLUMNS)).float()[:, None].to(device)


def grid_position(points: Tensor) -> Tensor:
    """Where the directions of `points` lie on the grid, (…, 2) as `at` takes them."""
    x, y, z = points.unbind(-1)
    polar = torch.atan2(torch.hypot(x, y), -z)
    azimuth = torch.atan2(y, x) % (2 * math.pi)
    return torch.stack([azimuth / math.pi - 1, polar * (2 / math.pi) - 1], -1)


def at(maps: Tensor, position: Tensor) -> Tensor:
    """Radii, or several maps (C, ROWS, COLUMNS) at once, at grid positions (…, 2): bilinear, (…) or (C, …)."""
    closed = torch.cat([maps, maps[..., :1]], -1).view(1, -1, ROWS, COLUMNS + 1)
    sampled = F.grid_sample(closed, position.reshape(1, 1, -1, 2), padding_mode="border", align_corners=True)
    return sampled.view(*maps.shape[:-2], *position.shape[:-1])


def mirrored(radii: Tensor) -> Tensor:
    """The surface mirrored left to right."""
    return torch.roll(radii.flip(1), COLUMNS // 2 + 1, 1)


def transformed(radii: Tensor, matrix: Tensor) -> Tensor:
    """The surface after the linear map `matrix` (3, 3)."""
    source = directions(radii.device) @ torch.linalg.inv(matrix).T
    return at(radii, grid_position(source)) / source.norm(dim=-1)


def recentred(radii: Tensor, centre: Tensor) -> Tensor:
    """The same surface in space, seen from `centre` (3,), which must see all of it."""
    return distance_along(radii, centre, directions(radii.device))


def distance_along(radii: Tensor, start: Tensor, direction: Tensor) -> Tensor:
    """How far the surface lies from a point inside along unit vectors (…, 3)."""
    distance = at(radii, grid_position(direction))
    for _ in range(_FIXED_POINT_STEPS):
        point = start + distance[..., None] * direction
        distance = distance + at(radii, grid_position(point)) - point.norm(dim=-1)
    return distance


@dataclass(frozen=True)
class Moments:
    """Of the filled volume: mm³, its centroid (3,) in mm, and its second moments (3, 3) about the centroid in mm²."""

    volume: float
    centroid: Tensor
    covariance: Tensor


def moments(radii: Tensor) -> Moments:
    unit, weight = directions(radii.device), solid_angles(radii.device)
    volume = (radii**3 * weight).sum() / 3
    centroid = torch.einsum("rc,rci->i", radii**4 * weight, unit) / 4 / volume
    second = torch.einsum("rc,rci,rcj->ij", radii**5 * weight, unit, unit) / 5 / volume
    return Moments(float(volume), centroid, second - torch.outer(centroid, centroid))


def turn_of_long_axis(covariance: Tensor) -> Tensor:
    """The smallest rotation (3, 3) that brings the longest axis of second moments onto y."""
    axis = torch.linalg.eigh(covariance.cpu().double()).eigenvectors[:, 2]  # not every device has float64
    axis = axis * axis[1].sign() if axis[1] != 0 else axis
    y = axis.new_tensor([0.0, 1.0, 0.0])
    cross, cosine = torch.linalg.cross(axis, y), axis[1]
    skew = axis.new_zeros(3, 3)
    skew[0, 1], skew[0, 2], skew[1, 2] = -cross[2], cross[1], -cross[0]
    skew = skew - skew.T
    turn = torch.eye(3, dtype=axis.dtype) + skew + skew @ skew / (1 + cosine)
    return turn.float().to(covariance.device)


def in_own_frame(radii: Tensor) -> Tensor:
    """The surface about its centroid with its longest axis along y."""
    found = moments(radii)
    return transformed(recentred(radii, found.centroid), turn_of_long_axis(found.covariance))


@cache
def _volume_grid(size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Grid positions (size, size, size, 2) and distances from the middle of a cubic volume (zyx), in voxels."""
    axis = torch.arange(size, device=device) - (size - 1) / 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    points = torch.stack([x, y, z], -1)
    return grid_position(points), points.norm(dim=-1)


def signed_distance(radii: Tensor, size: int, spacing_mm: float) -> Tensor:
    """Signed distance in mm, positive inside, on a cubic zyx grid about the surface's origin: (size, size, size).

    The difference of radii over the length of its gradient; once more, so that the length is 1 in a layer of a few mm
    round the surface and not on it alone. In the inner half of the head it is only roughly a distance.
    """
    position, distance = _volume_grid(size, radii.device)
    radii = radii / spacing_mm
    radius, slope = at(torch.stack([radii, _squared_slope(radii)]), position)
    deep = distance < 0.5 * radius
    field = (radius - distance) * torch.rsqrt(1 + slope / torch.maximum(distance, 0.5 * radius).square())
    return field / gradient_length(field).clamp(0.8, 1.25).masked_fill_(deep, 1.0) * spacing_mm


def rescaled_to_distance(field: Tensor, spacing_mm: float) -> Tensor:
    """An approximate signed distance in mm made a true one near the surface: its gradient's length becomes 1 there."""
    for _ in range(2):
        field = field / (gradient_length(field) / spacing_mm).clamp(0.7, 1.4)
    return field


def _squared_slope(radii: Tensor) -> Tensor:
    """Squared gradient of the radius on the unit sphere."""
    by_polar = torch.gradient(radii, spacing=math.pi / (ROWS - 1), dim=0)[0]
    by_azimuth = (radii.roll(-1, 1) - radii.roll(1, 1)) * (COLUMNS / (4 * math.pi))
    unit = directions(radii.device)
    sine = torch.hypot(unit[..., 0], unit[..., 1]).clamp(min=math.pi / (ROWS - 1) / 2)
    return by_polar.square() + (by_azimuth / sine).square()


def gradient_length(volume: Tensor) -> Tensor:
    """Length of the gradient per voxel, by central differences; 1 on the faces."""
    length = torch.ones_like(volume)
    inner = slice(1, -1)
    total = torch.zeros_like(volume[inner, inner, inner])
    for axis in range(3):
        ahead, behind = [inner] * 3, [inner] * 3
        ahead[axis], behind[axis] = slice(2, None), slice(None, -2)
        total.addcmul_(difference := volume[tuple(ahead)] - volume[tuple(behind)], difference, value=0.25)
    length[inner, inner, inner] = total.sqrt_()
    return length
