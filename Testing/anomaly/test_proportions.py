"""Brains of wrong proportions, as ellipsoids on a grid of 2 mm."""

from __future__ import annotations

import numpy as np
import pytest

from MedVAELib.anomaly.proportions import Proportions

HEIGHT_MM, LENGTH_MM, WIDTH_MM = 125.0, 170.0, 140.0


def brain(stretched=(1.0, 1.0, 1.0), nod_degrees=0.0):
    """An adult's brain (D, H, W), stretched along the patient's axes (z, y, x) after it was nodded."""
    z, y, x = (n / factor for n, factor in zip(np.mgrid[-150:151:2, -180:181:2, -150:151:2], stretched, strict=True))
    cos, sin = np.cos(np.radians(nod_degrees)), np.sin(np.radians(nod_degrees))
    along = cos * z + sin * y, cos * y - sin * z, x
    return sum((2 * n / mm) ** 2 for n, mm in zip(along, (HEIGHT_MM, LENGTH_MM, WIDTH_MM), strict=True)) < 1


def test_proportions_are_those_of_the_brain():
    shape = Proportions.of(brain())
    wanted = HEIGHT_MM / LENGTH_MM, WIDTH_MM / LENGTH_MM, HEIGHT_MM / WIDTH_MM
    assert (shape.height, shape.width, shape.thickness) == pytest.approx(wanted, rel=0.01)
    assert shape.usual


@pytest.mark.parametrize("nod_degrees", [-50, -20, 20, 50])
def test_a_nod_is_no_wrong_voxel_size(nod_degrees):
    """The brain's own axis rises by some 20 degrees already, so a head raised by 30 has it at 50."""
    shape = Proportions.of(brain(nod_degrees=nod_degrees))
    assert shape.usual and shape.thickness == pytest.approx(HEIGHT_MM / WIDTH_MM, rel=0.02)


@pytest.mark.parametrize("nod_degrees", [0, 20])
@pytest.mark.parametrize("stretched", [
    (0.5, 1, 1), (2, 1, 1), (1, 0.5, 1), (1, 1, 0.5), (1, 1, 2),
    (1, WIDTH_MM / LENGTH_MM, LENGTH_MM / WIDTH_MM), (1.3, 0.7, 1),
])
def test_a_wrong_voxel_size_or_exchanged_axes_are_seen(stretched, nod_degrees):
    assert not Proportions.of(brain(stretched, nod_degrees)).usual
