"""Geometry: positions, orientation names, and resampling there and back under every orientation of a scan.

The fields are smooth, so that linear interpolation has a bound: h²/8 · max|f''| per axis for spacing h, plus
sigma²/2 · max|f''| where the scan is smoothed first.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from MedVAELib.preprocessing.geometry import (
    channels_from_grid,
    from_grid,
    ijk_to_ras_mm,
    inverse,
    like,
    orientation_code,
    physical_points,
    ras_affine_mm,
    ras_grid,
    ras_mm_to_ijk,
    rounded_geometry,
    to_grid,
)

GRID = ras_grid((3.0, -5.0, 8.0), (36, 44, 40), 4.0)
WIDTH_MM = 22.0  # of the Gaussians in the smooth field

SIGNED_PERMUTATIONS = [np.eye(3)[list(p)] * signs
                       for p in itertools.permutations(range(3)) for signs in itertools.product((1, -1), repeat=3)]


def smooth_field(ras_mm: np.ndarray) -> np.ndarray:
    """Three Gaussian bumps and a dip; no symmetry, so that an exchange of axes is seen."""
    bumps = (((20, 15, 10), 1.0), ((-25, 30, -15), 0.7), ((5, -40, 20), -0.6), ((-10, -10, 35), 0.5))
    return sum(height * np.exp(-((ras_mm - np.array(middle)) ** 2).sum(-1) / (2 * WIDTH_MM**2))
               for middle, height in bumps)


MAX_CURVATURE = (1.0 + 0.7 + 0.6 + 0.5) / WIDTH_MM**2  # |f''| of a Gaussian is at most height / width²


def interpolation_bound(*spacings_mm: Sequence[float]) -> float:
    return sum(h**2 / 8 * MAX_CURVATURE for spacing in spacings_mm for h in spacing)


def grid_image(size_xyz: Sequence[int], spacing_xyz: Sequence[float], direction: np.ndarray,
               center_ras_mm: Sequence[float]) -> sitk.Image:
    image = sitk.Image([int(n) for n in size_xyz], sitk.sitkFloat32)
    image.SetSpacing([float(s) for s in spacing_xyz])
    image.SetDirection(np.asarray(direction, float).ravel().tolist())
    middle = (np.array(size_xyz) - 1) / 2 * np.array(spacing_xyz)
    image.SetOrigin((np.array(center_ras_mm) * (-1, -1, 1) - np.asarray(direction) @ middle).tolist())
    return image


def filled(image: sitk.Image) -> sitk.Image:
    """The smooth field sampled at the image's voxel centres."""
    return like(smooth_field(physical_points(image).astype(float)).astype(np.float32), image)


def reoriented(image: sitk.Image, axes: Sequence[int], flips: Sequence[bool]) -> sitk.Image:
    """The same voxels at the same places in another storage order."""
    return sitk.Flip(sitk.PermuteAxes(image, list(axes)), [bool(f) for f in flips])


def inside(image: sitk.Image, ras_mm: np.ndarray, margin_voxels: float | np.ndarray) -> np.ndarray:
    index = ras_mm_to_ijk(image, ras_mm)
    return np.all((index >= margin_voxels) & (index <= np.array(image.GetSize()) - 1 - margin_voxels), axis=-1)


@st.composite
def scans(draw: st.DrawFn, oblique: bool = True) -> sitk.Image:
    """A scan of the field: any orientation, anisotropic, thick slices along any axis, field of view maybe truncated."""
    direction = draw(st.sampled_from(SIGNED_PERMUTATIONS))
    if oblique:
        angles = [draw(st.floats(-40, 40)) for _ in range(3)]
        direction = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() @ direction
    spacing = [draw(st.floats(2.4, 5.0)) for _ in range(3)]
    spacing[draw(st.integers(0, 2))] *= draw(st.sampled_from((1.0, 1.6)))
    extent = [draw(st.floats(80, 140)) for _ in range(3)]
    size = [max(round(e / s), 8) for e, s in zip(extent, spacing, strict=True)]
    center = [draw(st.floats(-15, 15)) for _ in range(3)]
    # As the library computes on every scan: SimpleITK cannot invert directions with entries of 1e-311.
    return filled(rounded_geometry(grid_image(size, spacing, direction, center)))


# --- Positions and names ---------------------------------------------------------------------------------------------


def test_ras_grid_axes_and_centre() -> None:
    grid = ras_grid((1.0, 2.0, 3.0), (5, 7, 9), (2.0, 3.0, 4.0))
    points = physical_points(grid)
    assert points.shape == (5, 7, 9, 3)
    np.testing.assert_allclose(points[2, 3, 4], (1, 2, 3))
    np.testing.assert_allclose(points[3, 3, 4] - points[2, 3, 4], (0, 0, 2))  # z: up
    np.testing.assert_allclose(points[2, 4, 4] - points[2, 3, 4], (0, 3, 0))  # y: anterior
    np.testing.assert_allclose(points[2, 3, 5] - points[2, 3, 4], (4, 0, 0))  # x: right
    assert orientation_code(grid) == "RAS"


@given(scans(), st.tuples(*[st.integers(0, 7)] * 3))
@settings(max_examples=10, deadline=None)
def test_positions_agree_with_simpleitk(image: sitk.Image, ijk: tuple[int, int, int]) -> None:
    expected = np.array(image.TransformIndexToPhysicalPoint(ijk)) * (-1, -1, 1)
    np.testing.assert_allclose(ijk_to_ras_mm(image, ijk), expected, atol=1e-9)
    np.testing.assert_allclose(ras_affine_mm(image) @ (*ijk, 1), (*expected, 1), atol=1e-9)
    np.testing.assert_allclose(ras_mm_to_ijk(image, expected), ijk, atol=1e-9)
    np.testing.assert_allclose(physical_points(image)[ijk[::-1]], expected, atol=1e-4)


@pytest.mark.parametrize("direction", SIGNED_PERMUTATIONS)
def test_orientation_code_names_where_each_axis_points(direction: np.ndarray) -> None:
    image = grid_image((8, 9, 10), (1, 1, 1), direction, (0, 0, 0))
    code = orientation_code(image)
    itk = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(direction.ravel().tolist())
    assert code == itk
    opposite = str.maketrans("LRPAIS", "RLAPSI")
    flipped = sitk.Flip(image, [True, False, False])
    assert orientation_code(flipped) == code[0].translate(opposite) + code[1:]


def test_orientation_code_says_how_oblique() -> None:
    turned = Rotation.from_euler("z", 12, degrees=True).as_matrix()
    assert orientation_code(grid_image((8, 8, 8), (1, 1, 1), turned, (0, 0, 0))) == "LPS+oblique 12°"


# --- Resampling ------------------------------------------------------------------------------------------------------


@given(scans())
@settings(max_examples=12, deadline=None)
def test_to_grid_has_the_scan_where_it_is_in_space(scan: sitk.Image) -> None:
    on_grid = to_grid(scan, GRID, outside=-7.0)
    points = physical_points(GRID).astype(float)
    values, expected = sitk.GetArrayFromImage(on_grid), smooth_field(points)
    smoothing = MAX_CURVATURE * 3 * (0.35 * 4) ** 2 / 2
    core = inside(scan, points, margin_voxels=2)
    assert core.sum() > 200
    assert np.abs(values - expected)[core].max() < interpolation_bound(scan.GetSpacing()) + smoothing
    beyond = ~inside(scan, points, margin_voxels=-0.501)
    assert np.all(values[beyond] == -7.0)
    assert np.all(values[inside(scan, points, margin_voxels=-0.499)] != -7.0)


@given(scans())
@settings(max_examples=12, deadline=None)
def test_round_trip_returns_the_field_on_the_scans_own_grid(scan: sitk.Image) -> None:
    back = from_grid(to_grid(scan, GRID), scan)
    assert back.GetSize() == scan.GetSize() and back.GetSpacing() == scan.GetSpacing()
    assert back.GetOrigin() == scan.GetOrigin() and back.GetDirection() == scan.GetDirection()
    assert back.GetPixelID() == sitk.sitkFloat32
    points = physical_points(scan).astype(float)
    # where every neighbour on the grid was itself within the scan
    core = inside(scan, points, 2 + 4 * np.sqrt(3) / np.array(scan.GetSpacing())) & inside(GRID, points, 0)
    error = np.abs(sitk.GetArrayFromImage(back) - sitk.GetArrayFromImage(scan))[core]
    bound = interpolation_bound(scan.GetSpacing(), GRID.GetSpacing()) + MAX_CURVATURE * 3 * (0.35 * 4) ** 2 / 2
    assert error.max(initial=0) < bound


@given(scans(), st.permutations(range(3)), st.tuples(*[st.booleans()] * 3))
@settings(max_examples=12, deadline=None)
def test_storage_order_changes_nothing(scan: sitk.Image, axes: list[int], flips: tuple[bool, ...]) -> None:
    other = reoriented(scan, axes, flips)
    first, second = (sitk.GetArrayFromImage(to_grid(image, GRID, outside=0.3)) for image in (scan, other))
    np.testing.assert_allclose(second, first, atol=1e-5)
    on_grid = filled(GRID)
    first_back = reoriented(from_grid(on_grid, scan, outside=0.3), axes, flips)
    second_back = from_grid(on_grid, other, outside=0.3)
    np.testing.assert_allclose(sitk.GetArrayFromImage(second_back), sitk.GetArrayFromImage(first_back), atol=1e-5)


@pytest.mark.parametrize("turn", [0.0, 20.0], ids=["parallel", "turned about z"])
@pytest.mark.parametrize("flips", list(itertools.product((False, True), repeat=3)))
def test_flips_agree_where_grid_points_lie_on_the_scans_edge(flips: tuple[bool, ...], turn: float) -> None:
    # 2 mm voxels on a 4 mm grid: the scan's edge passes exactly through grid points, in or out alike on both sides
    direction = Rotation.from_euler("z", turn, degrees=True).as_matrix()
    scan = filled(grid_image((50, 48, 40), (2, 2, 2), direction, (3.0, -5.0, 8.0)))
    noisy = sitk.AdditiveGaussianNoise(scan, standardDeviation=1.0, seed=1)
    expected = sitk.GetArrayFromImage(to_grid(noisy, GRID, outside=9.0))
    found = sitk.GetArrayFromImage(to_grid(sitk.Flip(noisy, list(flips)), GRID, outside=9.0))
    np.testing.assert_allclose(found, expected, atol=1e-5)


@given(scans(), st.booleans())
@settings(max_examples=12, deadline=None)
def test_agrees_with_simpleitk(scan: sitk.Image, parallel: bool) -> None:
    if parallel:
        scan.SetDirection(np.eye(3)[[1, 2, 0]].ravel().tolist())
    on_grid = filled(GRID)
    ours = sitk.GetArrayFromImage(from_grid(on_grid, scan, outside=0.25))
    itk = sitk.GetArrayFromImage(sitk.Resample(on_grid, scan, sitk.Transform(), sitk.sitkLinear, 0.25))
    on_edge = inside(GRID, physical_points(scan), -0.501) & ~inside(GRID, physical_points(scan), -0.499)
    np.testing.assert_allclose(ours[~on_edge], itk[~on_edge], atol=1e-4)  # ITK steps along rows in float


def test_coarser_scans_are_not_smoothed() -> None:
    smooth = filled(grid_image((30, 30, 30), (5, 5, 5), np.eye(3), (0.7, 1.2, 0.4)))
    scan = sitk.AdditiveGaussianNoise(smooth, 1.0, seed=3)
    ours = sitk.GetArrayFromImage(to_grid(scan, GRID, outside=0.0))
    itk = sitk.GetArrayFromImage(sitk.Resample(scan, GRID, sitk.Transform(), sitk.sitkLinear, 0.0))
    np.testing.assert_allclose(ours, itk, atol=1e-4)


def test_finer_scans_do_not_alias() -> None:
    # white noise: linear sampling would keep most of its spread, smoothing takes it away
    scan = grid_image((100, 100, 100), (1, 1, 1), np.eye(3), (3, -5, 8))
    noise = sitk.AdditiveGaussianNoise(scan, standardDeviation=1.0, seed=2)
    grid = ras_grid((3.1, -5.2, 8.3), (20, 20, 20), 4.0)
    ours = sitk.GetArrayFromImage(to_grid(noise, grid)).std()
    plain = sitk.GetArrayFromImage(sitk.Resample(noise, grid, sitk.Transform(), sitk.sitkLinear)).std()
    assert ours < 0.25 * plain


def test_a_constant_stays_constant_up_to_the_edge() -> None:
    scan = grid_image((60, 50, 40), (1.1, 1.3, 2.0), Rotation.from_euler("x", 9, degrees=True).as_matrix(), (0, 0, 0))
    values = sitk.GetArrayFromImage(to_grid(scan + 5.0, GRID, outside=0.0))
    assert np.all((np.abs(values - 5) < 1e-4) | (values == 0))


@pytest.mark.parametrize("turn", [0.0, 17.0])
def test_channels_equal_single_maps_and_keep_their_own_outside(turn: float) -> None:
    direction = Rotation.from_euler("y", turn, degrees=True).as_matrix() @ SIGNED_PERMUTATIONS[13]
    scan = grid_image((50, 40, 60), (4, 5, 4), direction, (20, 0, 0))
    channels = np.random.default_rng(0).random((3, *GRID.GetSize()[::-1]), np.float32)
    outside = (1.0, 0.0, -2.0)
    together = channels_from_grid(channels, GRID, scan, outside)
    assert together.shape == (3, *scan.GetSize()[::-1]) and together.dtype == np.float32
    for channel, value, found in zip(channels, outside, together, strict=True):
        np.testing.assert_array_equal(found, sitk.GetArrayFromImage(from_grid(like(channel, GRID), scan, value)))
        assert np.any(found == value)


def test_probabilities_still_sum_to_one() -> None:
    direction = Rotation.from_euler("z", 30, degrees=True).as_matrix()
    scan = filled(grid_image((40, 40, 20), (3, 3, 6), direction, (0, 0, 0)))
    logits = np.random.default_rng(1).normal(size=(9, *GRID.GetSize()[::-1]))
    shares = (np.exp(logits) / np.exp(logits).sum(0)).astype(np.float32)
    back = channels_from_grid(shares, GRID, scan, [1.0] + [0.0] * 8)
    np.testing.assert_allclose(back.sum(0), 1, atol=1e-4)
    assert back.min() >= 0


def test_no_overlap_gives_the_outside_value_everywhere() -> None:
    scan = grid_image((20, 20, 20), (2, 2, 2), np.eye(3), (900, 0, 0))
    assert np.all(sitk.GetArrayFromImage(to_grid(scan + 1.0, GRID, outside=4.0)) == 4)
    assert np.all(sitk.GetArrayFromImage(from_grid(filled(GRID), scan, outside=4.0)) == 4)


def test_slightly_sheared_axes_are_followed() -> None:
    # the validation lets 1 % of shear pass: points must still be where SimpleITK says
    direction = np.array([[1, 0.008, 0], [0, 1, 0], [0, 0, 1]])
    scan = filled(grid_image((60, 60, 50), (2, 2, 2.5), direction, (0, 0, 0)))
    points = physical_points(GRID).astype(float)
    core = inside(scan, points, 2)
    error = np.abs(sitk.GetArrayFromImage(to_grid(scan, GRID)) - smooth_field(points))[core].max()
    assert error < interpolation_bound(scan.GetSpacing()) + MAX_CURVATURE * 3 * (0.35 * 4) ** 2 / 2


def test_an_array_of_any_type_and_order_is_put_in_the_place_of_an_image() -> None:
    place = grid_image((5, 4, 3), (0.7, 1.1, 2.3), Rotation.from_euler("z", 30, degrees=True).as_matrix(), (7, 8, 9))
    values = np.arange(60, dtype=np.int16).reshape(3, 4, 5)[:, ::-1]
    made = like(values, place)
    assert made.GetPixelID() == sitk.sitkInt16
    np.testing.assert_array_equal(sitk.GetArrayFromImage(made), values)
    for part in ("GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(made, part)() == getattr(place, part)()


def test_channels_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        channels_from_grid(np.zeros((2, 3, 3, 3), np.float32), GRID, GRID, (0, 0))


ENTRY = st.one_of(st.floats(-0.3, 0.3), st.sampled_from([0.0, 1e-295, -5e-308, 1e-310]))


@given(entries=st.tuples(*[ENTRY] * 9), shift=st.tuples(*[st.floats(-50, 50)] * 3),
       centre=st.tuples(*[st.floats(-50, 50)] * 3), point=st.tuples(*[st.floats(-100, 100)] * 3))
def test_the_inverse_of_an_affine_transform_leads_back(entries, shift, centre, point):
    """Also where SimpleITK's own does not."""
    transform = sitk.AffineTransform(3)
    transform.SetMatrix((np.eye(3) + np.reshape(entries, (3, 3))).ravel().tolist())
    transform.SetTranslation(shift)
    transform.SetCenter(centre)
    back = inverse(transform).TransformPoint(transform.TransformPoint(point))
    np.testing.assert_allclose(back, point, atol=1e-6)
