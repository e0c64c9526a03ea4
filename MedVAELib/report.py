"""The report of a detection: one self-contained page, and one picture that stands alone.

Everything is drawn on the scan's own voxels, permuted and flipped to the radiological convention, with equal
millimetres per pixel in both directions. The page loads nothing from anywhere: styles are inline, pictures are data
URIs, and its content security policy forbids the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.colors import Colormap

from .anomaly.result import Detection
from .reporting import words
from .reporting.colours import DIVERGING, ScoreScale, jpeg_uri, map_legend, score_legend
from .reporting.display import AXIAL, CORONAL, OBLIQUE_FROM_DEG, Display
from .reporting.histogram import histogram_uri
from .reporting.page import NOTICE, render, timings
from .reporting.pictures import Painter, Spot, captioned, grid, montage, three_planes

PICTURED_FINDINGS = 6
SHEET_WIDTH_PX = 1380
MONTAGE_COLUMNS, MONTAGE_ROWS = 6, 4


@dataclass(frozen=True)
class Picture:
    """One picture of a finding with its caption."""

    rank: int
    title: str
    note: str
    alt: str
    uri: str


def write_report(result: Detection, directory: Path) -> None:
    """Writes `report.html` and `overlay.png` into `directory`. Raises OSError when they cannot be written."""
    display = Display(result)
    # The whole brain's scores are needed once only: for the scale, the histogram and the shares.
    # Share and reference are of the bright side, where the dark one has a score of its own.
    bright = display.anomaly if result.dark_threshold is None else np.where(display.dark, 0, display.anomaly)
    scores = np.asarray(display.in_brain(bright), dtype=np.float32)
    painter = Painter(display, ScoreScale.of(display.anomaly[display.mask], result.threshold, result.unit))
    limits = {"bright": result.threshold, "dark": result.dark_threshold or result.threshold}
    legends = [score_legend(painter.scale, polarity, limits[polarity]) for polarity in painter.polarities()]
    pictures = _pictures(result, painter)

    overlay = captioned(three_planes(painter, _spots(result, painter)[0], width_px=SHEET_WIDTH_PX, with_scan=False),
                        f"{result.scan.name} – {pictures[0].title}", f"{pictures[0].note}  {NOTICE}", legends)
    page = render("report.html.j2", pictures=pictures, score_legends=legends, **_words(result, painter, scores),
                  **_charts(result, painter, scores))

    overlay.save(directory / "overlay.png", compress_level=4)
    (directory / "report.html").write_text(page, encoding="utf-8")


def _spots(result: Detection, painter: Painter) -> list[Spot]:
    """Where to cut: the peaks of the first findings, or the middle of the brain."""
    spots = [Spot(painter.display.index(finding.peak_ras_mm), finding.label)
             for finding in result.findings[:PICTURED_FINDINGS]]
    return spots or [Spot(painter.display.centre())]


def _pictures(result: Detection, painter: Painter) -> list[Picture]:
    pictures = []
    for rank, spot in enumerate(_spots(result, painter), start=1):
        sheet = three_planes(painter, spot, width_px=SHEET_WIDTH_PX, with_scan=True)
        if result.findings:
            finding = result.findings[rank - 1]
            title = f"Finding {rank}: {finding.polarity}, {finding.location}"
            note = (f"{words.millilitres(finding.volume_ml)} ml, peak score {finding.peak:.1f} "
                    f"at {words.position(finding.peak_ras_mm)}.")
            alt = f"{title}: axial, coronal and sagittal planes through the peak, the scan alone and with the score."
        else:
            title, note = "No finding", "Planes through the middle of the brain."
            alt = "Axial, coronal and sagittal planes through the middle of the brain."
        pictures.append(Picture(rank, title, note, alt, jpeg_uri(sheet)))
    return pictures


def _charts(result: Detection, painter: Painter, scores: np.ndarray) -> dict[str, object]:
    """Montage, the four maps side by side, and the histogram, as template variables."""
    sheet = montage(painter, result.findings[:words.TABLE_ROWS], width_px=SHEET_WIDTH_PX, columns=MONTAGE_COLUMNS,
                    rows=MONTAGE_ROWS)
    return {"montage": jpeg_uri(sheet), "maps": _maps(result, painter),
            "histogram": histogram_uri(scores, result.reference_histogram, result.threshold, result.unit)}


def _maps(result: Detection, painter: Painter) -> list[dict[str, object]]:
    """Scan, reconstruction, residual and standard deviation through the first finding, axial above coronal."""
    display = painter.display
    spot = _spots(result, painter)[0]
    px_per_mm = 420 / display.size_mm(AXIAL)[0]
    low, high = display.window

    def top(volume: np.ndarray, percentile: float) -> float:
        values = display.in_brain(volume, at_most=400_000)
        return max(float(np.percentile(np.abs(values), percentile)) if values.size else 0.0, 1e-6 * (high - low))

    def entry(title: str, note: str, volume: np.ndarray, colormap: Colormap, least: float, most: float,
              grey: bool) -> dict[str, object]:
        panels = []
        for plane in (AXIAL, CORONAL):
            index = spot.index[plane.cut]
            panel = (painter.grey_panel(volume, plane, index, px_per_mm) if grey else
                     painter.map_panel(volume, colormap, least, most, plane, index, px_per_mm))
            panels.append([painter.mark(panel, plane, spot.index, px_per_mm, size=25, with_scale=False)])
        return {"title": title, "note": note, "uri": jpeg_uri(grid(panels)),
                "legend": map_legend("scan units", colormap, least, most)}

    grey, spread = matplotlib.colormaps["gray"], matplotlib.colormaps["viridis"]
    swing, widest = top(display.residual, 99.8), top(display.std, 99.5)
    return [
        entry("Scan", "as it came", display.scan, grey, low, high, True),
        entry("Reconstruction", "same grey window", display.reconstruction, grey, low, high, True),
        entry("Residual", "scan − reconstruction", display.residual, DIVERGING, -swing, swing, False),
        entry("Standard deviation", "over posterior samples", display.std, spread, 0.0, widest, False),
    ]


def _words(result: Detection, painter: Painter, scores: np.ndarray) -> dict[str, object]:
    """Every text and number of the page, as template variables."""
    axes, scan = painter.display.axes, result.scan
    voxel_ml = float(np.prod(axes.spacing_zyx_mm)) / 1000.0
    brain_ml = int(painter.display.brain.sum()) * voxel_ml
    above = float((scores > result.threshold).mean()) if scores.size else 0.0
    found_ml = sum(finding.volume_ml for finding in result.findings)
    largest = max((finding.volume_ml for finding in result.findings), default=0.0)
    facts = [("findings", str(len(result.findings)))]
    if result.findings:
        facts.append(("found in all", f"{words.millilitres(found_ml)} ml"))
    for polarity in ("bright", "dark"):
        volume = sum(finding.volume_ml for finding in result.findings if finding.polarity == polarity)
        if 0 < volume < found_ml:
            facts.append((polarity, f"{words.millilitres(volume)} ml"))
    if len(result.findings) > 1:
        facts.append(("largest", f"{words.millilitres(largest)} ml"))
    facts += [("brain", f"{brain_ml:.0f} ml" if painter.display.has_brain else "not found"),
              (f"of the brain above threshold ({words.percent(result.fpr)} expected if healthy)", words.percent(above))]
    size, spacing = scan.image.GetSize(), scan.image.GetSpacing()
    acquisition = {"acquisition": scan.tags} if scan.tags else {}
    geometry = (" × ".join(str(count) for count in size) + " voxels of "
                + " × ".join(f"{step:.2f}" for step in spacing) + " mm")
    return {
        "name": str(scan.name), "modality": words.MODALITIES.get(result.modality, result.modality),
        "geometry": geometry,
        "tilt": f"{axes.tilt_deg:.0f}°" if axes.tilt_deg >= OBLIQUE_FROM_DEG else "",
        "summary": words.summary(result.findings, words.flagged_ml(result)), "facts": facts,
        "warnings": result.warnings,
        "rows": words.table(result.findings, axes, PICTURED_FINDINGS), "total_rows": len(result.findings),
        "reading": words.reading(result), "unit": result.unit, "threshold": f"{result.threshold:.3g}",
        "provenance": words.flatten({**result.provenance, **acquisition}), "timings": timings(result.provenance),
    }
