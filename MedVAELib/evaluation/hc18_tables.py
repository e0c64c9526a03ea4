"""Head circumference on real planes as rows, means with intervals, and Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from .hc18 import BRIGHT, MEAN_HEAD, OUTLINE, PlaneScore
from .metrics import CONFIDENCE, RESAMPLES, mean_with_interval
from .skull import LEVELS
from .skull_tables import estimated, number, share_within
from .tables import markdown_table, percent

PUBLISHED = (
    "\"Improving Fetal Head Contour Detection by Object Localisation with Deep Learning\": Dice .977 on the 335 test "
    "images of HC18, convolutional network and ellipse",
    "Budd et al. 2019 (arXiv:1908.02582): mean absolute difference 1.8 mm, Dice .982 on free-hand images of their own, "
    "probabilistic U-net trained on over 2,000 subjects",
    "van den Heuvel et al. 2018 (doi:10.1371/journal.pone.0200412), who made HC18: gestational age from the measured "
    "circumference off by 0.6 ± 4.3, 0.4 ± 4.7 and 2.5 ± 12.4 days in the three trimesters, on those 335 images",
)
"""2D methods, each on the test images its authors had: none of them are the planes scored here."""
DEFINITIONS = (
    "Error: circumference of the method − circumference of the drawn ellipse. Percent: of the drawn circumference.",
    f"[brackets]: {CONFIDENCE:.0%} percentile bootstrap over planes, {RESAMPLES} resamples. Planes are of different "
    "patients as far as the numbers in the files' names tell.",
    f"{OUTLINE}: circumference of the ellipse with the found outline's second moments, as 2D methods measure; what the "
    "3D prediction differs by is the 3D model's doing. Both lie as far outside of the outline as sonographers draw on "
    "planes of the parts train and validation (in the outline network's card).",
    f"{MEAN_HEAD}: the mean training head scaled to that outline as it is. {BRIGHT}: the same without any network, "
    "scaled to the brightest tenth of the image taken for a ring (see MedVAELib/evaluation/bright_extent.py).",
    "Dice: the found outline against the drawn one, both filled, on the image's pixels.",
)


def methods(scores: Sequence[PlaneScore]) -> list[str]:
    """The 3D prediction first, then what it is compared with."""
    known = dict.fromkeys(method for s in scores for method in s.predicted_mm)
    compared = (OUTLINE, MEAN_HEAD, BRIGHT)
    return [m for m in known if m not in compared] + [m for m in compared if m in known]


def plane_rows(scores: Sequence[PlaneScore]) -> list[dict[str, object]]:
    """One row per plane, worst 3D prediction first, failures before all."""
    names = methods(scores)
    rows = []
    for s in worst_first(scores):
        row: dict[str, object] = {"plane": s.name, "drawn_mm": s.circumference_mm}
        for method in names:
            row |= {f"{method} mm": s.predicted_mm.get(method, float("nan")), f"{method} error mm": s.error_mm(method)}
        rows.append(row | {"std_mm": s.std_mm, "outline_dice": s.outline_dice, "confidence": s.confidence,
                           "doubts": " ".join(s.doubts), "seconds": s.seconds, "failure": s.failure})
    return rows


def summary(scores: Sequence[PlaneScore]) -> dict[str, object]:
    """By method: mean absolute error in mm and in percent, mean error (each with its interval), standard deviation
    and median of the error; Dice of the outlines; shares within the 3D prediction's intervals, of all planes and of
    those that came without a warning."""
    table: dict[str, object] = {"planes": len(scores), "failed": sum(bool(s.failure) for s in scores)}
    for method in methods(scores):
        error, relative = _errors(scores, method)
        table[method] = {
            "planes": len(error), "mae_mm": list(mean_with_interval(np.abs(error))),
            "mae_percent": list(mean_with_interval(100 * np.abs(relative))),
            "mean_error_mm": list(mean_with_interval(error)), "sd_mm": float(error.std(ddof=1)) if len(error) > 1 else
            float("nan"), "median_mm": float(np.median(np.abs(error))) if len(error) else float("nan")}  # fmt: skip
    table["outline_dice"] = list(mean_with_interval(np.array([s.outline_dice for s in scores])))
    table["within"] = _within(scores)
    sure = [s for s in scores if not s.doubts and not s.failure]
    error, _ = _errors(sure, methods(scores)[0])
    table["without_warning"] = {"planes": len(sure), "mae_mm": list(mean_with_interval(np.abs(error))),
                                "within": _within(sure)}  # fmt: skip
    return table


def _within(scores: Sequence[PlaneScore]) -> dict[str, float]:
    """Shares of planes whose circumference lies within the 3D prediction's central intervals, by level."""
    chosen = [s for s in scores if math.isfinite(s.std_mm)]
    first = methods(scores)[0] if scores else ""
    shares = share_within(np.array([s.error_mm(first) for s in chosen]), np.array([s.std_mm for s in chosen]))
    return {f"{level:.0%}": share for level, share in zip(LEVELS, shares, strict=True)}


def hc18_markdown(scores: Sequence[PlaneScore], notes: Sequence[str], listed: int = 12) -> str:
    """The whole result as Markdown."""
    table = summary(scores)
    sure, rows = table["without_warning"], []
    for method in methods(scores):
        line = table[method]
        rows.append([method, str(line["planes"]), estimated(line["mae_mm"], 2), estimated(line["mae_percent"], 2),
                     estimated(line["mean_error_mm"], 2, signed=True), number(line["sd_mm"], 2),
                     number(line["median_mm"], 2)])
    parts = ["# Head circumference on real axial planes\n", *(f"{note}  " for note in notes), "",
             markdown_table(["method", "planes", "mean abs. error mm", "of the circumference, %", "mean error mm",
                             "SD of the error", "median abs. error"], rows),
             f"Dice of the found outline: {estimated(table['outline_dice'], 4)}. Within the 3D prediction's "
             f"intervals: {_listed(table['within'])}.\n",
             f"Of the planes, {sure['planes']} came without a warning: mean absolute error of the 3D prediction "
             f"{estimated(sure['mae_mm'], 2)} mm; within its intervals: {_listed(sure['within'])}.\n",
             "Published for 2D methods, on other test images: " + "; ".join(PUBLISHED) + ".\n",
             "## Worst first\n", _worst_table(scores, listed)]
    failed = [s for s in scores if s.failure]
    if failed:
        parts += ["## Failed\n", *(f"- {s.name}: {s.failure}" for s in failed), ""]
    return "\n".join([*parts, "## Definitions\n", *(f"- {line}" for line in DEFINITIONS), ""])


def _listed(within: dict[str, float]) -> str:
    return ", ".join(f"{level} {percent(share)}" for level, share in within.items())


def worst_first(scores: Sequence[PlaneScore]) -> list[PlaneScore]:
    """Failures, then by the 3D prediction's absolute error."""
    first = methods(scores)[0] if scores else ""
    return sorted(scores, key=lambda s: math.inf if s.failure else abs(s.error_mm(first)), reverse=True)


def _worst_table(scores: Sequence[PlaneScore], listed: int) -> str:
    names = methods(scores)
    rows = [[s.name, f"{s.circumference_mm:.1f}", *(number(s.error_mm(method), 1, signed=True) for method in names),
             number(s.std_mm, 1), number(s.outline_dice, 3), number(s.confidence, 2), "yes" if s.doubts else "no"]
            for s in worst_first(scores)[:listed]]
    return markdown_table(["plane", "drawn mm", *(f"error of {method}, mm" for method in names), "std mm",
                           "outline Dice", "confidence", "warned"], rows)  # fmt: skip


def _errors(scores: Sequence[PlaneScore], method: str) -> tuple[np.ndarray, np.ndarray]:
    """Errors in mm and as parts of the drawn circumference, of the planes that the method predicted."""
    pairs = [(s.error_mm(method), s.circumference_mm) for s in scores if math.isfinite(s.error_mm(method))]
    error, drawn = np.array(pairs, float).reshape(-1, 2).T
    return error, error / drawn
