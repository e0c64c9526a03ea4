"""The registration gives the same result whenever it is asked."""

import numpy as np
import SimpleITK as sitk

from MedVAELib.preprocessing.atlas import load_atlas
from MedVAELib.preprocessing.registration import quick, register_affine
from MedVAELib.resources import resource_dir


def test_it_is_repeatable():
    """To some hundredths of a millimetre, as threads add up in any order; without a seed it is off by up to two."""
    fixed, scan = load_atlas().intensity, sitk.ReadImage(str(resource_dir() / "sample" / "flair.nii.gz"))
    first, second = (register_affine(fixed, scan, quick(fixed)) for _ in range(2))
    for corner in np.ndindex(2, 2, 2):
        point = fixed.TransformContinuousIndexToPhysicalPoint((np.array(fixed.GetSize()) - 1.0) * corner)
        apart = np.linalg.norm(np.subtract(first.TransformPoint(point), second.TransformPoint(point)))
        assert apart < 0.3, f"{apart:.2f} mm at {point}"
