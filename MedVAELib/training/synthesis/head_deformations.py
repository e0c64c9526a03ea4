"""How heads differ: smooth individual variation, and the shapes of dolicho- and brachycephaly, asymmetry, moulding and
spina bifida. Everything acts on the logarithm of normalised radii (see star_shapes), so 0.01 is a change of 1 %.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from . import star_shapes
from .random import Draw

SUTURES = {
    "sagittal": ((1.0, 0.0, 0.0), 0.0),
    "coronal": ((0.0, 0.91, 0.41), 0.25),
    "lambdoid": ((0.0, -0.89, 0.45), 0.45),
}
"""The circle on the sphere of directions u where a suture runs: its axis n and offset c in n·u = c."""
FONTANELLES = ((0.0, 0.35, 0.94), (0.0, -0.75, 0.66), (0.82, 0.5, -0.1), (-0.82, 0.5, -0.1), (0.75, -0.62, -0.2),
               (-0.75, -0.62, -0.2))
"""Directions (x, y, z) of the anterior, posterior, sphenoidal and mastoid fontanelles."""
_BUMPS = 40  # of a random relief


def bump(centre: tuple[float, float, float], width: float, device: torch.device) -> Tensor:
    """1 in the direction of `centre` (x, y, z), falling off over `width` radians: (ROWS, COLUMNS)."""
    axis = torch.tensor(centre, device=device)
    cosine = star_shapes.directions(device) @ (axis / axis.norm())
    return torch.exp((cosine - 1) / width**2)


def smooth_field(draw: Draw, width: float, asymmetry: float) -> Tensor:
    """Random relief of unit variance over the sphere; `asymmetry` is the share left of what differs left to right."""
    centres = draw.normal(_BUMPS, 3)
    centres = centres / centres.norm(dim=1, keepdim=True)
    cosine = star_shapes.directions(draw.device) @ centres.T
    field = torch.exp((cosine - 1) / width**2) @ draw.normal(_BUMPS)
    mirror = star_shapes.mirrored(field)
    field = (field + mirror) / 2 + asymmetry * (field - mirror) / 2
    weight = star_shapes.solid_angles(draw.device) / (4 * math.pi)
    field = field - (field * weight).sum()
    return field / (field.square() * weight).sum().sqrt()


def individual(draw: Draw) -> Tensor:
    """What any two healthy heads of one size differ by: broad relief, finer relief, a little asymmetry."""
    broad = smooth_field(draw, draw.number(0.45, 0.8), 0.35) * draw.number(0.006, 0.022)
    fine = smooth_field(draw, draw.number(0.18, 0.35), 0.5) * draw.number(0.001, 0.006)
    return broad + fine


def flat_occiput(draw: Draw) -> Tensor:
    return -draw.number(0.0, 0.06) * bump((0, -1, 0.15), draw.number(0.45, 0.7), draw.device)


def bulging_occiput(draw: Draw) -> Tensor:
    return draw.number(0.0, 0.05) * bump((0, -1, 0.0), draw.number(0.35, 0.55), draw.device)


def plagiocephaly(draw: Draw) -> tuple[Tensor, float]:
    """One side of the occiput flat, the forehead of that side forward; and the shear of x along y."""
    side = 1.0 if draw.chance(0.5) else -1.0
    amount = draw.number(0.3, 1.0)
    flat = -0.085 * bump((0.55 * side, -0.8, 0.1), 0.5, draw.device)
    forward = 0.04 * bump((0.5 * side, 0.85, 0.1), 0.5, draw.device)
    return amount * (flat + forward), side * amount * draw.number(0.02, 0.16)


def moulding(draw: Draw) -> tuple[Tensor, Tensor]:
    """Overlapping bones at sutures; and the stretch (3, 3) of the head from chin to vertex or occiput."""
    relief = torch.zeros(star_shapes.ROWS, star_shapes.COLUMNS, device=draw.device)
    for normal, offset in SUTURES.values():
        if draw.chance(0.6):
            relief = relief + _overlap(normal, offset + draw.number(-0.1, 0.1), draw.number(-0.028, 0.028), draw.device)
    upward = draw.number(0.15, 0.9)
    axis = torch.tensor([0.0, -math.cos(upward), math.sin(upward)], device=draw.device)
    stretch = draw.number(1.04, 1.2)
    along = torch.outer(axis, axis)
    eye = torch.eye(3, device=draw.device)
    return relief, along * stretch + (eye - along) / math.sqrt(stretch)


def _overlap(normal: tuple[float, float, float], offset: float, step: float, device: torch.device) -> Tensor:
    """A step across the circle n·u = offset on the upper half of the head, fading away from it."""
    unit, axis = star_shapes.directions(device), torch.tensor(normal, device=device)
    side = unit @ (axis / axis.norm()) - offset
    upper = torch.sigmoid((unit[..., 2] - 0.1) / 0.1)
    return 0.5 * step * torch.tanh(side / 0.05) * torch.exp(-(side / 0.4).square()) * upper


def lemon(draw: Draw) -> Tensor:
    """Both sides of the frontal bone scalloped and the forehead pointed, as in open spina bifida before 24 weeks
    (Nicolaides et al. 1986, Lancet 328:72-4)."""
    amount, height = draw.number(0.15, 1.0), draw.number(0.0, 0.3)
    width = draw.number(0.3, 0.45)
    right = bump((0.75, 0.65, height), width, draw.device)
    dents = -0.085 * (right * draw.number(0.75, 1.0) + star_shapes.mirrored(right) * draw.number(0.75, 1.0))
    return amount * (dents + 0.035 * bump((0, 1, height), 0.3, draw.device))
