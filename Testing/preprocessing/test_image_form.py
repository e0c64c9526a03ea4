"""Images of any kind on one shape and in 0…1: nothing is lost in silence, and nothing valid refused."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from MedVAELib.errors import InputError
from MedVAELib.preprocessing.image_form import FormError, ImageForm, below_0, choose_scaling, scaled
from MedVAELib.training.image_sets import read_images


def ct(seed: int = 0) -> np.ndarray:
    """Air with a body of soft tissue and a little bone, (8, 10, 12) float32 in HU."""
    random = np.random.default_rng(seed)
    values = random.normal(-1000, 10, (8, 10, 12))
    values[2:6, 3:7, 3:9] = random.normal(40, 20, (4, 4, 6))
    values[3, 4, 4:8] = 900
    return values.astype(np.float32)


def volume(values: np.ndarray) -> sitk.Image:
    """With axes as `turned` wants them, so that the array stays as it is."""
    image = sitk.GetImageFromArray(values)
    image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
    return image


def written(folder, values: np.ndarray, name: str = "ct.nii.gz"):
    folder.mkdir(exist_ok=True)
    sitk.WriteImage(volume(values), str(folder / name))
    return folder / name


@pytest.mark.parametrize("shape", [(7, 9, 11), (9, 11, 13), (6, 12, 12), (8, 10, 12)])
def test_a_crop_cuts_and_pads_and_interpolates_nothing(shape):
    """Sides that are even and odd alike: nothing is blurred, and all that is kept comes back to where it was."""
    image = volume(ct().clip(0, 1000))
    values = sitk.GetArrayFromImage(image)
    form = ImageForm(shape, "crop", "percentile")
    made = form.fitted(image, "an image")
    np.testing.assert_allclose(np.setdiff1d(made.round(3), values.round(3)), [])
    back = sitk.GetArrayFromImage(form.restored(made, image))
    kept = back != 0
    np.testing.assert_allclose(back[kept], values[kept], atol=1e-3)
    assert np.count_nonzero(back) == np.count_nonzero(made)


def test_what_percentile_would_cut_off_is_refused(tmp_path):
    file = written(tmp_path, ct())
    with pytest.raises(FormError, match=r"below 0 in 9\d % .*set scaling to range") as error:
        read_images(tmp_path, shape=(8, 10, 12), scaling="percentile")
    assert str(file) in str(error.value) and "\n" not in str(error.value)
    scores = np.random.default_rng(0).normal(size=(8, 10, 12)).astype(np.float32)
    with pytest.raises(FormError, match="below 0"):
        scaled(scores, "percentile", "z-scores")
    with pytest.raises(FormError, match="to range"):
        scaled(scores, "unit", "z-scores")


def test_a_few_values_just_below_0_are_no_reason_to_refuse():
    values = np.random.default_rng(0).uniform(0, 1000, (8, 10, 12)).astype(np.float32)
    expected = scaled(values, "percentile", "x")
    values[0, :, :2] = np.where(values[0, :, :2] > 0, -5, 0)
    assert below_0(values) == 0
    assert np.array_equal(scaled(values, "percentile", "x")[1:], expected[1:])


def test_range_keeps_what_lies_below_0(tmp_path):
    written(tmp_path, ct())
    written(tmp_path, np.abs(ct(1)), "positive.nii.gz")
    images = read_images(tmp_path, shape=(8, 10, 12))
    assert images.scaling == "range"
    made, original = images.images[images.cases.index("ct"), 0], ct()
    assert made.min() == 0 and made.max() == 1 and made.dtype == np.float32
    low, high = np.percentile(original, (0.5, 99.5))
    assert np.allclose(made, np.clip((original - low) / (high - low), 0, 1), atol=1e-6)
    with pytest.raises(InputError, match="x is empty"):
        scaled(np.full((4, 4), -3, np.float32), "range", "x")


def test_what_auto_means_for_a_set():
    assert choose_scaling([(0, 1)], False) == "unit" and choose_scaling([(0, 255)], True) == "byte"
    assert choose_scaling([(0, 900)], False) == "percentile" and choose_scaling([(-9, 900)], False) == "percentile"
    assert choose_scaling([(-1000, 900)], False, negative=True) == "range"


@pytest.mark.parametrize("scaling", ["auto", "range"])
def test_around_an_image_with_values_below_0_is_its_least(scaling):
    made = ImageForm((8, 10, 20), "crop", scaling).fitted(volume(ct()), "ct")
    assert (made[:, :, :4] == ct().min()).all() and np.array_equal(made[:, :, 4:16], ct())
    assert not ImageForm((8, 10, 20), "crop").fitted(volume(ct() + 2000), "ct")[:, :, :4].any()


@pytest.mark.parametrize(("scaling", "top", "kind"), [("unit", 1, np.float32), ("byte", 255, np.uint8)])
def test_smoothing_does_not_make_an_image_invalid(tmp_path, scaling, top, kind):
    """A dark square in a bright frame: smoothing before resampling goes 0.0024 beyond what is there."""
    picture = np.full((64, 64), top, kind)
    picture[4:-4, 4:-4] = 0
    form = ImageForm((40, 40), "stretch", scaling)
    beyond = ImageForm((40, 40), "stretch", "percentile").fitted(sitk.GetImageFromArray(picture), "edge") / top
    assert max(-beyond.min(), beyond.max() - 1) > 0.002
    made = form.apply(sitk.GetImageFromArray(picture), "edge")
    assert made.min() == 0 and made.max() == 1
    with pytest.raises(FormError, match="edge has intensities"):
        form.apply(sitk.GetImageFromArray(np.where(picture > 0, 1.5 * top, 0).astype(np.float32)), "edge")
    if scaling == "byte":
        sitk.WriteImage(sitk.GetImageFromArray(picture), str(tmp_path / "edge.png"))
        images = read_images(tmp_path, shape=(40, 40), fit="stretch")
        assert images.scaling == "byte" and np.array_equal(images.images[0, 0], made)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_volume_of_one_slice_along_any_axis_is_a_picture_as_it_is_stored(tmp_path, axis):
    random = np.random.default_rng(0)
    picture = random.uniform(0, 1, (12, 16)).astype(np.float32)
    image = sitk.GetImageFromArray(np.expand_dims(picture, axis))
    image.SetDirection((-1, 0, 0, 0, 0, 1, 0, -1, 0))
    image.SetSpacing((2.0, 3.0, 4.0))
    sitk.WriteImage(image, str(tmp_path / "slice.nii.gz"))
    images = read_images(tmp_path)
    assert images.shape == (12, 16) and np.allclose(images.images[0, 0], picture)
    sides = [spacing for place, spacing in enumerate((4.0, 3.0, 2.0)) if place != axis]
    assert np.allclose(images.spacing_mm, sides)
    form = ImageForm((24, 32), "stretch", "unit")
    back = form.restored(form.apply(image, "slice"), image)
    assert back.GetSize() == image.GetSize() and back.GetDirection() == image.GetDirection()
    assert np.abs(np.squeeze(sitk.GetArrayFromImage(back), axis) - picture).mean() < 0.15
