"""The baselines, and that they give on the real cases the figures everything is compared with."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from MedVAELib.evaluation import metrics
from MedVAELib.evaluation.baselines import equalised_score, flag_brightest, intensity_score
from MedVAELib.evaluation.cases import find_cases
from MedVAELib.preprocessing.mask_files import read_mask


def _real(data, name):
    """(scan, truth, region) of a case: the region is the given brain mask, or all that is bright, with the truth."""
    case = find_cases(data / "brain" / "flair" / name)[0]
    image = sitk.ReadImage(str(case.scan), sitk.sitkFloat32)
    scan, truth = sitk.GetArrayFromImage(image), read_mask(case.truth, image)
    brain = read_mask(case.brain, image) if case.brain else ndimage.binary_fill_holes(scan > 5)
    return scan, truth, brain | truth


@pytest.mark.parametrize(("name", "ap", "best_dice"), [
    ("ms_isbi_01", 0.26, 0.34), ("ms_isbi_02", 0.59, 0.58), ("ms_ljubljana_19", 0.83, 0.77),
    ("glioma_brats2013_01", 0.91, 0.86), ("glioma_brats2013_03", 0.91, 0.90), ("tumour_brainix", 0.09, 0.21),
])
def test_intensity_in_the_given_brain_mask(medvae_data, name, ap, best_dice):
    scan, truth, region = _real(medvae_data, name)
    found = metrics.ranking(truth[region], intensity_score(scan, region)[region])
    assert (found.ap, found.best_dice) == (pytest.approx(ap, abs=0.0051), pytest.approx(best_dice, abs=0.0051))


@pytest.mark.parametrize(("name", "ap", "best_dice"), [("ms_isbi_01", 0.23, 0.32), ("ms_isbi_02", 0.58, 0.57)])
def test_smoothing_over_the_brains_edge_is_the_weaker_baseline(medvae_data, name, ap, best_dice):
    """Skull and fat bleed into the brain when the head is smoothed first: the figures of the weaker variant."""
    scan, truth, region = _real(medvae_data, name)
    found = metrics.ranking(truth[region], intensity_score(scan, np.ones_like(region))[region])
    assert (found.ap, found.best_dice) == (pytest.approx(ap, abs=0.0051), pytest.approx(best_dice, abs=0.0051))


@pytest.fixture
def noise():
    random = np.random.default_rng(0)
    region = np.zeros((12, 14, 16), bool)
    region[2:-2, 2:-2, 2:-2] = True
    return random.normal(0, 1, region.shape).astype(np.float32), region


def test_equalised_is_monotone_and_uniform(noise):
    scan, region = noise
    score = equalised_score(scan, region)
    order = np.argsort(scan[region])
    assert (np.diff(score[region][order]) >= 0).all()
    assert np.histogram(score[region], 4, (0, 1))[0] / region.sum() == pytest.approx([0.25] * 4, abs=0.03)
    assert not score[~region].any()


def test_negative_intensities_keep_their_order(noise):
    """Half of a z-scored scan is negative; clipping that at zero would make half of the brain one tie."""
    scan, region = noise
    score = intensity_score(scan, region)
    shifted = intensity_score(scan - np.quantile(scan[region], 0.001), region)
    assert score == pytest.approx(shifted, abs=1e-4)
    assert score.min() == 0 and (score[region] < 0.01).mean() < 0.02


def test_flagging_the_brightest(noise):
    scan, region = noise
    mask = flag_brightest(scan, region, 50)
    assert mask.sum() == 50 and not mask[~region].any()
    assert scan[mask].min() >= scan[region & ~mask].max()
    assert not flag_brightest(scan, region, 0).any()
    assert (flag_brightest(scan, region, 10**9) == region).all()
