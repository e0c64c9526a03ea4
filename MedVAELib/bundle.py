"""Model bundles: a folder with `metadata.json`, `model.safetensors` and a model card, which can never run code.

The metadata carries the keys of the MONAI bundle schema, and under `medvae` what this library needs on top (see
`MEDVAE_KEYS`). It is read as plain JSON: MONAI's `_target_` entries are data here, nothing is instantiated from
them. Weights are safetensors only, checked against their SHA-256 before they are read. Every failure is a
BundleError of one sentence.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .bundle_weights import FLOAT16, packed, unpacked
from .errors import BundleError
from .files.whole_files import new_folder, put_in_place
from .resources import resource_dir

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

DEFAULT_ANOMALY_BUNDLE = "healthy-anatomy"
DEFAULT_SKULL_BUNDLE = "fetal-skull"
OUTLINE_BUNDLE = "head-outline"
SKULL_SAMPLES, FEW_SKULL_SAMPLES, MIN_SKULL_SAMPLES = 256, 16, 2
"""Heads drawn by default, in mirrored pairs, so that 128 independent ones tell the standard deviation; below which
there is a warning; and at least: one would have none, which must not be taken for certainty."""
USER_BUNDLES_VARIABLE = "MEDVAE_BUNDLES"
METADATA_FILE, WEIGHTS_FILE, CARD_FILE = "metadata.json", "model.safetensors", "README.md"
PICKLE_SUFFIXES = frozenset({".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".bin", ".joblib"})

_MAX_METADATA_BYTES = 16 * 2**20
BUNDLE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
NAME_RULE = "use 64 letters, digits, '.', '-' and '_' at most, a letter or digit first"

MONAI_KEYS: dict[str, type] = {
    "version": str, "changelog": dict, "monai_version": str, "pytorch_version": str, "numpy_version": str,
    "required_packages_version": dict, "task": str, "description": str, "authors": str, "copyright": str,
    "intended_use": str, "network_data_format": dict,
}
MEDVAE_KEYS: dict[str, type] = {
    "model": str, "config": dict, "modality": list, "grid": dict, "intensity": dict, "calibration": dict,
    "training_data": list, "results": dict, "weights": dict,
}
"""Under `medvae`: the model's name in the registry and its config, the modalities it takes (a list of names), its
grid, intensity convention and calibration, the training data (each with name, source, licence, used_for), measured
results with the baseline beside them, and the weights (file, sha256, dtype)."""
TRAINING_DATA_KEYS: dict[str, type] = {"name": str, "source": str, "licence": str, "used_for": str}
WEIGHTS_KEYS: dict[str, type] = {"file": str, "sha256": str, "dtype": str}


@dataclass(frozen=True)
class Bundle:
    """A bundle whose metadata was read and found complete; its weights are read and checked by `state_dict`."""

    path: Path
    metadata: dict[str, Any]

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def version(self) -> str:
        return self.metadata["version"]

    @property
    def model(self) -> str:
        """The model's name in the registry of `MedVAELib.models`."""
        return self._medvae["model"]

    @property
    def config(self) -> dict[str, Any]:
        return self._medvae["config"]

    @property
    def calibration(self) -> dict[str, Any]:
        return self._medvae["calibration"]

    @property
    def predicts_skulls(self) -> bool:
        """Whether it is a model from planes to a skull: those, and no others, are calibrated by temperatures."""
        return "temperatures" in self.calibration

    @property
    def modality(self) -> list[str]:
        return self._medvae["modality"]

    @property
    def sha256(self) -> str:
        """SHA-256 of the weights file, as the metadata states it."""
        return self._medvae["weights"]["sha256"].lower()

    @property
    def weights_form(self) -> str:
        """How the weights are stored, one of `bundle_weights.FORMATS`."""
        return self._medvae["weights"]["dtype"]

    @property
    def weights_path(self) -> Path:
        return self.path / self._medvae["weights"]["file"]

    @cached_property
    def _medvae(self) -> dict[str, Any]:
        return self.metadata["medvae"]

    def check_sum(self) -> None:
        """Raises BundleError unless the weights file is there and the one released; needs no torch."""
        self._checked_weights()

    def verify(self) -> None:
        """Raises BundleError unless the weights are there, intact, and every one of them a finite number."""
        self.state_dict()

    def state_dict(self) -> dict[str, Tensor]:
        """The weights by name: floating-point ones as float32, others as stored. Checks the SHA-256 first.

        Raises BundleError when the file is missing, pickled, changed, cut short or not finite.
        """
        import torch
        from safetensors import SafetensorError
        from safetensors.torch import load

        data = self._checked_weights()
        try:
            state = unpacked(load(data))
        except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
            raise BundleError(_unreadable(self.weights_path, data)) from error
        for name, tensor in state.items():
            if not bool(torch.isfinite(tensor).all()):
                raise BundleError(f"{self.weights_path} holds values that are not numbers (in {name}): "
                                  "get the bundle again.")
        return state

    def _checked_weights(self) -> bytes:
        file = self.weights_path
        if not file.is_file():
            pickles = _pickled_files(self.path)
            if pickles:
                raise BundleError(pickle_refusal(pickles[0]))
            raise BundleError(f"The bundle {self.path} has no {file.name}: get the bundle again.")
        try:
            data = file.read_bytes()
        except OSError as error:
            raise BundleError(f"{file} cannot be read ({error.strerror}): check its permissions.") from error
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise BundleError(f"{file} is not the file the bundle was released with (its SHA-256 differs): "
                              "it is damaged, cut short or was changed, so get the bundle again.")
        return data

    def network(self) -> Module:
        """The network with its weights, on the CPU. Raises BundleError for a model or config that this version does not
        know, and for weights that do not fit or cannot be read."""
        from .models import MODELS, build_model

        advice = "update MedVAE or choose another bundle"
        if self.model not in MODELS:
            raise BundleError(f"The bundle {self.name} needs the model {self.model!r}, which this version of MedVAE "
                              f"does not have (it has {', '.join(MODELS)}): {advice}.")
        try:
            network = build_model(self.model, self.config)
        except BundleError as error:
            raise BundleError(f"The bundle {self.name} does not fit this version of MedVAE "
                              f"({str(error).rstrip('.')}): {advice}.") from error
        self.fill(network)
        return network

    def fill(self, network: Module, of: str = "its own config", advice: str = "get the bundle again") -> None:
        """Gives a network the weights.

        of, advice: what the network was built from, and what to do where the weights do not fit that. Raises
        BundleError, then or where they cannot be read.
        """
        state, wanted = self.state_dict(), network.state_dict()
        if misfit := _misfit(state, wanted):
            raise BundleError(f"The weights of the bundle {self.name} do not fit {of} ({misfit}): {advice}.")
        network.load_state_dict(state)


def user_bundle_dir() -> Path:
    """Where imported bundles live: `$MEDVAE_BUNDLES`, else `~/.medvae/bundles`. Need not exist yet."""
    named = os.environ.get(USER_BUNDLES_VARIABLE)
    try:
        return Path(named).expanduser() if named else Path.home() / ".medvae" / "bundles"
    except RuntimeError:  # a container's user without a home has imported none
        return resource_dir() / "bundles"


def bundle_dirs() -> list[Path]:
    """The folders searched for a bundle's name, first hit wins: the shipped ones, then the user's."""
    return [resource_dir() / "bundles", user_bundle_dir()]


def bundle_paths() -> dict[str, Path]:
    """Every folder that looks like a bundle, by the name `load_bundle` takes; nothing is validated."""
    found: dict[str, Path] = {}
    for directory in bundle_dirs():
        with suppress(OSError):  # the home of another, whose folders cannot be read
            for folder in sorted(directory.iterdir()):
                if os.path.isfile(folder / METADATA_FILE) and not folder.name.startswith("."):
                    found.setdefault(folder.name, folder)
    return found


def load_bundle(name_or_path: Bundle | str | Path = DEFAULT_ANOMALY_BUNDLE) -> Bundle:
    """A bundle by name (shipped ones first, then the user's) or by its folder; a Bundle is returned as it is.

    Raises BundleError when there is none of that name or its metadata is damaged. Weights are checked when read.
    """
    if isinstance(name_or_path, Bundle):
        return name_or_path
    known = bundle_paths()
    if isinstance(name_or_path, str) and name_or_path in known:
        return read_bundle(known[name_or_path])
    path = Path(os.path.expanduser(name_or_path))
    if os.path.isdir(path):
        return read_bundle(path.resolve())
    if os.path.isfile(path):
        if path.name == METADATA_FILE:
            return read_bundle(path.resolve().parent)
        if path.suffix.lower() in PICKLE_SUFFIXES:
            raise BundleError(pickle_refusal(path))
        raise BundleError(f"{path} is a file, and a bundle is a folder: import an archive with "
                          f"'medvae bundles import {path}'.")
    choice = f"there are {', '.join(sorted(known))}" if known else "there are none installed"
    raise BundleError(f"There is no bundle {str(name_or_path)!r} ({choice}): give one of the names "
                      "'medvae bundles list' shows, or a bundle's folder.")


def read_bundle(path: Path) -> Bundle:
    """The bundle in the folder `path`. Raises BundleError unless its metadata is complete and well-typed."""
    file = path / METADATA_FILE
    if not file.is_file():
        pickles = _pickled_files(path)
        if pickles:
            raise BundleError(pickle_refusal(pickles[0]))
        raise BundleError(f"{path} is not a bundle: it holds no {METADATA_FILE}.")
    try:
        if file.stat().st_size > _MAX_METADATA_BYTES:
            raise BundleError(f"{file} is larger than {_MAX_METADATA_BYTES // 2**20} MB and is no bundle metadata: "
                              "get the bundle again.")
        metadata = json.loads(file.read_text(encoding="utf-8"), parse_constant=_no_number)
    except OSError as error:
        raise BundleError(f"{file} cannot be read ({error.strerror}): check its permissions.") from error
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{file} is not valid JSON: get the bundle again.") from error
    validate_metadata(metadata, str(file))
    return Bundle(path=path, metadata=metadata)


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def validate_metadata(metadata: object, where: str) -> None:
    """Raises BundleError naming `where` and the key, unless `metadata` has every required key with its type."""
    top = _typed(metadata, dict, "the metadata", where)
    _require(top, MONAI_KEYS, "", where)
    medvae = top.get("medvae")
    if medvae is None:
        raise BundleError(f"{where} has no 'medvae' entry, so it is a bundle of another program: "
                          "use one made for MedVAE.")
    _require(_typed(medvae, dict, "'medvae'", where), MEDVAE_KEYS, "medvae.", where)
    for index, entry in enumerate(medvae["training_data"]):
        name = f"medvae.training_data[{index}]"
        _require(_typed(entry, dict, f"'{name}'", where), TRAINING_DATA_KEYS, f"{name}.", where)
    for index, entry in enumerate(medvae["modality"]):
        _typed(entry, str, f"'medvae.modality[{index}]'", where)
    _validate_weights_entry(medvae["weights"], where)


def _validate_weights_entry(weights: dict[str, Any], where: str) -> None:
    _require(weights, WEIGHTS_KEYS, "medvae.weights.", where)
    file = weights["file"]
    if Path(file).suffix.lower() in PICKLE_SUFFIXES:
        raise BundleError(pickle_refusal(file))
    # A plain name keeps a foreign bundle from pointing at files outside its own folder.
    if Path(file).suffix != ".safetensors" or not BUNDLE_NAME.fullmatch(file):
        raise BundleError(f"{where} names {file!r} as weights: they must be one .safetensors file in the bundle.")
    if not re.fullmatch(r"[0-9a-fA-F]{64}", weights["sha256"]):
        raise BundleError(f"{where} has no valid SHA-256 in 'medvae.weights.sha256': get the bundle again.")


def _require(mapping: dict[str, Any], keys: Mapping[str, type], prefix: str, where: str) -> None:
    for key, kind in keys.items():
        if key not in mapping:
            raise BundleError(f"{where} lacks the key '{prefix}{key}': the bundle is incomplete, get it again.")
        _typed(mapping[key], kind, f"'{prefix}{key}'", where)


def _typed(value: object, kind: type, name: str, where: str) -> Any:
    if not isinstance(value, kind):
        wanted = {str: "a text", dict: "an object", list: "a list"}[kind]
        raise BundleError(f"{where}: {name} must be {wanted}, not {type(value).__name__}; get the bundle again.")
    return value


def save_bundle(
    path: str | Path, metadata: Mapping[str, Any], state_dict: Mapping[str, Tensor], card_markdown: str,
    weights: str = FLOAT16,
) -> Bundle:
    """Writes a bundle and returns it; an earlier bundle at `path` is replaced in one step. weights: how they are
    stored, see `bundle_weights.FORMATS`.

    `metadata` is as in `MONAI_KEYS` and `MEDVAE_KEYS`, without `medvae.weights` and the package versions, which
    are filled in. Raises BundleError for incomplete metadata, weights that do not fit the form, or a folder that cannot
    be written or holds something else than a bundle.
    """
    from safetensors.torch import save

    path = Path(os.path.abspath(path))  # only what is there is found before a `..`
    data = save(packed(state_dict, weights))
    full = {**_package_versions(), **metadata}
    medvae = dict(_typed(full.get("medvae", {}), dict, "'medvae'", "The metadata"))
    medvae["weights"] = {"file": WEIGHTS_FILE, "sha256": hashlib.sha256(data).hexdigest(), "dtype": weights}
    full["medvae"] = medvae
    validate_metadata(full, "The metadata")
    try:
        text = json.dumps(full, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise BundleError(f"The metadata of {path} cannot be written as JSON ({error}).") from error

    def fill(folder: Path) -> None:
        (folder / WEIGHTS_FILE).write_bytes(data)
        (folder / METADATA_FILE).write_text(text, encoding="utf-8")
        (folder / CARD_FILE).write_text(card_markdown, encoding="utf-8")

    replace_bundle_folder(path, fill)
    return read_bundle(path.resolve())


def replace_bundle_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Calls fill(folder) on a temporary folder beside `path`, then puts it in the place of `path`. Whatever else lies
    in an earlier bundle's folder stays there.

    On failure what was at `path` is there as before, or lies beside it where the error says. Raises BundleError when
    `path` is taken by something that is not a bundle, or the disk refuses.
    """
    if path.exists() and not (path / METADATA_FILE).is_file() and (path.is_file() or any(path.iterdir())):
        raise BundleError(f"{path} exists and is not a bundle: choose another place.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = new_folder(path.parent, f".{path.name}-")
    except OSError as error:
        raise BundleError(f"The bundle {path} cannot be written ({error.strerror}): choose another place.") from error
    new, old = temporary / "new", temporary / "old"
    try:
        new.mkdir()
        fill(new)
        _copy_others(path, new)
        try:
            if path.exists():
                put_in_place(path, old)
            put_in_place(new, path)
        except BaseException:  # Ctrl-C among them
            if old.exists() and not path.exists():
                put_in_place(old, path)
            raise
    except OSError as error:
        kept = f" Its earlier version lies in {old}." if old.exists() and not path.exists() else ""
        why = error.strerror or error  # of several files shutil.Error has a list
        raise BundleError(f"The bundle {path} cannot be written ({why}): choose another place.{kept}") \
            from error
    finally:
        if path.exists() or not old.exists():  # never the only copy
            shutil.rmtree(temporary, ignore_errors=True)


def _copy_others(path: Path, new: Path) -> None:
    """Copies what a user keeps beside an earlier bundle, an evaluation say: moved, it would be lost on a failure."""
    for entry in path.iterdir() if path.exists() else ():
        kept = new / entry.name
        if kept.exists():
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.copytree(entry, kept, symlinks=True)
        else:
            shutil.copy2(entry, kept, follow_symlinks=False)


def _package_versions() -> dict[str, Any]:
    def of(package: str) -> str:
        try:
            return package_version(package)
        except PackageNotFoundError:
            return "unknown"

    return {"monai_version": of("monai"), "pytorch_version": of("torch"), "numpy_version": of("numpy"),
            "required_packages_version": {name: of(name) for name in ("safetensors", "SimpleITK", "scikit-learn")}}


def _pickled_files(path: Path) -> list[Path]:
    # Two levels are enough to recognise a foreign bundle, and cheap on any folder a user may name by mistake.
    return sorted(file for pattern in ("*", "*/*") for file in path.glob(pattern)
                  if file.suffix.lower() in PICKLE_SUFFIXES)


def pickle_refusal(file: str | Path) -> str:
    return (f"{file} is a pickled file, which can run code when it is opened, so it is never read: "
            "ask its author for a bundle with safetensors weights.")


def _misfit(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """What keeps the weights from being exactly the wanted ones, by names and shapes; nothing where they are."""
    missing, extra = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    wrong = [name for name in wanted if name in state and state[name].shape != wanted[name].shape]
    if missing:
        reason = f"{missing[0]} is missing"
    elif extra:
        reason = f"{extra[0]} is not part of the model"
    elif wrong:
        reason = (f"{wrong[0]} has shape {tuple(state[wrong[0]].shape)} where the config asks for "
                  f"{tuple(wanted[wrong[0]].shape)}")
    else:
        return ""
    return f"{reason}; {len(missing) + len(extra) + len(wrong)} such differences"


def _unreadable(file: Path, data: bytes) -> str:
    if data[:2] == b"PK" or data[:1] == b"\x80":
        return pickle_refusal(file)
    return f"{file} is not a complete safetensors file: get the bundle again."
