"""How the settings of a scanner change a picture: brightness of grey matter and lesions, and noise.

Spin echo: S = PD (1 - exp(-TR/T1)) exp(-TE/T2); with an inversion that nulls CSF (FLAIR):
S = PD (1 - 2 exp(-TI/T1) + exp(-TR/T1)) exp(-TE/T2). Relaxation times as usual at 3 T.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log, sqrt

from .random import Draw

# (T1 ms, T2 ms, proton density)
_WHITE, _GREY, _LESION, _CSF = (850, 75, 0.70), (1300, 95, 0.82), (1400, 150, 0.85), (4000, 1500, 1.0)


@dataclass(frozen=True)
class Acquisition:
    """The settings of a scanner that a DICOM header tells."""

    repetition_time_ms: float
    echo_time_ms: float
    pixel_bandwidth_hz: float


RANGES: dict[str, tuple[Acquisition, Acquisition]] = {
    "flair": (Acquisition(8000, 90, 120), Acquisition(11000, 140, 400)),
    "dwi": (Acquisition(4000, 70, 1000), Acquisition(9000, 105, 2000)),
}
"""Lowest and highest settings per modality."""


def draw_acquisition(draw: Draw, modality: str, place: float | None = None) -> Acquisition:
    """Settings drawn over the whole range; with a place (0…1), all of them near that place of their range."""
    low, high = RANGES[modality]

    def value(name: str) -> float:
        share = draw.number(0, 1) if place is None else min(max(place + float(draw.normal(1)) * 0.05, 0.0), 1.0)
        return getattr(low, name) + share * (getattr(high, name) - getattr(low, name))

    return Acquisition(round(value("repetition_time_ms")), round(value("echo_time_ms"), 1),
                       round(value("pixel_bandwidth_hz")))


def brightness_factors(modality: str, acquisition: Acquisition) -> tuple[float, float]:
    """Factors of grey matter and of lesions against white matter, 1 in the middle of the ranges."""
    low, high = RANGES[modality]
    middle = Acquisition((low.repetition_time_ms + high.repetition_time_ms) / 2,
                         (low.echo_time_ms + high.echo_time_ms) / 2, 0.0)
    ratios = [[_signal(modality, tissue, a) / _signal(modality, _WHITE, a) for tissue in (_GREY, _LESION)]
              for a in (acquisition, middle)]
    return ratios[0][0] / ratios[1][0], ratios[0][1] / ratios[1][1]


def noise_factor(modality: str, acquisition: Acquisition) -> float:
    """Noise grows with the root of the bandwidth; 1 in the middle of the range."""
    low, high = RANGES[modality]
    return sqrt(2 * acquisition.pixel_bandwidth_hz / (low.pixel_bandwidth_hz + high.pixel_bandwidth_hz))


def _signal(modality: str, tissue: Sequence[float], acquisition: Acquisition) -> float:
    t1, t2, density = tissue
    recovered = exp(-acquisition.repetition_time_ms / t1)
    if modality == "flair":
        inversion = _CSF[0] * (log(2) - log(1 + exp(-acquisition.repetition_time_ms / _CSF[0])))
        longitudinal = 1 - 2 * exp(-inversion / t1) + recovered
    else:
        longitudinal = 1 - recovered
    return density * longitudinal * exp(-acquisition.echo_time_ms / t2)
