"""The detector's parts on data whose answer is known."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from MedVAELib.anomaly.anatomy import _first_scale
from MedVAELib.anomaly.calibrate import tissue_weights
from MedVAELib.anomaly.calibration import ScoreCalibration, reference_histogram, threshold
from MedVAELib.anomaly.findings import describe, find_components
from MedVAELib.anomaly.modality import decide_modality
from MedVAELib.anomaly.score_maps import ScoreMaps
from MedVAELib.anomaly.scores import EMPHASIS, SCORES, Emphasis, ScoreInputs, zscore
from MedVAELib.anomaly.tissue_fit import fit_tissues
from MedVAELib.preprocessing.geometry import ijk_to_ras_mm, ras_grid
from MedVAELib.preprocessing.intensity import Foreground, find_foreground
from MedVAELib.scan import Scan
from MedVAELib.tissues import BACKGROUND, CORTEX, TISSUES, VENTRICLES, WHITE

SHAPE = (32, 40, 32)


@pytest.fixture
def ball():
    """Concentric brain: ventricle, white matter, cortex; probabilities slightly soft. (probability, inside)"""
    z, y, x = np.ogrid[:32, :40, :32]
    radius = np.sqrt((z - 15.5) ** 2 + (y - 19.5) ** 2 + (x - 15.5) ** 2)
    hard = np.zeros((len(TISSUES), *SHAPE), np.float32)
    for k, low, high in ((VENTRICLES, 0, 4), (WHITE, 4, 10), (CORTEX, 10, 14), (BACKGROUND, 14, 99)):
        hard[k] = (radius >= low) & (radius < high)
    soft = np.stack([ndimage.gaussian_filter(h, 0.6) for h in hard])
    return soft / soft.sum(0), radius < 14


def test_fit_finds_means_and_bias_despite_a_lesion(ball):
    probability, inside = ball
    rng = np.random.default_rng(0)
    ramp = np.exp(0.25 * (np.arange(40) - 19.5) / 20)[None, :, None].astype(np.float32)
    truth = 0.1 * probability[VENTRICLES] + 0.5 * probability[WHITE] + 0.62 * probability[CORTEX]
    image = (truth * ramp + 0.01 * rng.normal(size=SHAPE)).astype(np.float32)
    image[14:18, 26:30, 14:18] = 1.2
    fit = fit_tissues(image, probability, inside, spacing_mm=6.0)
    assert fit.mean[CORTEX] / fit.mean[WHITE] == pytest.approx(0.62 / 0.5, rel=0.06)
    flat = fit.bias / ramp
    assert flat[inside].std() / flat[inside].mean() < 0.04
    expected, variance = fit.expected(probability)
    residual = image / fit.bias - expected
    assert np.median(np.abs(residual[inside])) < 0.03 and residual[15, 28, 15] > 0.4
    edge = (probability[WHITE] > 0.25) & (probability[CORTEX] > 0.25)
    assert variance[edge].mean() > variance[probability[WHITE] > 0.99].mean()


def test_strong_shading_is_not_left_in_the_residual(ball):
    probability, inside = ball
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    shading = np.exp(0.5 * y - 0.4 * z * x + 0.5 * z**2 * y).astype(np.float32)
    truth = 0.1 * probability[VENTRICLES] + 0.5 * probability[WHITE] + 0.62 * probability[CORTEX]
    fit = fit_tissues((truth * shading).astype(np.float32), probability, inside, spacing_mm=6.0)
    left = np.log(fit.bias / shading)[inside]
    assert np.log(shading)[inside].std() > 0.15 and left.std() < 0.02


def test_large_lesion_does_not_shape_the_bias_field(ball):
    probability, inside = ball
    truth = 0.1 * probability[VENTRICLES] + 0.5 * probability[WHITE] + 0.62 * probability[CORTEX]
    lesion = np.zeros(SHAPE, bool)
    lesion[12:20, 26:34, 10:18] = True
    image = np.where(lesion, 1.0, truth).astype(np.float32)
    fit = fit_tissues(image, probability, inside, spacing_mm=6.0)
    assert np.abs(np.log(fit.bias))[inside].max() < 0.05
    assert (image / fit.bias - fit.expected(probability)[0])[lesion & inside].min() > 0.3


@pytest.mark.parametrize("shaded", [0.0, 0.3])
def test_white_matter_that_is_bright_around_the_ventricles_is_not_taken_for_healthy(ball, shaded):
    probability, inside = ball
    z, y, x = np.ogrid[:32, :40, :32]
    radius = np.sqrt((z - 15.5) ** 2 + (y - 19.5) ** 2 + (x - 15.5) ** 2)
    shading = np.exp(shaded * (z - 15.5) / 16 - shaded * (radius / 14) ** 2).astype(np.float32)
    healthy = (0.1 * probability[VENTRICLES] + 0.5 * probability[WHITE] + 0.62 * probability[CORTEX]) * shading
    assert fit_tissues(healthy, probability, inside, spacing_mm=6.0).periventricular == 1
    diseased = inside & (radius < 7) & (probability[WHITE] > 0.5)
    fit = fit_tissues(np.where(diseased, 1.4 * healthy, healthy), probability, inside, spacing_mm=6.0)
    assert fit.periventricular == pytest.approx(1.4, abs=0.08)
    expected = fit.expected(probability)[0] * fit.bias
    assert np.median(1.4 * healthy[diseased] / expected[diseased]) == pytest.approx(1.4, abs=0.08)


def test_bias_field_is_flat_where_there_is_too_little_tissue(ball):
    probability, inside = ball
    thin = inside & (np.abs(np.arange(32) - 15.5) < 1)[:, None, None]
    image = (0.5 * probability[WHITE] + 0.62 * probability[CORTEX]).astype(np.float32)
    assert (fit_tissues(image, probability, thin, spacing_mm=6.0).bias == 1).all()


def _inputs(residual: float, **extra) -> ScoreInputs:
    image = np.full(SHAPE, 0.5, np.float32)
    image[16, 20, 16] += residual
    flat = np.ones(SHAPE, np.float32)
    probability = np.zeros((len(TISSUES), *SHAPE), np.float32)
    probability[WHITE] = 1
    mean, spread = np.zeros(len(TISSUES)), np.full(len(TISSUES), 0.05)
    mean[WHITE] = 0.5
    return ScoreInputs(image, 0.5 * flat, 0.0025 * flat, flat, 0 * flat, (1.0, 1.0, 1.0), 0.6, mean, spread,
                       EMPHASIS["flair"], probability, flat)


def test_spread_power_weighs_uncertain_places_less_heavily():
    sure, unsure = _inputs(0.6), _inputs(0.6)
    unsure.variance = 16 * unsure.variance
    ratio = {}
    for power in (0.0, 0.5, 1.0):
        for inputs in (sure, unsure):
            inputs.emphasis = Emphasis(0.0, 0.0, power)
        ratio[power] = zscore(sure).max() / zscore(unsure).max()
    assert ratio == pytest.approx({0.0: 1, 0.5: 2, 1.0: 4}, rel=1e-5)


@pytest.mark.parametrize("name", SCORES)
def test_every_score_is_highest_at_the_anomaly(name):
    score = SCORES[name](_inputs(0.6), 1)
    assert score.shape == SHAPE and np.isfinite(score).all()
    peak = np.unravel_index(score.argmax(), SHAPE)
    assert max(abs(a - b) for a, b in zip(peak, (16, 20, 16), strict=True)) <= 1
    assert score[16, 20, 16] > score[4, 4, 4]


@pytest.mark.parametrize("name", ["zscore", "reconstruction_probability", "kl_gradient"])
def test_one_sided_scores_look_at_one_side(name):
    bright, dark = SCORES[name](_inputs(-0.4), 1), SCORES[name](_inputs(-0.4), -1)
    assert dark[16, 20, 16] > bright[16, 20, 16]


def test_on_dwi_what_outshines_the_brain_ranks_above_what_is_only_unexpected():
    inputs = replace(_inputs(0.0), emphasis=Emphasis(0.0, 4.0))
    inputs.image[8, 8, 8], inputs.image[20, 20, 20] = 0.9, 1.4
    inputs.expected[8, 8, 8], inputs.expected[20, 20, 20] = 0.1, 0.6  # the same residual
    score = SCORES["zscore"](inputs, 1)
    assert score[20, 20, 20] > 2 * score[8, 8, 8] > 0


def test_scans_are_made_comparable_but_a_large_lesion_does_not_hide_itself():
    rng = np.random.default_rng(0)
    table = ScoreCalibration.from_healthy([np.abs(rng.normal(size=20_000)) for _ in range(3)])
    noisy = 1.2 * np.abs(rng.normal(size=50_000))
    flagged = (table.apply(table.standardise(noisy)) > threshold(0.01)).mean()
    assert flagged == pytest.approx(0.01, abs=0.003) and (table.apply(noisy) > threshold(0.01)).mean() > 0.02
    # Healthy scans of different noise were made comparable, too, or their spread would be in the threshold.
    uneven = ScoreCalibration.from_healthy([f * np.abs(rng.normal(size=20_000)) for f in (0.85, 1, 1.15)])
    assert uneven.raw[-25] == pytest.approx(2.58, rel=0.02)  # which 1 % of a normal distribution exceed
    ill = np.abs(rng.normal(size=50_000))
    ill[:15_000] += 8
    assert (table.apply(table.standardise(ill))[:15_000] > threshold(0.01)).mean() > 0.99


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_calibrated_score_keeps_ranks_and_means_what_it_says(seed):
    rng = np.random.default_rng(seed)
    healthy = [np.maximum(rng.normal(size=20_000), 0) for _ in range(3)]
    table = ScoreCalibration.from_json(ScoreCalibration.from_healthy(healthy).as_json())
    fresh = np.maximum(rng.normal(size=50_000), 0)
    assert (table.apply(fresh) > threshold(0.01)).mean() == pytest.approx(0.01, abs=0.004)
    raw = np.cumsum(rng.uniform(0.01, 0.3, 200))  # apart by more than float32's rounding
    assert (np.diff(table.apply(raw)) > 0).all()


def test_beyond_the_rarest_healthy_score_the_tail_goes_on_as_a_power_and_below_the_commonest_it_falls_to_0():
    share = np.logspace(-0.1, -5, 50)
    table = ScoreCalibration(share, share**-0.25, 1.0)
    assert table.apply(np.array([10.0, 10**1.26, 100, 0.5 * table.raw[0], 0])) == pytest.approx([4, 5.04, 8, 0.05, 0],
                                                                                                abs=1e-3)


def test_reference_histogram_is_a_density():
    histogram = reference_histogram(7.0)
    area = np.sum(np.diff(histogram["edges"]) * histogram["density"])
    assert area == pytest.approx(1.0, abs=1e-3)


def test_tissue_weights_learn_where_brightness_is_abnormal():
    rng = np.random.default_rng(0)
    tissue = rng.choice([WHITE, CORTEX], 20_000)
    lesion = rng.random(20_000) < 0.1
    # In the cortex healthy voxels reach higher scores, so the same score says less there.
    z = np.where(lesion, rng.gamma(4, 1.5, 20_000), rng.gamma(1, np.where(tissue == CORTEX, 2.0, 0.7)))
    weights = tissue_weights(z, np.eye(len(TISSUES))[tissue], lesion)
    assert weights[WHITE] == 1.0 and 0.02 <= weights[CORTEX] < 0.8 and weights[BACKGROUND] == 0


def test_findings_have_true_volume_place_and_box(ball):
    probability, _ = ball
    grid = ras_grid((0, 0, 0), SHAPE, 2.0)
    image = sitk.Image([20, 24, 18], sitk.sitkFloat32)
    image.SetSpacing((3.0, 3.0, 4.0))
    image.SetDirection((1, 0, 0, 0, 1, 0, 0, 0, 1))
    image.SetOrigin((-28.0, -34.0, -34.0))
    score = np.zeros((18, 24, 20), np.float32)
    score[8:10, 10:13, 3:6] = 3.0  # small x index in an LPS-stored image is the patient's right
    score[9, 11, 4] = 5.0
    score[2, 2, 2] = 3.0
    score[14, 10:16, 8:12] = 2.3  # large and with a high peak, but on average not three times rarer than the threshold
    score[14, 10, 8] = 5.0
    labels = find_components(score, 2.0, 3.0, 0.036)
    mirror = SimpleNamespace(whole=True, side_mm=lambda places: places[..., 0] + 2)
    first, *rest = describe(labels, score, image, "bright", probability, grid, mirror)
    assert first.volume_ml == pytest.approx(18 * 0.036) and first.peak == 5.0
    assert first.bbox_ijk == (3, 10, 8) and first.bbox_size_ijk == (3, 3, 2)
    assert first.peak_ras_mm == pytest.approx(tuple(ijk_to_ras_mm(image, (4, 11, 9))))
    assert first.location.startswith("right") and first.centroid_ras_mm[0] > 5
    assert len(rest) == 1  # 0.036 ml is just large enough
    for shift_mm, whole, wanted in ((-40, True, "left "), (-18, True, ""), (-9, True, "right "), (2, False, "")):
        mirror = SimpleNamespace(whole=whole, side_mm=lambda places, by=shift_mm: places[..., 0] + by)
        first, *_ = describe(labels, score, image, "bright", probability, grid, mirror)
        assert first.location == f"{wanted}{first.location.rpartition('t ')[2]}", shift_mm


def test_a_finding_on_both_sides_says_so(ball):
    probability, _ = ball
    grid = ras_grid((0, 0, 0), SHAPE, 2.0)
    score = np.zeros(SHAPE, np.float32)
    score[16, 20, 8:24] = 5.0
    labels = find_components(score, 2.0, 3.0, 0.008)
    mirror = SimpleNamespace(whole=True, side_mm=lambda ras: ras[..., 0])
    (found,) = describe(labels, score, grid, "bright", probability, grid, mirror)
    assert found.location.endswith(" on both sides")
    mirror.side_mm = lambda ras: ras[..., 0] + 10
    (found,) = describe(labels, score, grid, "bright", probability, grid, mirror)
    assert found.location.startswith("right ")


def test_a_finding_lies_in_the_tissue_at_its_own_place():
    grid, image = ras_grid((0, 0, 0), SHAPE, 2.0), ras_grid((0, 0, 0), SHAPE, 2.0)
    probability = np.zeros((len(TISSUES), *SHAPE), np.float32)
    probability[WHITE] = 1
    probability[:, 4:6, 9:11, 20:22] = 0.2 * probability[:, :1, :1, :1]
    probability[CORTEX, 4:6, 9:11, 20:22] = 0.8
    score = np.zeros(SHAPE, np.float32)
    score[4:6, 9:11, 20:22] = 5.0
    mirror = SimpleNamespace(whole=True, side_mm=lambda ras: ras[..., 0])
    (found,) = describe(find_components(score, 2.0, 3.0, 0.008), score, image, "bright", probability, grid, mirror)
    assert found.location.endswith(TISSUES[CORTEX])


def test_foreground_of_stripped_zscored_and_plain_scans():
    rng = np.random.default_rng(0)
    plain = np.abs(rng.normal(100, 20, SHAPE)).astype(np.float32)
    stripped, zscored = plain.copy(), ((plain - 100) / 20).astype(np.float32)
    stripped[:16] = 0
    zscored[:16] = 0
    assert find_foreground(plain).support.all() and not find_foreground(plain).constant_background
    assert not find_foreground(stripped).support[:16].any() and find_foreground(stripped).offset == 0
    hollow = np.pad(np.ones((6, 6, 6), np.float32), 4)
    hollow[7, 7, 7] = 0
    assert find_foreground(hollow).support.sum() == 6**3
    found = find_foreground(zscored)
    assert not found.support[:16].any() and found.offset < -2


def test_a_zscored_brain_on_0_that_was_resampled_by_splines_keeps_its_background():
    """Around it 0 becomes ±1e-6; a positive one has overshoot, too, and is read as before."""
    rng = np.random.default_rng(0)
    brain, ripple = rng.normal(size=SHAPE).astype(np.float32), 1e-6 * rng.normal(size=SHAPE).astype(np.float32)
    inside = np.zeros(SHAPE, bool)
    inside[8:-8, 10:-10, 8:-8] = True
    found = find_foreground(np.where(inside, brain, ripple))
    assert found.constant_background and (found.support == inside).mean() > 0.99 and found.offset < -2
    assert find_foreground(np.where(inside, brain + 6, ripple)).support.all()


@pytest.mark.parametrize(("shown_mm", "own"), [((45, 45, 53), True), ((49, 49, 49), False)])
def test_a_mask_with_a_rim_is_followed_by_mm_and_up_to_a_share(shown_mm, own):
    """Of a ball of 45 mm an ellipsoid is shown, in slices of 5 mm: a voxel of the model's grid is 2 mm everywhere."""
    grid, crop = ras_grid((0, 0, 0), (60, 60, 60), 2.0), ras_grid((0, 0, 0), (24, 120, 120), 1.0)
    crop.SetSpacing((1, 1, 5))
    crop.SetOrigin((*crop.GetOrigin()[:2], -57.5))

    def radius(image, semi_axes):
        ijk = np.indices(image.GetSize()[::-1])[::-1].reshape(3, -1).T
        return np.linalg.norm(ijk_to_ras_mm(image, ijk) / semi_axes, axis=1).reshape(image.GetSize()[::-1])

    brain = np.clip((45 - radius(grid, 1)) / 2 + 0.5, 0, 1).astype(np.float32)
    maps = SimpleNamespace(anatomy=SimpleNamespace(grid=grid), crop=crop, box=(slice(None),) * 3)
    shown, distance = radius(crop, shown_mm) < 1, radius(crop, 1)
    stripped, found = ScoreMaps._brain(maps, brain, Foreground(shown, True, 0.0))
    assert stripped == own
    assert found[distance < 44].all() and not found[distance > 47.5].any() and not found[~shown].any()
    assert found[distance > 46].any() == own


def test_a_scan_of_tiny_values_is_scaled_as_any_other():
    image = np.random.default_rng(0).uniform(1, 2, SHAPE).astype(np.float32)
    assert _first_scale(image * np.float32(1e-12), np.array((16, 20, 16)), 2.0) == pytest.approx(
        1e-12 * _first_scale(image, np.array((16, 20, 16)), 2.0), rel=1e-5, abs=0)


@pytest.mark.parametrize("constant", [-1024.0, 0.0, 500.0, 4096.0])
def test_a_constant_added_to_all_values_is_the_offset(constant):
    """Air of a little noise, as magnitude images have it, is none."""
    rng = np.random.default_rng(0)
    plain = np.abs(rng.normal(0, 4, SHAPE)).astype(np.float32)
    plain[8:-8, 8:-8, 8:-8] += rng.uniform(200, 400, plain[8:-8, 8:-8, 8:-8].shape).astype(np.float32)
    assert find_foreground(plain + np.float32(constant)).offset == pytest.approx(constant, abs=0.1)
    assert find_foreground(plain[8:-8, 8:-8, 8:-8]).offset == 0, "without air nothing tells what zero is"


@pytest.mark.parametrize("padding", [-1.0, -300.0, -32768.0])
@pytest.mark.parametrize("share", [0.05, 0.5])
def test_padding_far_below_the_data_is_no_intensity(padding, share):
    plain = np.abs(np.random.default_rng(0).normal(100, 20, SHAPE)).astype(np.float32)
    plain[: round(share * SHAPE[0])] = padding
    found = find_foreground(plain)
    assert (found.support == (plain != padding)).all() and found.offset == 0
    assert found.constant_background == (share > 0.25)


@pytest.mark.parametrize(("name", "cortex", "csf", "spacing", "wanted"), [
    ("scan", 1.25, 0.1, 1.0, "flair"), ("scan", 1.35, 0.4, 2.0, "dwi"), ("scan", 0.7, 0.3, 1.0, "other"),
    ("scan", 1.3, 2.5, 1.0, "other"), ("scan", 1.16, 0.77, 1.0, "other"), ("flair", 1.16, 0.77, 1.0, "other"),
    ("scan", 0.91, 0.3, 5.0, "other"), ("flair", 0.91, 0.3, 5.0, "flair"), ("flair", 0.8, 0.3, 1.0, "other"),
    ("dwi", 1.16, 0.77, 1.0, "dwi"), ("dwi", 1.16, 1.5, 1.0, "other"), ("dwi", 0.7, 0.3, 1.0, "other"),
    ("flair", 1.45, 0.2, 1.0, "flair"), ("flair", 3.4, 0.5, 1.0, "other"), ("dwi", 1.45, 0.4, 1.0, "dwi"),
    ("dwi", 1.8, 0.5, 1.0, "other"), ("scan", 3.4, 0.5, 1.0, "other"),
])
def test_modality_from_contrast_and_name(name, cortex, csf, spacing, wanted):
    image = sitk.GetImageFromArray(np.random.default_rng(0).random((70, 70, 70), np.float32))
    image.SetSpacing((spacing,) * 3)
    mean = np.full(len(TISSUES), csf)
    mean[WHITE], mean[CORTEX] = 1.0, cortex
    modality, reason, warnings = decide_modality(Scan.from_image(image, name=name), mean)
    assert modality == wanted and reason and bool(warnings) == (wanted == "other")


@pytest.mark.parametrize(("cortex", "csf", "taken_for"), [(1.02, 0.5, "flair"), (1.17, 0.65, "dwi")])
def test_a_contrast_that_either_may_have_is_told(cortex, csf, taken_for):
    """As two real DWI scans have it, when nothing but the image says what they are."""
    image = sitk.GetImageFromArray(np.random.default_rng(0).random((70, 70, 70), np.float32))
    mean = np.full(len(TISSUES), csf)
    mean[WHITE], mean[CORTEX] = 1.0, cortex
    modality, _, (warning,) = decide_modality(Scan.from_image(image, name="scan"), mean)
    assert modality == taken_for and f"taken for {taken_for.upper()}" in warning and "choose the modality" in warning
    assert not decide_modality(Scan.from_image(image, name="flair"), mean)[2]
