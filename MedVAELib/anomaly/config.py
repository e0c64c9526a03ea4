"""What a training run of the anomaly detector is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from ..training.config import RunConfig
from ..training.synthesis.brains import SynthesisConfig


@dataclass(frozen=True)
class DataConfig:
    """Folders and files, relative to $MEDVAE_DATA or absolute. train, validation: names of label maps."""

    label_maps: str
    train: list[str]
    validation: list[str]
    lesion_masks: str = ""
    flair_lesion_masks: str = ""
    dwi_lesion_masks: str = ""
    calibration_scans: list[dict[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        if set(self.train) & set(self.validation):
            raise ValueError("a label map must not serve both training and validation")


@dataclass(frozen=True)
class CalibrationConfig:
    """scans: synthetic scans per modality, with and without lesions, of voxel size spacing_mm; sigmas: smoothing of the
    two scales, mm."""

    scans: int = 10
    spacing_mm: float = 1.0
    coarse_sigma_mm: float = 2.0
    fine_sigma_mm: float = 0.6


@dataclass(frozen=True, kw_only=True)
class HealthyAnatomyRun(RunConfig):
    task: ClassVar[str] = "healthy-anatomy"
    data: DataConfig
    synthesis: SynthesisConfig
    calibration: CalibrationConfig
