"""Affine registration by mutual information, the classical way to bring a scan into a template's space.

It builds the atlas, brings scans and label maps into MNI space, and carries the average head's brain mask over to a
scan. The detector does without, and is measured against it (`Testing/benchmarks`).
"""

from __future__ import annotations

from dataclasses import dataclass

import SimpleITK as sitk

from ..progress import CancelToken

SEED = 1  # of where samples lie about their pattern; without one ITK takes the time of day


@dataclass(frozen=True)
class AffineRecipe:
    """How thoroughly to register. `shrink_factors` count voxels of the fixed image; smoothing is in mm.

    sampling: fraction of the fixed image's voxels used by the metric, in (0, 1]. min_step: the optimiser stops when its
    steps get shorter than this (about mm).
    Raises ValueError where the levels do not match or the fraction is outside its range.
    """

    shrink_factors: tuple[int, ...]
    smoothing_mm: tuple[float, ...]
    sampling: float = 1.0
    iterations: int = 100
    min_step: float = 1e-3

    def __post_init__(self) -> None:
        if len(self.shrink_factors) != len(self.smoothing_mm) or not self.shrink_factors:
            raise ValueError("An affine recipe needs one smoothing per shrink factor, and at least one level.")
        if not 0 < self.sampling <= 1:
            raise ValueError(f"sampling is a fraction in (0, 1], not {self.sampling}.")


def quick(fixed: sitk.Image) -> AffineRecipe:
    """One level of about 4 mm and half of its voxels: seconds instead of minutes, and about as good for a start."""
    shrink = max(1, round(4.0 / max(fixed.GetSpacing())))
    return AffineRecipe((shrink,), (2.0,), sampling=0.5, iterations=150)


def register_affine(fixed: sitk.Image, moving: sitk.Image, recipe: AffineRecipe, initial: sitk.Transform | None = None,
                    cancel: CancelToken | None = None) -> sitk.AffineTransform:
    """The affine transform that takes points of `fixed` (mm) to points of `moving` (mm).

    Mutual information after Mattes et al. 2003 with 32 bins, gradient descent with steps that shrink, started from
    `initial` or from the images' centres of mass. Samples lie about a regular pattern by a fixed seed: repeatable up to
    the order in which threads add up.
    Raises RuntimeError (from SimpleITK) when the images do not overlap, Cancelled between two steps of the optimiser.
    """
    cancel = cancel or CancelToken()
    fixed, moving = sitk.Cast(fixed, sitk.sitkFloat32), sitk.Cast(moving, sitk.sitkFloat32)
    if initial is None:
        initial = sitk.CenteredTransformInitializer(fixed, moving, sitk.AffineTransform(3),
                                                    sitk.CenteredTransformInitializerFilter.MOMENTS)
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(32)
    if recipe.sampling < 1:
        method.SetMetricSamplingStrategy(method.REGULAR)
        method.SetMetricSamplingPercentage(recipe.sampling, SEED)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(1.0, recipe.min_step, recipe.iterations)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel(list(recipe.shrink_factors))
    method.SetSmoothingSigmasPerLevel(list(recipe.smoothing_mm))
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    method.SetInitialTransform(initial, inPlace=False)
    # What a command raised would get lost in ITK. It is also where Python comes to hear of a signal meanwhile.
    method.AddCommand(sitk.sitkIterationEvent, lambda: method.StopRegistration() if cancel.cancelled else None)
    try:
        found = method.Execute(fixed, moving)
    finally:
        method.RemoveAllCommands()  # it holds the method, which holds it
    cancel.check()
    # In and out as a copy: the optimiser would otherwise move the caller's own start.
    return sitk.AffineTransform(sitk.CompositeTransform(found).GetBackTransform())
