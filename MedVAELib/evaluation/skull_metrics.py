"""Agreement of a predicted head with the true one: overlap, distances between the surfaces in mm, volume.

Convention: planes are not registered, so a prediction has no place in the world, only a shape in the head frame. Both
heads are compared in that frame, each moved so that the centroid of its volume lies at the origin; neither is turned,
scaled or mirrored. Fields are zyx and positive inside, like a signed distance: a mask, a probability minus a half and
a logit all serve.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from ..errors import InputError

HAUSDORFF_SHARE = 0.95
_HALF_DIAGONAL = 0.87  # of a voxel: how far apart neighbouring surface points of one surface lie at most
_EVERY = 3  # points are closer than a voxel, and distances between smooth surfaces change over many voxels
NAN = float("nan")


@dataclass(frozen=True)
class Agreement:
    """hausdorff_mm: the larger of the two directed maxima; hausdorff95_mm: the same of the 95 % quantiles;
    surface_mm: mean over the points of both surfaces of the distance to the other; volume_difference:
    (V_predicted − V_true) / V_true."""

    dice: float = NAN
    hausdorff_mm: float = NAN
    hausdorff95_mm: float = NAN
    surface_mm: float = NAN
    volume_difference: float = NAN

    @property
    def absolute_volume_difference(self) -> float:
        return abs(self.volume_difference)


class Solid:
    """A head on a grid of cubic voxels, its field zyx positive inside. Its surface is found once, with subvoxel care.

    Raises InputError for a field with nothing inside, or nothing outside.
    """

    def __init__(self, field_zyx: np.ndarray, spacing_mm: float):
        self.field = np.ascontiguousarray(field_zyx, dtype=np.float32)
        self.spacing_mm = float(spacing_mm)
        self.mask = self.field > 0
        if not self.mask.any() or self.mask.all():
            raise InputError("A head has no surface, it is everywhere or nowhere: look at its mask, or at the model.")

    @cached_property
    def centroid(self) -> np.ndarray:
        """Of the volume, in voxels (zyx)."""
        counts = [self.mask.sum(axis=others) for others in ((1, 2), (0, 2), (0, 1))]
        return np.array([count @ np.arange(len(count)) / count.sum() for count in counts])

    @cached_property
    def volume_ml(self) -> float:
        return int(self.mask.sum()) * self.spacing_mm**3 / 1000

    @cached_property
    def points_mm(self) -> np.ndarray:
        """(n, 3) zyx from the centroid: where the field changes sign along a grid line, linear between voxels."""
        return (self._crossings - self.centroid) * self.spacing_mm

    @cached_property
    def normals(self) -> np.ndarray:
        """(n, 3) zyx, unit length: the field's gradient at the surface points."""
        gradient = np.stack([ndimage.map_coordinates(slope, self._crossings.T, order=1, mode="nearest")
                             for slope in np.gradient(self.field)], 1)
        return gradient / np.maximum(np.linalg.norm(gradient, axis=1, keepdims=True), 1e-9)

    @cached_property
    def _crossings(self) -> np.ndarray:
        found = []
        for axis in range(3):
            low = [slice(None)] * 3
            high = [slice(None)] * 3
            low[axis], high[axis] = slice(None, -1), slice(1, None)
            where = np.nonzero(self.mask[tuple(low)] != self.mask[tuple(high)])
            first, second = self.field[tuple(low)][where], self.field[tuple(high)][where]
            points = np.stack(where, 1).astype(np.float64)
            points[:, axis] += first / (first - second)
            found.append(points)
        return np.concatenate(found)

    @cached_property
    def _tree(self) -> cKDTree:
        return cKDTree(self.points_mm)

    def distance_mm(self, points_mm: np.ndarray) -> np.ndarray:
        """Distance of points (n, 3, zyx from the centroid) to this surface.

        Along the normal of the nearest surface point, because the points themselves are up to a voxel apart: on a
        smooth head the error is of second order in the voxel. Never further from the nearest point's distance than
        the surface between two points can be, so edges and stairs do no harm.
        """
        apart, nearest = self._tree.query(points_mm)
        along = np.abs(((points_mm - self.points_mm[nearest]) * self.normals[nearest]).sum(1))
        return np.clip(along, apart - _HALF_DIAGONAL * self.spacing_mm, apart)

    def values_at(self, volume_zyx: np.ndarray, points_mm: np.ndarray) -> np.ndarray:
        """A volume on this head's voxels at points (n, 3, zyx from the centroid), linear between voxels."""
        index = points_mm / self.spacing_mm + self.centroid
        return ndimage.map_coordinates(volume_zyx, index.T, order=1, mode="nearest")

    def on_grid_of(self, other: Solid) -> np.ndarray:
        """This head's mask on the other's voxels, centroids together."""
        step = other.spacing_mm / self.spacing_mm
        offset = self.centroid - other.centroid * step
        return ndimage.affine_transform(self.field, np.full(3, step), offset, other.field.shape, order=1,
                                        mode="nearest") > 0


def agreement(predicted: Solid, true: Solid) -> Agreement:
    """Compares two heads in the head frame; see the module's convention."""
    mask = predicted.on_grid_of(true)
    forth = true.distance_mm(predicted.points_mm[::_EVERY])
    back = predicted.distance_mm(true.points_mm[::_EVERY])
    return Agreement(
        dice=2 * int((mask & true.mask).sum()) / (int(mask.sum()) + int(true.mask.sum())),
        hausdorff_mm=float(max(forth.max(), back.max())),
        hausdorff95_mm=float(max(np.quantile(forth, HAUSDORFF_SHARE), np.quantile(back, HAUSDORFF_SHARE))),
        surface_mm=float((forth.sum() + back.sum()) / (forth.size + back.size)),
        volume_difference=predicted.volume_ml / true.volume_ml - 1,
    )
