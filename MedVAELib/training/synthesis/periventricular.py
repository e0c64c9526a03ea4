"""Leukoencephalopathy: bright white matter that grows from the ventricles, by grade.

Grades after the periventricular scale of Fazekas et al. 1987 (doi:10.2214/ajr.149.2.351): 1 caps at the horns and a
thin lining, 2 a smooth halo, 3 irregular and confluent, far into the deep white matter, with islands of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from ...tissues import CORTEX, VENTRICLES, WHITE
from .lesions import blob
from .random import Draw

LATERAL_MM = (-10.0, 45.0)
"""Where the lateral ventricles lie above and below in MNI space, their temporal horns left out."""
_SPARED_MM = 3.5  # white matter this close to the cortex (the U fibres) is spared
_HORNS_ZY = ((8.0, 32.0), (14.0, -66.0))  # foremost and hindmost parts of the lateral ventricles, MNI mm
_CROWN_Z = 27.0  # the white matter above the ventricles (centrum semiovale), MNI mm


@dataclass(frozen=True)
class Grade:
    """How one grade looks. reach_mm: from the ventricle's wall; horns: how much further at the horns (a factor);
    unevenness: of the reach, as the spread of its logarithm; soft_mm: width of the edge; islands: (fewest, most)."""

    reach_mm: tuple[float, float]
    horns: tuple[float, float]
    unevenness: float
    soft_mm: tuple[float, float]
    islands: tuple[int, int]


GRADES = {
    1: Grade((1.5, 3.0), (1.8, 3.0), 0.15, (0.6, 1.0), (0, 1)),
    2: Grade((4.0, 6.5), (1.3, 1.8), 0.30, (0.8, 1.6), (0, 4)),
    3: Grade((8.5, 14.0), (1.0, 1.3), 0.50, (1.0, 2.0), (4, 12)),
}


def leukoencephalopathy(draw: Draw, grade: int, target: Tensor, mni_mm: Tensor, spacing_mm: float) -> Tensor:
    """Fraction (D, H, W) of affected white matter.

    target: (K, D, H, W) tissue fractions; mni_mm: (D, H, W, zyx). A head without ventricles gets none.
    """
    look, shape = GRADES[grade], tuple(target.shape[1:])
    z, y, x = mni_mm.unbind(-1)
    lateral = (target[VENTRICLES] > 0.5) & (z > LATERAL_MM[0]) & (z < LATERAL_MM[1]) & ((y > -45) | (x.abs() > 8))
    if not lateral.any():
        return torch.zeros(shape, device=target.device)
    distance = _distance_mm(lateral, spacing_mm)
    reach = draw.number(*look.reach_mm) * torch.exp(look.unevenness * _noise(draw, shape))
    reach = reach * (1 + (draw.number(*look.horns) - 1) * _near_horns(z, y))
    soft = draw.number(*look.soft_mm)
    affected = torch.sigmoid((reach - distance) / soft)
    for _ in range(draw.integer(look.islands[0], look.islands[1] + 1)):
        affected = torch.maximum(affected, _island(draw, distance, target[WHITE], spacing_mm))
    spared = torch.sigmoid((_distance_mm(target[CORTEX] > 0.5, spacing_mm) - _SPARED_MM) / 0.8)
    return affected * spared * target[WHITE]


def _noise(draw: Draw, shape: tuple[int, int, int]) -> Tensor:
    """Smooth noise of two scales, about unit variance."""
    return (draw.field(shape, 8)[0] + draw.field(shape, 18)[0]) / math.sqrt(2)


def _near_horns(z: Tensor, y: Tensor) -> Tensor:
    """1 at the front and back ends of the lateral ventricles and above them, 0 along their walls."""
    near = torch.exp(-((z - _CROWN_Z) / 8).square()) * 0.6
    for horn_z, horn_y in _HORNS_ZY:
        near = torch.maximum(near, torch.exp(-((z - horn_z) / 14).square() - ((y - horn_y) / 14).square()))
    return near


def _island(draw: Draw, distance: Tensor, white: Tensor, spacing_mm: float) -> Tensor:
    """A patch of its own in the deep white matter, not far beyond the confluent part."""
    where = torch.nonzero((distance > 6) & (distance < 24) & (white > 0.9))
    if not len(where):
        return torch.zeros_like(white)
    centre = where[draw.integer(0, len(where))].float()
    radius = draw.number(2.0, 5.0) / spacing_mm
    return blob(draw, centre, radius, tuple(white.shape))


def _distance_mm(mask: Tensor, spacing_mm: float) -> Tensor:
    """Distance of every voxel to the mask."""
    distance = distance_transform_edt(~mask.cpu().numpy()) * spacing_mm
    return torch.from_numpy(distance.astype(np.float32)).to(mask.device)
