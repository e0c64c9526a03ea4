"""Scores of predicted heads as rows, means with intervals, and Markdown."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from scipy.stats import spearmanr

from ..bootstrap import CONFIDENCE, RESAMPLES
from ..skull.calibrate import LEVELS, QUANTILES
from ..standard_planes import BY_COUNT, SUBSETS, Subset, named
from .metrics import mean_with_interval
from .skull import FAR_MM, MEAN_HEAD, NEAR_MM, Score
from .tables import estimated, markdown_table, number, percent

FIGURES: Mapping[str, tuple[str, int, Callable[[Score], float]]] = {
    "dice": ("Dice", 4, lambda s: s.agreement.dice),
    "hausdorff_mm": ("Hausdorff mm", 2, lambda s: s.agreement.hausdorff_mm),
    "hausdorff95_mm": ("Hausdorff 95 % mm", 2, lambda s: s.agreement.hausdorff95_mm),
    "surface_mm": ("surface distance mm", 2, lambda s: s.agreement.surface_mm),
    "absolute_volume_difference": ("abs. volume difference", 4, lambda s: s.agreement.absolute_volume_difference),
    "volume_difference": ("volume difference", 4, lambda s: s.agreement.volume_difference),
}
"""Title, digits and value of every figure of agreement."""
_WORST = 8
COMPARED = ("dice", "hausdorff_mm", "surface_mm", "absolute_volume_difference")
PUBLISHED = (
    "Published for other heads (72 real ones, private), three / two / one plane: Dice .91 / .89 / .86, Hausdorff "
    "4.12 / 4.81 / 5.04 mm, relative volume difference .03 / .03 / .04. Heads here are real shapes or drawn from them, "
    "their planes are simulated: the figures do not compare, the mean head in the same table does."
)
DEFINITIONS = (
    "Planes are cut from the head misplaced as a hand would, made into B-mode images, and found again by the outline "
    "network (or given, where the notes say so). Every method gets the same outlines.",
    "Prediction and truth are compared in the head frame with the centroids of their volumes together; neither is "
    "turned, scaled or mirrored.",
    "Hausdorff: the larger of both directions, and the same of the 95 % quantiles. Surface distance: mean over both "
    "surfaces of the distance to the other. Volume difference: (predicted − true) / true.",
    "Mean head: the mean of the training heads scaled to the extents that the found outlines show; an extent that no "
    "plane shows follows from the others by the mean head's proportions.",
    f"[brackets]: {CONFIDENCE:.0%} percentile bootstrap over heads, {RESAMPLES} resamples; a head seen several times "
    "counts once, with its mean. Gains are paired: the same "
    "heads and planes, positive where the first method is better.",
    "Standard deviation: of the signed distance over samples, at the predicted surface, mean over the surface and then "
    f"over heads. Near: within {NEAR_MM:g} mm of where a plane seen truly lay; far: beyond {FAR_MM:g} mm of all. "
    "Within 50/80/95 %: share of the surface (or of the heads, for measures) whose error is inside the central "
    "interval of a normal distribution of that standard deviation.",
    "Measures: on the surfaces themselves; from images, `medvae skull` gives diameters and circumference further out, "
    "where sonographers draw.",
)


def score_rows(scores: Sequence[Score]) -> list[dict[str, object]]:
    """One flat row per head, method and subset."""
    rows = []
    for s in scores:
        row: dict[str, object] = {"case": s.case, "head": s.head, "kind": s.kind, "method": s.method,
                                  "planes": named(s.planes), "plane_count": len(s.planes)}
        row |= {name: value(s) for name, (_, _, value) in FIGURES.items()}
        row |= {"std_mm": s.spread.std_mm, "std_near_mm": s.spread.near_mm, "std_far_mm": s.spread.far_mm,
                "std_error_correlation": s.spread.correlation}
        row |= {f"within_{level:.0%}": share for level, share in zip(LEVELS, s.spread.within, strict=True)}
        for name, (estimate, true) in s.measures.items():
            row |= {f"{name}": estimate.value, f"{name} true": true, f"{name} std": estimate.std}
        rows.append(row | {"failure": s.failure})
    return rows


def summary(scores: Sequence[Score]) -> dict[str, object]:
    """Means with intervals by kind ("all" and each), planes and method, the gains over the mean head, and what the
    standard deviation is worth: everything the Markdown shows, as plain data."""
    groups: dict[str, object] = {}
    for kind in ("all", *kinds(scores)):
        groups[kind] = {}
        for planes in SUBSETS:
            chosen = [s for s in scores if s.planes == planes and kind in ("all", s.kind)]
            groups[kind][named(planes)] = {
                method: {"heads": sum(s.method == method and not s.failure for s in chosen)}
                | {name: list(mean_of(chosen, method, name)) for name in FIGURES}
                | {f"gain_{name}": list(gain(chosen, method, MEAN_HEAD, name)) for name in COMPARED}
                for method in methods(scores)}
    return {"agreement": groups, "uncertainty": {method: uncertainty(scores, method) for method in methods(scores)
                                                 if has_spread(scores, method)}}


def uncertainty(scores: Sequence[Score], method: str) -> dict[str, object]:
    """By planes: mean standard deviation, near and far from planes, shares within the intervals, correlations; and
    the share of heads whose standard deviation falls with the second and again with the third plane."""
    table: dict[str, object] = {}
    for planes in SUBSETS:
        chosen = [s for s in scores if s.method == method and s.planes == planes and not s.failure]
        std = np.array([s.spread.std_mm for s in chosen])
        error = np.array([s.agreement.surface_mm for s in chosen])
        over_heads = spearmanr(std, error).statistic if len(chosen) > 2 and np.ptp(std) > 0 else float("nan")
        table[named(planes)] = {
            "heads": len(chosen), "std_mm": _mean(std), "near_mm": _mean([s.spread.near_mm for s in chosen]),
            "far_mm": _mean([s.spread.far_mm for s in chosen]),
            "within": {f"{level:.0%}": _mean([s.spread.within[k] for s in chosen]) for k, level in enumerate(LEVELS)},
            "correlation_over_surface": _mean([s.spread.correlation for s in chosen]),
            "correlation_over_heads": float(over_heads)}
    by_case = [[s.spread.std_mm for planes in BY_COUNT for s in scores
                if s.method == method and s.case == case and s.planes == planes and not s.failure]
               for case in dict.fromkeys(s.case for s in scores)]
    falls = [three < two < one for three, two, one in (stds for stds in by_case if len(stds) == 3)]
    table["falls_with_each_plane"] = _mean(falls)
    return table


def skull_markdown(scores: Sequence[Score], notes: Sequence[str]) -> str:
    """The whole result as Markdown."""
    ours = methods(scores)[0]
    parts = ["# Fetal skull, measured\n", *(f"{note}  " for note in notes), "",
             "## Three, two and one plane\n", _agreement_table(scores, BY_COUNT), PUBLISHED + "\n"]
    if ours != MEAN_HEAD and MEAN_HEAD in methods(scores):
        parts += [f"## Gain of {ours} over the mean head\n", _gain_table(scores, ours)]
    if len({s.planes for s in scores}) > len(BY_COUNT):
        parts += ["## All subsets of planes\n", _agreement_table(scores, [p for p in SUBSETS if p not in BY_COUNT])]
    if len(kinds(scores)) > 1:
        parts += ["## By kind of head\n", _kind_table(scores)]
    for method in methods(scores):
        if has_spread(scores, method):
            parts += [f"## Standard deviation of {method}\n", _spread_table(scores, method)]
    if any(s.measures for s in scores):
        parts += ["## Measures\n", _measure_table(scores)]
    parts += [f"## Worst heads of {ours}\n", _worst_table(scores, ours)]
    failed = [s for s in scores if s.failure]
    if failed:
        parts += ["## Failed\n", *(f"- {s.case}, {s.method}, {named(s.planes)}: {s.failure}" for s in failed), ""]
    return "\n".join([*parts, "## Definitions\n", *(f"- {line}" for line in DEFINITIONS), ""])


def _agreement_table(scores: Sequence[Score], subsets: Sequence[Subset]) -> str:
    rows = []
    for planes in subsets:
        chosen = [s for s in scores if s.planes == planes]
        for method in methods(chosen):
            heads = sum(s.method == method and not s.failure for s in chosen)
            figures = (estimated(mean_of(chosen, method, name), digits) for name, (_, digits, _) in FIGURES.items())
            rows.append([named(planes), method, str(heads), *figures])
    return markdown_table(["planes", "method", "cases", *(title for title, _, _ in FIGURES.values())], rows)


def _gain_table(scores: Sequence[Score], ours: str) -> str:
    rows = []
    for planes in SUBSETS:
        chosen = [s for s in scores if s.planes == planes]
        if chosen:
            rows.append([named(planes), *(estimated(gain(chosen, ours, MEAN_HEAD, name), FIGURES[name][1], signed=True)
                                          for name in COMPARED)])
    return markdown_table(["planes", *(FIGURES[name][0] for name in COMPARED)], rows)


def _kind_table(scores: Sequence[Score]) -> str:
    """Dice, Hausdorff and surface distance of every method; what ours gains over the mean head in surface distance."""
    names, ours = ("dice", "hausdorff_mm", "surface_mm"), methods(scores)[0]
    rows = []
    for kind in kinds(scores):
        for planes in BY_COUNT:
            chosen = [s for s in scores if s.planes == planes and s.kind == kind]
            for method in methods(chosen):
                against = "" if method == ours else estimated(gain(chosen, ours, method, "surface_mm"), 2, signed=True)
                heads = sum(s.method == method and not s.failure for s in chosen)
                rows.append([kind, named(planes), method, str(heads),
                             *(estimated(mean_of(chosen, method, name), FIGURES[name][1]) for name in names), against])
    return markdown_table(["kind", "planes", "method", "cases", *(FIGURES[name][0] for name in names),
                           f"gain of {ours} over it, surface mm"], rows)


def _spread_table(scores: Sequence[Score], method: str) -> str:
    table = uncertainty(scores, method)
    falls = table.pop("falls_with_each_plane")
    rows = [[planes, str(row["heads"]), *(number(row[key], 2) for key in ("std_mm", "near_mm", "far_mm")),
             *(percent(share) for share in row["within"].values()),
             *(number(row[key], 2) for key in ("correlation_over_surface", "correlation_over_heads"))]
            for planes, row in table.items() if row["heads"]]
    text = markdown_table(["planes", "cases", "std mm", "near a plane", "far from all",
                           *(f"within {level:.0%}" for level in LEVELS), "correlation with error over the surface",
                           "over heads"], rows)
    return text + f"\nIt falls with the second and again with the third plane in {percent(falls)} of the cases.\n"


def _measure_table(scores: Sequence[Score]) -> str:
    rows = []
    for name in dict.fromkeys(name for s in scores for name in s.measures):
        for planes in BY_COUNT:
            for method in methods(scores):
                found = [(s.head, *s.measures[name]) for s in scores
                         if s.planes == planes and s.method == method and name in s.measures]
                if not found:
                    continue
                error = np.array([estimate.value - true for _, estimate, true in found])
                std = np.array([estimate.std for _, estimate, _ in found])
                relative = np.abs(error) / np.array([true for *_, true in found])
                heads = [head for head, *_ in found]
                rows.append([name, named(planes), method,
                             estimated(_over_heads(zip(heads, np.abs(error), strict=True)), 2),
                             percent(float(relative.mean())),
                             estimated(_over_heads(zip(heads, error, strict=True)), 2, signed=True),
                             number(_mean(std), 2), *(percent(share) for share in share_within(error, std))])
    return markdown_table(["measure", "planes", "method", "mean abs. error", "of the measure", "mean error", "std",
                           *(f"within {level:.0%}" for level in LEVELS)], rows)


def _worst_table(scores: Sequence[Score], ours: str) -> str:
    chosen = [s for s in scores if s.method == ours and s.planes in BY_COUNT and not s.failure]
    chosen.sort(key=lambda s: -s.agreement.hausdorff_mm)
    return markdown_table(["head", "kind", "planes", *(FIGURES[name][0] for name in COMPARED)], [
        [s.case, s.kind, named(s.planes), *(number(FIGURES[name][2](s), FIGURES[name][1]) for name in COMPARED)]
        for s in chosen[:_WORST]])


def mean_of(scores: Sequence[Score], method: str, name: str) -> tuple[float, float, float]:
    """Mean over the heads and its interval; a head seen several times counts once, with its mean."""
    value = FIGURES[name][2]
    return _over_heads((s.head, value(s)) for s in scores if s.method == method)


def gain(scores: Sequence[Score], method: str, other: str, name: str) -> tuple[float, float, float]:
    """How much better `method` is than `other` on the same planes of one subset: mean over heads and its interval."""
    value = FIGURES[name][2]
    theirs = {s.case: value(s) for s in scores if s.method == other}
    sign = 1 if name == "dice" else -1
    return _over_heads((s.head, sign * (value(s) - theirs[s.case])) for s in scores
                       if s.method == method and s.case in theirs)


def _over_heads(values: Iterable[tuple[str, float]]) -> tuple[float, float, float]:
    by_head: dict[str, list[float]] = {}
    for head, value in values:
        if math.isfinite(value):
            by_head.setdefault(head, []).append(value)
    return mean_with_interval(np.array([np.mean(found) for found in by_head.values()]))


def methods(scores: Sequence[Score]) -> list[str]:
    return list(dict.fromkeys(s.method for s in scores))


def kinds(scores: Sequence[Score]) -> list[str]:
    return list(dict.fromkeys(s.kind for s in scores))


def has_spread(scores: Sequence[Score], method: str) -> bool:
    return any(s.method == method and s.spread.std_mm > 0 for s in scores)


def share_within(error: np.ndarray, std: np.ndarray) -> list[float]:
    """Shares of errors inside the central normal interval of each of LEVELS; NaN without a standard deviation."""
    if not np.isfinite(std).all() or not (std > 0).any():
        return [float("nan")] * len(LEVELS)
    return [float((np.abs(error) <= quantile * std).mean()) for quantile in QUANTILES]


def _mean(values: Sequence[float] | np.ndarray) -> float:
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    return float(values.mean()) if values.size else float("nan")
