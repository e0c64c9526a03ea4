"""A scan ready to be cut or averaged: turned to the patient, air at 0, with a brain mask."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from ..errors import InputError
from ..progress import CancelToken
from .geometry import like, rounded_geometry, same_grid
from .intensity import LARGEST_BRAIN_ML, MIN_BRAIN_ML, find_foreground
from .template_brain import template_brain_mask
from .turning import Turn


@dataclass(frozen=True, eq=False)
class MaskedScan:
    """image: float32, air at 0 and nothing below; brain: uint8. Both on one grid whose axes run nearest to the
    patient's left, back and head (LPS), so that all that follows is the same however a program stores the scan."""

    image: sitk.Image
    brain: sitk.Image


def masked_scan(
    image: sitk.Image, brain: sitk.Image | None, name: str, cancel: CancelToken | None = None
) -> MaskedScan:
    """brain: a mask on the scan's grid; None: what a stripped scan shows, else the average head's, registered.

    Raises InputError, naming the scan, for a mask of another grid, no brain in it, or a scan that cannot be registered;
    Cancelled.
    """
    turn = Turn.to_patient(image)
    space = rounded_geometry(turn.image(sitk.Cast(image, sitk.sitkFloat32)))
    values = sitk.GetArrayFromImage(space)
    foreground = find_foreground(values)
    values = np.where(foreground.support, values - np.float32(foreground.offset), 0).clip(0).astype(np.float32)
    positive = like(values, space)
    voxel_ml = float(np.prod(space.GetSpacing())) / 1000
    if brain is not None:
        if not same_grid(brain, image):
            raise InputError(f"{name}: the brain mask lies on another grid; give a mask on the scan's own grid.")
        inside = sitk.GetArrayFromImage(turn.image(sitk.Cast(brain > 0, sitk.sitkUInt8)))
    elif foreground.constant_background and foreground.support.sum() * voxel_ml < LARGEST_BRAIN_ML:
        inside = foreground.support.astype(np.uint8)
    else:
        try:
            inside = sitk.GetArrayFromImage(template_brain_mask(positive, cancel=cancel))
        except RuntimeError:
            raise InputError(f"{name} cannot be aligned with an average head: give a whole brain scan, or a brain "
                             "mask.") from None
    if inside.sum() * voxel_ml < MIN_BRAIN_ML:
        raise InputError(f"{name}: the brain mask holds only {inside.sum() * voxel_ml:.0f} ml; give a scan of a whole "
                         "brain, and its mask where it has one.")
    return MaskedScan(positive, like(inside.astype(np.uint8), space))
