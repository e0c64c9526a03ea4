"""What one detection returns: images on the scan's own grid, findings as rows, and where it all came from."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from ..scan import Scan

BRIGHT, DARK = 1, 2  # in the mask

FINDING_COLUMNS = (
    "label", "polarity", "location", "volume_ml", "peak", "mean",
    "centroid_r_mm", "centroid_a_mm", "centroid_s_mm", "peak_r_mm", "peak_a_mm", "peak_s_mm",
    "bbox_i", "bbox_j", "bbox_k", "bbox_size_i", "bbox_size_j", "bbox_size_k",
)


@dataclass(frozen=True)
class Finding:
    """One connected component of the anomaly mask. Scores in the unit of the anomaly map; positions in RAS mm."""

    label: int
    polarity: str  # "bright" or "dark"
    location: str  # e.g. "left white matter"
    volume_ml: float
    peak: float
    mean: float
    centroid_ras_mm: tuple[float, float, float]
    peak_ras_mm: tuple[float, float, float]
    bbox_ijk: tuple[int, int, int]
    bbox_size_ijk: tuple[int, int, int]

    def row(self) -> dict[str, object]:
        """The finding under the names of FINDING_COLUMNS, for CSV files and tables."""
        values = (self.label, self.polarity, self.location, self.volume_ml, self.peak, self.mean,
                  *self.centroid_ras_mm, *self.peak_ras_mm, *self.bbox_ijk, *self.bbox_size_ijk)
        return dict(zip(FINDING_COLUMNS, values, strict=True))


@dataclass
class Detection:
    """Result of `detect_anomalies`. Every image has exactly the scan's size, spacing, origin and direction.

    anomaly: calibrated score (float32, 0 outside the brain), in dark findings that of the dark side; residual,
    reconstruction, std: in the scan's intensity units (float32); mask (1 bright, 2 dark), brain, components: uint8,
    uint8, uint16 (component label, 0 = none).
    """

    scan: Scan
    modality: str  # "flair", "dwi" or "other", as decided
    anomaly: sitk.Image
    residual: sitk.Image
    reconstruction: sitk.Image
    std: sitk.Image
    mask: sitk.Image
    brain: sitk.Image
    components: sitk.Image
    findings: list[Finding]
    threshold: float  # of the anomaly score, at `fpr`
    fpr: float
    unit: str  # of the anomaly score
    reference_histogram: dict[str, list[float]]  # {"edges": [...], "density": [...]} of the score in healthy brains
    warnings: list[str] = field(default_factory=list)
    provenance: dict[str, object] = field(default_factory=dict)
    dark_threshold: float | None = None  # of the dark side's score, where that side has one of its own

    def bright_side(self) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Score and mask (zyx) without what is dark, where that has a score of its own."""
        score, mask = sitk.GetArrayFromImage(self.anomaly).astype(np.float32), sitk.GetArrayFromImage(self.mask)
        if self.dark_threshold is None:
            return score, mask > 0
        score[mask == DARK] = 0
        return score, mask == BRIGHT
