"""Scoring folders of small made-up cases with detectors whose results are known beforehand."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from MedVAELib.errors import Cancelled, InputError
from MedVAELib.evaluation.anomaly import EQUALISED, INTENSITY, OURS, evaluate_cases
from MedVAELib.evaluation.anomaly_tables import anomaly_markdown, case_rows, means
from MedVAELib.evaluation.cases import Case, find_cases
from MedVAELib.evaluation.metrics import on_lesion
from MedVAELib.evaluation.pictures import write_case_picture
from MedVAELib.outputs import json_text
from MedVAELib.progress import CancelToken

from .standin import brightness_detector, detection_of, image_like

SHAPE, SPACING_XYZ = (20, 34, 30), (5.0, 5.0, 8.0)
BRAIN = np.zeros(SHAPE, bool)
BRAIN[3:-3, 4:-4, 4:-4] = True
LESION = np.zeros(SHAPE, bool)
LESION[8:11, 10:14, 10:14] = True
LESION[14:16, 20:23, 18:20] = True


def write_case(folder, truth=LESION, contrast=35.0, **masks):
    folder.mkdir(parents=True)
    random = np.random.default_rng(len(folder.name))
    scan = (random.normal(100, 20, SHAPE) + contrast * LESION) * BRAIN + random.normal(3, 1, SHAPE)
    arrays = {"flair": scan.astype(np.float32), **({} if truth is None else {"mask": truth}), **masks}
    for name, array in arrays.items():
        image = sitk.GetImageFromArray(array.astype(np.float32 if name == "flair" else np.uint8))
        image.SetSpacing(SPACING_XYZ)
        image.SetDirection((0, 1, 0, -1, 0, 0, 0, 0, 1))  # rows and columns swapped, as some scanners store them
        sitk.WriteImage(image, str(folder / f"{name}.nii.gz"))


def oracle(scan, progress):
    """Knows the lesion."""
    score = np.where(LESION, 5.0, 0.5) + np.random.default_rng(0).random(SHAPE)
    return detection_of(scan, score, BRAIN, 4.0)


@pytest.fixture
def lesion_case(tmp_path):
    write_case(tmp_path / "case", brainmask=BRAIN)
    return find_cases(tmp_path)


def test_a_perfect_detector_scores_one_and_beats_intensity(lesion_case):
    result = evaluate_cases(lesion_case, oracle)[0]
    ours, plain = result.methods[OURS], result.methods[INTENSITY]
    assert ours.ap == pytest.approx(1) and ours.dice == 1 and ours.best_dice == pytest.approx(1)
    assert (ours.lesion_f1, ours.sensitivity, ours.false_positive_ml) == (1, 1, 0)
    assert 0.2 < plain.ap < 0.95 and 0 < plain.dice < 0.95
    assert plain.ap_gain == pytest.approx(1 - plain.ap) and plain.ap_gain_interval[0] > 0
    assert result.brain_dice == 1 and ours.ap_given_brain == pytest.approx(1)
    assert result.lesion_ml == pytest.approx(LESION.sum() * 0.2)


def test_the_baselines_flag_as_many_voxels_as_ours(lesion_case):
    result = evaluate_cases(lesion_case, oracle)[0]
    for method in (INTENSITY, EQUALISED):
        scores = result.methods[method]
        missed = (1 - scores.sensitivity) * LESION.sum()
        assert scores.false_positive_ml == pytest.approx(missed * 0.2, abs=1e-6)


def test_our_score_as_the_intensity_ties_with_the_baseline(lesion_case):
    result = evaluate_cases(lesion_case, brightness_detector(BRAIN))[0]
    ours, plain = result.methods[OURS], result.methods[INTENSITY]
    assert ours.ap == pytest.approx(plain.ap, abs=1e-6)
    assert plain.ap_gain_interval == pytest.approx((0, 0), abs=1e-6)


def test_lesion_outside_our_brain_is_missed_by_us_and_not_by_the_baseline(lesion_case):
    half = BRAIN.copy()
    half[:12] = False  # cuts away the larger lesion, 48 of 60 voxels

    def blind(scan, progress):
        return detection_of(scan, np.where(LESION, 5.0, -1.0), half, 4.0)

    result = evaluate_cases(lesion_case, blind)[0]
    assert result.lesion_outside_brain == pytest.approx(0.8)
    assert result.methods[OURS].ap < 0.45 and result.methods[OURS].sensitivity == pytest.approx(0.2)
    assert result.methods[INTENSITY].ap > result.methods[OURS].ap
    assert result.methods[OURS].lesion_recall == 0.5


def test_zero_outside_the_brain_is_not_better_than_negative_scores_inside(lesion_case):
    """The brain mask misses the whole lesion and all scores are negative: the lesion must still rank last."""

    def signed(scan, progress):
        return detection_of(scan, np.full(SHAPE, -3.0), BRAIN & ~LESION, 4.0)

    result = evaluate_cases(lesion_case, signed)[0]
    assert result.methods[OURS].ap == pytest.approx(LESION.sum() / BRAIN.sum(), rel=1e-3)


def test_dark_voxels_with_a_score_of_their_own_count_neither_as_hits_nor_as_false_positives(lesion_case):
    hollow = np.zeros(SHAPE, bool)
    hollow[5:8, 6:10, 6:10] = True

    def also_dark(scan, progress):
        found = oracle(scan, progress)
        for name, value in (("anomaly", 9.0), ("mask", 2)):
            array = sitk.GetArrayFromImage(getattr(found, name))
            array[hollow] = value
            setattr(found, name, image_like(array, scan.image))
        found.dark_threshold = 5.0
        return found

    result = evaluate_cases(lesion_case, also_dark)[0]
    ours = result.methods[OURS]
    assert (ours.dice, ours.false_positive_ml) == (1, 0) and ours.ap == pytest.approx(1)
    assert result.flagged_ml == pytest.approx(LESION.sum() * 0.2)


def test_the_list_of_findings_is_scored_beside_as_many_of_the_baselines_largest_pieces(lesion_case):
    """Three findings, the second one wrong and another one dark, which counts for nothing."""
    wrong = np.zeros(SHAPE, bool)
    wrong[5:8, 6:10, 6:10] = True

    def detect(scan, progress):
        found = detection_of(scan, np.where(LESION | wrong, 5.0, 0.5), BRAIN, 4.0)
        labels = np.zeros(SHAPE, np.uint16)
        labels[8:11], labels[14:16], labels[wrong], labels[5, 20, 20] = 1 * LESION[8:11], 3 * LESION[14:16], 2, 4
        found.components, found.dark_threshold = image_like(labels, scan.image), 5.0
        found.findings = [SimpleNamespace(label=label, polarity="dark" if label == 4 else "bright", volume_ml=1.0)
                          for label in (1, 2, 3, 4)]
        return found

    result = evaluate_cases(lesion_case, detect)[0]
    ours, plain = result.methods[OURS], result.methods[INTENSITY]
    assert (result.findings, ours.findings_right, ours.first_findings_right) == (3, 2, 2)
    assert 1 <= plain.findings_right <= 2  # the lesions are what is brightest
    assert "| case | 3 | 2 | " in anomaly_markdown([result], (), ())


def test_components_lie_on_lesion_from_a_tenth_on():
    labels, truth = np.repeat([1, 2, 3], 20), np.zeros(60, bool)
    truth[[0, 20, 21]] = True
    assert on_lesion(labels, (2, 1, 3), truth) == [True, False, False]


def test_a_lesion_in_one_place_has_no_interval(tmp_path):
    small = np.zeros(SHAPE, bool)
    small[8:10, 12:14, 12:14] = True
    write_case(tmp_path / "small", truth=small)
    write_case(tmp_path / "spread", brainmask=BRAIN)
    small, spread = evaluate_cases(find_cases(tmp_path), oracle)
    assert math.isnan(small.methods[OURS].ap_interval[0]) and math.isnan(small.methods[INTENSITY].ap_gain_interval[0])
    assert np.isfinite(small.methods[INTENSITY].ap_gain) and np.isfinite(spread.methods[OURS].ap_interval).all()
    mean = next(line for line in anomaly_markdown([small, spread], (), ()).splitlines() if "mean of 2" in line)
    assert mean.count("(of 1)") == 2  # one of them has a brain mask given


def test_healthy_cases_give_the_flagged_share_of_the_brain(tmp_path):
    write_case(tmp_path / "healthy_a", truth=None, contrast=0.0)
    result = evaluate_cases(find_cases(tmp_path), brightness_detector(BRAIN, 0.03))[0]
    ours = result.methods[OURS]
    assert ours.false_positive_fraction == pytest.approx(0.03, abs=0.001) and math.isnan(ours.ap)


def test_a_second_rater_is_scored_too(tmp_path):
    other = LESION.copy()
    other[14:16] = False
    write_case(tmp_path / "case", truth=None, mask1=LESION, mask2=other)
    result = evaluate_cases(find_cases(tmp_path), oracle)[0]
    assert result.between_raters_dice == pytest.approx(2 * 48 / (60 + 48))
    missed = 60 / (BRAIN | LESION).sum()  # the precision at which the lesion voxels he did not draw are found
    assert result.second_rater_ap == pytest.approx(0.8 + 0.2 * missed)
    assert "second expert" in anomaly_markdown([result], (), ())
    assert result.methods[OURS].ap_second_rater < result.methods[OURS].ap


def test_one_failing_case_does_not_stop_the_others(tmp_path):
    write_case(tmp_path / "a")
    write_case(tmp_path / "b")
    write_case(tmp_path / "c", truth=None)
    (tmp_path / "a" / "flair.nii.gz").write_bytes(b"not an image")
    results = evaluate_cases(find_cases(tmp_path), oracle)
    assert [bool(r.failure) for r in results] == [True, False, False]
    assert "flair.nii.gz" in results[0].failure
    text = anomaly_markdown(results, [], ["made up"])
    assert "## Failed\n\n- a: " in text and "looked at only\n\n- c: " in text and "| b |" in text


def test_cancelling_stops(lesion_case):
    token = CancelToken()
    token.cancel()
    with pytest.raises(Cancelled):
        evaluate_cases(lesion_case, oracle, cancel=token)


def test_tables_hold_every_method_and_leave_cases_out_of_the_mean(tmp_path):
    for name in ("a", "b", "c"):
        write_case(tmp_path / name)
    results = evaluate_cases(find_cases(tmp_path), oracle)
    rows = case_rows(results)
    assert [(row["case"], row["method"]) for row in rows[:3]] == [("a", OURS), ("a", INTENSITY), ("a", EQUALISED)]
    assert len(rows) == 9
    average = means(results, ["b"])
    assert average["cases"] == ["a", "c"]
    plain = [results[i].methods[INTENSITY].ap for i in (0, 2)]
    assert average[INTENSITY]["ap"][0] == pytest.approx(np.mean(plain))
    assert json.loads(json_text({"x": [float("nan"), np.float32(1)], "case": Case("n", tmp_path)}))["x"] == [None, 1.0]
    text = anomaly_markdown(results, ["b"], [])
    assert "b (not in the mean)" in text and "upper bound" in text and "**mean of 2**" in text


def test_the_picture_shows_the_experts_outline(lesion_case, tmp_path):
    path = tmp_path / "case.png"
    results = evaluate_cases(lesion_case, oracle,
                             look=lambda case, found, truth: write_case_picture(found, truth, case.name, path))
    assert not results[0].failure
    rgb = np.asarray(Image.open(path).convert("RGB")).astype(int)
    green = (rgb[..., 1] > 180) & (rgb[..., 0] < 120) & (rgb[..., 2] < 180)
    assert green.sum() > 50 and rgb.shape[0] > 600


def test_without_cases_in_the_folder_nothing_is_scored(tmp_path):
    with pytest.raises(InputError):
        find_cases(tmp_path)
