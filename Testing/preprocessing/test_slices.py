"""Slices of a range, and patches that know their lesion."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from MedVAELib.preprocessing.geometry import physical_points
from MedVAELib.preprocessing.masked import masked_scan
from MedVAELib.preprocessing.slices import HEALTHY, LESION, PatchSettings, SliceSettings, patches_of, slices_of


def volume(shape_zyx=(40, 60, 50), spacing_xyz=(3.0, 3.0, 4.0), code="LPS") -> tuple[sitk.Image, sitk.Image]:
    """A ball of 60 mm with brightness that rises towards the right, the front and the top; its mask."""
    image = sitk.Image(shape_zyx[::-1], sitk.sitkFloat32)
    image.SetSpacing(spacing_xyz)
    image.SetOrigin([-(n - 1) * s / 2 for n, s in zip(shape_zyx[::-1], spacing_xyz, strict=True)])
    ras = physical_points(image)
    filled = sitk.GetImageFromArray((100 + ras @ np.array((0.3, 0.2, 0.1))).astype(np.float32))
    ball = sitk.GetImageFromArray(((ras**2).sum(-1) < 60**2).astype(np.uint8))
    for made in (filled, ball):
        made.CopyInformation(image)
    return sitk.DICOMOrient(filled, code), sitk.DICOMOrient(ball, code)


@settings(max_examples=10, deadline=None)
@given(axis=st.sampled_from(("axial", "coronal", "sagittal")), code=st.sampled_from(("LPS", "RAI", "PIR", "ASL")))
def test_slices_lie_alike_however_the_scan_is_stored(axis, code):
    chosen = SliceSettings(axis, 0.25, 0.75, 64, 3.0)
    first, other = (slices_of(masked_scan(*volume(code=c), "scan"), chosen) for c in ("LPS", code))
    assert [round(s.position_mm, 3) for s in first] == [round(s.position_mm, 3) for s in other]
    assert max(np.abs(a.image - b.image).max() for a, b in zip(first, other, strict=True)) < 1e-5


def test_a_slice_shows_right_front_and_top_at_the_end_of_its_axes():
    made = slices_of(masked_scan(*volume(), "scan"), SliceSettings("axial", 0.4, 0.6, 64, 3.0))
    image = made[0].image
    assert image.shape == (64, 64) and image.max() <= 1
    inside = image > 0
    rows, columns = np.nonzero(inside)
    slopes = np.linalg.lstsq(np.column_stack([rows, columns, np.ones(len(rows))]), image[inside], rcond=None)[0]
    assert slopes[0] > 0 and slopes[1] > 0  # brighter to the front (last rows) and to the right (last columns)
    assert [s.position_mm for s in made] == sorted(s.position_mm for s in made)
    assert abs(np.mean([s.position_mm for s in made])) < 4  # the middle of the brain
    assert abs(rows.mean() - 32) < 2 and abs(columns.mean() - 32) < 2


def test_pixels_are_alike_in_all_scans_and_brain_outside_the_square_is_counted():
    for spacing in ((3.0, 3.0, 4.0), (2.5, 2.5, 4.0)):
        masked = masked_scan(*volume(spacing_xyz=spacing), "scan")
        middle = slices_of(masked, SliceSettings("axial", 0.45, 0.55, 64))[0]
        wide = np.ptp(np.nonzero(middle.image.any(0))[0]) + 1
        assert abs(wide - 2 * 60 / 3.5) < 2 and middle.outside == 0, spacing  # a ball of 60 mm, 224 mm in 64 pixels
    small = slices_of(masked, SliceSettings("axial", 0.45, 0.55, 24, 3.0))[0]
    assert abs(small.outside - (1 - 72**2 / (np.pi * 60**2))) < 0.05


def test_a_plane_without_brain_has_none_outside():
    masked = masked_scan(*volume(), "scan")
    holed = sitk.GetArrayFromImage(masked.brain)
    holed[18:22] = 0
    brain = sitk.GetImageFromArray(holed)
    brain.CopyInformation(masked.brain)
    made = slices_of(replace(masked, brain=brain), SliceSettings("axial", 0.3, 0.7, 64))
    assert {float(s.image.max()) for s in made} >= {0.0} and {s.outside for s in made} == {0}


def test_pixels_that_were_not_chosen_follow_the_size():
    assert replace(SliceSettings(size=224), size=448).edge_mm == 0.5 and SliceSettings(pixel_mm=2.0).edge_mm == 2


def test_a_range_takes_its_share():
    masked = masked_scan(*volume(), "scan")
    whole, part = (slices_of(masked, SliceSettings("axial", a, b, 64)) for a, b in ((0.0, 1.0), (0.5, 1.0)))
    assert len(whole) == 30 and abs(len(part) - len(whole) / 2) <= 1
    assert part[-1].position_mm == whole[-1].position_mm
    third = slices_of(masked, SliceSettings("axial", 0.0, 1.0, 64, every=3))
    assert [s.position_mm for s in third] == [s.position_mm for s in whole[::3]]


def test_patches_cover_the_brain_once_and_know_their_lesion():
    image, mask = volume()
    lesion = sitk.Image(image.GetSize(), sitk.sitkUInt8)
    lesion.CopyInformation(image)
    index = image.TransformPhysicalPointToIndex((10.0, 10.0, 0.0))
    lesion[index[0] - 3 : index[0] + 3, index[1] - 3 : index[1] + 3, index[2]] = 1
    settings_ = PatchSettings(side=8, pixel_mm=3.0, brain=0.5)
    patches = list(patches_of(masked_scan(image, mask, "scan"), lesion, settings_))
    places = [patch.place_zyx for patch in patches]
    assert len(set(places)) == len(places) and all(y % 8 == 0 and x % 8 == 0 for _, y, x in places)
    sick = [patch for patch in patches if patch.lesion_fraction > 0]
    assert {patch.place_zyx[0] for patch in sick} == {index[2]}
    assert sum(patch.lesion_fraction for patch in sick) * 64 == 36
    assert {patch.label for patch in patches} >= {HEALTHY, LESION}
    assert all((patch.label == LESION) == (patch.lesion_fraction >= 0.05) for patch in patches)
    unknown = list(patches_of(masked_scan(image, mask, "scan"), None, settings_))
    assert len(unknown) == len(patches) and {patch.label for patch in unknown} == {""}


@pytest.mark.parametrize("wrong", [{"axis": "oblique"}, {"first": 0.9, "last": 0.2}, {"size": 2}])
def test_settings_out_of_range(wrong):
    with pytest.raises(ValueError):
        SliceSettings(**wrong)
