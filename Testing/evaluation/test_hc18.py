"""Head circumference on planes whose circumference is known, with predictions of known error."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest

from MedVAELib.errors import Cancelled, InputError
from MedVAELib.evaluation.bright_extent import bright_axes_mm
from MedVAELib.evaluation.hc18 import (
    BRIGHT,
    MEAN_HEAD,
    OUTLINE,
    DrawnPlane,
    PlaneScore,
    evaluate_planes,
    read_drawn_plane,
)
from MedVAELib.evaluation.hc18_tables import hc18_markdown, methods, plane_rows, summary, wilson_interval
from MedVAELib.evaluation.mean_head import MeanHead
from MedVAELib.outputs import json_text
from MedVAELib.skull.planes import PlaneImage
from MedVAELib.skull.result import FoundPlane, Measure

from ..training.test_hc18 import write_set
from .test_mean_head import egg

OURS = "hcvae"
AXES_MM = (100.0, 80.0)
CIRCUMFERENCE_MM = 283.61  # of an ellipse with these axes
DRAWN = {"HC": CIRCUMFERENCE_MM, "BPD": AXES_MM[1], "OFD": AXES_MM[0], "cephalic index": 80.0}


def ring_plane(name="100_HC", noise=0.02, axes_mm=AXES_MM, pixel_mm=0.5):
    """A bright elliptical ring on a dark plane, and its filled ellipse."""
    rows, columns = np.mgrid[:300, :300] - 149.5
    radius = np.hypot(columns / (axes_mm[0] / 2 / pixel_mm), rows / (axes_mm[1] / 2 / pixel_mm))
    grey = 0.1 + 0.8 * np.exp(-(((radius - 1) / 0.04) ** 2))
    grey += np.random.default_rng(0).normal(0, noise, grey.shape)
    return DrawnPlane(name, PlaneImage(grey.clip(0, 1).astype(np.float32), pixel_mm), radius <= 1, DRAWN)


@pytest.fixture(scope="module")
def mean_head():
    return MeanHead.of([egg(78, 100, 80)])


def predictor(error_mm=3.0, std=2.0, scale=1.0, outside_mm=0.0, warnings=()):
    """Finds an ellipse `scale` times too large and says measures wrong by error_mm."""

    def predict(image):
        outline = ring_plane(axes_mm=tuple(scale * axis for axis in AXES_MM)).drawn.astype(np.float32)
        found = FoundPlane("axial", image, outline, (149.5, 149.5), (scale * 50.0, scale * 40.0), 90.0, 0.9, 0.01)
        values = {name: value + error_mm for name, value in DRAWN.items()}
        return SimpleNamespace(
            planes=[found], provenance={"drawn_outside_mm": outside_mm}, warnings=list(warnings),
            measure=lambda name: Measure(name, values[name], std, (values[name] - 2 * std, values[name] + 2 * std), ""),
        )

    return predict


def test_the_bright_ring_is_measured():
    plane = ring_plane()
    major, minor = bright_axes_mm(plane.image.grey_yx, plane.image.pixel_mm)
    assert (major, minor) == pytest.approx(AXES_MM, rel=0.06)


def test_a_dark_corner_of_nothing_has_some_extent_and_no_crash():
    assert bright_axes_mm(np.zeros((64, 64), np.float32), 0.5) == (0.0, 0.0)


def test_every_method_is_compared_with_the_drawn_circumference(mean_head):
    score = evaluate_planes([ring_plane], OURS, predictor(scale=1.1), mean_head)[0]
    assert score.error(OURS) == pytest.approx(3.0)
    assert score.error(OUTLINE) == pytest.approx(0.1 * CIRCUMFERENCE_MM, abs=0.1)
    assert score.error(MEAN_HEAD) == pytest.approx(0.1 * CIRCUMFERENCE_MM, abs=3)
    assert abs(score.error(BRIGHT)) < 0.08 * CIRCUMFERENCE_MM
    assert score.outline_dice == pytest.approx(2 / (1 + 1.1**2), abs=0.01) and score.spread() == 2.0


def test_diameters_and_their_ratio_are_scored_as_the_circumference_is(mean_head):
    score = evaluate_planes([ring_plane], OURS, predictor(2.0, scale=1.1, outside_mm=0.5), mean_head)[0]
    for measure in ("BPD", "OFD", "cephalic index"):
        assert score.error(OURS, measure) == pytest.approx(2.0) and score.spread(measure) == 2.0
    assert score.error(OUTLINE, "OFD") == pytest.approx(11.0) and score.error(OUTLINE, "BPD") == pytest.approx(9.0)
    assert score.error(OUTLINE, "cephalic index") == pytest.approx(100 * 89 / 111 - 80, abs=1e-3)
    assert score.error(MEAN_HEAD, "OFD") == pytest.approx(10.0, abs=1.5)
    table = summary([score])["measures"]
    assert table["OFD"][OURS]["mae_mm"][0] == pytest.approx(2.0) and table["OFD"]["within"]["80%"][0] == 1
    assert table["cephalic index"][OURS]["mean_error_points"][0] == pytest.approx(2.0)
    text = hc18_markdown([score], [])
    assert "| BPD, mm | hcvae | 1 | 2.00 | +2.00 | 0% [0%, 79%] | 100% [21%, 100%] |" in text


def test_the_drawn_ellipse_tells_all_measures(tmp_path):
    drawn = read_drawn_plane(write_set(tmp_path), "012_HC").measures
    assert (drawn["OFD"], drawn["BPD"], drawn["cephalic index"]) == pytest.approx((50.0, 35.0, 70.0), rel=0.01)
    assert drawn["HC"] == 134.4  # the table's


def test_the_ellipse_is_calibrated_as_the_prediction_is(mean_head):
    score = evaluate_planes([ring_plane], OURS, predictor(outside_mm=0.5), mean_head)[0]
    assert score.error(OUTLINE) == pytest.approx(np.pi, abs=0.1) and score.error(OURS) == pytest.approx(3.0)


def test_a_plane_without_a_head_fails_for_all_but_the_naive_method(mean_head):
    def blind(image):
        raise InputError("nothing like a head on it")

    score = evaluate_planes([ring_plane], OURS, blind, mean_head)[0]
    assert score.failure and list(score.predicted) == [BRIGHT]


def test_cancelling_is_no_failure(mean_head):
    def cancelled(image):
        raise Cancelled()

    with pytest.raises(Cancelled):
        evaluate_planes([ring_plane], OURS, cancelled, mean_head)


def test_tables_worst_first(mean_head):
    errors = {"000_HC": 1.0, "005_HC": -6.0, "010_HC": 2.0}
    scores = []
    for name, error in errors.items():
        scores += evaluate_planes([lambda n=name: ring_plane(n)], OURS, predictor(error), mean_head)

    def blind(image):
        raise InputError("nothing like a head on it")

    scores += evaluate_planes([lambda: ring_plane("015_HC")], OURS, blind, mean_head)
    table = summary(scores)
    assert table["planes"] == 4 and table["failed"] == 1 and methods(scores) == [OURS, OUTLINE, MEAN_HEAD, BRIGHT]
    assert table[OURS]["mae_mm"][0] == pytest.approx(3.0) and table[OURS]["mean_error_mm"][0] == pytest.approx(-1.0)
    assert table[OURS]["sd_mm"] == pytest.approx(np.std([1, -6, 2], ddof=1)) and table[OURS]["planes"] == 3
    assert table[OURS]["mae_percent"][0] == pytest.approx(300 / CIRCUMFERENCE_MM)
    assert [table["within"][level][0] for level in ("50%", "95%")] == pytest.approx([1 / 3, 2 / 3])
    assert [row["plane"] for row in plane_rows(scores)] == ["015_HC", "005_HC", "010_HC", "000_HC"]
    text = hc18_markdown(scores, ["made up"])
    assert "| hcvae | 3 | 3.00 |" in text and "## Failed" in text and "nan" not in text
    assert json.loads(json_text(table))["failed"] == 1
    assert math.isfinite(table[BRIGHT]["sd_mm"])


def test_planes_with_a_warning_are_counted_apart():
    def score(name: str, error_mm: float, *warnings: str) -> PlaneScore:
        return PlaneScore(name, {"HC": 200.0}, {OURS: {"HC": 200.0 + error_mm}}, {"HC": 1.0}, warnings=warnings)

    scores = [score("000_HC", 0.5), score("005_HC", -1.5), score("010_HC", 9.0, "Check the pixel size.")]
    table = summary(scores)
    assert table["within"]["95%"][0] == pytest.approx(2 / 3)
    sure, warned = table["without_warning"], table["with_warning"]
    assert (sure["planes"], sure["within"]["95%"][0], sure["mae_mm"][0]) == (2, 1, 1)
    assert (warned["planes"], warned["within"]["95%"][0], warned["mae_mm"][0]) == (1, 0, 9)
    text = hc18_markdown(scores, [])
    assert "| without a warning | 2 | 1.00 | 50% [9%, 91%] |" in text
    assert "| with a warning | 1 | 9.00 | 0% [0%, 79%] |" in text
    assert "| 010_HC | 200.0 | +9.0 |" in text and "| yes |" in text
    assert summary(scores[2:])["without_warning"]["planes"] == 0


def test_intervals_of_shares_are_those_of_the_textbook():
    """Newcombe 1998, table I: 15 of 148 and 0 of 20."""
    assert wilson_interval(15 / 148, 148) == pytest.approx((0.0624, 0.1605), abs=1e-4)
    assert wilson_interval(0.0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert all(map(math.isnan, wilson_interval(math.nan, 0)))


def test_a_warning_of_any_kind_counts(mean_head):
    score = evaluate_planes([ring_plane], OURS, predictor(warnings=["The head is small."]), mean_head)[0]
    assert score.warnings == ("The head is small.",)
