"""What the other side shows: near the brain's surface, what is bright on both sides alike is seldom a stroke.

On diffusion scans the field's inhomogeneity over the petrous bones and the sinuses gives bright bands and rims that
outshine small infarcts, and that the eye tells from them by their symmetry.
"""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from ..preprocessing.geometry import channels_from_grid, to_grid
from .anatomy import Anatomy, parenchyma

_ACROSS_MM = 6.0  # from the mirrored place: sides are not exact mirror images
_MIDLINE_MM = 8.0  # from the midplane to there a lesion may be its own mirror image; fully counted at twice that
_DEPTH_MM = (15.0, 20.0)  # below the brain's surface: up to where symmetry counts, and from where on it does not


def mirrored_share(
    score: NDArray[np.float32], anatomy: Anatomy, brain: NDArray[np.bool_], space: sitk.Image
) -> NDArray[np.float32]:  # fmt: skip
    """How far the other side scores as high: 1 where at least as much, 0 where nothing, near the midplane or deep.

    score: not negative, on the voxels of `space` (z, y, x). brain: on the anatomy's grid, (D, H, W).
    """
    grid, spacing_mm = anatomy.grid, anatomy.grid.GetSpacing()[0]
    to_other_side = _reflection(anatomy)

    def flipped(values: NDArray, outside: float) -> NDArray[np.float32]:
        image = _image(values[:, :, ::-1], grid)
        return sitk.GetArrayFromImage(sitk.Resample(image, grid, to_other_side, sitk.sitkLinear, outside))

    on_grid = sitk.GetArrayFromImage(to_grid(_image(score, space), grid))
    highest = ndimage.maximum_filter(on_grid, footprint=_ball(int(_ACROSS_MM / spacing_mm)))
    columns = np.broadcast_to(np.arange(on_grid.shape[2], dtype=np.float32), on_grid.shape)
    off_midplane_mm = np.abs(flipped(columns, -1.0) - columns) / 2 * spacing_mm
    depth_mm = ndimage.distance_transform_edt(brain) * spacing_mm
    counts = np.clip(off_midplane_mm / _MIDLINE_MM - 1, 0, 1)
    counts *= np.clip((_DEPTH_MM[1] - depth_mm) / (_DEPTH_MM[1] - _DEPTH_MM[0]), 0, 1)
    channels = np.stack([flipped(highest, 0.0), counts]).astype(np.float32)
    other, counts = channels_from_grid(channels, grid, space, [0, 0])
    return counts * np.minimum(other / np.maximum(score, 1e-6), 1)


def _reflection(anatomy: Anatomy) -> sitk.Transform:
    """Where the mirror image of the grid shows the other side of a place: rigid registration of the tissue to its own
    mirror image, in one thread, as sums in several are not repeatable."""
    tissue = parenchyma(anatomy) * anatomy.support
    fixed, moving = _image(tissue, anatomy.grid), _image(tissue[:, :, ::-1], anatomy.grid)
    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfThreads(1)
    method.SetMetricAsCorrelation()
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-3, 200, 0.8, 1e-8)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([2])
    method.SetSmoothingSigmasPerLevel([3.0])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    method.SetInitialTransform(
        sitk.CenteredTransformInitializer(
            fixed, moving, sitk.Euler3DTransform(), sitk.CenteredTransformInitializerFilter.MOMENTS
        ),
        inPlace=False,
    )
    return method.Execute(fixed, moving)


def _image(values: NDArray, place: sitk.Image) -> sitk.Image:
    image = sitk.GetImageFromArray(np.ascontiguousarray(values, dtype=np.float32))
    image.CopyInformation(place)
    return image


def _ball(radius: int) -> NDArray[np.bool_]:
    z, y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1, -radius : radius + 1]
    return z * z + y * y + x * x <= radius * radius
