"""Standard planes of a head as a sonographer finds them: misplaced, some missing, their outlines drawn imperfectly.

Planes cut a signed-distance volume, so outline maps are exact to a fraction of a pixel at any pixel size. Rows and
columns of a plane rise along y and x (axial), z and y (sagittal), z and x (coronal).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ...preprocessing.outlines import SIZE, canonical_map, moment_ellipse, spacing_of_axes
from ...standard_planes import AXES, PLANES
from .heads import Head, HeadPopulation
from .random import Draw

ROTATION_DEG, SHIFT_PX, OFFSET_MM = 10.0, 7.0, 3.0
LEVEL = {"axial": -0.015, "sagittal": 0.0, "coronal": 0.0}
"""Where a plane lies along its normal, in parts of the OFD: the widest axial section is a little below the centroid."""
ACROSS_DEG = {"axial": 90.0, "sagittal": 0.0, "coronal": 0.0}
"""Turn of the head in an image at which it lies across it (a coronal one upright), as sonographers keep it."""
TURN_DEG = {"axial": 30.0, "sagittal": 30.0, "coronal": 0.0}
"""Give or take so much; the misplacement of every plane comes on top."""
MAP_PX = 192
"""Edge of the plane from which a canonical map is made."""


@dataclass(frozen=True)
class PlanePose:
    """A plane in a head's frame: turned by `rotation_deg` about x, y and z (in this order, about the centroid), moved
    along its normal by `offset_mm`; in the image the head is turned by `turn_deg` and moved by `shift_px` (rows,
    columns) of a 96-pixel plane whose edge is 1.3 times the OFD."""

    plane: str
    rotation_deg: tuple[float, float, float] = (0.0, 0.0, 0.0)
    offset_mm: float = 0.0
    shift_px: tuple[float, float] = (0.0, 0.0)
    turn_deg: float = 0.0

    def __post_init__(self) -> None:
        if self.plane not in PLANES:
            raise ValueError(f"there is no plane '{self.plane}'")

    def basis(self, device: torch.device) -> Tensor:
        """Unit vectors of rows, columns and normal as rows, (3, 3) in x, y, z."""
        row, column, normal = _rotation(self.rotation_deg, device)[:, list(AXES[self.plane])].T
        cos, sin = math.cos(math.radians(self.turn_deg)), math.sin(math.radians(self.turn_deg))
        return torch.stack([cos * row + sin * column, cos * column - sin * row, normal])


def _rotation(degrees: tuple[float, float, float], device: torch.device) -> Tensor:
    a, b, c = (math.radians(angle) for angle in degrees)
    about_x = [[1, 0, 0], [0, math.cos(a), -math.sin(a)], [0, math.sin(a), math.cos(a)]]
    about_y = [[math.cos(b), 0, math.sin(b)], [0, 1, 0], [-math.sin(b), 0, math.cos(b)]]
    about_z = [[math.cos(c), -math.sin(c), 0], [math.sin(c), math.cos(c), 0], [0, 0, 1]]
    x, y, z = (torch.tensor(matrix, dtype=torch.float32, device=device) for matrix in (about_x, about_y, about_z))
    return z @ y @ x


def draw_pose(draw: Draw, plane: str, head: Head, misplacement: float = 1.0) -> PlanePose:
    """A plane placed by hand: up to ±10° about every axis, ±7 pixels in the plane and ±3 mm across it, times
    `misplacement`; 0 gives the standard plane."""
    turn = (draw.uniform(-1, 1, 3) * ROTATION_DEG * misplacement).tolist()
    across = draw.number(-1, 1) * OFFSET_MM * misplacement
    shift = (draw.uniform(-1, 1, 2) * SHIFT_PX * misplacement).tolist()
    return PlanePose(plane, tuple(turn), LEVEL[plane] * head.ofd_mm + across, tuple(shift))


def draw_image_pose(draw: Draw, plane: str, head: Head, misplacement: float = 1.0) -> PlanePose:
    """A plane placed by hand, and either way round in the image."""
    pose = draw_pose(draw, plane, head, misplacement)
    turn = ACROSS_DEG[plane] + draw.number(-1, 1) * TURN_DEG[plane] + 180.0 * draw.integer(0, 2)
    return replace(pose, turn_deg=turn)


def plane_points(pose: PlanePose, size_px: tuple[int, int], pixel_mm: float, shift_mm: Tensor) -> Tensor:
    """Points of the plane's pixels in the head's frame, (H, W, 3) mm in x, y, z; shift_mm: (2,) rows, columns."""
    device = shift_mm.device
    rows, columns = ((torch.arange(n, device=device) - (n - 1) / 2) * pixel_mm for n in size_px)
    row, column, normal = pose.basis(device)
    along_rows = (rows - shift_mm[0])[:, None, None] * row
    return along_rows + (columns - shift_mm[1])[None, :, None] * column + pose.offset_mm * normal


def sample(volume: Tensor, spacing_mm: float, points_mm: Tensor) -> Tensor:
    """A cubic zyx volume about the origin at points (…, 3) in x, y, z; trilinear, its edge continued outside."""
    grid = points_mm * (2 / (spacing_mm * volume.shape[0]))
    sampled = F.grid_sample(volume[None, None], grid.reshape(1, 1, 1, -1, 3), padding_mode="border",
                            align_corners=False)
    return sampled.view(points_mm.shape[:-1])


def cut(sdf: Tensor, spacing_mm: float, pose: PlanePose, size_px: tuple[int, int], pixel_mm: float) -> Tensor:
    """A head's signed distance (mm, positive inside) in a plane, (H, W)."""
    edge_mm = spacing_mm * sdf.shape[0]
    shift_mm = torch.tensor(pose.shift_px, device=sdf.device) * (edge_mm / SIZE)
    return sample(sdf, spacing_mm, plane_points(pose, size_px, pixel_mm, shift_mm))


def outline_map(sdf_mm: Tensor, pixel_mm: float) -> Tensor:
    """The fraction of each pixel inside the head, from signed distances in the plane: same shape, 0..1."""
    return (0.5 + sdf_mm / pixel_mm).clamp(0, 1)


def smooth_noise(draw: Draw, size_px: tuple[int, int], control_points: int) -> Tensor:
    """Smooth noise of about unit variance, (H, W): `control_points` along the rows, bicubic between."""
    step = max(size_px) / control_points
    coarse = draw.normal(1, 1, *(max(2, round(n / step) + 1) for n in size_px))
    return F.interpolate(coarse, size=size_px, mode="bicubic", align_corners=True)[0, 0]


def with_tracing_error(draw: Draw, sdf_mm: Tensor, pixel_mm: float, unit_mm: float) -> Tensor:
    """An outline map (H, W) as a network or a hand draws it: smoothly displaced by 0–2 units, at times with a piece
    missing or added where shadow hid the bone, with a soft edge. unit_mm: a pixel of the networks' 96-pixel planes."""
    size = tuple(sdf_mm.shape)
    displacement = draw.number(0, 1) ** 2 * 2.0 * smooth_noise(draw, size, draw.integer(3, 8))
    displacement = displacement + draw.number(-0.7, 0.7)
    for _ in range(draw.integer(0, 3)):
        displacement = displacement + _bite(draw, sdf_mm, draw.number(0.08, 0.25)) * draw.number(-3.5, 3)
    softness = max(pixel_mm, unit_mm * draw.number(0.5, 2.5))
    return outline_map(sdf_mm + unit_mm * displacement, softness)


def _bite(draw: Draw, sdf_mm: Tensor, width: float) -> Tensor:
    """1 at a random place of the edge, falling off over `width` of the plane: (H, W)."""
    edge = torch.nonzero(sdf_mm.abs() < sdf_mm.abs().flatten().kthvalue(64).values)
    where = draw.integer(0, 64)
    height, columns = sdf_mm.shape
    centre = edge[where % len(edge)] if len(edge) else sdf_mm.new_tensor([height / 2, columns / 2])
    row = (torch.arange(height, device=sdf_mm.device) - centre[0]) / (width * height)
    column = (torch.arange(columns, device=sdf_mm.device) - centre[1]) / (width * height)
    return torch.exp(-0.5 * row.square())[:, None] * torch.exp(-0.5 * column.square())[None]


@dataclass(frozen=True)
class PlaneConfig:
    """How cases are drawn: scale of misplacement and of tracing errors, and probabilities per case."""

    misplacement: float = 1.0
    imaged: float = 0.0  # of the cases whose outlines are found on simulated images
    traced: float = 0.8  # of the other planes, with tracing errors
    sagittal: float = 0.75
    coronal: float = 0.6
    without_axial: float = 0.25
    repeated: float = 0.03  # of the further planes: the axial plane given again

    def __post_init__(self) -> None:
        if self.misplacement < 0:
            raise ValueError("misplacement must not be negative")
        for name in ("imaged", "traced", "sagittal", "coronal", "without_axial", "repeated"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be a probability")


@dataclass(frozen=True)
class PlaneCases:
    """B cases: planes (B, 3, 96, 96) canonical outline maps, 0 where not present (B, 3); sdf (B, 1, D, D, D) in voxels
    of the 96³ grid at spacing_mm (B,), positive inside; the heads they were cut from."""

    planes: Tensor
    present: Tensor
    sdf: Tensor
    spacing_mm: Tensor
    heads: list[Head]


Found = tuple[Tensor, Tensor]
"""Outline maps (3, MAP_PX, MAP_PX) 0..1 of a head's planes, and their pixels in mm (3,)."""
Imager = Callable[[Draw, Head, float], Found | None]
"""From a draw, a head and the misplacement to outlines as they are found on images; None where one is not found."""
Watch = Callable[[int], None]
"""Called with the number of cases made; may end the making by an exception."""


def unwatched(made: int) -> None:
    """Goes on."""


class PlaneCaseMaker:
    """Makes cases for the 3D networks; case number n depends on its seed alone.

    The population's `size` is the edge of the target volumes; 48 suffices, as heads are smooth. imager: needed for
    `config.imaged`. watch: called before each head.
    """

    def __init__(self, population: HeadPopulation, config: PlaneConfig | None = None, imager: Imager | None = None,
                 watch: Watch = unwatched):
        self.population, self.config, self.imager, self.watch = population, config or PlaneConfig(), imager, watch
        if self.config.imaged and imager is None:
            raise ValueError("imaged planes need something that finds outlines on images")

    def __call__(self, seeds: Sequence[int]) -> PlaneCases:
        heads, maps, pixels, present, flips = [], [], [], [], []
        for seed in seeds:
            self.watch(len(heads))
            head = self.population(seed)
            draw = Draw(seed + (1 << 40), self.population.device)
            found = None
            if self.imager and draw.chance(self.config.imaged):
                found = self.imager(draw, head, self.config.misplacement)
            outlines, pixel_mm = found or self._traced(draw, head)
            heads.append(head)
            pixels.append(pixel_mm)
            maps.append(outlines)
            present.append(self._present(draw))
            if present[-1][0] and draw.chance(self.config.repeated):
                again = draw.integer(1, 3)
                maps[-1][again], pixels[-1][again] = maps[-1][0], pixels[-1][0]
            flips.append([[draw.chance(0.5) for _ in range(2)] for _ in PLANES])
        device = self.population.device
        return self._canonical(heads, torch.stack(maps), torch.stack(pixels),
                               torch.tensor(present, device=device), torch.tensor(flips, device=device))

    def _traced(self, draw: Draw, head: Head) -> Found:
        """Cuts, most of them drawn imperfectly."""
        pixel_mm = head.edge_mm / MAP_PX * draw.number(0.9, 1.0)
        maps = torch.stack([self._trace(draw, head, plane, pixel_mm) for plane in PLANES])
        return maps, torch.full((len(PLANES),), pixel_mm, device=maps.device)

    def _trace(self, draw: Draw, head: Head, plane: str, pixel_mm: float) -> Tensor:
        pose = draw_pose(draw, plane, head, self.config.misplacement)
        sdf_mm = cut(head.sdf, head.spacing_mm, pose, (MAP_PX, MAP_PX), pixel_mm)
        if not draw.chance(self.config.traced):
            return outline_map(sdf_mm, pixel_mm)
        return with_tracing_error(draw, sdf_mm, pixel_mm, head.edge_mm / SIZE)

    def _present(self, draw: Draw) -> list[bool]:
        """Which planes a case has: axial nearly always, one at least."""
        present = [True, draw.chance(self.config.sagittal), draw.chance(self.config.coronal)]
        if any(present[1:]) and draw.chance(self.config.without_axial):
            present[0] = False
        return present

    def _canonical(self, heads: list[Head], maps: Tensor, pixel_mm: Tensor, present: Tensor,
                   flips: Tensor) -> PlaneCases:
        axes = [2 * moment_ellipse(maps[:, index]).semi_axes[:, 0] * pixel_mm[:, index] for index in range(len(PLANES))]
        spacing_mm = spacing_of_axes(torch.stack(axes, 1), present)
        planes = torch.stack([canonical_map(maps[:, index], pixel_mm[:, index], plane, spacing_mm)
                              for index, plane in enumerate(PLANES)], 1)
        for axis in (0, 1):
            planes = torch.where(flips[:, :, axis, None, None], planes.flip(2 + axis), planes)
        planes = planes * present[:, :, None, None]
        sdf = torch.stack([on_grid(head, float(edge)) for head, edge in zip(heads, spacing_mm, strict=True)])[:, None]
        return PlaneCases(planes, present, sdf, spacing_mm, heads)


def on_grid(head: Head, spacing_mm: float) -> Tensor:
    """A head's sdf on a case's grid, as many voxels as its own volume has, in voxels of the 96³ grid at spacing_mm."""
    size, device = head.sdf.shape[0], head.sdf.device
    axis = (torch.arange(size, device=device) - (size - 1) / 2) * (spacing_mm * SIZE / size)
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    return sample(head.sdf, head.spacing_mm, torch.stack([x, y, z], -1)) / spacing_mm
