"""Storage axes turned to the patient's and back: no voxel moves in space, none changes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import SimpleITK as sitk

from MedVAELib.preprocessing.geometry import orientation_code
from MedVAELib.preprocessing.turning import Turn

SIGNED_AXES = [np.eye(3)[:, list(order)] * signs for order in itertools.permutations(range(3))
               for signs in itertools.product((1, -1), repeat=3)]


def stored(axes: np.ndarray, oblique: float) -> sitk.Image:
    """Noise with the given axes (columns), turned by `oblique` radians about an axis that is none of them."""
    tilt = np.array(sitk.VersorTransform((1.0, 2.0, 3.0), oblique).GetMatrix()).reshape(3, 3)
    image = sitk.GetImageFromArray(np.random.default_rng(0).random((4, 5, 6), np.float32))
    image.SetSpacing((1.0, 2.0, 3.5))
    image.SetOrigin((10.0, -20.0, 30.0))
    image.SetDirection((tilt @ axes).ravel().tolist())
    return image


@pytest.mark.parametrize("oblique", [0.0, 0.3])
@pytest.mark.parametrize("axes", SIGNED_AXES, ids=lambda axes: "".join(f"{n:+.0f}" for n in axes.sum(0)))
def test_every_order_is_turned_and_comes_back(axes, oblique):
    image = stored(axes, oblique)
    turn = Turn.to_patient(image)
    turned = turn.image(image)
    assert orientation_code(turned).startswith("LPS")
    values = sitk.GetArrayFromImage(turned)
    assert np.array_equal(values, turn.view(sitk.GetArrayViewFromImage(image)))
    grid = turn.grid(image)
    assert (grid.GetSize(), grid.GetOrigin(), grid.GetSpacing(), grid.GetDirection()) == (
        turned.GetSize(), turned.GetOrigin(), turned.GetSpacing(), turned.GetDirection())
    for index in np.ndindex(turned.GetSize()):
        there = image.TransformPhysicalPointToIndex(turned.TransformIndexToPhysicalPoint(index))
        assert turned[index] == image[there]
    box = np.zeros(sitk.GetArrayViewFromImage(image).shape, bool)
    turn.view(box)[1:3, 2:4, 0:2] = True
    first, size = turn.box_back((0, 2, 1), (2, 2, 2), turned.GetSize())
    inside = np.argwhere(box)[:, ::-1]
    assert first == tuple(inside.min(0)) and size == tuple(np.ptp(inside, axis=0) + 1)


def test_an_image_along_the_patient_stays_as_it_is():
    image = stored(np.eye(3), 0.1)
    turned = Turn.to_patient(image).image(image)
    assert turned.GetOrigin() == image.GetOrigin() and turned.GetDirection() == image.GetDirection()
    assert turned.GetSpacing() == image.GetSpacing()
