"""The average head's brain mask on a scan, by registration."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from MedVAELib.evaluation.metrics import dice
from MedVAELib.preprocessing.atlas import load_atlas
from MedVAELib.preprocessing.template_brain import template_brain_mask


def test_the_template_finds_the_brain_of_a_moved_head():
    atlas = load_atlas()
    moved = sitk.AffineTransform(3)
    moved.Scale((0.93, 1.05, 0.97))
    moved.Rotate(1, 2, 0.15)
    moved.Rotate(0, 1, -0.1)
    moved.Translate((6.0, -9.0, 5.0))
    grid = sitk.Image(64, 76, 34, sitk.sitkFloat32)
    grid.SetSpacing((3.0, 3.0, 6.0))
    grid.SetDirection((1, 0, 0, 0, 1, 0, 0, 0, 1))
    grid.SetOrigin((-94.0, -100.0, -95.0))
    scan = sitk.Resample(atlas.intensity, grid, moved, sitk.sitkLinear, 0.0)
    scan = scan * 3.1 + sitk.AdditiveGaussianNoise(scan * 0, standardDeviation=8, seed=1)
    expected = sitk.GetArrayFromImage(sitk.Resample(atlas.brain, grid, moved, sitk.sitkLinear, 0.0)) > 0.5
    found = sitk.GetArrayFromImage(template_brain_mask(scan)) > 0
    assert dice(found, expected) > 0.96
    assert dice(np.roll(expected, 3, axis=1), expected) < 0.96  # 9 mm off would be noticed
