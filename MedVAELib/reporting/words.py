"""The report's words and numbers: the summary sentence, the findings table, how to read the score."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np
import SimpleITK as sitk

from ..anomaly.result import Detection, Finding
from .display import DisplayAxes

MODALITIES = {"flair": "FLAIR", "dwi": "DWI", "other": "neither FLAIR nor DWI"}
TABLE_ROWS = 20
TIMINGS = "timings_s"
"""Where a provenance has the seconds of its stages."""


@dataclass(frozen=True)
class Row:
    """One row of the findings table, as text."""

    rank: int
    pictured: bool
    polarity: str
    location: str
    volume_ml: str
    peak: str
    mean: str
    centroid_ras_mm: str
    extent_mm: str


def millilitres(volume_ml: float) -> str:
    """A volume with as many digits as mean something: 123, 12.3, 1.23, 0.042."""
    for least, digits in ((100, 0), (10, 1), (0.1, 2)):
        if volume_ml >= least:
            return f"{volume_ml:.{digits}f}"
    return f"{volume_ml:.3f}" if volume_ml > 0 else "0"


def percent(share: float) -> str:
    """A share in [0, 1] as percent, e.g. "1 %", "0.35 %"."""
    value = 100 * share
    if 0 < value < 0.01:
        return "< 0.01 %"
    text = f"{value:.0f}" if value >= 10 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text) + " %"


def position(ras_mm: tuple[float, float, float]) -> str:
    """A position in the scan's RAS coordinates, e.g. "R -23, A 12, S 40 mm".

    Signs, not letters: many files have their origin in a corner, where "L 23" would not mean the left side.
    """
    return ", ".join(f"{axis} {at:.0f}" for axis, at in zip("RAS", ras_mm, strict=True)) + " mm"


def summary(findings: list[Finding], flagged_ml: float = 0.0) -> str:
    """What was found, in one or two plain sentences. flagged_ml: all that is above the threshold."""
    if not findings and flagged_ml > 0:
        return (f"No finding: {millilitres(flagged_ml)} ml are above the threshold, in pieces too small or too faint "
                "to be one.")
    if not findings:
        return "Nothing above threshold: no finding in this scan."
    largest = max(findings, key=lambda finding: finding.volume_ml)
    if len(findings) == 1:
        return f"One {largest.polarity} finding of {millilitres(largest.volume_ml)} ml in the {largest.location}."
    counts = [(sum(f.polarity == polarity for f in findings), polarity) for polarity in ("bright", "dark")]
    kinds = " and ".join(f"{count} {polarity}" for count, polarity in counts if count)
    total = millilitres(sum(finding.volume_ml for finding in findings))
    text = (f"{kinds} findings, {total} ml in all; the largest, {millilitres(largest.volume_ml)} ml, "
            f"lies in the {largest.location}")
    first = findings[0]
    if first is largest:
        return f"{text} and is ranked first."
    return (f"{text} (no. {findings.index(largest) + 1}); ranked first is one of {millilitres(first.volume_ml)} ml "
            f"in the {first.location}.")


def flagged_ml(result: Detection) -> float:
    """All that is above the threshold."""
    voxels = int(np.count_nonzero(sitk.GetArrayViewFromImage(result.mask)))
    return voxels * float(np.prod(result.mask.GetSpacing())) / 1000


def table(findings: list[Finding], axes: DisplayAxes, pictured: int) -> list[Row]:
    """The findings as text, surest first as they come, at most TABLE_ROWS of them."""
    rows = []
    for rank, finding in enumerate(findings[:TABLE_ROWS], start=1):
        rows.append(Row(
            rank, rank <= pictured, finding.polarity, finding.location, millilitres(finding.volume_ml),
            f"{finding.peak:.2f}", f"{finding.mean:.2f}",
            ", ".join(f"{at:.1f}" for at in finding.centroid_ras_mm),
            " × ".join(f"{extent:.0f}" for extent in axes.extent_mm(finding.bbox_size_ijk))))
    return rows


def reading(result: Detection) -> list[str]:
    """How to read the score, one paragraph each."""
    reference = percent(result.fpr)
    dark = result.dark_threshold is not None and any(finding.polarity == "dark" for finding in result.findings)
    paragraphs = [
        f"The anomaly score ({result.unit}) says for each voxel how far the scan lies from what a healthy brain of the "
        "same anatomy would look like in this very scan, measured against the spread expected there. It is 0 outside "
        "the brain; higher is more anomalous. It is no probability of disease. Scores above 5, one voxel in 100,000, "
        "are extrapolated: they rank, but so few healthy voxels were never counted.",
        f"The threshold, {result.threshold:.3g}, is the score that {reference} of the voxels of healthy brains exceed. "
        f"So about {reference} of a healthy brain is expected in colour; much more than that is worth a look.",
        "Bright findings are brighter than the healthy reconstruction, dark ones darker. Colour shows every voxel "
        "above the threshold; an outline shows what was kept as a finding and appears in the table."
        + (f" Dark findings need a score of {result.dark_threshold:.3g}, less than 0.4 of white matter's "
           "brightness, and a place where a healthy brain has no fluid." if dark else ""),
        "Peak and mean are scores inside the finding; positions are millimetres towards the patient's right, anterior "
        "and superior (RAS) in the scanner's coordinates; extent is right–left × anterior–posterior × "
        "superior–inferior.",
    ]
    if result.modality == "dwi":
        paragraphs.append("Bright on a diffusion scan is not yet restricted diffusion: T2 shine-through is bright, "
                          "too, so look at the ADC map. Bands over the petrous bones and the sinuses, from the field "
                          "there, often rank among the first.")
    else:
        paragraphs.append("What affects most of a tissue, such as disease of all white matter, can pass for the scan's "
                          "own brightness: then little is flagged, and volumes are too small.")
    return paragraphs


def flatten(record: Mapping[str, object]) -> list[tuple[str, str]]:
    """Nested provenance as (name, text) rows; timings are left out, they have a picture of their own."""
    rows: list[tuple[str, str]] = []
    for key, value in record.items():
        if key == TIMINGS:
            continue
        name = str(key).replace("_", " ")
        if isinstance(value, Mapping):
            inner = flatten(value)
            short = all(len(text) <= 24 for _, text in inner)
            if short:
                rows.append((name, ", ".join(f"{inner_name} {text}" for inner_name, text in inner)))
            else:
                rows += [(f"{name}: {inner_name}", text) for inner_name, text in inner]
        else:
            rows.append((name, _plain(value)))
    return rows


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Real) and not isinstance(value, Integral):
        return f"{float(value):.6g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(_plain(item) for item in value)
    return "–" if value is None else str(value)
