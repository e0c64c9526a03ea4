"""Real axial planes with a drawn head: circumference and diameters of the predicted 3D skull against the drawn ones.

Beside it on the same planes: the ellipse of the outline that the network found (what 2D methods measure), the mean
head scaled to that outline, and the mean head scaled to the image's bright extent, which needs no network at all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from ..preprocessing.outlines import MARGIN, SIZE
from ..progress import CancelToken, Progress, no_progress
from ..skull.biometry import drawn_outside, ellipse_circumference, measure_heads
from ..skull.planes import PlaneImage
from ..skull.predict import network_input
from ..skull.result import FoundPlane, SkullPrediction
from ..training.hc18 import read_plane
from .bright_extent import bright_axes_mm
from .cases import one_by_one
from .mean_head import MeanHead
from .metrics import dice

OUTLINE, MEAN_HEAD, BRIGHT = "found outline, 2D ellipse", "mean head on the outline", "mean head on the bright extent"
MEASURES = {"HC": "mm", "BPD": "mm", "OFD": "mm", "cephalic index": "%"}
"""What a drawn ellipse tells, with its unit."""
NAN = float("nan")


@dataclass(frozen=True, eq=False)
class DrawnPlane:
    """A plane with the truth: the image, its drawn outline filled (H, W) bool, and MEASURES of it."""

    name: str
    image: PlaneImage
    drawn: np.ndarray
    measures: Mapping[str, float]


@dataclass(frozen=True)
class PlaneScore:
    """One plane. drawn: MEASURES of the drawn ellipse; predicted: the same by method; std: of the 3D prediction's;
    outline_dice: of the found outline against the drawn one; warnings: all that the user sees; failure: why there is no
    prediction."""

    name: str
    drawn: Mapping[str, float]
    predicted: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    std: Mapping[str, float] = field(default_factory=dict)
    outline_dice: float = NAN
    confidence: float = NAN
    warnings: tuple[str, ...] = ()
    seconds: float = NAN
    failure: str = ""

    def error(self, method: str, measure: str = "HC") -> float:
        """Predicted − drawn; NaN where there is no prediction."""
        return self.predicted.get(method, {}).get(measure, NAN) - self.drawn.get(measure, NAN)

    def spread(self, measure: str = "HC") -> float:
        """Standard deviation of the 3D prediction's measure; NaN where there is none."""
        return self.std.get(measure, NAN)


Predict = Callable[[PlaneImage], SkullPrediction]
Look = Callable[[DrawnPlane, FoundPlane | None], None]
"""Called as look(plane, what was found on it or None) for every plane: keeps it for the pictures."""


def read_drawn_plane(folder: Path, name: str) -> DrawnPlane:
    """A plane of the HC18 set, its image read as a user's would be. Raises InputError."""
    plane = read_plane(folder, name)
    image = PlaneImage.read(folder / "images" / f"{name}.png", plane.pixel_mm)
    major_mm, minor_mm = (axis * plane.pixel_mm for axis in plane.ellipse.semi_axes_px)
    measures = _of_ellipse(major_mm, minor_mm) | {"HC": plane.circumference_mm}
    return DrawnPlane(name, image, plane.outline_yx > 0.5, measures)


def evaluate_planes(planes: Sequence[Callable[[], DrawnPlane]], method: str, predict: Predict, mean_head: MeanHead,
                    look: Look | None = None, progress: Progress = no_progress,
                    cancel: CancelToken | None = None) -> list[PlaneScore]:
    """Predicts from every plane and measures. planes: called one by one, so that only one is in memory; method: what
    the 3D prediction is called. A plane on which no head is found is a failure of every method but the one without a
    network. Raises Cancelled, DeviceMemoryError, and InputError for a plane that cannot be read.
    """

    def evaluate(plane: DrawnPlane, _: Progress) -> PlaneScore:
        score, found = _evaluate(plane, method, predict, mean_head)
        if look is not None:
            look(plane, found)
        return score

    def failed(plane: DrawnPlane, reason: str) -> PlaneScore:
        if look is not None:
            look(plane, None)
        return PlaneScore(plane.name, plane.measures, _without_network(plane, mean_head), failure=reason)

    return one_by_one((read() for read in planes), len(planes), evaluate, failed, progress, cancel)


def _evaluate(plane: DrawnPlane, method: str, predict: Predict, mean_head: MeanHead) -> tuple[PlaneScore, FoundPlane]:
    started = time.perf_counter()
    prediction = predict(plane.image)
    seconds = time.perf_counter() - started
    found, ours = prediction.planes[0], {name: prediction.measure(name) for name in MEASURES}
    predicted = {
        **_without_network(plane, mean_head), method: {name: measure.value for name, measure in ours.items()},
        # Calibrated alike, so that the 3D model alone differs.
        OUTLINE: _of_ellipse(*found.semi_axes_mm, prediction.provenance["drawn_outside_mm"]),
        MEAN_HEAD: _of_mean_head_on(mean_head, found),
    }
    overlap = dice(found.outline_yx > 0.5, plane.drawn)
    return PlaneScore(plane.name, plane.measures, predicted, {name: measure.std for name, measure in ours.items()},
                      overlap, found.confidence, tuple(prediction.warnings), seconds), found


def _without_network(plane: DrawnPlane, mean_head: MeanHead) -> dict[str, dict[str, float]]:
    return {BRIGHT: _of_scaled(mean_head, *bright_axes_mm(plane.image.grey_yx, plane.image.pixel_mm))}


def _of_ellipse(major_mm: float, minor_mm: float, outside_mm: float = 0.0) -> dict[str, float]:
    """MEASURES of an ellipse with these semi-axes, or of one drawn around it."""
    a, b = torch.tensor([major_mm]), torch.tensor([minor_mm])
    values = {"HC": ellipse_circumference(a, b), "BPD": 2 * b, "OFD": 2 * a}
    return {name: float(value) for name, value in drawn_outside(values, outside_mm).items()}


def _of_mean_head_on(mean_head: MeanHead, found: FoundPlane) -> dict[str, float]:
    """MEASURES of the mean head scaled to the extents of a found outline."""
    maps, _, spacing_mm = network_input({"axial": (torch.from_numpy(found.outline_yx), found.image.pixel_mm)})
    return _of_head(mean_head.predict({"axial": maps[0].numpy()}, spacing_mm), spacing_mm)


def _of_scaled(mean_head: MeanHead, ofd_mm: float, bpd_mm: float) -> dict[str, float]:
    """MEASURES of the mean head with these diameters; none where there is no extent."""
    if min(ofd_mm, bpd_mm) <= 0:
        return {}
    spacing_mm = MARGIN * ofd_mm / SIZE
    head = mean_head.scaled(**mean_head.complete({"ofd": ofd_mm, "bpd": bpd_mm}), spacing_mm=spacing_mm)
    return _of_head(head, spacing_mm)


def _of_head(distance_mm: np.ndarray, spacing_mm: float) -> dict[str, float]:
    found = measure_heads(torch.from_numpy(distance_mm)[None] / spacing_mm, spacing_mm)
    return {name: float(found[name]) for name in MEASURES}
