"""Slices without data are filled in from their neighbours or told of; padding is neither."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from MedVAELib.lost_slices import fill_lost_slices
from MedVAELib.scan import Scan


def head(shape=(24, 40, 40)) -> np.ndarray:
    """A noisy ball whose brightness rises along all axes, zyx."""
    places = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"))
    noise = np.random.default_rng(0).normal(0, 0.01, shape)
    return (100 + 20 * places.sum(0) + noise) * ((places**2).sum(0) < 0.8)


def filled(values: np.ndarray) -> tuple[np.ndarray, list[str]]:
    image, notes = fill_lost_slices(sitk.GetImageFromArray(values), "scan")
    return sitk.GetArrayFromImage(image), notes


@pytest.mark.parametrize("level", [0.0, -7.5])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_one_or_two_slices_are_interpolated(axis: int, level: float) -> None:
    whole, lost = head(), head()
    np.moveaxis(lost, axis, 0)[[9, 12, 13]] = level
    found, notes = filled(lost)
    known = np.delete(np.arange(whole.shape[axis]), [9, 12, 13])
    assert np.array_equal(found.take(known, axis), lost.take(known, axis))
    rows = np.moveaxis(found, axis, 0)
    assert np.allclose(rows[9], (rows[8] + rows[10]) / 2) and np.allclose(rows[13], rows[11] / 3 + rows[14] * 2 / 3)
    assert notes == [f"scan: slices 10, 13, 14 of {whole.shape[axis]} hold no data along its "
                     f"{['third', 'second', 'first'][axis]} axis and were filled in from the neighbours: what lies "
                     "there was not seen."]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_order_in_which_slices_are_stored_changes_nothing(axis: int) -> None:
    lost = (head() / 7.3).astype(np.float32)
    np.moveaxis(lost, axis, 0)[[9, 12, 13]] = 0
    assert np.array_equal(np.flip(filled(np.flip(lost, axis))[0], axis), filled(lost)[0])


def test_longer_gaps_are_told_and_left() -> None:
    lost = head()
    lost[8:16] = 0
    found, notes = filled(lost)
    assert np.array_equal(found, lost)
    assert notes == ["scan: slices 9, 10, 11, 12, 13, 14, … of 24 hold no data along its third axis: what lies "
                     "there was not seen, and brain on one side may be left out."]


def test_padding_and_whole_scans_are_left_without_a_word() -> None:
    speck = np.pad(head(), 5)
    speck[1, 3, 3] = 50  # so that empty slices lie between it and the head
    for values in (head(), np.pad(head(), 5), speck):
        found, notes = filled(values)
        assert np.array_equal(found, values) and notes == []


def test_a_scan_says_so_and_leaves_the_callers_image_alone() -> None:
    values = np.pad(head((24, 80, 80)), 2).astype(np.float32)
    values[13] = 0
    image = sitk.GetImageFromArray(values)
    image.SetSpacing((2.0, 2.0, 5.0))
    image.SetOrigin((1.0, -2.0, 3.0))
    scan = Scan.from_image(image)
    assert scan.warnings == ("scan: slice 14 of 28 holds no data along its third axis and was filled in from the "
                             "neighbours: what lies there was not seen.",)
    assert scan.image.GetOrigin() == image.GetOrigin() and scan.image.GetSpacing() == image.GetSpacing()
    assert not sitk.GetArrayViewFromImage(image)[13].any() and scan.array_zyx()[13].any()
