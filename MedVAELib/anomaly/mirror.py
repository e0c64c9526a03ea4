"""The brain's midplane and what the other side shows: near the surface, what is bright on both sides alike is seldom a
stroke.

On diffusion scans the field's inhomogeneity over the petrous bones and the sinuses gives bright bands and rims that
outshine small infarcts, and that the eye tells from them by their symmetry.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from ..preprocessing.geometry import channels_from_grid, like, physical_points, ras_mm_to_ijk, to_grid
from .anatomy import Anatomy, parenchyma

_ACROSS_MM = 6.0  # from the mirrored place: sides are not exact mirror images
_MIDLINE_MM = 8.0  # from the midplane to there a lesion may be its own mirror image; fully counted at twice that
_LEAST_ALIKE = 0.8
"""Correlation of a brain's tissue with its mirror image: 13 real scans of whole brains .89 to .96, turned, cropped from
above or below or noisy ones .90 to .95, eight halves .72 to .76; of 44 synthetic heads, bent as no head is, two .76 and
.77."""
_DEPTH_MM = (15.0, 20.0)  # below the brain's surface: up to where symmetry counts, and from where on it does not


@dataclass(frozen=True, eq=False)
class Mirror:
    """The other side of a brain, looked for when it is first asked about."""

    anatomy: Anatomy

    @cached_property
    def to_other_side(self) -> sitk.Transform | None:
        """Where the grid's mirror image shows the other side of a place, by rigid registration of the tissue to its own
        mirror image, in one thread, as sums in several are not repeatable; None without tissue to register."""
        fixed, moving = self._tissue_and_mirrored
        method = sitk.ImageRegistrationMethod()
        method.SetNumberOfThreads(1)
        method.SetMetricAsCorrelation()
        method.SetInterpolator(sitk.sitkLinear)
        method.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-3, 200, 0.8, 1e-8)
        method.SetOptimizerScalesFromPhysicalShift()
        method.SetShrinkFactorsPerLevel([4])  # of a 2 mm grid: within .2 mm of what twice as fine a one finds
        method.SetSmoothingSigmasPerLevel([3.0])
        method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
        try:
            method.SetInitialTransform(
                sitk.CenteredTransformInitializer(
                    fixed, moving, sitk.Euler3DTransform(), sitk.CenteredTransformInitializerFilter.MOMENTS
                ),
                inPlace=False,
            )
            return method.Execute(fixed, moving)
        except RuntimeError:
            return None

    @cached_property
    def alike(self) -> float:
        """How far the tissue and its mirror image correlate."""
        if self.to_other_side is None:
            return 0.0
        tissue, mirrored = self._tissue_and_mirrored
        other = sitk.Resample(mirrored, tissue, self.to_other_side, sitk.sitkLinear, 0.0)
        pair = (sitk.GetArrayFromImage(image).ravel() for image in (tissue, other))
        return float(np.corrcoef(*pair)[0, 1])

    @property
    def whole(self) -> bool:
        """Whether both sides are in view and alike: one alone is no mirror image of itself."""
        return self.alike > _LEAST_ALIKE

    def side_mm(self, ras_mm: NDArray) -> NDArray[np.float64]:
        """Distance of places (…, 3) from the midplane, positive on the right; for a brain that is `whole`."""
        # Half of the way to the other side along x, which rises linearly; its slope is that of the plane's normal.
        corners = np.vstack([np.zeros(3), np.eye(3)])
        offset, *slope = (self._across_mm(corner) / 2 for corner in corners)
        slope = np.array(slope) - offset
        return (np.asarray(ras_mm, float) @ slope + offset) / max(float(np.linalg.norm(slope)), 1e-6)

    def share(self, score: NDArray[np.float32], brain: NDArray[np.bool_], space: sitk.Image) -> NDArray[np.float32]:
        """How far the other side scores as high: 1 where at least as much, 0 where nothing, near the midplane, deep, or
        where there is no other side in view.

        score: not negative, on the voxels of `space` (z, y, x). brain: on the anatomy's grid, (D, H, W).
        """
        if not self.whole:
            return np.zeros_like(score)
        grid = self.anatomy.grid
        spacing_mm = grid.GetSpacing()[0]
        on_grid = sitk.GetArrayFromImage(to_grid(like(score, space), grid))
        highest = ndimage.maximum_filter(on_grid, footprint=_ball(int(_ACROSS_MM / spacing_mm)))
        flipped = sitk.Resample(like(highest[:, :, ::-1], grid), grid, self.to_other_side, sitk.sitkLinear, 0.0)
        depth_mm = ndimage.distance_transform_edt(brain) * spacing_mm
        counts = np.clip(np.abs(self.side_mm(physical_points(grid))) / _MIDLINE_MM - 1, 0, 1)
        counts *= np.clip((_DEPTH_MM[1] - depth_mm) / (_DEPTH_MM[1] - _DEPTH_MM[0]), 0, 1)
        channels = np.stack([sitk.GetArrayFromImage(flipped), counts]).astype(np.float32)
        other, counts = channels_from_grid(channels, grid, space, [0, 0])
        return counts * np.minimum(other / np.maximum(score, 1e-6), 1)

    @property
    def _tissue_and_mirrored(self) -> tuple[sitk.Image, sitk.Image]:
        tissue = np.asarray(parenchyma(self.anatomy) * self.anatomy.support, np.float32)
        return like(tissue, self.anatomy.grid), like(tissue[:, :, ::-1], self.anatomy.grid)

    def _across_mm(self, ras_mm: NDArray) -> float:
        """How far along x a place lies from its mirror image."""
        lps = self.to_other_side.TransformPoint((-float(ras_mm[0]), -float(ras_mm[1]), float(ras_mm[2])))
        grid = self.anatomy.grid
        columns = self.anatomy.probability.shape[3] - 1
        here = ras_mm_to_ijk(grid, ras_mm)[0]
        there = columns - ras_mm_to_ijk(grid, (-lps[0], -lps[1], lps[2]))[0]
        return float(here - there) * grid.GetSpacing()[0]


def _ball(radius: int) -> NDArray[np.bool_]:
    z, y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1, -radius : radius + 1]
    return z * z + y * y + x * x <= radius * radius
