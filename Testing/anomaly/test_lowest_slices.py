"""The lowest slices' excess of brightness, on a ball of tissue whose slices are brightened on purpose."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from scipy import ndimage

from MedVAELib.anomaly.anatomy import Anatomy
from MedVAELib.anomaly.lowest_slices import dim_lowest_slices
from MedVAELib.anomaly.tissue_fit import TissueFit
from MedVAELib.inference import Encoded
from MedVAELib.preprocessing.geometry import physical_points, ras_grid, ras_mm_to_ijk
from MedVAELib.tissues import CEREBELLUM, TISSUES, WHITE

SHAPE, SPACING_MM = (40, 40, 40), 4.0
EXCESS = np.array([0.4, 0.25, 0.1])  # of the three lowest slices
Z, Y, X = np.ogrid[:40, :40, :40]
INSIDE = np.sqrt((Z - 19.5) ** 2 + (Y - 19.5) ** 2 + (X - 19.5) ** 2) < 16


def tilted_scan(thickness_mm: float, degrees: float = 12.0) -> sitk.Image:
    """An empty scan of axial slices about the ball, tilted about the left-right axis."""
    scan = sitk.Image([60, 60, int(170 / thickness_mm)], sitk.sitkFloat32)
    scan.SetSpacing([3.0, 3.0, thickness_mm])
    a = np.radians(degrees)
    turn = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    scan.SetDirection(turn.ravel().tolist())
    half = np.array(scan.GetSpacing()) * (np.array(scan.GetSize()) - 1) / 2
    scan.SetOrigin((-turn @ half).tolist())
    return scan


def case(scan: sitk.Image, excess: np.ndarray, lesion: np.ndarray | None = None):
    """(fit, anatomy, true factor): a ball of white matter, cerebellum below, whose lowest slices are too bright."""
    grid = ras_grid((0, 0, 0), SHAPE, SPACING_MM)
    probability = np.zeros((len(TISSUES), *SHAPE), np.float32)
    probability[WHITE], probability[CEREBELLUM] = INSIDE & (Z >= 12), INSIDE & (Z < 12)
    probability[0] = ~INSIDE
    level = ras_mm_to_ijk(scan, physical_points(grid))[..., 2]
    lowest = np.round(level[INSIDE]).min()
    factor = np.exp(np.interp(level - lowest, np.arange(len(excess) + 1), [*excess, 0.0]))
    noise = np.random.default_rng(0).normal(size=SHAPE)
    image = (probability[WHITE] * 0.5 + probability[CEREBELLUM] * 0.55) * factor * (1 + 0.01 * noise)
    if lesion is not None:
        image = np.where(lesion, image * 1.6, image)
    mean = np.zeros(len(TISSUES))
    mean[WHITE], mean[CEREBELLUM] = 0.5, 0.55
    fit = TissueFit(mean, np.full(len(TISSUES), 0.03), np.ones(SHAPE, np.float32))
    nothing = Encoded(SHAPE, torch.zeros(0), torch.zeros(0), [])
    anatomy = Anatomy(image.astype(np.float32), np.ones(SHAPE, bool), probability, nothing, grid, 1.0, 0.0, 1)
    return fit, anatomy, factor


@pytest.mark.parametrize("thickness_mm", [1.0, 5.0])
def test_bright_lowest_slices_are_evened_out_and_nothing_else(thickness_mm):
    scan = tilted_scan(thickness_mm)
    per_slice = EXCESS if thickness_mm > 2 else np.interp(np.arange(15) / 5, np.arange(4), [*EXCESS, 0])
    fit, anatomy, factor = case(scan, per_slice)
    dimmed = dim_lowest_slices(fit, anatomy, INSIDE, scan)
    off = np.log(dimmed.bias / factor)
    assert np.abs(off[INSIDE & (factor > 1.02)]).mean() < 0.03 < np.log(factor[INSIDE]).max() / 10
    assert (dimmed.bias[factor == 1] < 1.03).all() and (dimmed.mean == fit.mean).all()


def test_lesion_of_one_side_is_not_taken_for_an_artefact():
    scan = tilted_scan(5.0)
    lesion = INSIDE & (Z < 12) & (X < 19)
    fit, anatomy, _ = case(scan, np.zeros(0), lesion)
    assert (dim_lowest_slices(fit, anatomy, INSIDE, scan).bias < 1.03).all()
    fit, anatomy, factor = case(scan, EXCESS, lesion)
    left = anatomy.image / dim_lowest_slices(fit, anatomy, INSIDE, scan).bias
    assert np.median(left[lesion & (Z < 8)]) == pytest.approx(1.6 * 0.55, rel=0.06)


def test_even_scan_stays_as_it_is():
    scan = tilted_scan(5.0)
    fit, anatomy, _ = case(scan, np.zeros(0))
    assert dim_lowest_slices(fit, anatomy, INSIDE, scan) is fit
    assert dim_lowest_slices(fit, anatomy, np.zeros(SHAPE, bool), scan) is fit


def test_bright_slice_higher_up_is_left_alone():
    scan = tilted_scan(5.0, degrees=0.0)
    fit, anatomy, _ = case(scan, np.zeros(0))
    level = ras_mm_to_ijk(scan, physical_points(anatomy.grid))[..., 2]
    here = np.abs(level - np.round(level[INSIDE]).min() - 4) < 0.5
    bright = np.where(here, anatomy.image * 1.3, anatomy.image).astype(np.float32)
    assert ndimage.label(here)[1] == 1
    assert dim_lowest_slices(fit, replace(anatomy, image=bright), INSIDE, scan) is fit


def test_slice_with_hardly_any_of_one_side_follows_its_neighbours():
    """A lesion there would have no other side to be told from the artefact by."""
    scan = tilted_scan(5.0, degrees=0.0)
    lesion = INSIDE & (Z < 6) & (X < 19)
    one_sided = INSIDE & ((X < 19) | (Z >= 6))
    fit, anatomy, _ = case(scan, np.zeros(0), lesion)
    assert (dim_lowest_slices(fit, anatomy, one_sided, scan).bias < 1.03).all()
