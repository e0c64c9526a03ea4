"""Circumference and diameters on real planes as rows, means with intervals, and Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import binomtest

from ..bootstrap import CONFIDENCE, RESAMPLES
from ..skull.calibrate import LEVELS
from .hc18 import BRIGHT, MEAN_HEAD, MEASURES, OUTLINE, PlaneScore
from .metrics import mean_with_interval
from .skull_tables import share_within
from .tables import estimated, markdown_table, number

PUBLISHED = (
    "\"Improving Fetal Head Contour Detection by Object Localisation with Deep Learning\": Dice .977 on the 335 test "
    "images of HC18, convolutional network and ellipse",
    "Budd et al. 2019 (arXiv:1908.02582): mean absolute difference 1.8 mm, Dice .982 on free-hand images of their own, "
    "probabilistic U-net trained on over 2,000 subjects",
    "van den Heuvel et al. 2018 (doi:10.1371/journal.pone.0200412), who made HC18: gestational age from the measured "
    "circumference off by 0.6 ± 4.3, 0.4 ± 4.7 and 2.5 ± 12.4 days in the three trimesters, on those 335 images",
)
"""2D methods, each on the test images its authors had: none of them are the planes scored here."""
WORST = 12
"""Planes listed and pictured."""
DEFINITIONS = (
    "Error: what the method measures − the same of the drawn ellipse: circumference, minor axis (BPD), major axis "
    "(OFD), 100 times their ratio (cephalic index). HC18's ellipses are drawn from outer to outer table. Percent: of "
    "the drawn circumference.",
    f"[brackets]: {CONFIDENCE:.0%} percentile bootstrap over planes, {RESAMPLES} resamples. Planes are of different "
    "examinations, some perhaps of one woman: the set does not tell.",
    f"{OUTLINE}: circumference of the ellipse with the found outline's second moments, as 2D methods measure; what the "
    "3D prediction differs by is the 3D model's doing. Both lie as far outside of the outline as sonographers draw on "
    "planes of the parts train and validation (in the outline network's card).",
    f"{MEAN_HEAD}: the mean training head scaled to that outline as it is. {BRIGHT}: the same without any network, "
    "scaled to the brightest tenth of the image taken for a ring (see MedVAELib/evaluation/bright_extent.py).",
    "Within: how many of the drawn measures lie in the 3D prediction's central intervals; [brackets]: 95% interval of "
    "that share (Wilson 1927), planes being independent. With a warning: of any kind that the user sees.",
    "Dice: the found outline against the drawn one, both filled, on the image's pixels.",
)


def methods(scores: Sequence[PlaneScore]) -> list[str]:
    """The 3D prediction first, then what it is compared with."""
    known = dict.fromkeys(method for s in scores for method in s.predicted)
    compared = (OUTLINE, MEAN_HEAD, BRIGHT)
    return [m for m in known if m not in compared] + [m for m in compared if m in known]


def plane_rows(scores: Sequence[PlaneScore]) -> list[dict[str, object]]:
    """One row per plane, worst 3D prediction first, failures before all."""
    names = methods(scores)
    rows = []
    for s in worst_first(scores):
        row: dict[str, object] = {"plane": s.name}
        for measure, unit in MEASURES.items():
            row[f"drawn {measure} {unit}"] = s.drawn.get(measure, float("nan"))
            row |= {f"{method} {measure} error {unit}": s.error(method, measure) for method in names}
            row[f"std {measure} {unit}"] = s.spread(measure)
        rows.append(row | {"outline_dice": s.outline_dice, "confidence": s.confidence,
                           "warnings": " ".join(s.warnings), "seconds": s.seconds, "failure": s.failure})
    return rows


def summary(scores: Sequence[PlaneScore]) -> dict[str, object]:
    """By method: mean absolute error of the circumference in mm and in percent, mean error (each with its interval),
    standard deviation and median of the error; the other measures alike; Dice of the outlines; shares within the 3D
    prediction's intervals, of all planes and of those that came with and without a warning."""
    names = methods(scores)
    table: dict[str, object] = {"planes": len(scores), "failed": sum(bool(s.failure) for s in scores)}
    for method in names:
        error, relative = _errors(scores, method)
        table[method] = _of_errors(error) | {"mae_percent": list(mean_with_interval(100 * np.abs(relative)))}
    table["measures"] = {
        measure: {method: _of_errors(_errors(scores, method, measure)[0], _ending(measure)) for method in names}
        | {"within": _within(scores, measure)} for measure in MEASURES if measure != "HC"
    }
    table["outline_dice"] = list(mean_with_interval(np.array([s.outline_dice for s in scores])))
    table["within"] = _within(scores)
    for name, warned in (("without_warning", False), ("with_warning", True)):
        chosen = [s for s in scores if bool(s.warnings) is warned and not s.failure]
        error, _ = _errors(chosen, names[0] if names else "")
        table[name] = {"planes": len(chosen), "mae_mm": list(mean_with_interval(np.abs(error))),
                       "within": _within(chosen)}
    return table


def _of_errors(error: np.ndarray, ending: str = "mm") -> dict[str, object]:
    return {"planes": len(error), f"mae_{ending}": list(mean_with_interval(np.abs(error))),
            f"mean_error_{ending}": list(mean_with_interval(error)),
            f"sd_{ending}": float(error.std(ddof=1)) if len(error) > 1 else float("nan"),
            f"median_{ending}": float(np.median(np.abs(error))) if len(error) else float("nan")}


def _ending(measure: str) -> str:
    return "mm" if MEASURES[measure] == "mm" else "points"


def _within(scores: Sequence[PlaneScore], measure: str = "HC") -> dict[str, list[float]]:
    """Shares of planes whose measure lies within the 3D prediction's central intervals, by level, each with its
    interval."""
    chosen = [s for s in scores if math.isfinite(s.spread(measure))]
    first = methods(scores)[0] if scores else ""
    shares = share_within(np.array([s.error(first, measure) for s in chosen]),
                          np.array([s.spread(measure) for s in chosen]))
    return {f"{level:.0%}": [share, *wilson_interval(share, len(chosen))]
            for level, share in zip(LEVELS, shares, strict=True)}


def wilson_interval(share: float, count: int) -> tuple[float, float]:
    """Of a binomial share of `count` (Wilson 1927), at CONFIDENCE; NaN for none."""
    if not count or not math.isfinite(share):
        return float("nan"), float("nan")
    found = binomtest(round(share * count), count).proportion_ci(CONFIDENCE, "wilson")
    return float(found.low), float(found.high)


def hc18_markdown(scores: Sequence[PlaneScore], notes: Sequence[str]) -> str:
    """The whole result as Markdown."""
    table, rows = summary(scores), []
    for method in methods(scores):
        line = table[method]
        rows.append([method, str(line["planes"]), estimated(line["mae_mm"], 2), estimated(line["mae_percent"], 2),
                     estimated(line["mean_error_mm"], 2, signed=True), number(line["sd_mm"], 2),
                     number(line["median_mm"], 2)])
    parts = ["# Head circumference on real axial planes\n", *(f"{note}  " for note in notes), "",
             markdown_table(["method", "planes", "mean abs. error mm", "of the circumference, %", "mean error mm",
                             "SD of the error", "median abs. error"], rows),
             f"Dice of the found outline: {estimated(table['outline_dice'], 4)}.\n",
             "Within the 3D prediction's intervals:\n", _warning_table(table, methods(scores)[0]),
             "## Diameters and cephalic index\n", _measure_table(table, methods(scores)),
             "Published for 2D methods, on other test images: " + "; ".join(PUBLISHED) + ".\n",
             "## Worst first\n", _worst_table(scores)]
    failed = [s for s in scores if s.failure]
    if failed:
        parts += ["## Failed\n", *(f"- {s.name}: {s.failure}" for s in failed), ""]
    return "\n".join([*parts, "## Definitions\n", *(f"- {line}" for line in DEFINITIONS), ""])


def _warning_table(table: dict[str, object], first: str) -> str:
    """Coverage of the circumference, and its error, by whether there was a warning."""
    parts, rows = {"all": {**table[first], "within": table["within"]}, "without a warning": table["without_warning"],
                   "with a warning": table["with_warning"]}, []
    for name, part in parts.items():
        rows.append([name, str(part["planes"]), estimated(part["mae_mm"], 2),
                     *(_share(each) for each in part["within"].values())])
    return markdown_table(["planes", "number", "mean abs. error mm", *table["within"]], rows)


def _measure_table(table: dict[str, object], names: Sequence[str]) -> str:
    rows = []
    for measure, part in table["measures"].items():
        for method in names:
            line, ending = part[method], _ending(measure)
            shares = part["within"].values() if method == names[0] else [None] * len(LEVELS)
            rows.append([f"{measure}, {MEASURES[measure]}", method, str(line["planes"]),
                         estimated(line[f"mae_{ending}"], 2),
                         estimated(line[f"mean_error_{ending}"], 2, signed=True),
                         *("" if each is None else _share(each) for each in shares)])
    return markdown_table(["measure", "method", "planes", "mean abs. error", "mean error",
                           *(f"within {level:.0%}" for level in LEVELS)], rows)


def _share(estimate: Sequence[float]) -> str:
    share, low, high = estimate
    return f"{share:.0%} [{low:.0%}, {high:.0%}]" if math.isfinite(share) else "–"


def worst_first(scores: Sequence[PlaneScore]) -> list[PlaneScore]:
    """Failures, then by the 3D prediction's absolute error."""
    first = methods(scores)[0] if scores else ""
    return sorted(scores, key=lambda s: math.inf if s.failure else abs(s.error(first)), reverse=True)


def _worst_table(scores: Sequence[PlaneScore]) -> str:
    names = methods(scores)
    rows = [[s.name, f"{s.drawn['HC']:.1f}", *(number(s.error(method), 1, signed=True) for method in names),
             number(s.spread(), 1), number(s.outline_dice, 3), number(s.confidence, 2), "yes" if s.warnings else "no"]
            for s in worst_first(scores)[:WORST]]
    return markdown_table(["plane", "drawn mm", *(f"error of {method}, mm" for method in names), "std mm",
                           "outline Dice", "confidence", "warned"], rows)


def _errors(scores: Sequence[PlaneScore], method: str, measure: str = "HC") -> tuple[np.ndarray, np.ndarray]:
    """Errors, and as parts of what was drawn, of the planes that the method predicted."""
    pairs = [(s.error(method, measure), s.drawn[measure]) for s in scores if math.isfinite(s.error(method, measure))]
    error, drawn = np.array(pairs, float).reshape(-1, 2).T
    return error, error / drawn
