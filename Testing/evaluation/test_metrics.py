"""Metrics against another implementation, against cases worked by hand, and the bootstrap's own properties."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from MedVAELib.bootstrap import interval
from MedVAELib.evaluation import metrics


@pytest.fixture
def voxels():
    random = np.random.default_rng(0)
    truth = random.random(20_000) < 0.02
    return truth, (random.normal(0, 1, truth.size) + 1.5 * truth).astype(np.float32)


def test_average_precision_is_scikit_learns(voxels):
    assert metrics.ranking(*voxels).ap == pytest.approx(average_precision_score(*voxels), abs=1e-9)


def test_best_dice_is_reached_and_none_is_better(voxels):
    truth, score = voxels[0][:2000], voxels[1][:2000]
    assert metrics.ranking(truth, score).best_dice == pytest.approx(max(metrics.dice(truth, score >= t) for t in score))


def test_a_constant_score_has_the_prevalence_as_average_precision():
    truth = np.arange(1000) < 37
    assert metrics.ranking(truth, np.zeros(1000)).ap == pytest.approx(0.037)


def test_without_lesion_nothing_is_defined():
    found = metrics.ranking(np.zeros(10, bool), np.arange(10))
    assert np.isnan([found.ap, found.best_dice]).all()
    assert np.isnan(metrics.dice(np.zeros(3, bool), np.zeros(3, bool)))


def test_lesions_are_counted_by_the_stated_rules():
    truth, mask = np.zeros((2, 30, 30, 30), bool)
    truth[2:6, 2:6, 2:6] = True  # 64 voxels, of which 8 are flagged: found
    mask[2:4, 2:4, 2:4] = True
    truth[12:16, 12:16, 12:16] = True  # 64, of which 4 are flagged: less than a tenth, missed
    mask[12:14, 12:14, 12] = True
    mask[12:20, 12:14, 6:12] = True  # the same component reaches far outside: 4 of 100 voxels on lesion, wrong
    truth[25, 25, 25] = True  # too small to count as a lesion …
    mask[24:27, 24:27, 26:28] = True  # … and the component beside it lies on none
    found = metrics.lesion_agreement(truth, mask, voxel_mm3=2.0)
    assert (found.lesions, found.found, found.flagged, found.right) == (2, 1, 3, 1)
    assert found.f1 == pytest.approx(2 * (1 / 3) * 0.5 / (1 / 3 + 0.5))


def test_a_small_component_on_a_small_lesion_counts_neither_way():
    truth = np.zeros((10, 10, 10), bool)
    truth[5, 5, 5:8] = True
    found = metrics.lesion_agreement(truth, truth, voxel_mm3=1.0)
    assert (found.lesions, found.flagged) == (0, 0) and np.isnan(found.f1)


def test_diagonal_neighbours_are_one_lesion():
    truth = np.zeros((4, 4, 4), bool)
    truth[[0, 1, 2], [0, 1, 2], [0, 1, 2]] = True
    assert metrics.lesion_agreement(truth, truth, voxel_mm3=10.0).lesions == 1


def test_blocks_are_cubes_in_millimetres():
    region = np.ones((4, 40, 40), bool)
    blocks = metrics.spatial_blocks(region, (10.0, 1.0, 1.0))
    assert np.unique(blocks, return_counts=True)[1].tolist() == [2 * 20 * 20] * 8


def test_bootstrap_of_independent_voxels_agrees_with_brute_force(voxels):
    truth, score = voxels
    blocks = np.arange(truth.size) % 200
    weights = metrics.block_weights(200, resamples=200)
    draws = metrics.bootstrap_ap(truth, score, blocks, weights)
    exact = [average_precision_score(truth, score, sample_weight=weight[blocks]) for weight in weights[:20]]
    assert np.abs(draws[:20] - exact).max() < 0.005
    low, high = interval(draws)
    assert low < metrics.ranking(truth, score).ap < high


def test_bootstrap_dice_is_exact(voxels):
    truth, score = voxels
    blocks, weights = np.arange(truth.size) % 50, metrics.block_weights(50, resamples=5)
    draws = metrics.bootstrap_dice(truth, score > 1, blocks, weights)
    for weight, draw in zip(weights, draws, strict=True):
        repeated = np.repeat(np.arange(truth.size), weight[blocks])
        assert draw == pytest.approx(metrics.dice(truth[repeated], (score > 1)[repeated]))


def test_intervals_widen_when_voxels_are_dependent(voxels):
    """The same voxels in few large blocks say less than in many small ones."""
    truth = np.repeat(voxels[0][:2000], 10)
    score = np.repeat(voxels[1][:2000], 10)
    widths = []
    for size in (1, 10):
        blocks = np.arange(truth.size) // size
        blocks = blocks % 2000 if size == 1 else blocks
        draws = metrics.bootstrap_ap(truth, score, blocks, metrics.block_weights(2000, resamples=300))
        widths.append(np.subtract(*interval(draws)[::-1]))
    assert widths[1] > 1.5 * widths[0]


def test_resamples_without_lesion_are_left_out():
    truth, score = np.array([True, False, False, False]), np.array([4.0, 3, 2, 1])
    draws = metrics.bootstrap_ap(truth, score, np.arange(4), metrics.block_weights(4))
    assert np.isnan(draws).any() and np.isfinite(interval(draws)).all()


def test_mean_over_cases():
    mean, low, high = metrics.mean_with_interval(np.array([0.2, 0.4, np.nan, 0.9, 0.3, 0.7]))
    assert mean == pytest.approx(0.5) and 0.2 <= low < mean < high <= 0.9
    few = metrics.mean_with_interval(np.array([0.2, 0.4, np.nan, 0.3, 0.3]))
    assert few[0] == pytest.approx(0.3) and np.isnan(few[1:]).all()
    assert np.isnan(metrics.mean_with_interval(np.array([np.nan]))).all()


def test_images_of_one_patient_are_drawn_together():
    values, patients = np.repeat([0.0, 1.0, 2.0, 3.0, 4.0], 50), np.repeat(list("abcde"), 50)
    alone, together = metrics.mean_with_interval(values), metrics.mean_with_interval(values, groups=patients.tolist())
    of_patients = metrics.mean_with_interval(np.array([0.0, 1.0, 2.0, 3.0, 4.0]))
    assert together == pytest.approx(of_patients) and alone[0] == together[0]
    assert together[2] - together[1] > 3 * (alone[2] - alone[1])
    unequal = metrics.mean_with_interval(np.array([1.0, 1.0, 4.0, 4.0, 4.0, 4.0, np.nan]), groups=list("aabcdef"))
    assert unequal[0] == 3.0 and unequal[1] < 2.5 and unequal[2] == 4.0
