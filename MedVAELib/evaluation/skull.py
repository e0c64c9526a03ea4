"""Scores predicted heads against true ones, for every subset of planes, the trivial baseline on the same planes.

A *case* is a head whose shape is known and planes seen of it. Every method gets the same outlines of the same planes,
so differences between methods are paired.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
from scipy.stats import spearmanr

from ..progress import CancelToken, Progress, no_progress
from ..skull.calibrate import LEVELS, QUANTILES
from ..standard_planes import BY_COUNT, SUBSETS, Subset
from .cases import one_by_one
from .skull_metrics import Agreement, Solid, agreement

MEAN_HEAD = "mean head"
NEAR_MM, FAR_MM = 5.0, 20.0
NAN = float("nan")


@dataclass(frozen=True)
class Estimate:
    """A measure and its standard deviation (NaN where a method gives none)."""

    value: float
    std: float = NAN


@dataclass(frozen=True, eq=False)
class Guess:
    """What a method says: the head, the standard deviation of its signed distance in mm on the same voxels (zyx), or
    None, and measures by name."""

    solid: Solid
    std_mm: np.ndarray | None = None
    measures: Mapping[str, Estimate] = field(default_factory=dict)


Predict = Callable[[object, Sequence[Subset]], Sequence[Guess]]
"""Called as predict(seen, subsets): one guess per subset of the planes seen of a head."""


@dataclass(frozen=True, eq=False)
class Case:
    """One head and planes of it. see: makes what the methods get; measures: the true ones by name; plane_distance_mm:
    distance of points (n, 3, zyx mm from the centroid) to where a plane truly lay, by plane; head: which head it is, as
    several cases may be of one."""

    name: str
    head: str
    kind: str
    solid: Solid
    see: Callable[[], object]
    measures: Mapping[str, float] = field(default_factory=dict)
    plane_distance_mm: Mapping[str, Callable[[np.ndarray], np.ndarray]] = field(default_factory=dict)


Look = Callable[[Case, object, Mapping[tuple[str, Subset], Guess]], None]
"""Called as look(case, seen, guesses of BY_COUNT by method and planes) after each case: draws the picture."""


@dataclass(frozen=True)
class Spread:
    """What the standard deviation along the predicted surface is worth, NaN where a method gives none.

    std_mm: its mean; near_mm, far_mm: within NEAR_MM of a plane that was seen, and beyond FAR_MM of all; within: the
    share of the surface whose error lies in the central interval of each of LEVELS; correlation: Spearman's, of
    standard deviation and absolute error over the surface.
    """

    std_mm: float = NAN
    near_mm: float = NAN
    far_mm: float = NAN
    within: tuple[float, ...] = (NAN,) * len(LEVELS)
    correlation: float = NAN


@dataclass(frozen=True)
class Score:
    """One method on one subset of one head's planes. measures: by name, the estimate and the truth. failure: why there
    is no prediction; then the rest is NaN."""

    case: str
    head: str
    kind: str
    method: str
    planes: Subset
    agreement: Agreement = Agreement()
    spread: Spread = Spread()
    measures: Mapping[str, tuple[Estimate, float]] = field(default_factory=dict)
    failure: str = ""


def evaluate_heads(cases: Iterator[Case] | Sequence[Case], methods: Mapping[str, Predict], total: int,
                   look: Look | None = None, progress: Progress = no_progress,
                   cancel: CancelToken | None = None) -> list[Score]:
    """Every method on every subset of every case. cases may be made while they are used; total: how many there are.

    A head whose planes cannot be used fails for every method, and counts as a failure for all. Raises Cancelled, and
    DeviceMemoryError.
    """
    cancel = cancel or CancelToken()

    def failed(case: Case, reason: str) -> list[Score]:
        return [Score(case.name, case.head, case.kind, method, subset, failure=reason)
                for method in methods for subset in SUBSETS]

    return list(chain.from_iterable(one_by_one(
        cases, total, lambda case, _: _evaluate(case, methods, look, cancel), failed, progress, cancel)))


def _evaluate(case: Case, methods: Mapping[str, Predict], look: Look | None, cancel: CancelToken) -> list[Score]:
    seen = case.see()
    scores, shown = [], {}
    for method, predict in methods.items():
        cancel.check()
        for subset, guess in zip(SUBSETS, predict(seen, SUBSETS), strict=True):
            scores.append(score(case, method, subset, guess))
            if subset in BY_COUNT:
                shown[method, subset] = guess
    if look is not None:
        look(case, seen, shown)
    return scores


def score(case: Case, method: str, planes: Subset, guess: Guess) -> Score:
    """Compares one guess with the truth."""
    shared = {name: (estimate, case.measures[name]) for name, estimate in guess.measures.items()
              if name in case.measures}
    return Score(case.name, case.head, case.kind, method, planes, agreement(guess.solid, case.solid),
                 Spread() if guess.std_mm is None else spread(case, planes, guess), shared)


def spread(case: Case, planes: Subset, guess: Guess) -> Spread:
    """The standard deviation along the predicted surface against what is wrong there."""
    points = guess.solid.points_mm
    std = guess.solid.values_at(guess.std_mm, points)
    error = case.solid.distance_mm(points)
    within = tuple(float((error <= quantile * std).mean()) for quantile in QUANTILES)
    varies = np.ptp(std) > 0
    distances = [case.plane_distance_mm[plane](points) for plane in planes if plane in case.plane_distance_mm]
    apart = np.min(distances, axis=0) if distances else np.full(len(points), NAN)
    return Spread(float(std.mean()), _mean(std[apart <= NEAR_MM]), _mean(std[apart >= FAR_MM]), within,
                  float(spearmanr(std, error).statistic) if varies else NAN)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else NAN
