"""Bringing masks to the scan's voxels."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from MedVAELib.errors import InputError
from MedVAELib.preprocessing.mask_files import read_fractions, read_mask


def write(path, array, origin=(5.0, 6.0, 7.0)):
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((1.0, 2.0, 3.0))
    image.SetOrigin(origin)
    sitk.WriteImage(image, str(path))
    return image


def test_labels_above_zero_and_rounded_headers_count(tmp_path):
    array = np.zeros((8, 9, 10), np.int16)
    array[3, 4, 5], array[3, 4, 6] = 1, 4
    image = write(tmp_path / "labels.nii.gz", array, origin=(5.0003, 6.0, 7.0002))
    scan = sitk.Image(image)
    scan.SetOrigin((5.0, 6.0, 7.0))
    assert np.argwhere(read_mask(tmp_path / "labels.nii.gz", scan)).tolist() == [[3, 4, 5], [3, 4, 6]]


@pytest.mark.parametrize("stored, fraction", [(1, 1), (255, 1), (0.25, 0.25), (-1, 0), (np.nan, 0), (np.inf, 1)])
def test_labels_count_as_one_and_fractions_as_themselves(tmp_path, stored, fraction):
    array = np.zeros((8, 9, 10), np.float32)
    array[3, 4, 5] = stored
    scan = write(tmp_path / "mask.mha", array, origin=(5.0003, 6.0, 7.0))  # NIfTI has no NaN: it is read as 0
    scan.SetOrigin((5.0, 6.0, 7.0))
    made = read_fractions(tmp_path / "mask.mha", scan)
    assert made.GetPixel(5, 4, 3) == fraction and sitk.GetArrayFromImage(made).sum() == fraction
    assert made.GetOrigin() == scan.GetOrigin()


def test_a_mask_on_another_grid_is_resampled(tmp_path):
    array = np.zeros((8, 9, 10), np.uint8)
    array[2:5, 3:6, 4:7] = 1
    scan = write(tmp_path / "mask.nii.gz", array)
    sitk.WriteImage(sitk.Flip(sitk.ReadImage(str(tmp_path / "mask.nii.gz")), (True, False, True)),
                    str(tmp_path / "flipped.nii.gz"))
    assert (read_mask(tmp_path / "flipped.nii.gz", scan) == (array > 0)).all()


def test_a_mask_is_its_own_whatever_lies_beside_it(tmp_path):
    array = np.zeros((8, 9, 10), np.uint8)
    array[3, 4, 5] = 1
    scan = write(tmp_path / "mask.nii.gz", array)
    write(tmp_path / "mask.nii", 1 - array)
    assert np.argwhere(read_mask(tmp_path / "mask.nii.gz", scan)).tolist() == [[3, 4, 5]]


@pytest.mark.parametrize(("shift", "share"), [(1, None), (2, None), (3, 30), (10, 100), (500, 100)])
def test_masks_that_lie_outside_are_refused(tmp_path, shift, share):
    scan = write(tmp_path / "mask.nii.gz", np.ones((8, 9, 10), np.uint8), origin=(float(shift), 0.0, 0.0))
    scan.SetOrigin((0.0, 0.0, 0.0))
    if share is None:
        assert read_mask(tmp_path / "mask.nii.gz", scan).mean() == pytest.approx(1 - shift / 10)
    else:
        with pytest.raises(InputError, match=rf"outside its scan \({share}%"):
            read_mask(tmp_path / "mask.nii.gz", scan)


def test_what_is_no_mask_is_refused(tmp_path):
    scan = write(tmp_path / "mask.nii.gz", np.ones((8, 9, 10), np.uint8))
    (tmp_path / "broken.nii.gz").write_bytes(b"no image")
    with pytest.raises(InputError, match="gone.nii.gz does not exist"):
        read_mask(tmp_path / "gone.nii.gz", scan)
    with pytest.raises(InputError, match="cannot be read"):
        read_mask(tmp_path / "broken.nii.gz", scan)
