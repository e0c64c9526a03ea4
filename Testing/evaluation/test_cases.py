"""Finding cases in a folder and bringing their masks to the scan's voxels."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from MedVAELib.errors import InputError
from MedVAELib.evaluation.cases import find_cases, read_mask


def write(path, array=None, spacing=(1.0, 2.0, 3.0), origin=(5.0, 6.0, 7.0)):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(np.zeros((8, 9, 10), np.uint8) if array is None else array)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    sitk.WriteImage(image, str(path))
    return image


def test_cases_are_found_with_their_files(tmp_path):
    for name in ("b/flair.nii.gz", "b/mask1.nii.gz", "b/mask2.nii.gz", "b/brainmask.nii.gz", "a/dwi.nii.gz",
                 "c/flair_zscored.nii.gz", "c/labels.nii.gz", "healthy_1/flair.nii.gz", "notes/mask.nii.gz"):
        write(tmp_path / name)
    cases = {case.name: case for case in find_cases(tmp_path)}
    assert list(cases) == ["a", "b", "c", "healthy_1"]
    assert [case.kind for case in cases.values()] == ["no truth", "lesions", "lesions", "healthy"]
    assert (cases["b"].truth.name, cases["b"].second_rater.name) == ("mask1.nii.gz", "mask2.nii.gz")
    assert cases["b"].brain.name == "brainmask.nii.gz" and cases["a"].brain is None
    assert cases["c"].truth.name == "labels.nii.gz"


def test_a_networks_output_is_not_truth(tmp_path):
    write(tmp_path / "stroke" / "dwi.nii.gz")
    write(tmp_path / "stroke" / "automatic_lesion.nii.gz")
    assert find_cases(tmp_path)[0].kind == "no truth"


def test_a_case_folder_alone_is_one_case(tmp_path):
    write(tmp_path / "one" / "flair.nii.gz")
    assert [case.name for case in find_cases(tmp_path / "one")] == ["one"]


def test_no_case_is_said(tmp_path):
    with pytest.raises(InputError, match="holds no case"):
        find_cases(tmp_path)
    with pytest.raises(InputError, match="not a folder"):
        find_cases(tmp_path / "absent")


def test_labels_above_zero_and_rounded_headers_count(tmp_path):
    array = np.zeros((8, 9, 10), np.int16)
    array[3, 4, 5], array[3, 4, 6] = 1, 4
    image = write(tmp_path / "labels.nii.gz", array, origin=(5.0003, 6.0, 7.0002))
    scan = sitk.Image(image)
    scan.SetOrigin((5.0, 6.0, 7.0))
    assert np.argwhere(read_mask(tmp_path / "labels.nii.gz", scan)).tolist() == [[3, 4, 5], [3, 4, 6]]


def test_a_mask_on_another_grid_is_resampled(tmp_path):
    array = np.zeros((8, 9, 10), np.uint8)
    array[2:5, 3:6, 4:7] = 1
    scan = write(tmp_path / "mask.nii.gz", array)
    sitk.WriteImage(sitk.Flip(sitk.ReadImage(str(tmp_path / "mask.nii.gz")), (True, False, True)),
                    str(tmp_path / "flipped.nii.gz"))
    assert (read_mask(tmp_path / "flipped.nii.gz", scan) == (array > 0)).all()


def test_masks_that_cannot_belong_are_refused(tmp_path):
    array = np.ones((8, 9, 10), np.uint8)
    scan = write(tmp_path / "far.nii.gz", array, origin=(500.0, 0.0, 0.0))
    scan.SetOrigin((0.0, 0.0, 0.0))
    with pytest.raises(InputError, match="outside its scan"):
        read_mask(tmp_path / "far.nii.gz", scan)
    (tmp_path / "broken.nii.gz").write_bytes(b"no image")
    with pytest.raises(InputError, match="cannot be read"):
        read_mask(tmp_path / "broken.nii.gz", scan)
