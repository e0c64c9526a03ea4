"""Real axial planes with a drawn head: circumference of the predicted 3D skull against the drawn one.

Beside it on the same planes: the ellipse of the outline that the network found (what 2D methods measure), the mean
head scaled to that outline, and the mean head scaled to the image's bright extent, which needs no network at all.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from ..errors import Cancelled, DeviceMemoryError, MedVAEError
from ..preprocessing.outlines import MARGIN, SIZE
from ..progress import CancelToken, Progress, no_progress, scaled
from ..skull.biometry import ellipse_circumference, measure_heads
from ..skull.planes import PlaneImage
from ..skull.predict import network_input
from ..skull.result import FoundPlane, SkullPrediction
from ..training.hc18 import read_plane
from .bright_extent import bright_axes_mm
from .mean_head import MeanHead
from .metrics import dice

OUTLINE, MEAN_HEAD, BRIGHT = "found outline, 2D ellipse", "mean head on the outline", "mean head on the bright extent"
NAN = float("nan")


@dataclass(frozen=True, eq=False)
class DrawnPlane:
    """A plane with the truth: the image, its drawn outline filled (H, W) bool or None, the circumference in mm."""

    name: str
    image: PlaneImage
    drawn: np.ndarray | None
    circumference_mm: float


@dataclass(frozen=True)
class PlaneScore:
    """One plane. predicted_mm: head circumference by method; std_mm: of the 3D prediction's; outline_dice: of the found
    outline against the drawn one; failure: why there is no prediction."""

    name: str
    circumference_mm: float
    predicted_mm: Mapping[str, float] = field(default_factory=dict)
    std_mm: float = NAN
    outline_dice: float = NAN
    confidence: float = NAN
    doubts: tuple[str, ...] = ()
    seconds: float = NAN
    failure: str = ""

    def error_mm(self, method: str) -> float:
        """Predicted − drawn; NaN where there is no prediction."""
        return self.predicted_mm.get(method, NAN) - self.circumference_mm


Predict = Callable[[PlaneImage], SkullPrediction]
Look = Callable[[DrawnPlane, FoundPlane | None], None]
"""Called as look(plane, what was found on it or None) for every plane: keeps it for the pictures."""


def read_drawn_plane(folder: Path, name: str) -> DrawnPlane:
    """A plane of the HC18 set, its image read as a user's would be. Raises InputError."""
    plane = read_plane(folder, name)
    image = PlaneImage.read(folder / "images" / f"{name}.png", plane.pixel_mm)
    return DrawnPlane(name, image, plane.outline_yx > 0.5, plane.circumference_mm)


def evaluate_planes(planes: Sequence[Callable[[], DrawnPlane]], method: str, predict: Predict, mean_head: MeanHead,
                    look: Look | None = None, progress: Progress = no_progress,
                    cancel: CancelToken | None = None) -> list[PlaneScore]:
    """Predicts from every plane and measures. planes: called one by one, so that only one is in memory; method: what
    the 3D prediction is called. Raises Cancelled, DeviceMemoryError, and InputError for a plane that cannot be read.
    """
    cancel = cancel or CancelToken()
    scores = []
    for number, read in enumerate(planes):
        cancel.check()
        plane = read()
        part = scaled(progress, number / len(planes), (number + 1) / len(planes))
        part("evaluate", 0.0, plane.name)
        scores.append(evaluate_plane(plane, method, predict, mean_head, look))
        part("evaluate", 1.0, plane.name)
    return scores


def evaluate_plane(plane: DrawnPlane, method: str, predict: Predict, mean_head: MeanHead,
                   look: Look | None = None) -> PlaneScore:
    """One plane. A plane on which no head is found is a failure of every method but the one without a network."""
    predicted = {BRIGHT: _scaled_circumference(mean_head, *bright_axes_mm(plane.image.grey_yx, plane.image.pixel_mm))}
    started = time.perf_counter()
    try:
        prediction = predict(plane.image)
    except (Cancelled, DeviceMemoryError):
        raise
    except MedVAEError as error:
        if look is not None:
            look(plane, None)
        return PlaneScore(plane.name, plane.circumference_mm, predicted, failure=str(error))
    seconds = time.perf_counter() - started
    found, circumference = prediction.planes[0], prediction.measure("HC")
    if look is not None:
        look(plane, found)
    major, minor = found.semi_axes_mm
    predicted[method] = circumference.value
    outside_mm = prediction.provenance["drawn_outside_mm"]  # calibrated alike, so that the 3D model alone differs
    predicted[OUTLINE] = float(ellipse_circumference(torch.tensor(major), torch.tensor(minor))) + math.tau * outside_mm
    predicted[MEAN_HEAD] = _circumference_on_outline(mean_head, found)
    overlap = NAN if plane.drawn is None else dice(found.outline_yx > 0.5, plane.drawn)
    return PlaneScore(plane.name, plane.circumference_mm, predicted, circumference.std, overlap, found.confidence,
                      found.doubts, seconds)


def _circumference_on_outline(mean_head: MeanHead, found: FoundPlane) -> float:
    """Circumference in mm of the mean head scaled to the extents of a found outline."""
    maps, _, spacing_mm = network_input({"axial": (torch.from_numpy(found.outline_yx), found.image.pixel_mm)})
    return _circumference(mean_head.predict({"axial": maps[0].numpy()}, spacing_mm), spacing_mm)


def _scaled_circumference(mean_head: MeanHead, ofd_mm: float, bpd_mm: float) -> float:
    """Circumference in mm of the mean head with these diameters; NaN where there is no extent."""
    if min(ofd_mm, bpd_mm) <= 0:
        return NAN
    spacing_mm = MARGIN * ofd_mm / SIZE
    head = mean_head.scaled(**mean_head.complete({"ofd": ofd_mm, "bpd": bpd_mm}), spacing_mm=spacing_mm)
    return _circumference(head, spacing_mm)


def _circumference(distance_mm: np.ndarray, spacing_mm: float) -> float:
    return float(measure_heads(torch.from_numpy(distance_mm)[None] / spacing_mm, spacing_mm)["HC"])
