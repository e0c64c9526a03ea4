"""The detector as a brain extractor, for other tasks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import SimpleITK as sitk

from ..progress import CancelToken, Progress, no_progress
from ..scan import Scan
from .detect import score_inputs
from .detector import Detector
from .modality import decide_modality


@dataclass(frozen=True, eq=False)
class Brain:
    """mask: uint8, on the scan's grid. modality, reason: of the scan, as `decide_modality` tells them."""

    mask: sitk.Image
    modality: str
    reason: str


def detector_brain(
    detector: Detector, scan: Scan, progress: Progress = no_progress, cancel: CancelToken | None = None
) -> sitk.Image:
    """The brain mask (uint8, on the scan's grid) that a detection on the scan has: a stripped scan keeps its own.

    Raises what `prepare_scan` raises.
    """
    return _brain(detector, scan, progress, cancel).mask


def shipped_brain(
    scan: Scan, device: str = "auto", progress: Progress = no_progress, cancel: CancelToken | None = None
) -> Brain:
    """`detector_brain` by the detector that comes with MedVAE, kept warm, and what kind of scan it was found in."""
    detector = _shipped(device)
    try:
        return _brain(detector, scan, progress, cancel)
    finally:
        if detector.steps:  # what one scan took the memory for must not slow down the next
            _shipped.cache_clear()


def _brain(detector: Detector, scan: Scan, progress: Progress, cancel: CancelToken | None) -> Brain:
    maps = score_inputs(detector, scan, samples=1, progress=progress, cancel=cancel)
    modality, reason, _ = decide_modality(scan, maps.fit.mean)
    return Brain(maps.place.put_back(maps.brain_box.astype(np.uint8)), modality, reason)


@lru_cache(maxsize=1)
def _shipped(device: str) -> Detector:
    return Detector.load(None, device)
