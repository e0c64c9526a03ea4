"""A detector that stands in for the real one: smoothed intensity as the score, the given mask as the brain."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from MedVAELib.anomaly.result import Detection
from MedVAELib.evaluation.baselines import intensity_score
from MedVAELib.scan import Scan


def image_like(array: np.ndarray, image: sitk.Image) -> sitk.Image:
    made = sitk.GetImageFromArray(array)
    made.CopyInformation(image)
    return made


def detection_of(scan: Scan, score: np.ndarray, brain: np.ndarray, threshold: float) -> Detection:
    """A Detection with this score (0 outside the brain) and brain, and nothing else in it."""
    score = np.where(brain, score, 0).astype(np.float32)
    mask = ((score > threshold) & brain).astype(np.uint8)
    nothing = image_like(np.zeros(brain.shape, np.float32), scan.image)
    return Detection(
        scan=scan, modality="flair", anomaly=image_like(score, scan.image), residual=nothing, reconstruction=nothing,
        std=nothing, mask=image_like(mask, scan.image), brain=image_like(brain.astype(np.uint8), scan.image),
        components=image_like(mask.astype(np.uint16), scan.image), findings=[], threshold=threshold, fpr=0.01,
        unit="intensity", reference_histogram={"edges": [0.0, 1.0], "density": [1.0]},
        provenance={"timings_s": {"network": 0.1}})


def brightness_detector(brain: np.ndarray, flagged_share: float = 0.02):
    """detect(scan, progress): the brightest share of this brain is anomalous."""

    def detect(scan: Scan, progress) -> Detection:
        score = intensity_score(scan.array_zyx(), brain)
        return detection_of(scan, score, brain, float(np.quantile(score[brain], 1 - flagged_share)))

    return detect
