"""Fetal head biometry from signed distances: diameters, circumference and volume, each with its spread.

Conventions are those of the INTERGROWTH-21st charts (Papageorghiou et al. 2014): in the axial plane through the
head's centre, from outer to outer table. BPD, OFD and circumference are the axes and the circumference of one ellipse,
that with the outline's second moments, as where an ellipse is drawn around the head. Where the outlines were found on
images, the measures lie as far outside of the surface as sonographers draw (`drawn_outside`), and are never said to be
better known than outlines are found on real planes (`Drawn`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from torch import Tensor

from ..growth_charts import BPD, FIRST_WEEK, HC, LAST_WEEK, OFD, GrowthChart
from ..preprocessing.outlines import moment_ellipse
from .result import Measure

UNITS = {"BPD": "mm", "OFD": "mm", "HC": "mm", "cephalic index": "%", "volume": "ml"}
TITLES = {
    "BPD": "biparietal diameter", "OFD": "occipitofrontal diameter", "HC": "head circumference",
    "cephalic index": "cephalic index (BPD / OFD)", "volume": "volume inside the outer table",
}
COARSE = 2
"""Voxels of the 96³ grid, in which models count distances, along an edge of a voxel of their samples of 48³."""
_CHARTS: dict[str, GrowthChart] = {"BPD": BPD, "OFD": OFD, "HC": HC}
_INTERVAL_SDS = 1.96  # of 95 % of a normal distribution: percentiles of few samples would be too narrow


@dataclass(frozen=True)
class Drawn:
    """How sonographers draw on real planes, against the outlines that are found there, mm. outside: how far outside of
    them; bpd_error, ofd_error: the usual error of the ellipse's axes then (1.4826 times the median absolute one)."""

    outside: float = 0.0
    bpd_error: float = 0.0
    ofd_error: float = 0.0

    def least_std(self, mean: Mapping[str, float]) -> dict[str, float]:
        """Of measures of these means, what their standard deviations are at least."""
        bpd, ofd = mean["BPD"], mean["OFD"]
        return {
            "BPD": self.bpd_error, "OFD": self.ofd_error,
            "HC": math.pi / 2 * math.hypot(self.bpd_error, self.ofd_error),  # as of a circle: HC = π (BPD + OFD) / 2
            "cephalic index": mean["cephalic index"] * math.hypot(self.bpd_error / bpd, self.ofd_error / ofd),
        } if bpd > 0 and ofd > 0 else {}


AS_FOUND = Drawn()
"""Of outlines that nobody draws, as those of simulated planes."""


def measure_heads(sdf: Tensor, voxel_mm: float) -> dict[str, Tensor]:
    """The measures named in `UNITS`, each (B,), of heads in their own frame.

    sdf: (B, D, H, W), zyx, signed distance in voxels of this grid, > 0 inside, the head's centre in its middle.
    """
    middle = (sdf.shape[1] - 1) / 2
    below, above = math.floor(middle), math.ceil(middle)
    section = (sdf[:, below].float() + sdf[:, above].float()) / 2
    a, b = (moment_ellipse((section + 0.5).clamp(0, 1)).semi_axes * voxel_mm).unbind(1)
    voxels = (sdf + 0.5).clamp(0, 1).sum((1, 2, 3))
    return {
        "BPD": 2 * b, "OFD": 2 * a, "HC": ellipse_circumference(a, b),
        "cephalic index": 100 * b / a.clamp(min=1e-6), "volume": voxels * voxel_mm**3 / 1000,
    }


def drawn_outside(values: dict[str, Tensor], outside_mm: float) -> dict[str, Tensor]:
    """Measures (B,) as callipers give them that are placed `outside_mm` outside of the heads' outlines; the volume
    stays that of the heads."""
    bpd, ofd = (values[name] + 2 * outside_mm for name in ("BPD", "OFD"))
    return values | {"BPD": bpd, "OFD": ofd, "HC": values["HC"] + 2 * math.pi * outside_mm,
                     "cephalic index": 100 * bpd / ofd.clamp(min=1e-6)}


def summarise(
    values: dict[str, Tensor], ga_weeks: float | None = None, widening: Mapping[str, float] = MappingProxyType({}),
    drawn: Drawn = AS_FOUND,
) -> list[Measure]:
    """Mean over samples (B,), its calibrated standard deviation and 95 % interval, and the percentile of the mean at
    that age, where the charts cover it. widening: factors on the standard deviations, by name; drawn: where the
    outlines were found on images, for where the measures lie and the least that their standard deviations can be."""
    values = drawn_outside(values, drawn.outside)
    means = {name: float(values[name].double().mean()) for name in UNITS}
    least = drawn.least_std(means)
    measures, charted = [], ga_weeks is not None and FIRST_WEEK <= ga_weeks <= LAST_WEEK
    for name, unit in UNITS.items():
        mean = means[name]
        std = float(values[name].double().std(correction=0))  # as `HeadMoments` has it
        std = max(widening.get(name, 1.0) * std, least.get(name, 0.0))
        chart = _CHARTS.get(name)
        percentile = chart.percentile(mean, ga_weeks) if chart and charted else None
        interval = (mean - _INTERVAL_SDS * std, mean + _INTERVAL_SDS * std)
        measures.append(Measure(name, mean, std, interval, unit, percentile))
    return measures


def ellipse_circumference(a: Tensor, b: Tensor) -> Tensor:
    """Of ellipses with these semi-axes (Ramanujan 1914, second approximation; exact to 1e-9 for heads)."""
    h = ((a - b) / (a + b).clamp(min=1e-12)).square()
    return math.pi * (a + b) * (1 + 3 * h / (10 + (4 - 3 * h).sqrt()))
