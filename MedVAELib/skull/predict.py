"""From whichever standard planes there are to the 3D skull with its uncertainty: one function for all callers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..bundle import Bundle
from ..progress import CancelToken, Progress, no_progress
from ..timing import Timer
from .planes import PlaneImage
from .result import SkullPrediction

if TYPE_CHECKING:
    from .predictor import SkullPredictor


def predict_skull(
    planes: Mapping[str, PlaneImage], *, bundle: Bundle | str | Path | None = None, device: str = "auto",
    samples: int = 32, seed: int = 0, ga_weeks: float | None = None, progress: Progress = no_progress,
    cancel: CancelToken | None = None, timer: Timer | None = None, predictor: SkullPredictor | None = None,
) -> SkullPrediction:  # fmt: skip
    """The skull behind one to three standard planes.

    planes: by name, any non-empty subset of `PLANES`. bundle: name, folder or loaded Bundle of the shape model;
    predictor: one already loaded, instead of bundle and device. samples: of the learned prior. ga_weeks: gestational
    age for percentiles. Raises UsageError for an argument out of range or no plane at all, InputError for a plane
    without anything like a head on it, BundleError, DeviceMemoryError, Cancelled.
    """
    raise NotImplementedError
