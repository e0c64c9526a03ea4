"""What echoes, and how strongly, in and around a fetal head: mean scatter and smooth reflectors at given points.

Amplitudes are linear, bone facing the beam being about 1. Positions inside the head are in parts of its half extents,
so that the same anatomy appears in every plane. Maps are (beams, depths), in millimetres where they are lengths.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .heads import Head
from .planes import smooth_noise
from .random import Draw

# Centres and radii in half extents of the head (x, y, z); each appears on both sides where x is not 0.
THALAMUS = ((0.2, 0.0, -0.1), (0.2, 0.24, 0.25))
CAVUM = ((0.0, 0.38, 0.0), (0.09, 0.16, 0.16))
FRONTAL_HORN = ((0.2, 0.42, 0.15), (0.08, 0.2, 0.16))
ATRIUM = ((0.4, -0.38, 0.1), (0.15, 0.3, 0.2))
CHOROID = ((0.38, -0.36, 0.1), (0.1, 0.24, 0.14))
CEREBELLUM = ((0.24, -0.5, -0.55), (0.26, 0.24, 0.24))
BRAINSTEM = ((0.0, -0.12, -0.6), (0.14, 0.14, 0.3))


def half_extents(head: Head) -> Tensor:
    """Half the head's extents along x, y, z in mm, (3,)."""
    inside = head.sdf > 0
    counts = [inside.any(0).any(0).sum(), inside.any(0).any(1).sum(), inside.any(2).any(1).sum()]
    return torch.stack(counts) * (head.spacing_mm / 2)


def _ellipsoid(unit: Tensor, part: tuple[tuple[float, float, float], tuple[float, float, float]],
               scale: float = 1.0) -> Tensor:
    """Signed, in parts of the radius: 1 in the centre, 0 on the surface. unit: (…, 3) in half extents."""
    centre, radii = (unit.new_tensor(value) for value in part)
    away = torch.stack([unit[..., 0].abs() if part[0][0] else unit[..., 0], unit[..., 1], unit[..., 2]], -1) - centre
    return 1 - (away / (radii * scale)).norm(dim=-1)


def _soft(signed: Tensor, width: float = 0.12) -> Tensor:
    return torch.sigmoid(signed / width)


def _line(distance: Tensor, width: float) -> Tensor:
    return torch.exp(-(distance / width).square())


def brain(draw: Draw, unit: Tensor, depth_in_mm: Tensor, ga_weeks: float, facing_x: Tensor) -> tuple[Tensor, Tensor]:
    """Scatter and reflectors inside a head.

    unit: (…, 3) positions in half extents; depth_in_mm: distance from the skull; facing_x: (beams, 1) how far each
    beam runs along the head's x, across the falx and the walls of the ventricles.
    """
    size = tuple(depth_in_mm.shape)
    level = 10 ** draw.number(-2.35, -1.4)
    scatter = level * torch.exp(draw.number(0, 0.5) * smooth_noise(draw, size, draw.integer(5, 16)))
    scatter = scatter * (1 - draw.number(0.2, 0.8) * _soft(_ellipsoid(unit, THALAMUS)))
    fluid = torch.maximum(_soft(_ellipsoid(unit, CAVUM)), _soft(_ellipsoid(unit, FRONTAL_HORN)))
    swollen = draw.number(0.6, 1.0) if draw.chance(0.8) else draw.number(1.0, 1.9)
    ventricle = _ellipsoid(unit, ATRIUM, swollen)
    fluid = torch.maximum(fluid, _soft(ventricle))
    scatter = scatter * (1 - draw.number(0.3, 0.95) * fluid)
    plexus = _soft(_ellipsoid(unit, CHOROID, draw.number(0.6, 1.1)), 0.2)
    scatter = scatter + plexus * level * 10 ** draw.number(0.0, 0.7)
    scatter = scatter + _soft(_ellipsoid(unit, CEREBELLUM)) * level * draw.number(0, 1.5)

    x, y, z = unit.unbind(-1)
    midline = _line(x + draw.number(0, 0.02) * torch.sin(3 * y + draw.number(0, 6)), draw.number(0.01, 0.03))
    if draw.chance(0.5):
        beside = _line(x.abs() - draw.number(0.04, 0.12), 0.015)
        midline = midline + 0.6 * beside * _line(y - draw.number(-0.5, 0.5), 0.3)
    broken = torch.sigmoid(4 * (smooth_noise(draw, size, draw.integer(6, 18)) + draw.number(-1.0, 1.0)))
    midline = midline * broken * (1 - 0.9 * _soft(_ellipsoid(unit, CAVUM))) * torch.sigmoid((z + 0.3) / 0.1)
    echoes = midline * 10 ** draw.number(-1.6, -0.5)
    walls = _line(ventricle, 0.14) + _line(_ellipsoid(unit, CAVUM), 0.2) + _line(_ellipsoid(unit, FRONTAL_HORN), 0.15)
    walls = walls + 0.6 * _line(_ellipsoid(unit, CEREBELLUM), 0.08) + 0.5 * _line(_ellipsoid(unit, BRAINSTEM), 0.1)
    echoes = echoes + walls.clamp(max=1) * broken.flip(0) * 10 ** draw.number(-2.2, -0.8)
    if draw.chance(0.7):  # the Sylvian fissure: short lines along the skull on both sides
        insula = _line(x.abs() - draw.number(0.5, 0.65) - 0.1 * y.square(), 0.03) * _line(y - 0.1, 0.35)
        echoes = echoes + insula * 10 ** draw.number(-2.0, -0.9)
    echoes = echoes * (0.2 + 0.8 * facing_x.square()) + _streaks(draw, size)
    return scatter, echoes + level * _sulci(draw, size, depth_in_mm, ga_weeks)


def _streaks(draw: Draw, size: tuple[int, int]) -> Tensor:
    """Short bright echoes across the beams, of vessels and folds that the anatomy here does not name."""
    if draw.chance(0.15):
        return torch.zeros(size, device=draw.device)
    coarse = draw.normal(1, 1, draw.integer(8, 20), draw.integer(30, 70))
    fine = torch.nn.functional.interpolate(coarse, size=size, mode="bicubic", align_corners=True)[0, 0]
    where = torch.sigmoid(3 * (smooth_noise(draw, size, draw.integer(3, 6)) + draw.number(-1, 0.5)))
    return (fine - draw.number(0.7, 1.4)).clamp(min=0) * where * 10 ** draw.number(-1.7, -0.6)


def _sulci(draw: Draw, size: tuple[int, int], depth_in_mm: Tensor, ga_weeks: float) -> Tensor:
    """Bright creases below the skull, more of them with age."""
    crease = (1 - smooth_noise(draw, size, draw.integer(8, 20)).abs()).clamp(min=0) ** 8
    below = torch.exp(-depth_in_mm / draw.number(6, 25))
    return crease * below * draw.number(0, 1) * max(0.5, (ga_weeks - 16) / 4)


def surroundings(draw: Draw, size: tuple[int, int], depth_mm: Tensor, outside_mm: Tensor) -> Tensor:
    """Scatter outside the head: the mother's abdominal wall in layers, uterus and placenta, amniotic fluid.

    depth_mm: from the transducer; outside_mm: distance from the head's surface.
    """
    tissue = 10 ** draw.number(-1.9, -1.0)
    scatter = tissue * torch.exp(draw.number(0.1, 0.7) * smooth_noise(draw, size, draw.integer(4, 12)))
    scatter = scatter * torch.exp(draw.number(0.2, 1.0) * smooth_noise(draw, size, draw.integer(2, 5)))
    pools = smooth_noise(draw, size, draw.integer(2, 5)) + draw.number(-1.4, 1.2)
    halo = draw.number(-1, 2) * torch.exp(-outside_mm / draw.number(2, 12))  # fluid lies against the head
    fluid = torch.sigmoid(draw.number(4, 15) * (pools + halo))
    scatter = scatter * (1 - fluid) + 10 ** draw.number(-3.4, -2.4) * fluid
    wall_mm = draw.number(0, 25)
    if wall_mm > 5:
        wave = depth_mm / draw.number(1.5, 4) + 2 * smooth_noise(draw, size, 3)
        layers = torch.exp(draw.number(0.3, 1.2) * torch.sin(wave)) * 10 ** draw.number(-1.7, -0.8)
        wall = torch.sigmoid((wall_mm - depth_mm + 3 * smooth_noise(draw, size, 3)) / 1.5)
        scatter = scatter * (1 - wall) + layers * wall
    return scatter


def scalp(draw: Draw, outside_mm: Tensor) -> Tensor:
    """Reflectors just outside the skull: the skin, at times apart from the bone."""
    if draw.chance(0.5):
        return torch.zeros_like(outside_mm)
    return _line(outside_mm - draw.number(1.5, 4.5), draw.number(0.4, 0.9)) * 10 ** draw.number(-2.0, -0.8)


def face_and_neck(draw: Draw, unit: Tensor, outside: Tensor) -> tuple[Tensor, Tensor]:
    """Tissue and bone below the head, seen in sagittal and coronal planes: (scatter, bone 0..1).

    outside: 0…1, outside of the head.
    """
    x, y, z = unit.unbind(-1)
    flesh = torch.zeros_like(x)
    bone = torch.zeros_like(x)
    neck_y, width = draw.number(-0.5, -0.2), draw.number(0.25, 0.45)
    flesh = torch.maximum(flesh, torch.sigmoid((width - (y - neck_y).abs()) / 0.05) * torch.sigmoid((-z - 0.4) / 0.1))
    face = 1 - (((y - 0.55) / 0.42).square() + ((z + 0.85) / draw.number(0.55, 0.8)).square()).sqrt()
    flesh = torch.maximum(flesh, _soft(face, 0.06))
    spine = (y - neck_y + 0.12).abs()
    beads = torch.sin(z * draw.number(18, 30) + draw.number(0, 6)).clamp(min=0)
    bone = torch.maximum(bone, _line(spine, 0.06) * beads * torch.sigmoid((-z - 0.8) / 0.06))
    for _ in range(draw.integer(2, 6)):  # orbits, nose, jaws
        centre_y, centre_z = draw.number(0.3, 0.85), draw.number(-1.3, -0.6)
        away = torch.stack([(y - centre_y) / draw.number(0.04, 0.14), (z - centre_z) / draw.number(0.03, 0.1)], -1)
        bone = torch.maximum(bone, torch.exp(-away.square().sum(-1)) * draw.number(0.3, 1.0))
    across = torch.sigmoid((0.75 - x.abs()) / 0.05)
    return flesh * outside * across * 10 ** draw.number(-1.8, -1.0), bone * outside * across
