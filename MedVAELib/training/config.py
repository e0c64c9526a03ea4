"""What a training run is told: a YAML file, checked before anything starts."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields
from pathlib import Path

from ..errors import InputError
from .synthesis.brains import SynthesisConfig
from .trainer import TrainerConfig


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


@dataclass(frozen=True)
class BundleConfig:
    name: str = "healthy-anatomy"
    version: str = "0.1.0"


@dataclass(frozen=True)
class RunConfig:
    """A whole training run. initial_weights: a bundle to start from, or empty."""

    data: DataConfig
    model: dict[str, object]
    synthesis: SynthesisConfig
    trainer: TrainerConfig
    calibration: CalibrationConfig
    bundle: BundleConfig
    initial_weights: str = ""


SECTIONS = {
    "data": DataConfig, "synthesis": SynthesisConfig, "trainer": TrainerConfig, "calibration": CalibrationConfig,
    "bundle": BundleConfig,
}  # fmt: skip


def read_config(path: Path) -> RunConfig:
    """Raises InputError, naming the file and the setting, for anything missing, unknown or out of range."""
    import yaml

    try:
        raw = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give the path of a training config.") from error
    except yaml.YAMLError as error:
        raise InputError(f"{path}: is not valid YAML ({str(error).splitlines()[0]}).") from error
    if not isinstance(raw, dict) or raw.pop("task", None) != "healthy-anatomy":
        raise InputError(f"{path}: 'task: healthy-anatomy' is missing; it is the only task that can be trained so far.")
    parts: dict[str, object] = {}
    for name, kind in SECTIONS.items():
        parts[name] = _section(path, name, kind, raw.pop(name, {}))
    model = raw.pop("model", {})
    if not isinstance(model, dict) or "name" not in model:
        raise InputError(f"{path}: section 'model' needs a 'name'.")
    initial = raw.pop("initial_weights", "") or ""
    if raw:
        raise InputError(f"{path}: unknown section {', '.join(sorted(map(str, raw)))}.")
    return RunConfig(model=model, initial_weights=str(initial), **parts)


def data_path(relative: str) -> Path:
    """A data path of the config: absolute, or below $MEDVAE_DATA (default: the present folder)."""
    return Path(os.environ.get("MEDVAE_DATA", ".")) / relative


def _section(path: Path, name: str, kind: type, values: object):
    if not isinstance(values, dict):
        raise InputError(f"{path}: section '{name}' must hold settings.")
    known = {f.name for f in fields(kind)}
    if unknown := set(values) - known:
        raise InputError(f"{path}: section '{name}' has no setting {', '.join(sorted(map(str, unknown)))}.")
    if "shape" in values:
        values = {**values, "shape": tuple(values["shape"])}
    try:
        return kind(**values)
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: section '{name}': {error}.") from error
