"""What a training run of the anomaly detector is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from torch import nn

from ..networks.healthy_anatomy import HealthyAnatomyNet
from ..training.card import SOURCES
from ..training.config import RunConfig
from ..training.synthesis.brains import SynthesisConfig


@dataclass(frozen=True)
class DataConfig:
    """Folders and files, relative to $MEDVAE_DATA or absolute. train, validation: names of label maps.

    calibration_scans: real scans, each with `scan`, `without` (a mask of what to leave out) if it has lesions, and
    `source` and `licence` for the model card. made_from: names of `training.card.SOURCES` that the label maps and the
    lesion masks are, for the model card; empty: it names the folders.
    """

    label_maps: str
    train: list[str]
    validation: list[str]
    lesion_masks: str = ""
    flair_lesion_masks: str = ""
    dwi_lesion_masks: str = ""
    calibration_scans: list[dict[str, str]] = field(default_factory=list)
    made_from: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if set(self.train) & set(self.validation):
            raise ValueError("a label map must not serve both training and validation")
        for entry in self.calibration_scans:
            if "scan" not in entry or set(entry) - {"scan", "without", "source", "licence"}:
                raise ValueError("calibration_scans takes 'scan', 'without', 'source' and 'licence', the first always")
        if unknown := set(map(str, self.made_from)) - set(SOURCES):
            raise ValueError(f"made_from must name {', '.join(SOURCES)}, not {', '.join(sorted(unknown))}")


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
    kind: ClassVar[type[nn.Module]] = HealthyAnatomyNet
    data: DataConfig
    synthesis: SynthesisConfig
    calibration: CalibrationConfig
