"""The detector as a brain extractor, for other tasks."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import SimpleITK as sitk

from ..progress import CancelToken, Progress, no_progress
from ..scan import Scan
from .detect import score_inputs
from .detector import Detector


def detector_brain(
    detector: Detector, scan: Scan, progress: Progress = no_progress, cancel: CancelToken | None = None
) -> sitk.Image:
    """The brain mask (uint8, on the scan's grid) that a detection on the scan has: a stripped scan keeps its own.

    Raises what `prepare_scan` raises.
    """
    maps = score_inputs(detector, scan, samples=1, progress=progress, cancel=cancel)
    return maps.image(maps.brain_box.astype(np.uint8))


def shipped_brain(
    scan: Scan, device: str = "auto", progress: Progress = no_progress, cancel: CancelToken | None = None
) -> sitk.Image:
    """`detector_brain` by the detector that comes with MedVAE, kept warm."""
    return detector_brain(_shipped(device), scan, progress, cancel)


@lru_cache(maxsize=1)
def _shipped(device: str) -> Detector:
    return Detector.load(None, device)
