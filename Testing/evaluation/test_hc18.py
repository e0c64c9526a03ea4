"""Head circumference on planes whose circumference is known, with predictions of known error."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest

from MedVAELib.errors import Cancelled, InputError
from MedVAELib.evaluation.bright_extent import bright_axes_mm
from MedVAELib.evaluation.hc18 import BRIGHT, MEAN_HEAD, OUTLINE, DrawnPlane, PlaneScore, evaluate_planes
from MedVAELib.evaluation.hc18_tables import hc18_markdown, methods, plane_rows, summary
from MedVAELib.evaluation.mean_head import MeanHead
from MedVAELib.evaluation.tables import to_csv
from MedVAELib.outputs import json_text
from MedVAELib.skull.planes import PlaneImage
from MedVAELib.skull.result import FoundPlane, Measure

from .test_mean_head import egg

OURS = "hcvae"
AXES_MM = (100.0, 80.0)
CIRCUMFERENCE_MM = 283.61  # of an ellipse with these axes


def ring_plane(name="100_HC", noise=0.02, axes_mm=AXES_MM, pixel_mm=0.5):
    """A bright elliptical ring on a dark plane, and its filled ellipse."""
    rows, columns = np.mgrid[:300, :300] - 149.5
    radius = np.hypot(columns / (axes_mm[0] / 2 / pixel_mm), rows / (axes_mm[1] / 2 / pixel_mm))
    grey = 0.1 + 0.8 * np.exp(-(((radius - 1) / 0.04) ** 2))
    grey += np.random.default_rng(0).normal(0, noise, grey.shape)
    return DrawnPlane(name, PlaneImage(grey.clip(0, 1).astype(np.float32), pixel_mm), radius <= 1, CIRCUMFERENCE_MM)


@pytest.fixture(scope="module")
def mean_head():
    return MeanHead.of([egg(78, 100, 80)])


def predictor(error_mm=3.0, std=2.0, scale=1.0, outside_mm=0.0):
    """Finds an ellipse `scale` times too large and says a circumference wrong by error_mm."""

    def predict(image):
        outline = ring_plane(axes_mm=tuple(scale * axis for axis in AXES_MM)).drawn.astype(np.float32)
        found = FoundPlane("axial", image, outline, (149.5, 149.5), (scale * 50.0, scale * 40.0), 90.0, 0.9, 0.01)
        value = CIRCUMFERENCE_MM + error_mm
        measure = Measure("HC", value, std, (value - 2 * std, value + 2 * std), "mm")
        return SimpleNamespace(planes=[found], measure=lambda name: {"HC": measure}[name],
                               provenance={"drawn_outside_mm": outside_mm})  # fmt: skip

    return predict


def test_the_bright_ring_is_measured():
    plane = ring_plane()
    major, minor = bright_axes_mm(plane.image.grey_yx, plane.image.pixel_mm)
    assert (major, minor) == pytest.approx(AXES_MM, rel=0.06)


def test_a_dark_corner_of_nothing_has_some_extent_and_no_crash():
    assert bright_axes_mm(np.zeros((64, 64), np.float32), 0.5) == (0.0, 0.0)


def test_every_method_is_compared_with_the_drawn_circumference(mean_head):
    score = evaluate_planes([ring_plane], OURS, predictor(scale=1.1), mean_head)[0]
    assert score.error_mm(OURS) == pytest.approx(3.0)
    assert score.error_mm(OUTLINE) == pytest.approx(0.1 * CIRCUMFERENCE_MM, abs=0.1)
    assert score.error_mm(MEAN_HEAD) == pytest.approx(0.1 * CIRCUMFERENCE_MM, abs=3)
    assert abs(score.error_mm(BRIGHT)) < 0.08 * CIRCUMFERENCE_MM
    assert score.outline_dice == pytest.approx(2 / (1 + 1.1**2), abs=0.01) and score.std_mm == 2.0


def test_the_ellipse_is_calibrated_as_the_prediction_is(mean_head):
    score = evaluate_planes([ring_plane], OURS, predictor(outside_mm=0.5), mean_head)[0]
    assert score.error_mm(OUTLINE) == pytest.approx(np.pi, abs=0.1) and score.error_mm(OURS) == pytest.approx(3.0)


def test_a_plane_without_a_head_fails_for_all_but_the_naive_method(mean_head):
    def blind(image):
        raise InputError("nothing like a head on it")

    score = evaluate_planes([ring_plane], OURS, blind, mean_head)[0]
    assert score.failure and list(score.predicted_mm) == [BRIGHT]


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
    assert table["within"]["50%"] == pytest.approx(1 / 3) and table["within"]["95%"] == pytest.approx(2 / 3)
    assert [row["plane"] for row in plane_rows(scores)] == ["015_HC", "005_HC", "010_HC", "000_HC"]
    text = hc18_markdown(scores, ["made up"])
    assert "| hcvae | 3 | 3.00 [" in text and "## Failed" in text and "nan" not in text
    assert "nan" not in to_csv(plane_rows(scores)) and json.loads(json_text(table))["failed"] == 1
    assert math.isfinite(table[BRIGHT]["sd_mm"])


def test_planes_with_a_warning_are_counted_apart():
    def score(name: str, error_mm: float, *doubts: str) -> PlaneScore:
        return PlaneScore(name, 200.0, {OURS: 200.0 + error_mm}, 1.0, doubts=doubts)

    scores = [score("000_HC", 0.5), score("005_HC", -1.5), score("010_HC", 9.0, "Check the pixel size.")]
    table = summary(scores)
    assert table["within"]["95%"] == pytest.approx(2 / 3) and table["without_warning"]["planes"] == 2
    assert table["without_warning"]["within"]["95%"] == 1 and table["without_warning"]["mae_mm"][0] == 1
    text = hc18_markdown(scores, [])
    assert "2 came without a warning" in text and "| 010_HC | 200.0 | +9.0 |" in text and "| yes |" in text
    assert summary(scores[2:])["without_warning"]["planes"] == 0
