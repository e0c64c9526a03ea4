"""Colours of the report's pictures and the legends that say what they mean.

The overlay is transparent below the threshold and ramps in above it, so that nothing looks like a heat map of the
background; bright findings run purple to yellow, dark ones blue to light cyan, both even in lightness.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.ticker import MaxNLocator
from PIL import Image

MAX_OPACITY = 0.62
RAMP = 0.25  # share of the range above the threshold over which the overlay becomes opaque
BEHIND = (112, 116, 122)  # grey shown behind transparent parts of a legend
OUTLINE = (255, 255, 255)  # of findings, of either colour
FOUND = (64, 220, 255)  # the outline of a head in a grey plane

DIVERGING = LinearSegmentedColormap.from_list(
    "residual", ["#b9e3ff", "#3f93e0", "#17406e", "#121417", "#7a2418", "#e8653c", "#ffdcb0"])


UNCERTAINTY = LinearSegmentedColormap.from_list(
    "uncertainty", ["#f3ead6", "#f2cf8f", "#ee9a4d", "#d5543f", "#8e2157", "#43134a"])
"""From the colour of bone, where all is sure."""


COLD = LinearSegmentedColormap.from_list("cold", ["#1c2fb5", "#1a78e6", "#22c3ee", "#9af0ff"])


def _table(colormap: Colormap, start: float, stop: float) -> np.ndarray:
    return (colormap(np.linspace(start, stop, 256))[:, :3] * 255).astype(np.float32)


SCORE_TABLES = {"bright": _table(matplotlib.colormaps["inferno"], 0.38, 0.97), "dark": _table(COLD, 0.0, 1.0)}


@dataclass(frozen=True)
class ScoreScale:
    """Colours of the anomaly score: nothing up to `threshold`, full colour at `top`."""

    threshold: float
    top: float
    unit: str

    @classmethod
    def of(cls, scores_in_mask: np.ndarray, threshold: float, unit: str) -> ScoreScale:
        """A scale that ends at the findings' own upper scores, at 1.5 thresholds at least."""
        top = float(np.percentile(scores_in_mask, 99.0)) if scores_in_mask.size else 0.0
        least = threshold + max(abs(threshold) * 0.5, 1e-6)
        return cls(threshold, top if np.isfinite(top) and top > least else least, unit)

    def opacity(self, score: np.ndarray) -> np.ndarray:
        """Opacity in [0, MAX_OPACITY] of each score."""
        ramp = (score - self.threshold) / (RAMP * (self.top - self.threshold))
        return MAX_OPACITY * np.clip(ramp, 0.0, 1.0)

    def colour(self, score: np.ndarray, polarity: str) -> np.ndarray:
        """RGB (…, 3) float32 in [0, 255] of each score."""
        place = np.clip((score - self.threshold) * (255 / (self.top - self.threshold)), 0, 255)
        return SCORE_TABLES[polarity][place.astype(np.uint8)]


@dataclass(frozen=True)
class Legend:
    """One colour bar: a 1-pixel-high strip, tick positions in percent with labels, and the marked threshold."""

    title: str
    strip: np.ndarray  # (1, 256, 3) uint8
    ticks: list[tuple[float, str]]
    mark: tuple[float, str] | None = None

    @property
    def uri(self) -> str:
        """The strip as a data URI."""
        return png_uri(Image.fromarray(self.strip))


def score_legend(scale: ScoreScale, polarity: str, threshold: float) -> Legend:
    """From zero (or the threshold, if that is lower) to the top of the scale, over the grey of a scan."""
    start = min(0.0, scale.threshold)
    score = np.linspace(start, scale.top, 256)
    opacity = scale.opacity(score)[:, None]
    # The bar shows the colour as it appears on the scan, only less pale: twice the opacity, never more than all.
    opacity = np.clip(opacity / MAX_OPACITY, 0.0, 1.0)
    strip = (1 - opacity) * np.array(BEHIND) + opacity * scale.colour(score, polarity)
    mark_at = 100 * min((threshold - start) / (scale.top - start), 1)
    ticks = [(at, label) for at, label in _ticks(start, scale.top) if at < 88] + [(100.0, f"≥ {number(scale.top)}")]
    return Legend(f"{polarity}: {scale.unit}", strip.astype(np.uint8)[None], ticks,
                  (mark_at, f"threshold {number(threshold)}"))


def map_legend(title: str, colormap: Colormap, low: float, high: float) -> Legend:
    """A legend for a plain colour map from `low` to `high`."""
    strip = (colormap(np.linspace(0, 1, 256))[:, :3] * 255).astype(np.uint8)[None]
    return Legend(title, strip, _ticks(low, high))


def number(value: float) -> str:
    """Three significant digits without exponents where that stays short."""
    if value == 0 or not np.isfinite(value):
        return "0" if value == 0 else "–"
    if 1e-3 <= abs(value) < 1e7:
        digits = max(0, 2 - int(np.floor(np.log10(abs(value)))))
        text = f"{value:.{digits}f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    return f"{value:.2g}"


def _ticks(low: float, high: float) -> list[tuple[float, str]]:
    values = MaxNLocator(nbins=4, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    inside = [value for value in values if low <= value <= high]
    return [(100 * (value - low) / (high - low), number(value)) for value in inside]


def png_uri(picture: Image.Image) -> str:
    """A picture as a PNG data URI."""
    return _uri(picture, "png", optimize=True)


def jpeg_uri(picture: Image.Image) -> str:
    """A picture as a JPEG data URI, colour at full resolution because outlines are one or two pixels wide."""
    return _uri(picture, "jpeg", quality=86, subsampling=0)


def _uri(picture: Image.Image, form: str, **options: object) -> str:
    data = io.BytesIO()
    picture.save(data, form, **options)
    return f"data:image/{form};base64,{base64.b64encode(data.getvalue()).decode()}"
