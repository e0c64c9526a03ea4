"""Agreement of heads against solids whose distances are known, and against MONAI's metrics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.metrics import HausdorffDistanceMetric, SurfaceDistanceMetric

from MedVAELib.errors import InputError
from MedVAELib.evaluation.skull_metrics import Solid, agreement


def ball(radius_mm, spacing_mm=1.5, size=64, centre_mm=(0.0, 0.0, 0.0), stretch=(1.0, 1.0, 1.0)):
    """Signed distance (exact where not stretched) of a ball or ellipsoid, zyx."""
    axes = [(np.arange(size) - (size - 1) / 2) * spacing_mm - c for c in centre_mm]
    z, y, x = np.meshgrid(*(axis / s for axis, s in zip(axes, stretch, strict=True)), indexing="ij")
    return Solid(radius_mm - np.sqrt(z**2 + y**2 + x**2), spacing_mm)


def test_concentric_spheres_have_the_difference_of_their_radii_as_every_distance():
    found = agreement(ball(32.3), ball(30.0))
    assert found.hausdorff_mm == pytest.approx(2.3, abs=0.05)
    assert found.hausdorff95_mm == pytest.approx(2.3, abs=0.05)
    assert found.surface_mm == pytest.approx(2.3, abs=0.02)
    assert found.volume_difference == pytest.approx((32.3 / 30) ** 3 - 1, abs=3e-3)
    assert found.dice == pytest.approx(2 / (1 + (32.3 / 30) ** 3), abs=2e-3)


def test_the_sign_of_the_volume_difference():
    found = agreement(ball(28.0), ball(30.0))
    assert found.volume_difference < 0 and found.absolute_volume_difference == -found.volume_difference


def test_the_same_sphere_on_another_grid_and_elsewhere_is_the_same_head():
    """Different voxels, half a voxel and many millimetres away: neither grid nor place may count."""
    found = agreement(ball(30.0, 1.3, 72, centre_mm=(5.2, -4.1, 3.3)), ball(30.0, 1.5))
    assert found.surface_mm < 0.03 and found.hausdorff_mm < 0.15
    assert found.dice > 0.992 and abs(found.volume_difference) < 2e-3


def test_an_ellipsoid_differs_from_its_sphere_by_its_longest_stretch():
    found = agreement(ball(25.0, stretch=(1.0, 1.2, 1.0)), ball(25.0))
    assert found.hausdorff_mm == pytest.approx(5.0, abs=0.1)
    assert 0.5 < found.surface_mm < 2.5 and found.hausdorff95_mm < found.hausdorff_mm


def test_what_only_one_of_both_has_is_far_seen_from_either():
    horn, plain = ball(9.0, centre_mm=(0.0, 24.0, 0.0)), ball(24.0)
    horned = Solid(np.maximum(plain.field, horn.field), 1.5)
    for pair in ((horned, plain), (plain, horned)):
        found = agreement(*pair)
        assert found.hausdorff_mm > 8 and found.hausdorff95_mm > 2, "from the plain head alone 7.7 and 0.7 mm"
    assert plain.volume_ml == pytest.approx(4 / 3 * np.pi * 2.4**3, rel=0.01)


def test_cubes_as_masks():
    """A cube longer by 4 voxels on both ends of one axis, as hard masks: 4 voxels of Hausdorff distance."""
    small, large = np.zeros((2, 40, 40, 40), np.float32)
    small[12:28, 12:28, 12:28] = 1
    large[12:28, 12:28, 8:32] = 1
    found = agreement(Solid(large - 0.5, 0.5), Solid(small - 0.5, 0.5))
    assert found.hausdorff_mm == pytest.approx(4 * 0.5, abs=0.01)
    assert found.volume_difference == pytest.approx(0.5) and found.dice == pytest.approx(2 / 2.5)


def test_monai_agrees_within_its_voxels():
    spacing = 1.5
    predicted, true = ball(26.0, spacing, stretch=(1.0, 1.15, 0.95)), ball(27.0, spacing)
    masks = [torch.from_numpy(solid.mask)[None, None].float() for solid in (predicted, true)]
    options = {"include_background": True}
    hausdorff = HausdorffDistanceMetric(**options)(*masks, spacing=spacing)
    hausdorff95 = HausdorffDistanceMetric(**options, percentile=95)(*masks, spacing=spacing)
    surface = SurfaceDistanceMetric(**options, symmetric=True)(*masks, spacing=spacing)
    found = agreement(predicted, true)
    assert found.hausdorff_mm == pytest.approx(float(hausdorff), abs=spacing)
    assert found.hausdorff95_mm == pytest.approx(float(hausdorff95), abs=spacing)
    assert found.surface_mm == pytest.approx(float(surface), abs=0.5 * spacing)


def test_distance_to_the_surface_and_field_from_the_centroid():
    solid = ball(30.0, centre_mm=(4.0, 2.0, -3.0))
    points = np.array([[0.0, 0.0, 20.0], [33.0, 0.0, 0.0]])
    assert solid.distance_mm(points) == pytest.approx([10.0, 3.0], abs=0.1)
    assert solid.values_at(solid.field, points) == pytest.approx([10.0, -3.0], abs=0.1)


@pytest.mark.parametrize("value", [-1.0, 1.0])
def test_a_field_without_surface_is_refused(value):
    with pytest.raises(InputError, match="no surface"):
        Solid(np.full((8, 8, 8), value), 1.0)
