"""A brain mask without any network: that of the average head, carried over by affine registration."""

from __future__ import annotations

import SimpleITK as sitk

from ..progress import CancelToken
from .atlas import load_atlas
from .geometry import inverse
from .registration import SEED, quick, register_affine


def template_brain_mask(scan: sitk.Image, cancel: CancelToken | None = None) -> sitk.Image:
    """The shipped atlas's brain mask on the scan's grid (uint8).

    One affine registration at the 4 mm level, from the better of two starts (centres of mass, centres of the images).
    Raises RuntimeError when the images cannot be registered, Cancelled.
    """
    atlas = load_atlas()
    to_scan = register_to_atlas(scan, atlas.intensity, cancel)
    brain = sitk.Resample(atlas.brain, scan, inverse(to_scan), sitk.sitkLinear, 0.0)
    return sitk.Cast(brain > 0.5, sitk.sitkUInt8)


def register_to_atlas(
    scan: sitk.Image, fixed: sitk.Image, cancel: CancelToken | None = None
) -> sitk.AffineTransform:
    """Affine transform from atlas points to scan points (mm, LPS), quick recipe, best of two starts."""
    scan = sitk.Cast(scan, sitk.sitkFloat32)
    starts = (sitk.CenteredTransformInitializerFilter.MOMENTS, sitk.CenteredTransformInitializerFilter.GEOMETRY)
    found = []
    for start in starts:
        initial = sitk.CenteredTransformInitializer(fixed, scan, sitk.AffineTransform(3), start)
        transform = register_affine(fixed, scan, quick(fixed), initial, cancel)
        found.append((_mutual_information(fixed, scan, transform), transform))
    return max(found, key=lambda pair: pair[0])[1]


def _mutual_information(fixed: sitk.Image, moving: sitk.Image, transform: sitk.Transform) -> float:
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(32)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetMetricSamplingPercentage(0.1, SEED)
    method.SetInitialTransform(transform)
    return -method.MetricEvaluate(fixed, moving)
