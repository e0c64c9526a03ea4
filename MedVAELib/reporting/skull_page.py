"""The report of a skull prediction: one self-contained page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import SimpleITK as sitk

from ..growth_charts import FIRST_WEEK, LAST_WEEK, ordinal
from ..skull.biometry import TITLES
from ..skull.result import Measure, SkullPrediction, where_drawn
from ..standard_planes import PLANES
from . import words
from .colours import jpeg_uri, map_legend
from .page import render, timings
from .skull_pictures import PROBABILITY, STD, plane_picture, sections, views

_HIGHEST_STD = 0.5  # of what lies between 0 and 1


@dataclass(frozen=True)
class Row:
    """A line of the biometry table, as text."""

    name: str
    title: str
    value: str
    std: str
    interval: str
    percentile: str


def write_skull_report(result: SkullPrediction, directory: Path) -> None:
    """Writes `report.html` into `directory`. Raises OSError when it cannot be written."""
    surface, surface_legend = views(result)
    probability, std = (sitk.GetArrayViewFromImage(image) for image in (result.probability, result.std))
    page = render(
        "skull_report.html.j2", name=_heading(result), summary=_summary(result), facts=_facts(result),
        warnings=list(dict.fromkeys(result.warnings)),
        planes=_planes(result), missing=result.planes_missing, surface=jpeg_uri(surface),
        surface_legend=surface_legend, rows=[_row(measure) for measure in result.measures],
        ga_weeks=result.ga_weeks, samples=result.samples,
        maps=[
            {"title": "Probability", "uri": jpeg_uri(sections(result, probability, PROBABILITY, 1.0)),
             "note": "of lying inside the skull's outer table",
             "legend": map_legend("probability", PROBABILITY, 0.0, 1.0)},
            {"title": "Standard deviation", "uri": jpeg_uri(sections(result, std, STD, _HIGHEST_STD)),
             "note": "over samples of the model, of how much of each voxel lies inside",
             "legend": map_legend("standard deviation of the share inside", STD, 0.0, _HIGHEST_STD)},
        ],
        reading=_reading(result), provenance=words.flatten(result.provenance),
        timings=timings(result.provenance),
    )
    (directory / "report.html").write_text(page, encoding="utf-8")


def _heading(result: SkullPrediction) -> str:
    """The case's name, as files of several cases may be called alike, else the files'."""
    if "case" in result.provenance:
        return str(result.provenance["case"])
    names = [name for name in dict.fromkeys(found.image.name for found in result.planes) if name not in PLANES]
    return ", ".join(names) or "Fetal skull"


def _summary(result: SkullPrediction) -> str:
    hc, bpd = result.measure("HC"), result.measure("BPD")
    used = _listed(result.planes_used) if result.planes else "outlines"
    return (f"Skull predicted from the {used} plane{'s' if len(result.planes_used) != 1 else ''}: head circumference "
            f"{hc.value:.0f} ± {hc.std:.1f} mm, biparietal diameter {bpd.value:.1f} ± {bpd.std:.1f} mm.")


def _facts(result: SkullPrediction) -> list[tuple[str, str]]:
    shown = [(measure.name, f"{measure.value:.0f} {measure.unit}" if measure.value >= 100 else
              f"{measure.value:.1f} {measure.unit}") for measure in result.measures]
    age = [("weeks, as given", f"{result.ga_weeks:g}")] if result.ga_weeks is not None else []
    return [*shown, *age, ("planes used", f"{len(result.planes)} of 3")]


def _planes(result: SkullPrediction) -> list[dict[str, str]]:
    shown = []
    for found in result.planes:
        major, minor = (2 * mm for mm in found.semi_axes_mm)
        shown.append({
            "title": found.plane.capitalize(), "uri": jpeg_uri(plane_picture(found)),
            "note": f"{found.image.name}; pixel {found.image.pixel_mm:.3g} mm ({found.image.spacing_source}); outline "
                    f"{major:.0f} × {minor:.0f} mm; confidence {found.confidence:.2f}",
        })
    return shown


def _row(measure: Measure) -> Row:
    low, high = measure.interval
    percentile = "–" if measure.percentile is None else ordinal(measure.percentile)
    return Row(measure.name, TITLES[measure.name], f"{measure.value:.1f} {measure.unit}", f"{measure.std:.1f}",
               f"{low:.1f} to {high:.1f}", percentile)


def _reading(result: SkullPrediction) -> list[str]:
    paragraphs = [
        "The model has learned what fetal heads look like from simulated heads and draws many that fit the outlines "
        f"found on the planes, here {result.samples}. The mean of them is shown; their standard deviation says where "
        "the planes leave the shape open. It covers the shape given the outlines, not a wrong outline, a wrong pixel "
        "size or a plane that is not the standard one.",
        "The planes are not registered to each other or to the uterus, so the skull has a frame of its own: x to the "
        "right, y to the front, z to the top of the head, in mm about its centre. Left and right cannot be told from "
        "the planes, so an asymmetry may be mirrored.",
        "BPD, OFD and HC are the axes and the circumference of the outline's ellipse, outer to outer, in the axial "
        "plane through the centre, as in the INTERGROWTH-21st charts"
        f"{where_drawn(result.provenance['drawn_outside_mm'])}. The interval is mean ± 1.96 standard deviations, "
        "which are those of the samples times a calibrated factor, and never less than the error of outlines on real "
        "planes.",
    ]
    paragraphs += result.notes
    if result.ga_weeks is not None:
        paragraphs.append("The percentile says how many of a hundred healthy fetuses of the given age measure less "
                          f"(INTERGROWTH-21st, {FIRST_WEEK:g} to {LAST_WEEK:g} weeks).")
    return paragraphs


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
