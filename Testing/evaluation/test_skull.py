"""Scoring heads with methods whose results are known beforehand: ellipsoids, and guesses of known error and spread."""

from __future__ import annotations

import json
import math
from statistics import NormalDist

import numpy as np
import pytest

from MedVAELib.errors import Cancelled, InputError
from MedVAELib.evaluation.skull import MEAN_HEAD, Case, Estimate, Guess, evaluate_heads, score
from MedVAELib.evaluation.skull_metrics import Solid
from MedVAELib.evaluation.skull_tables import gain, score_rows, skull_markdown, summary, uncertainty
from MedVAELib.outputs import json_text
from MedVAELib.progress import CancelToken
from MedVAELib.standard_planes import BY_COUNT, SUBSETS

from .test_skull_metrics import ball

OURS = "hcvae"
RADIUS = 30.0


def case(name="a", kind="typical", radius=RADIUS, see=lambda: None):
    return Case(name, name, kind, ball(radius, 2.0, 48), see, {"HC": 2 * math.pi * radius},
                {"axial": lambda points: np.abs(points[:, 0])})


def guesser(error_mm, std_mm=None, by_plane=True):
    """A method that is wrong by error_mm everywhere, less with more planes."""

    def predict(seen, subsets):
        for subset in subsets:
            factor = 1 / len(subset) if by_plane else 1
            solid = ball(RADIUS + error_mm * factor, 2.0, 48)
            std = None if std_mm is None else np.full(solid.field.shape, std_mm * factor, np.float32)
            if std is not None:
                std += 0.5 * np.abs(np.arange(48) - 23.5)[:, None, None] / 24  # more, far from the axial plane
            yield Guess(solid, std, {"HC": Estimate(2 * math.pi * (RADIUS + error_mm * factor), 1.0)})

    return lambda seen, subsets: list(predict(seen, subsets))


@pytest.fixture(scope="module")
def scores():
    cases = [case("a"), case("b", "moulding"), case("c", "moulding")]
    return evaluate_heads(cases, {OURS: guesser(1.5, 1.0), MEAN_HEAD: guesser(3.0)}, len(cases))


def test_every_method_on_all_seven_subsets(scores):
    assert len(SUBSETS) == 7 and SUBSETS[0] == ("axial", "sagittal", "coronal") and SUBSETS[4] == ("axial",)
    assert BY_COUNT == (("axial", "sagittal", "coronal"), ("axial", "sagittal"), ("axial",))
    assert len(scores) == 3 * 2 * 7 and not any(s.failure for s in scores)


def test_gains_are_paired_and_positive_where_ours_is_better(scores):
    three = [s for s in scores if s.planes == BY_COUNT[0]]
    assert gain(three, OURS, MEAN_HEAD, "surface_mm")[0] == pytest.approx(0.5, abs=0.03)
    assert gain(three, OURS, MEAN_HEAD, "dice")[0] > 0
    assert gain(three, OURS, OURS, "dice")[0] == 0


def test_the_spread_against_the_error(scores):
    one = next(s for s in scores if s.method == OURS and s.planes == ("axial",))
    assert one.spread.std_mm == pytest.approx(1 + 0.5 * (31.5 / 2) / 48, abs=0.01)  # a sphere's mean height is R/2
    assert one.spread.near_mm < 1.1 < one.spread.far_mm
    assert one.spread.within[0] == 0  # the error is 1.5 mm everywhere, the standard deviation 1.0 to 1.3
    assert 0 < one.spread.within[1] < 1 and one.spread.within[2] == 1
    assert {math.isnan(s.spread.std_mm) for s in scores if s.method == MEAN_HEAD} == {True}


def test_a_calibrated_spread_is_within_its_intervals():
    """Heads whose radius errs like a Gaussian of 0.8 mm, guessed with that standard deviation: the shares are the
    levels."""
    heads = [case(str(k), radius=RADIUS + 0.8 * NormalDist().inv_cdf((k + 0.5) / 40)) for k in range(40)]
    guess = Guess(ball(RADIUS, 2.0, 48), np.full((48, 48, 48), 0.8))
    within = [score(head, OURS, ("axial",), guess).spread.within for head in heads]
    assert np.mean(within, axis=0) == pytest.approx((0.5, 0.8, 0.95), abs=0.03)


def test_uncertainty_falls_with_each_plane(scores):
    table = uncertainty(scores, OURS)
    assert table["falls_with_each_plane"] == 1
    assert table["axial"]["std_mm"] > table["axial + sagittal"]["std_mm"]


def test_a_head_that_cannot_be_seen_fails_for_every_method_and_does_not_stop_the_others():
    def blind():
        raise InputError("no head on the plane")

    scores = evaluate_heads([case("a", see=blind), case("b")], {OURS: guesser(1.0), MEAN_HEAD: guesser(2.0)}, 2)
    assert sum(bool(s.failure) for s in scores) == 14 and len(scores) == 28
    text = skull_markdown(scores, ["made up"])
    assert "## Failed" in text and "no head on the plane" in text and "nan" not in text


def test_tables_as_markdown_csv_and_json(scores):
    text = skull_markdown(scores, ["made up"])
    for title in ("Three, two and one plane", "Gain of hcvae over the mean head", "All subsets", "By kind of head",
                  "Standard deviation of hcvae", "Measures", "Worst heads"):
        assert f"## {title}" in text
    assert "Standard deviation of mean head" not in text and "nan" not in text
    assert "| moulding | axial | mean head | 2 |" in text
    rows = score_rows(scores)
    assert len(rows) == len(scores)
    assert list(rows[0])[:7] == ["case", "head", "kind", "method", "planes", "plane_count", "dice"]
    data = json.loads(json_text(summary(scores)))
    assert data["agreement"]["moulding"]["axial"][OURS]["heads"] == 2
    assert data["agreement"]["all"]["axial"][OURS]["gain_hausdorff_mm"][0] > 1


def test_measures_are_compared(scores):
    text = skull_markdown(scores, [])
    line = next(line for line in text.splitlines() if line.startswith("| HC | axial | hcvae"))
    assert f"{2 * math.pi * 1.5:.2f}" in line and "5.00%" in line


def test_cancelling_stops():
    token = CancelToken()
    token.cancel()
    with pytest.raises(Cancelled):
        evaluate_heads([case()], {OURS: guesser(1.0)}, 1, cancel=token)


def test_a_head_without_a_surface_is_a_failure_of_its_case():
    """And of it alone: those before and after took hours."""

    def predict(seen, subsets):
        if seen == "odd":
            return [Guess(Solid(np.ones((8, 8, 8)), 1.0)) for _ in subsets]
        return guesser(1.0)(seen, subsets)

    cases = [case("a"), case("b", see=lambda: "odd"), case("c")]
    found = evaluate_heads(cases, {OURS: predict}, len(cases))
    assert {s.case for s in found if s.failure} == {"b"} and len(found) == 3 * len(SUBSETS)
    assert all("no surface" in s.failure for s in found if s.case == "b")
