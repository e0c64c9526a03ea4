"""Fetal head biometry from signed distances: diameters, circumference and volume, each with its spread.

Conventions are those of the INTERGROWTH-21st charts (Papageorghiou et al. 2014): in the axial plane through the
head's centre, from outer to outer table; the circumference is that of the ellipse of the outline. Where the outlines
were found on images, the measures lie as far outside of the surface as sonographers draw (`drawn_outside`).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..growth_charts import BPD, HC, OFD, GrowthChart
from ..preprocessing.outlines import moment_ellipse
from .result import Measure

UNITS = {"BPD": "mm", "OFD": "mm", "HC": "mm", "cephalic index": "%", "volume": "ml"}
TITLES = {
    "BPD": "biparietal diameter", "OFD": "occipitofrontal diameter", "HC": "head circumference",
    "cephalic index": "cephalic index (BPD / OFD)", "volume": "volume inside the outer table",
}  # fmt: skip
_CHARTS: dict[str, GrowthChart] = {"BPD": BPD, "OFD": OFD, "HC": HC}
_INTERVAL_SDS = 1.96  # of 95 % of a normal distribution: percentiles of few samples would be too narrow


def measure_heads(sdf: Tensor, voxel_mm: float) -> dict[str, Tensor]:
    """The measures named in `UNITS`, each (B,), of heads in their own frame.

    sdf: (B, D, H, W), zyx, signed distance in voxels of this grid, > 0 inside, the head's centre in its middle.
    """
    middle = (sdf.shape[1] - 1) / 2
    below, above = math.floor(middle), math.ceil(middle)
    section = (sdf[:, below].float() + sdf[:, above].float()) / 2
    bpd, ofd = (_extent(section, axis) * voxel_mm for axis in (2, 1))
    a, b = (moment_ellipse((section + 0.5).clamp(0, 1)).semi_axes * voxel_mm).unbind(1)
    voxels = (sdf + 0.5).clamp(0, 1).sum((1, 2, 3))
    return {
        "BPD": bpd, "OFD": ofd, "HC": ellipse_circumference(a, b),
        "cephalic index": 100 * bpd / ofd.clamp(min=1e-6), "volume": voxels * voxel_mm**3 / 1000,
    }  # fmt: skip


def drawn_outside(values: dict[str, Tensor], outside_mm: float) -> dict[str, Tensor]:
    """Measures (B,) as callipers give them that are placed `outside_mm` outside of the heads' outlines; the volume
    stays that of the heads."""
    bpd, ofd = (values[name] + 2 * outside_mm for name in ("BPD", "OFD"))
    return values | {"BPD": bpd, "OFD": ofd, "HC": values["HC"] + 2 * math.pi * outside_mm,
                     "cephalic index": 100 * bpd / ofd.clamp(min=1e-6)}  # fmt: skip


def summarise(values: dict[str, Tensor], ga_weeks: float | None = None) -> list[Measure]:
    """Mean, standard deviation and 95 % interval over samples, and the percentile of the mean at that age."""
    measures = []
    for name, unit in UNITS.items():
        samples = values[name].double()
        mean = float(samples.mean())
        std = float(samples.std(correction=0))  # as `HeadMoments` has it
        chart = _CHARTS.get(name)
        percentile = chart.percentile(mean, ga_weeks) if chart and ga_weeks is not None else None
        interval = (mean - _INTERVAL_SDS * std, mean + _INTERVAL_SDS * std)
        measures.append(Measure(name, mean, std, interval, unit, percentile))
    return measures


def ellipse_circumference(a: Tensor, b: Tensor) -> Tensor:
    """Of ellipses with these semi-axes (Ramanujan 1914, second approximation; exact to 1e-9 for heads)."""
    h = ((a - b) / (a + b).clamp(min=1e-12)).square()
    return math.pi * (a + b) * (1 + 3 * h / (10 + (4 - 3 * h).sqrt()))


def _extent(section: Tensor, axis: int) -> Tensor:
    """Full extent (B,) along an axis of what lies inside, to a fraction of a pixel, in pixels.

    Within half a pixel of the border the signed distance says how far a pixel's neighbourhood still reaches.
    """
    place = torch.arange(section.shape[axis], device=section.device, dtype=torch.float32)
    place = place.view([-1 if i == axis else 1 for i in range(3)])
    inside = section >= 0
    reach = section.clamp(max=1.0)
    nothing = torch.tensor(float("nan"), device=section.device)
    most = torch.where(inside, place + reach, -torch.inf).amax((1, 2))
    least = torch.where(inside, place - reach, torch.inf).amin((1, 2))
    return torch.where(inside.any(2).any(1), most - least, nothing).nan_to_num(0.0)
