"""Augmented training images: changed as asked, by the seed alone, and no further."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from MedVAELib.latent.train import image_batches
from MedVAELib.training.augment import Augmentation, augmenter

EVERYTHING = Augmentation(mirror=0.5, rotate=8, shift=2, scale=0.1, contrast=0.3)


def boxes(shape: tuple[int, ...], count: int = 4) -> np.ndarray:
    """Images with a bright box off their middle, in 0…1."""
    images = np.zeros((count, 1, *shape), np.float32)
    images[(slice(None), 0, *(slice(side // 4, side // 2) for side in shape))] = 0.8
    return images


@pytest.mark.parametrize("shape", [(32, 24), (24, 32, 16)])
def test_the_seed_says_how_images_are_changed(shape):
    augment, images = augmenter(EVERYTHING, len(shape)), boxes(shape)
    before = images.copy()
    first = augment(images, (3, 5))
    assert first.shape == images.shape and first.dtype == np.float32 and 0 <= first.min() and first.max() <= 1
    assert np.array_equal(images, before)
    assert np.array_equal(first, augment(images, (3, 5)))
    assert not np.array_equal(first, augment(images, (3, 6)))
    assert not np.array_equal(first[0], first[1])  # each image in its own way


@pytest.mark.parametrize("shape", [(64, 48), (32, 48, 40)])
def test_a_shift_moves_at_most_so_far_and_a_mirror_swaps_the_last_axis(shape):
    images = boxes(shape, 24)
    middle = np.array(ndimage.center_of_mass(images[0, 0]))
    moved = augmenter(Augmentation(shift=3), len(shape))(images, (1,))
    distances = np.array([ndimage.center_of_mass(image[0]) for image in moved]) - middle
    assert np.abs(distances).max() <= 3.01 and np.abs(distances).max() > 1.5
    assert moved.sum() == pytest.approx(images.sum(), rel=0.01)
    mirrored = augmenter(Augmentation(mirror=0.5), len(shape))(images, (1,))
    swapped = [np.array_equal(image, images[0, :, ..., ::-1]) for image in mirrored]
    same = [np.array_equal(image, images[0]) for image in mirrored]
    assert sum(swapped) + sum(same) == 24 and 5 < sum(swapped) < 19


def test_scale_and_contrast_stay_within_what_was_asked():
    images = boxes((64, 64), 24)
    areas = augmenter(Augmentation(scale=0.2), 2)(images, (1,)).sum((1, 2, 3)) / images[0].sum()
    assert 0.8**2 * 0.95 < areas.min() < 0.9 and 1.1 < areas.max() < 1 / 0.8**2 * 1.05
    ramp = np.linspace(0, 1, 256, dtype=np.float32).reshape(1, 1, 16, 16)
    half = [augmenter(Augmentation(contrast=0.25), 2)(ramp, (seed,)).ravel()[128] for seed in range(40)]
    assert 0.5**1.25 - 0.01 < min(half) < 0.46 and 0.54 < max(half) < 0.5**0.8 + 0.01


def test_nothing_asked_for_is_nothing_done():
    assert augmenter(Augmentation(), 3) is None


@pytest.mark.parametrize("wrong", [{"mirror": 1.5}, {"scale": 1}, {"rotate": -1}, {"contrast": -0.1}])
def test_what_cannot_be_asked_for(wrong):
    with pytest.raises(ValueError, match="must"):
        Augmentation(**wrong)


def test_a_resumed_stream_changes_images_as_the_unbroken_one():
    images, augment = boxes((16, 16), 10), augmenter(EVERYTHING, 2)
    stream = image_batches(images, 4, 1, augment)(0)
    drawn = [next(stream)[0].numpy() for _ in range(6)]
    assert np.array_equal(next(image_batches(images, 4, 1, augment)(5))[0].numpy(), drawn[5])
    assert not np.array_equal(drawn[0][0], drawn[5][0])


def test_background_processes_change_images_in_the_same_way():
    images, augment = boxes((16, 16), 10), augmenter(EVERYTHING, 2)
    here, there = (image_batches(images, 4, 1, augment, workers)(3) for workers in (0, 2))
    for _ in range(5):
        assert np.array_equal(next(here)[0].numpy(), next(there)[0].numpy())
    there.close()
