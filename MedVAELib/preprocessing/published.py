"""The preparation "mni-4mm", as published for variational autoencoders of whole brains.

Affine to MNI space by Mattes mutual information, brain mask, 160×192×160 at 1 mm, mean over 4×4×4, clipped at the
99.5th percentile, scaled to 0…1. The template is our own average head (`mni.py`), of which the brain alone is matched
to the scan's brain alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from ..errors import InputError
from ..progress import CancelToken, Progress, no_progress
from ..scan import Scan
from .geometry import inverse, like
from .masked import MaskedScan, masked_scan
from .mni import mni_grid, mni_to_brain
from .model_image import model_image

NAME = "mni-4mm"
SPACING_MM = 4.0
SHAPE_ZYX = (40, 48, 40)
_FINE_MM = 1.0


@dataclass(frozen=True, eq=False)
class PublishedPreparation:
    """image: (40, 48, 40) float32 in 0…1, zyx towards superior, anterior, right, in MNI space. mni_to_scan: from points
    of MNI space to points of the scan (mm, LPS)."""

    image: NDArray[np.float32]
    mni_to_scan: sitk.AffineTransform
    scan_image: sitk.Image

    def to_scan(self, array_zyx: NDArray[np.float32]) -> sitk.Image:
        """An array like `image` on exactly the scan's grid: float32, linear, 0 where the window does not reach."""
        if array_zyx.shape != SHAPE_ZYX:
            raise ValueError(f"the array has shape {array_zyx.shape}, not {SHAPE_ZYX}")
        made = like(array_zyx.astype(np.float32), mni_grid(SPACING_MM))
        placed = sitk.Resample(made, self.scan_image, inverse(self.mni_to_scan), sitk.sitkLinear, 0.0,
                               sitk.sitkFloat32)
        placed.CopyInformation(self.scan_image)
        return placed

    def in_mni(self) -> sitk.Image:
        """The image with its place in MNI space."""
        return like(self.image, mni_grid(SPACING_MM))


def prepare_published(
    scan: Scan, brain: sitk.Image | None = None, progress: Progress = no_progress, cancel: CancelToken | None = None
) -> PublishedPreparation:
    """brain: a mask on the scan's grid, best the detector's (`anomaly.brain`); without one a stripped scan's own
    support, or the average head's mask carried over by a registration of its own.

    Raises InputError for a scan that cannot be masked or aligned, Cancelled.
    """
    cancel, name = cancel or CancelToken(), str(scan.path or scan.name)
    progress("prepare", 0.0, "Masking the brain")
    masked = masked_scan(scan.image, brain, name, cancel)
    cancel.check()
    progress("prepare", 0.3, "Aligning with MNI space")
    try:
        mni_to_scan = mni_to_brain(sitk.Mask(masked.image, masked.brain), cancel)
    except RuntimeError:
        raise InputError(f"{name} cannot be aligned with MNI space: give a scan of a whole brain.") from None
    cancel.check()
    progress("prepare", 0.9, "Sampling")
    made = PublishedPreparation(sample_model_image(masked, mni_to_scan), mni_to_scan, scan.image)
    if not made.image.any():
        raise InputError(f"{name} shows nothing bright inside its brain mask: check both.")
    progress("prepare", 1.0, "Prepared")
    return made


def sample_model_image(masked: MaskedScan, mni_to_scan: sitk.Transform) -> NDArray[np.float32]:
    """(40, 48, 40) in 0…1: the scan on the window at 1 mm, then `model_image`."""
    grid = mni_grid(_FINE_MM)
    # Values and mask apart: masked values would darken the rim of the brain.
    values = sitk.Resample(masked.image, grid, mni_to_scan, sitk.sitkLinear, 0.0, sitk.sitkFloat32)
    brain = sitk.Resample(sitk.Cast(masked.brain, sitk.sitkFloat32), grid, mni_to_scan, sitk.sitkLinear, 0.0)
    inside = sitk.GetArrayFromImage(brain) > 0.5
    return model_image(sitk.GetArrayFromImage(values), inside, round(SPACING_MM / _FINE_MM))
