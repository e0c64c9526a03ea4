"""The registration gives the same result whenever it is asked, and stops when it is told to."""

import threading

import numpy as np
import pytest
import SimpleITK as sitk

from MedVAELib.errors import Cancelled
from MedVAELib.preprocessing.atlas import load_atlas
from MedVAELib.preprocessing.masked import masked_scan
from MedVAELib.preprocessing.mni import mni_to_brain
from MedVAELib.preprocessing.published import prepare_published
from MedVAELib.preprocessing.registration import AffineRecipe, quick, register_affine
from MedVAELib.progress import CancelToken
from MedVAELib.resources import resource_dir
from MedVAELib.scan import Scan


def test_it_is_repeatable():
    """To some hundredths of a millimetre, as threads add up in any order; without a seed it is off by up to two."""
    fixed, scan = load_atlas().intensity, sitk.ReadImage(str(resource_dir() / "sample" / "flair.nii.gz"))
    first, second = (register_affine(fixed, scan, quick(fixed)) for _ in range(2))
    for corner in np.ndindex(2, 2, 2):
        point = fixed.TransformContinuousIndexToPhysicalPoint((np.array(fixed.GetSize()) - 1.0) * corner)
        apart = np.linalg.norm(np.subtract(first.TransformPoint(point), second.TransformPoint(point)))
        assert apart < 0.3, f"{apart:.2f} mm at {point}"


def test_it_hears_of_being_cancelled():
    """With steps that never get short enough it would take minutes."""
    fixed, scan = load_atlas().intensity, sitk.ReadImage(str(resource_dir() / "sample" / "flair.nii.gz"))
    recipe, cancel = AffineRecipe((2,), (2.0,), iterations=100_000, min_step=1e-12), CancelToken()
    threading.Timer(0.5, cancel.cancel).start()
    with pytest.raises(Cancelled):
        register_affine(fixed, scan, recipe, cancel=cancel)


@pytest.mark.parametrize("work", [
    lambda scan, cancel: masked_scan(scan, None, "scan", cancel),
    lambda scan, cancel: prepare_published(Scan.from_image(scan, name="scan"), cancel=cancel),
    lambda scan, cancel: mni_to_brain(scan, cancel),
])
def test_what_registers_hands_it_on(monkeypatch, work):
    scan, cancel = sitk.ReadImage(str(resource_dir() / "sample" / "flair.nii.gz"), sitk.sitkFloat32), CancelToken()
    given = []

    def register(fixed, moving, recipe, initial=None, cancel=None):
        given.append(cancel)
        raise Cancelled

    for place in ("mni", "template_brain"):
        monkeypatch.setattr(f"MedVAELib.preprocessing.{place}.register_affine", register)
    with pytest.raises(Cancelled):
        work(scan, cancel)
    assert given == [cancel]
