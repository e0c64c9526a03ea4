"""The frame of the Montreal Neurological Institute: our own average head in it, and scans brought there.

The average (`atlas.py`) has the pose in which heads lie in a scanner, 14° pitched against MNI, and their mean size.
`AVERAGE_TO_MNI` turns and scales it: an affine registration (Mattes mutual information, 2 mm) of the average to a
public FLAIR template in MNI space (GG-853, as reference only), made symmetric about the midsagittal plane.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import SimpleITK as sitk

from ..progress import CancelToken
from .atlas import Atlas, load_atlas
from .geometry import ras_grid
from .registration import quick, register_affine

AVERAGE_TO_MNI = np.array([
    [1.0894, 0.0, 0.0, 0.0],
    [0.0, 1.0169, 0.2666, -5.3737],
    [0.0, -0.2507, 1.1252, -5.8979],
    [0.0, 0.0, 0.0, 1.0],
])
"""From RAS mm of the average to RAS mm of MNI space."""
WINDOW_CENTER_RAS_MM = (0.0, -17.0, 5.0)
WINDOW_MM_ZYX = (160, 192, 160)
"""Middle and size of the window around the brain in MNI space that model grids cover."""

_LPS_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def mni_grid(spacing_mm: float) -> sitk.Image:
    """The empty grid over the window at a spacing that divides 160 and 192 mm: 160×192×160 voxels (zyx) at 1 mm.

    Raises ValueError for another spacing.
    """
    size = [n / spacing_mm for n in WINDOW_MM_ZYX]
    if any(n != round(n) for n in size):
        raise ValueError(f"A spacing of {spacing_mm} mm does not divide the window of {WINDOW_MM_ZYX} mm.")
    return ras_grid(WINDOW_CENTER_RAS_MM, [round(n) for n in size], spacing_mm)


@lru_cache(maxsize=1)
def load_template() -> Atlas:
    """Our average head in MNI space, on the window at 2 mm; raises InputError when its files are missing."""
    average, grid = load_atlas(), mni_grid(2.0)
    matrix = _LPS_RAS @ np.linalg.inv(AVERAGE_TO_MNI) @ _LPS_RAS
    from_mni = sitk.AffineTransform(matrix[:3, :3].ravel().tolist(), matrix[:3, 3].tolist())
    intensity, brain = (sitk.Resample(image, grid, from_mni, sitk.sitkLinear, 0.0)
                        for image in (average.intensity, average.brain))
    return Atlas(intensity, brain)


def mni_to_brain(brain_only: sitk.Image, cancel: CancelToken | None = None) -> sitk.AffineTransform:
    """From points of MNI space to points of a scan (mm, LPS), by affine Mattes mutual information.

    brain_only: the scan with 0 outside its brain, which is registered to the brain of our own average alone.
    Raises RuntimeError (from SimpleITK) when there is nothing to register, Cancelled.
    """
    template = load_template()
    fixed = template.intensity * sitk.Cast(template.brain > 0.5, sitk.sitkFloat32)
    return register_affine(fixed, brain_only, quick(fixed), cancel=cancel)
