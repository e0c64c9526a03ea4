"""Brain extraction scored beside a template's, and which cases can be scored at all."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from MedVAELib.evaluation.brain_mask import brain_markdown, evaluate_brains, has_head
from MedVAELib.evaluation.cases import find_cases

from .standin import detection_of, image_like


@pytest.fixture
def head_case(tmp_path, head_image):
    image = head_image()
    array = sitk.GetArrayFromImage(image)
    axes = np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in array.shape), indexing="ij")
    brain = sum((axis * step / half) ** 2 for axis, step, half in
                zip(axes, image.GetSpacing()[::-1], (74, 84, 64), strict=True)) <= 1
    folder = tmp_path / "with_head"
    folder.mkdir()
    sitk.WriteImage(image, str(folder / "flair.nii.gz"))
    sitk.WriteImage(image_like(brain.astype(np.uint8), image), str(folder / "brainmask.nii.gz"))
    return tmp_path, image, brain


def test_both_masks_are_scored(head_case):
    folder, image, brain = head_case
    smaller = ndimage.binary_erosion(brain)
    result, = evaluate_brains(find_cases(folder), lambda scan, progress: detection_of(scan, brain * 1.0, brain, 2.0),
                              lambda scan: image_like(smaller.astype(np.uint8), image))
    assert (result.dice, result.missed, result.added) == (1, 0, 0)
    assert result.template_missed == pytest.approx(1 - smaller.sum() / brain.sum()) and result.template_added == 0
    assert result.gain == pytest.approx(1 - result.template_dice)
    text = brain_markdown([result, result], [])
    assert "| with_head |" in text and "**mean of 2**" in text


def test_stripped_scans_and_scans_without_brain_mask_are_left_out(head_case):
    folder, image, brain = head_case
    stripped = image_like((sitk.GetArrayFromImage(image) * brain).astype(np.float32), image)
    assert has_head(image, brain) and not has_head(stripped, brain)
    sitk.WriteImage(stripped, str(folder / "with_head" / "flair.nii.gz"))
    (folder / "no_mask").mkdir()
    sitk.WriteImage(image, str(folder / "no_mask" / "flair.nii.gz"))
    results = evaluate_brains(find_cases(folder), None, None)
    assert [r.skipped for r in results] == ["no brain mask given", "the scan is already stripped of its head"]
    assert "left out: no_mask" in brain_markdown(results, [])
