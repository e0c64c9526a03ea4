"""What a training run is told: a YAML file, checked against its task's typed sections before anything starts."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, TypeVar, get_type_hints

from torch import nn

from ..bundle import BUNDLE_NAME, NAME_RULE
from ..bundle_weights import FLOAT16, FORMATS
from ..errors import InputError
from ..models import MODELS
from .trainer import TrainerConfig

if TYPE_CHECKING:
    from pydantic import ValidationError


@dataclass(frozen=True)
class BundleConfig:
    """The bundle that the run writes; name: of its folder; changelog: what was new, by version; authors, licence: of
    the weights, which are stored as `weights` says (float16, or int8 at half the size)."""

    name: str = "model"
    version: str = "0.1.0"
    changelog: dict[str, str] = field(default_factory=dict)
    authors: str = "not stated"
    licence: str = "not stated"
    weights: str = FLOAT16

    def __post_init__(self) -> None:
        if not BUNDLE_NAME.fullmatch(self.name):  # a path would lead out of the run's folder
            raise ValueError(f"name cannot be {self.name!r}: {NAME_RULE}")
        if self.weights not in FORMATS:
            raise ValueError(f"weights must be {' or '.join(FORMATS)}")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What every task's run is told; a task adds its own sections as fields that are dataclasses.

    task: its name in the file. kind: of the models that it trains. model: the model's name and settings.
    initial_weights: a bundle to start from, or empty.
    """

    task: ClassVar[str]
    kind: ClassVar[type[nn.Module]] = nn.Module
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
    if not isinstance(task, str) or task not in known:
        raise InputError(f"{path}: 'task:' must name what to train, one of {', '.join(sorted(known))}.")
    return task


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
    model = _checked_model(path, model, kind)
    initial = raw.pop("initial_weights", "") or ""
    if not isinstance(initial, str):
        raise InputError(f"{path}: 'initial_weights' must name a bundle, not be {initial!r}.")
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

    class Loader(yaml.SafeLoader):
        """Takes 1e-3 and 1.5e3, without a point or a sign, for numbers, and no name twice, as YAML 1.2 does."""

        def compose_mapping_node(self, anchor: str | None):
            node, seen = super().compose_mapping_node(anchor), set()
            for key, _ in node.value:
                if (name := (key.tag, str(key.value))) in seen:
                    raise yaml.composer.ComposerError(None, None, f"{key.value} is given twice", key.start_mark)
                seen.add(name)
            return node

    number = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", number, [*"-+0123456789"])
    try:
        raw = Loader(Path(path).read_text(encoding="utf-8")).get_single_data()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give the path of a training config.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 text; save it as that.") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        what = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise InputError(f"{path}{place}: is not valid YAML ({what}).") from error
    if not isinstance(raw, dict):
        raise InputError(f"{path}: must hold sections, 'task:' first.")
    return raw


def _section(path: Path, name: str, kind: type, values: object):
    try:
        return kind(**_typed(path, name, kind, values))
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: section '{name}': {error}.") from error


def _checked_model(path: Path, model: dict[str, object], run: type[RunConfig]) -> dict[str, object]:
    """The section 'model' with numbers as numbers; lists stay lists, as it goes into the metadata like this."""
    name = model["name"]
    if not isinstance(name, str) or name not in MODELS or not issubclass(MODELS[name], run.kind):
        known = ", ".join(name for name, kind in MODELS.items() if issubclass(kind, run.kind))
        raise InputError(f"{path}: section 'model': the task {run.task} trains no model '{name}': choose one of "
                         f"{known}.")
    config = MODELS[name].Config
    try:
        settings = _typed(path, "model", config, {key: value for key, value in model.items() if key != "name"})
        config(**settings)
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: section 'model': {error}.") from error
    return {"name": name} | {key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()}


def _typed(path: Path, name: str, kind: type, values: object) -> dict[str, object]:
    """The settings of a section as its dataclass declares them. Raises InputError, naming the setting, where they are
    of another type, unknown or missing; one left empty (`store:`) counts as not given."""
    from pydantic import ConfigDict, ValidationError, create_model

    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise InputError(f"{path}: section '{name}' must hold settings.")
    declared = get_type_hints(kind)
    optional = {f.name: f.default is not MISSING or f.default_factory is not MISSING for f in fields(kind)}
    section = create_model(
        kind.__name__,
        __config__=ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, protected_namespaces=()),
        **{key: (declared[key], None if optional[key] else ...) for key in optional},
    )
    given = {key: value for key, value in values.items() if value is not None}
    try:
        # As JSON, in which pydantic is strict about numbers and text, and takes a list for a tuple.
        typed = section.model_validate_json(json.dumps(given, default=str))
    except ValidationError as error:
        raise InputError(f"{path}: section '{name}'{_first_mistake(error)}.") from error
    return {key: getattr(typed, key) for key in given}


def _first_mistake(error: ValidationError) -> str:
    mistake = error.errors(include_url=False)[0]
    setting = (*mistake["loc"], "a text")[0]  # it has no place where the text is no Unicode
    if mistake["type"] == "extra_forbidden":
        return f" has no setting {setting}"
    if mistake["type"] == "missing":
        return f" needs {setting}"
    return f": {setting} {mistake['msg'].removeprefix('Input ')}, not {mistake['input']!r}"
