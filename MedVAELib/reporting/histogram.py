"""The scores of one brain against the healthy reference, as a vector picture."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence

import numpy as np

BINS = 90
SCAN_COLOUR, REFERENCE_COLOUR, THRESHOLD_COLOUR = "#2f6f8f", "#59636e", "#b3261e"


def histogram_uri(scores: np.ndarray, reference: Mapping[str, Sequence[float]], threshold: float, unit: str) -> str:
    """SVG data URI: density of the scores (1D, inside the brain) with the reference's, log y, threshold line."""
    import matplotlib
    from matplotlib.figure import Figure

    edges, density = _reference(reference)
    low = min([float(scores.min(initial=0.0)), threshold, *edges[:1]])
    high = max([float(scores.max(initial=0.0)), threshold * 1.2, *edges[-1:]])
    if high <= low:
        high = low + 1.0
    counts, bins = np.histogram(scores, bins=BINS, range=(low, high))
    own = counts / max(1, counts.sum()) / np.diff(bins)
    floor = min([float(d[d > 0].min()) for d in (own, density) if (d > 0).any()], default=1e-3) / 2

    figure = Figure(figsize=(10.6, 3.3))  # margins by hand: a layout engine draws everything twice to find them
    axes = figure.subplots(gridspec_kw={"left": 0.08, "right": 0.99, "bottom": 0.15, "top": 0.97})
    axes.stairs(np.maximum(own, floor), bins, baseline=floor, fill=True, color=SCAN_COLOUR, alpha=0.35)
    axes.stairs(np.maximum(own, floor), bins, baseline=floor, color=SCAN_COLOUR, lw=1.2, label="this scan's brain")
    if density.size:
        axes.stairs(np.maximum(density, floor), edges, baseline=floor, color=REFERENCE_COLOUR, lw=1.4,
                    label="healthy reference")
    axes.axvline(threshold, color=THRESHOLD_COLOUR, lw=1.4, ls="--", label=f"threshold {threshold:.3g}")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.minorticks_off()  # they would take as long to draw as everything else
    axes.set_ylim(floor, None)
    axes.set_xlim(low, high)
    axes.set_xlabel(_verbatim(f"anomaly score ({unit})"))
    axes.set_ylabel("share of voxels per unit")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e4e8ec", lw=0.7)
    axes.set_axisbelow(True)
    axes.legend(frameon=False, loc="upper right", fontsize=9)
    data = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "report"}):
        figure.savefig(data, format="svg", metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(data.getvalue()).decode()}"


def _verbatim(text: str) -> str:
    """Text that matplotlib must not read as mathematics."""
    return text.replace("$", r"\$")


def _reference(reference: Mapping[str, Sequence[float]]) -> tuple[np.ndarray, np.ndarray]:
    """Edges and density of the healthy histogram; empty if there is none or it does not fit together."""
    edges = np.asarray(reference.get("edges", ()), dtype=float)
    density = np.nan_to_num(np.asarray(reference.get("density", ()), dtype=float))
    if density.size == 0 or edges.size != density.size + 1 or not np.isfinite(edges).all():
        return np.empty(0), np.empty(0)
    return edges, density
