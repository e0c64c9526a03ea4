"""Outline maps: ellipses of known size come back in mm, and a canonical map does not depend on how a plane lay."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from MedVAELib.preprocessing.outlines import (
    MARGIN,
    OFD_PER_MAJOR_AXIS,
    PLANES,
    SIZE,
    MomentEllipse,
    canonical_map,
    case_spacing,
    ellipse_map,
    moment_ellipse,
    rotation,
    spacing_of_axes,
)

angles = st.floats(-math.pi / 2 + 0.01, math.pi / 2)
shifts = st.tuples(st.floats(-12, 12), st.floats(-12, 12))


def ellipse(centre=(79.5, 99.5), semi_axes=(50.0, 35.0), angle=0.0) -> MomentEllipse:
    return MomentEllipse(torch.tensor([centre]), torch.tensor([semi_axes]), torch.tensor([angle]), torch.ones(1))


def egg(angle: float, shift=(0.0, 0.0), shape=(160, 200), long: float = 50.0) -> torch.Tensor:
    """A head pointed at one end, turned about the middle of its map: no symmetry but mirroring."""
    rows = torch.arange(shape[0]) - (shape[0] - 1) / 2 - shift[0]
    columns = torch.arange(shape[1]) - (shape[1] - 1) / 2 - shift[1]
    along = rows[:, None] * math.cos(angle) + columns * math.sin(angle)
    across = columns * math.cos(angle) - rows[:, None] * math.sin(angle)
    across = across * (1 + 0.3 * along / long)
    distance = (1 - torch.hypot(along / long, across / (0.7 * long))) * 0.7 * long
    return (0.5 + distance).clamp(0, 1)[None]


@settings(max_examples=40, deadline=None)
@given(angle=angles, shift=shifts, major=st.floats(20, 60), ratio=st.floats(0.4, 0.9))
def test_an_ellipse_is_recovered(angle, shift, major, ratio):
    true = ellipse((79.5 + shift[0], 99.5 + shift[1]), (major, major * ratio), angle)
    found = moment_ellipse(ellipse_map(true, 160, 200))
    assert torch.allclose(found.centre, true.centre, atol=0.02)
    assert torch.allclose(found.semi_axes, true.semi_axes, rtol=1.5e-3)
    assert abs(math.sin(float(found.angle) - angle)) < 0.01
    assert float(found.area) == pytest.approx(math.pi * major**2 * ratio, rel=3e-3)


def test_an_empty_map_gives_zeros_in_the_middle():
    found = moment_ellipse(torch.zeros(1, 11, 21))
    assert found.centre.tolist() == [[5, 10]] and found.semi_axes.tolist() == [[0, 0]] and float(found.area) == 0
    assert torch.isfinite(canonical_map(torch.zeros(1, 11, 21), 1.0, "axial", 1.0)).all()


@settings(max_examples=40, deadline=None)
@given(angle=angles, shift=shifts, plane=st.sampled_from(("axial", "sagittal")))
def test_a_canonical_map_does_not_depend_on_how_the_plane_lay(angle, shift, plane):
    upright = canonical_map(egg(0.0), 1.0, plane, 1.4)
    turned = canonical_map(egg(angle, shift), 1.0, plane, 1.4)
    # Turned the shorter way, so the head may come out upside down: an image does not say.
    turned = min((turned, turned.flip(1, 2)), key=lambda way: (way - upright).abs().mean())
    assert (turned - upright).abs().mean() < 2e-3
    assert ((turned > 0.5) ^ (upright > 0.5)).float().mean() < 2e-3


def test_the_long_axis_lies_along_y():
    for plane, axis in (("axial", 1), ("sagittal", 2)):
        found = canonical_map(egg(0.7), 1.0, plane, 1.4)
        extents = found.amax(3 - axis).sum(), found.amax(axis).sum()
        assert extents[0] > 1.2 * extents[1], plane


@settings(max_examples=30, deadline=None)
@given(angle=angles)
def test_planes_are_turned_the_shorter_way(angle):
    for plane in PLANES:
        turn = float(rotation(ellipse(angle=angle), plane))
        assert abs(turn) <= math.pi / 2 + 1e-6
    assert float(rotation(ellipse(angle=angle), "coronal")) == 0


@settings(max_examples=30, deadline=None)
@given(pixel_mm=st.floats(0.15, 2.0))
def test_sizes_in_mm_survive_any_pixel_size(pixel_mm):
    size = round(180 / pixel_mm)
    middle, semi_axes = (size - 1) / 2, (55 / pixel_mm, 42 / pixel_mm)
    outline = ellipse_map(ellipse((middle, middle), semi_axes, 0.4), size, size)
    spacing = case_spacing({"axial": (outline, pixel_mm)})
    assert float(spacing) == pytest.approx(MARGIN * 110 / SIZE, rel=3e-3)
    drawn = canonical_map(outline, pixel_mm, "axial", spacing)
    assert float(drawn.sum() * spacing**2) == pytest.approx(math.pi * 55 * 42, rel=5e-3)
    found = moment_ellipse(drawn)
    assert found.centre.tolist()[0] == pytest.approx([(SIZE - 1) / 2] * 2, abs=0.05)
    assert float(found.semi_axes[0, 0] * 2 * spacing) == pytest.approx(110, rel=5e-3)


def test_a_batch_is_its_cases_one_by_one():
    outlines = torch.cat([egg(0.0), egg(0.5, (3, -8)), egg(-1.0, long=40.0)])
    pixel_mm, spacing_mm = torch.tensor([1.0, 0.8, 1.2]), torch.tensor([1.4, 1.3, 1.5])
    together = canonical_map(outlines, pixel_mm, "sagittal", spacing_mm)
    for i in range(3):
        alone = canonical_map(outlines[i:i + 1], float(pixel_mm[i]), "sagittal", float(spacing_mm[i]))
        assert torch.allclose(together[i:i + 1], alone, atol=1e-4)


def test_the_first_plane_there_decides_the_spacing():
    major = torch.tensor([[100.0, 110.0, 90.0]]).repeat(4, 1)
    present = torch.tensor([[1, 1, 1], [0, 1, 1], [0, 0, 1], [1, 0, 1]], dtype=torch.bool)
    expected = [100, 110, 90 * OFD_PER_MAJOR_AXIS["coronal"], 100]
    assert spacing_of_axes(major, present).tolist() == pytest.approx([MARGIN * mm / SIZE for mm in expected])
    outlines = {"coronal": (egg(0.0), 0.9), "sagittal": (egg(0.0), 1.0)}
    both, sagittal = case_spacing(outlines), case_spacing({"sagittal": outlines["sagittal"]})
    assert float(both) == float(sagittal)
    with pytest.raises(ValueError, match="plane"):
        spacing_of_axes(major, torch.zeros(4, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match="plane"):
        case_spacing({})
