"""The trivial baseline of every skull table: one mean head, scaled to the extents that the planes show.

No network but the one that finds the outlines: it sees the same outlines as the models and knows nothing of shape
beyond the mean. On real atlas heads with exactly known extents it reaches a Dice of .97, so a model earns its place
only above it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage

from ..preprocessing.outlines import SIZE
from ..training.synthesis.star_shapes import rescaled_to_distance
from .skull_metrics import Solid

GRID = 48
GRID_EDGE = 1.3  # of an extent: the grid reaches a little beyond the head
AXES = {"axial": ("ofd", "bpd"), "sagittal": ("height", "ofd"), "coronal": ("height", "bpd")}
"""What the rows and the columns of a plane's canonical map show."""
DIRECTIONS = ("height", "ofd", "bpd")
"""Along z, y and x."""


@dataclass(frozen=True)
class MeanHead:
    """field: (48, 48, 48) zyx, positive inside, extents 1 along each axis, the centroid in the middle of a grid of
    edge 1.3; ratios: mean extent over the mean occipitofrontal diameter, by direction."""

    field: np.ndarray
    ratios: Mapping[str, float]

    @classmethod
    def of(cls, heads: Iterable[Solid]) -> MeanHead:
        """The mean of heads, each brought to extents of 1 first. Raises ValueError without any."""
        fields, extents = [], []
        for head in heads:
            extents.append(extents_mm(head))
            field = _sampled(head.field, head.centroid, extents[-1] / head.spacing_mm)
            fields.append(field / float(np.mean(extents[-1])))  # of equal size, so that none counts for more
        if not fields:
            raise ValueError("a mean head needs one head at least")
        mean = np.mean(fields, axis=0)
        # The mean of shapes of extent 1 is a little smaller and not quite centred: brought to 1 again.
        rough = Solid(mean, GRID_EDGE / GRID)
        field = _sampled(mean, rough.centroid, extents_mm(rough) / rough.spacing_mm)
        ratios = np.mean([extent / extent[1] for extent in extents], axis=0)
        return cls(field.astype(np.float32), dict(zip(DIRECTIONS, map(float, ratios), strict=True)))

    def scaled(self, height: float, ofd: float, bpd: float, spacing_mm: float, size: int = SIZE) -> np.ndarray:
        """The head with these extents in mm on a cubic grid about its centroid: signed distance in mm, positive
        inside, (size,)*3 zyx."""
        extents = np.array([height, ofd, bpd])
        step = spacing_mm / extents * (GRID / GRID_EDGE)
        offset = (GRID - 1) / 2 - step * (size - 1) / 2
        field = ndimage.affine_transform(self.field, step, offset, (size,) * 3, order=1, mode="nearest")
        return rescaled_to_distance(torch.from_numpy(field * extents.mean()), spacing_mm).numpy()

    def complete(self, seen_mm: Mapping[str, float]) -> dict[str, float]:
        """All three extents in mm: those seen, the others by the mean head's ratios to those seen."""
        unit = np.mean([value / self.ratios[direction] for direction, value in seen_mm.items()])
        return {direction: float(seen_mm.get(direction, unit * self.ratios[direction])) for direction in DIRECTIONS}

    def predict(self, maps: Mapping[str, np.ndarray], spacing_mm: float) -> np.ndarray:
        """The baseline's head from the canonical outline maps (96, 96) of the planes there are, on the case's grid.

        Raises ValueError without a plane or with an empty outline.
        """
        return self.scaled(**self.complete(visible_extents(maps, spacing_mm)), spacing_mm=spacing_mm)


def visible_extents(maps: Mapping[str, np.ndarray], spacing_mm: float) -> dict[str, float]:
    """Extents in mm that canonical outline maps show, by direction; the mean where two planes show the same."""
    found: dict[str, list[float]] = {}
    for plane, outline in maps.items():
        for axis, direction in enumerate(AXES[plane]):
            # The largest value in each line, summed: the edge's fractions give the extent to a part of a pixel.
            found.setdefault(direction, []).append(float(outline.max(axis=1 - axis).sum()) * spacing_mm)
    if not found or min(map(min, found.values())) <= 0:
        raise ValueError("no plane shows a head's outline")
    return {direction: float(np.mean(values)) for direction, values in found.items()}


def extents_mm(head: Solid) -> np.ndarray:
    """Extents of a head along z, y and x in mm, between the outermost points of its surface."""
    points = head.points_mm
    return points.max(0) - points.min(0)


def _sampled(field: np.ndarray, centre: np.ndarray, extents: np.ndarray) -> np.ndarray:
    """The field on the normalised grid: `centre` and `extents` in voxels (zyx)."""
    step = extents * (GRID_EDGE / GRID)
    return ndimage.affine_transform(field, step, centre - step * (GRID - 1) / 2, (GRID,) * 3, order=1, mode="nearest")
