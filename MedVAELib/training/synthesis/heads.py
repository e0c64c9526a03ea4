"""A population of fetal heads, 20 to 36 weeks, from the masks of real fetal brains: every head from its seed alone.

Atlas shapes, freed from size and proportions, are interpolated in age and mixed; individual relief and the shape of
the drawn kind are laid on; then the head is stretched to a biparietal and occipitofrontal diameter drawn from the
growth charts. Sizes stay in mm throughout. A head is the filled volume inside the skull's outer table.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor

from ...errors import InputError
from ...growth_charts import BPD, OFD
from ...preprocessing.outlines import MARGIN, SIZE
from . import head_deformations as deform
from . import star_shapes
from .head_masks import LIGHT_CLOSING, LIGHT_OPENING, AxialSection, mask_files, radii_of, read_mask, skull_thickness_mm
from .random import Draw

KINDS = ("typical", "dolichocephaly", "brachycephaly", "asymmetry", "moulding", "spina bifida")
WEEKS = (20.0, 36.0)
_KIND_EDGES = tuple(accumulate((0.5, 0.1, 0.1, 0.1, 0.1, 0.1)))  # of the kinds' shares
_CEPHALIC_INDEX = {"dolichocephaly": (0.64, 0.74), "brachycephaly": (0.84, 0.96)}
_DIAMETER_CORRELATION = 0.4
"""Of BPD and OFD at one age: what makes the spread of π/2 (BPD + OFD) that of the chart's head circumference."""
_MODES = 6  # of what differs between heads of one age


@dataclass(frozen=True)
class Head:
    """sdf, inner_sdf: (D, H, W) mm, positive inside the outer and the inner table, zyx in the head's frame (RAS mm
    about the centroid of the head, longest axis along y), isotropic `spacing_mm`, the origin in the grid's middle."""

    sdf: Tensor
    inner_sdf: Tensor
    spacing_mm: float
    ga_weeks: float
    kind: str
    name: str = ""

    @property
    def edge_mm(self) -> float:
        """Of the grid."""
        return self.spacing_mm * self.sdf.shape[0]

    @property
    def ofd_mm(self) -> float:
        """Occipitofrontal diameter."""
        return self.edge_mm / MARGIN


@dataclass(frozen=True)
class HeadShape:
    """An atlas head without size: log radii (ROWS, COLUMNS) scaled to extents of 2 along x, y and z.

    base: the same with the mask's own base instead of one spanned by the skull. ratios: extents of x and z over y.
    """

    name: str
    ga_weeks: float
    spina_bifida: bool
    skull: Tensor
    base: Tensor
    ratios: tuple[float, float]


def read_head_shapes(folder: Path, names: Sequence[str] | None = None) -> list[HeadShape]:
    """The atlas heads below a folder, all or those named. Raises InputError for a name that is not there."""
    files = mask_files(folder)
    missing = sorted(set(names or ()) - set(files))
    if missing:
        raise InputError(f"{folder}: no head mask named {missing[0]} in this folder.")
    return [_head_shape(name, files[name]) for name in (names or files)]


def _head_shape(name: str, path: Path) -> HeadShape:
    mask = read_mask(name, path)
    radii = radii_of(mask.sdf, mask.spacing_mm)
    extents = _extents(radii)
    light = read_mask(name, path, LIGHT_CLOSING, LIGHT_OPENING)
    spina_bifida = "SB" in name or "spina" in str(path.parent).lower()
    ratios = (float(extents[0] / extents[1]), float(extents[2] / extents[1]))
    base = _normalised(radii_of(light.sdf, light.spacing_mm))
    return HeadShape(name, mask.ga_weeks, spina_bifida, _normalised(radii), base, ratios)


def _extents(radii: Tensor) -> Tensor:
    points = radii[..., None] * star_shapes.directions(radii.device)
    return points.amax((0, 1)) - points.amin((0, 1))


def _normalised(radii: Tensor) -> Tensor:
    return star_shapes.transformed(radii, torch.diag(2 / _extents(radii))).log()


class HeadPopulation:
    """Draws heads on one device; `size` voxels along an edge of their grids, whose edge is 1.3 times the OFD."""

    def __init__(self, shapes: Sequence[HeadShape], device: torch.device | str = "cpu", size: int = SIZE):
        if not shapes:
            raise ValueError("a population needs one shape at least")
        self.device, self.size = torch.device(device), size
        shapes = sorted(shapes, key=lambda shape: shape.ga_weeks)
        typical = [shape for shape in shapes if not shape.spina_bifida]
        self._lines = {
            "typical": _AgeLine(typical or shapes, self.device),
            "spina bifida": _AgeLine([shape for shape in shapes if shape.spina_bifida] or shapes, self.device),
        }
        self._modes = _modes(list(self._lines.values()) if typical else [self._lines["typical"]])

    def __call__(self, seed: int, kind: str | None = None) -> Head:
        draw = Draw(seed, self.device)
        drawn = KINDS[bisect_left(_KIND_EDGES[:-1], draw.number(0, _KIND_EDGES[-1]))]
        kind = kind or drawn
        if kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {kind}")
        age = draw.number(*WEEKS)
        radii = self._shape(draw, kind, age)
        section = AxialSection.of(radii)
        spacing_mm = MARGIN * section.ofd_mm / self.size
        sdf = star_shapes.signed_distance(radii, self.size, spacing_mm)
        thickness = skull_thickness_mm(age) * draw.number(0.75, 1.3)
        return Head(sdf, sdf - thickness, spacing_mm, age, kind, f"{kind} {seed}")

    def _shape(self, draw: Draw, kind: str, age: float) -> Tensor:
        """Radii in mm of a head of the given kind and age, in its own frame."""
        line = self._lines["spina bifida" if kind == "spina bifida" else "typical"]
        if kind != "spina bifida" and draw.chance(0.15):
            line = self._lines["spina bifida"]  # its later weeks are shapes like any other
        log, ratios = line.at(draw, age + 1.5 * float(draw.normal(1)), draw.number(0, 1) if draw.chance(0.3) else 0.0)
        log = log + torch.einsum("k,krc->rc", draw.normal(len(self._modes)).clamp(-2.5, 2.5), self._modes)
        log = log + deform.individual(draw)
        linear = torch.eye(3, device=self.device)
        if kind == "dolichocephaly":
            log = log + deform.bulging_occiput(draw)
        elif kind == "brachycephaly":
            log = log + deform.flat_occiput(draw)
        elif kind == "spina bifida":
            log = log + deform.lemon(draw)
        elif kind == "asymmetry":
            relief, shear = deform.plagiocephaly(draw)
            log = log + relief
            linear[0, 1] = shear
        elif kind == "moulding":
            relief, linear = deform.moulding(draw)
            log = log + relief
        bpd_mm, ofd_mm = self._diameters(draw, kind, age)
        height_mm = ofd_mm * ratios[1] * math.exp(0.02 + 0.06 * float(draw.normal(1)))
        size = torch.tensor([bpd_mm, ofd_mm, height_mm], device=self.device) / 2
        radii = star_shapes.in_own_frame(star_shapes.transformed(log.exp(), torch.diag(size) @ linear))
        return self._fitted(radii, bpd_mm, ofd_mm)

    def _diameters(self, draw: Draw, kind: str, age: float) -> tuple[float, float]:
        """BPD and OFD in mm from the growth charts; a long or short head keeps their sum, so its circumference."""
        first, second = draw.normal(2).clamp(-2.8, 2.8).tolist()
        other = _DIAMETER_CORRELATION * first + math.sqrt(1 - _DIAMETER_CORRELATION**2) * second
        bpd_mm = BPD.mean_mm(age) + first * BPD.sd_mm(age)
        ofd_mm = OFD.mean_mm(age) + other * OFD.sd_mm(age)
        if kind in _CEPHALIC_INDEX:
            index = draw.number(*_CEPHALIC_INDEX[kind])
            total = bpd_mm + ofd_mm
            ofd_mm = total / (1 + index)
            bpd_mm = total - ofd_mm
        return bpd_mm, ofd_mm

    def _fitted(self, radii: Tensor, bpd_mm: float, ofd_mm: float) -> Tensor:
        """Stretched so that the axial section has these diameters; turning and centring have changed them a little."""
        section = AxialSection.of(radii)
        x, y = bpd_mm / section.bpd_mm, ofd_mm / section.ofd_mm
        stretch = torch.diag(radii.new_tensor([x, y, math.sqrt(x * y)]))
        return star_shapes.in_own_frame(star_shapes.transformed(radii, stretch))


class _AgeLine:
    """Shapes of one kind in order of age, interpolated between."""

    def __init__(self, shapes: Sequence[HeadShape], device: torch.device):
        self.ages = torch.tensor([shape.ga_weeks for shape in shapes])
        self.logs = torch.stack([torch.stack([shape.skull, shape.base]) for shape in shapes]).to(device)
        self.ratios = torch.tensor([shape.ratios for shape in shapes])

    def at(self, draw: Draw, age: float, base: float) -> tuple[Tensor, tuple[float, float]]:
        """The log radii at an age, a random part of a random other shape in them, and the ratios of extents.

        base: 0…1, from the skull's base to the masks' own.
        """
        weight = self.weights(age)
        other = draw.integer(0, len(self.ages))
        share = draw.number(0, 0.5)
        weight = (1 - share) * weight
        weight[other] += share
        x, z = (weight @ self.ratios).tolist()
        part = torch.tensor([1 - base, base], device=self.logs.device)
        return torch.einsum("n,b,nbrc->rc", weight.to(self.logs.device), part, self.logs), (x, z)

    def weights(self, age: float) -> Tensor:
        """Of each shape in a linear interpolation at `age`; the outermost shapes stand for all beyond them."""
        distance = (self.ages - age).abs()
        below, above = self.ages <= age, self.ages >= age
        if not below.any() or not above.any():
            return torch.nn.functional.one_hot(distance.argmin(), len(self.ages)).float()
        low = int(torch.where(below, distance, torch.inf).argmin())
        high = int(torch.where(above, distance, torch.inf).argmin())
        weight = torch.zeros(len(self.ages))
        span = float(self.ages[high] - self.ages[low])
        weight[low] += 1.0 if span == 0 else float(distance[high]) / span
        weight[high] += 0.0 if span == 0 else float(distance[low]) / span
        return weight


def _modes(lines: Sequence[_AgeLine]) -> Tensor:
    """Principal modes (K, ROWS, COLUMNS), scaled to one standard deviation, of what age does not explain: every
    shape's difference from the interpolation between its neighbours in age."""
    residuals = []
    for line in lines:
        for index in range(1, len(line.ages) - 1):
            residuals.append(line.logs[index, 0] - line.logs[[index - 1, index + 1], 0].mean(0))
    if len(residuals) < 3:
        return lines[0].logs.new_zeros(1, star_shapes.ROWS, star_shapes.COLUMNS)
    matrix = torch.stack(residuals).flatten(1)
    _, size, modes = torch.linalg.svd(matrix, full_matrices=False)
    keep = min(_MODES, len(size))
    scaled = modes[:keep] * (size[:keep, None] / math.sqrt(len(residuals)))
    return scaled.view(keep, star_shapes.ROWS, star_shapes.COLUMNS)
