"""What a training run is told: a YAML file, checked against its task's typed sections before anything starts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from itertools import takewhile
from pathlib import Path
from typing import ClassVar, TypeVar, get_origin, get_type_hints

from ..errors import InputError
from .trainer import TrainerConfig


@dataclass(frozen=True)
class BundleConfig:
    """The bundle that the run writes; changelog: what was new, by version."""

    name: str = "model"
    version: str = "0.1.0"
    changelog: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What every task's run is told; a task adds its own sections as fields that are dataclasses.

    task: its name in the file. model: the model's name and settings. initial_weights: a bundle to start from, or empty.
    """

    task: ClassVar[str]
    model: dict[str, object]
    trainer: TrainerConfig
    bundle: BundleConfig
    initial_weights: str = ""

    @property
    def model_name(self) -> str:
        return str(self.model["name"])

    @property
    def model_settings(self) -> dict[str, object]:
        return {key: value for key, value in self.model.items() if key != "name"}


Run = TypeVar("Run", bound=RunConfig)


def read_task(path: Path, known: Mapping[str, object]) -> str:
    """The task that a training config names. Raises InputError unless it is one of `known`."""
    task = read_settings(path).get("task")
    if task not in known:
        raise InputError(f"{path}: 'task:' must name what to train, one of {', '.join(sorted(known))}.")
    return str(task)


def read_config(path: Path, kind: type[Run]) -> Run:
    """Raises InputError, naming the file and the setting, for anything missing, unknown or out of range."""
    raw = read_settings(path)
    if raw.pop("task", None) != kind.task:
        raise InputError(f"{path}: 'task: {kind.task}' is missing.")
    hints = get_type_hints(kind)
    sections = {f.name: hints[f.name] for f in fields(kind) if is_dataclass(hints[f.name])}
    parts = {name: _section(path, name, section, raw.pop(name, {})) for name, section in sections.items()}
    model = raw.pop("model", {})
    if not isinstance(model, dict) or "name" not in model:
        raise InputError(f"{path}: section 'model' needs a 'name'.")
    initial = raw.pop("initial_weights", "") or ""
    if raw:
        raise InputError(f"{path}: unknown section {', '.join(sorted(map(str, raw)))}.")
    return kind(model=model, initial_weights=str(initial), **parts)


def data_path(relative: str) -> Path:
    """A data path of the config: absolute, or below $MEDVAE_DATA (default: the present folder)."""
    return Path(os.environ.get("MEDVAE_DATA", ".")) / relative


def source_path(source: str) -> Path:
    """A user's own data: absolute, or below $MEDVAE_DATA or, where it is not there, below the present folder."""
    return data_path(source) if "MEDVAE_DATA" in os.environ and _exists(data_path(source)) else Path(source)


def _exists(path: Path) -> bool:
    """Also for a glob: whether the folder before its first wildcard is there."""
    return Path(*takewhile(lambda part: not set(part) & set("*?["), path.parts)).exists()


def read_settings(path: Path) -> dict[str, object]:
    """The sections of a config, on top of those of its `base:` if it names one: a file relative to it, with sections
    whose settings hold where the config does not say otherwise."""
    raw = _read_yaml(path)
    if "base" not in raw:
        return raw
    base = raw.pop("base")
    if not isinstance(base, str):
        raise InputError(f"{path}: 'base:' must name another config.")
    settings = _read_yaml(Path(path).parent / base)
    if "base" in settings:
        raise InputError(f"{path}: its base {base} has a base itself; only one level is read.")
    for name, section in raw.items():
        both = isinstance(section, dict) and isinstance(settings.get(name), dict)
        settings[name] = {**settings[name], **section} if both else section
    return settings


def _read_yaml(path: Path) -> dict[str, object]:
    import yaml

    try:
        raw = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give the path of a training config.") from error
    except yaml.YAMLError as error:
        raise InputError(f"{path}: is not valid YAML ({str(error).splitlines()[0]}).") from error
    if not isinstance(raw, dict):
        raise InputError(f"{path}: must hold sections, 'task:' first.")
    return raw


def _section(path: Path, name: str, kind: type, values: object):
    if not isinstance(values, dict):
        raise InputError(f"{path}: section '{name}' must hold settings.")
    hints = get_type_hints(kind)
    if unknown := set(values) - set(hints):
        raise InputError(f"{path}: section '{name}' has no setting {', '.join(sorted(map(str, unknown)))}.")
    as_declared = {
        key: tuple(value) if get_origin(hints[key]) is tuple and isinstance(value, list) else value
        for key, value in values.items()
    }
    try:
        return kind(**as_declared)
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: section '{name}': {error}.") from error
