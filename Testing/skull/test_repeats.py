"""Planes that are one picture are refused, neighbouring slices and other planes are not."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from MedVAELib.errors import InputError
from MedVAELib.resources import resource_dir
from MedVAELib.skull.planes import PlaneImage
from MedVAELib.skull.repeats import one_picture, refuse_repeats
from MedVAELib.standard_planes import PLANES


def sample(plane: str) -> np.ndarray:
    """float32 0…1."""
    return np.asarray(Image.open(resource_dir() / "sample" / "skull" / f"{plane}.png"), np.float32) / 255


def as_jpeg(grey: np.ndarray) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray((grey * 255).round().astype(np.uint8)).save(file, "JPEG", quality=40)
    return np.asarray(Image.open(file), np.float32) / 255


@pytest.mark.parametrize("copy", [
    lambda grey: grey, as_jpeg, lambda grey: 0.7 * grey, lambda grey: grey[2:-2, 2:-2],
    lambda grey: as_jpeg(grey[3:, :-1]),
], ids=["same", "jpeg", "darker", "cut", "cut jpeg"])
def test_a_copy_is_one_picture(copy):
    axial = sample("axial")
    assert one_picture(axial, copy(axial)) and one_picture(copy(axial), axial)
    planes = {"axial": PlaneImage(axial, 0.28), "coronal": PlaneImage(copy(axial), 0.28, name="copy")}
    with pytest.raises(InputError, match="copy is given as axial and as coronal"):
        refuse_repeats(planes)


def test_other_planes_and_neighbouring_slices_are_not():
    planes = {plane: PlaneImage(sample(plane), 0.28) for plane in PLANES}
    refuse_repeats(planes)
    # Speckle of two places: smooth in the plane, correlated as neighbouring slices of a sharp MR scan are.
    noise = np.random.default_rng(0).normal(size=(2, 300, 400))
    one, new = ndimage.gaussian_filter(noise, (0, 4, 4))
    assert not one_picture(one.astype(np.float32), (0.995 * one + 0.1 * new).astype(np.float32))
    assert not one_picture(one.astype(np.float32), (0.995 * one + 0.1 * new)[2:-2, 2:-2].astype(np.float32))
