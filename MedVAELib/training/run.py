"""What the training runs of all tasks have in common: the trainer they start with, and TensorBoard's events."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..bundle import load_bundle
from ..errors import InputError, UsageError
from ..models import build_model
from .config import RunConfig
from .log_file import read_log
from .trainer import Trainer

_SETTLING = 300
"""Steps after its warm-up that a training may take to find its way before it is judged."""


_DESCRIBED_ELSEWHERE = {"trainer", "bundle", "calibration"}
"""Sections that a run may be resumed with others of: the trainer judges its own, the others come after training."""
_MAY_CHANGE = {"store", "name", "licence", "citation", "flair_lesion_masks", "dwi_lesion_masks", "calibration_scans"}
"""Settings of the section 'data' that do not change what is trained on: the card's, the calibration's, a cache."""


def check_output(output: Path, resume: bool) -> None:
    """Raises UsageError where the output cannot take a run, InputError where a run to resume is not there."""
    output = Path(output)
    if output.exists() and not output.is_dir():
        raise UsageError(f"{output} is a file: name a folder as --output.")
    there = (output / "checkpoint.pt").exists()
    if resume and not there:
        raise InputError(f"{output / 'checkpoint.pt'}: nothing to resume from; start without --resume.")
    if there and not resume:
        raise UsageError(f"{output} holds a run already: go on with it by --resume, or name another --output.")


def run_record(config: RunConfig, model: nn.Module) -> dict[str, dict[str, object]]:
    """The settings by section that make a run what it is, those of the model with its defaults, to compare a resumed
    run's with."""
    chosen = getattr(model, "config", None)
    settings = asdict(chosen) if is_dataclass(chosen) else config.model_settings
    record: dict[str, dict[str, object]] = {"model": {"name": config.model_name} | settings}
    for section in fields(config):
        value = getattr(config, section.name)
        if is_dataclass(value) and section.name not in _DESCRIBED_ELSEWHERE:
            record[section.name] = {
                name: setting for name, setting in asdict(value).items()
                if not (section.name == "data" and name in _MAY_CHANGE)
            }
    return record


def start_trainer(
    config: RunConfig, output: Path, device: torch.device, resume: bool,
    warm_up: Callable[[nn.Module], int] | None = None,
) -> Trainer:
    """The trainer of a run: new, from the config's initial weights, or resumed from the checkpoint in `output`.

    warm_up: gives the steps before which the run of a model is not judged; None: it is never judged, unless its loss
    is no number. Raises UsageError where the output cannot be written or, without `resume`, holds a run already.
    """
    check_output(output, resume)
    torch.manual_seed(config.trainer.seed)
    model = build_model(config.model_name, config.model_settings)
    if config.initial_weights:
        load_bundle(config.initial_weights).fill(
            model, "the config's model", "give the model the settings that the bundle's metadata.json has as config")
    trainer = Trainer(model, config.trainer, output, device, warm_up(model) if warm_up else 0)
    if warm_up:
        trainer.watch_health(warm_up(model) + _SETTLING)
    trainer.describe(run_record(config, model))
    if resume:
        trainer.resume()
        forget_after(output, trainer.step)
    return trainer


def forget_after(output: Path, step: int) -> None:
    """Has TensorBoard leave out what a killed run added beyond the step that this one goes on from: it comes again."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return
    SummaryWriter(str(output / "tensorboard"), purge_step=step + 1).close()


def tensorboard(
    output: Path, step: int, validation: Mapping[str, float], pictures: Mapping[str, NDArray[np.float32]] | None = None,
    distributions: Mapping[str, NDArray[np.float32]] | None = None,
) -> None:
    """Adds a validation, at its step, and the last training line, at its own, to the TensorBoard events, where
    TensorBoard is installed.

    pictures: grey (H, W) in 0…1 by name; distributions: values of which a histogram is kept.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return
    last = next((line for line in reversed(read_log(output)) if "loss" in line), {})
    with SummaryWriter(str(output / "tensorboard")) as writer:
        for name, value in validation.items():
            writer.add_scalar(f"validation/{name}", value, step)
        for name in last.keys() - {"step", "seconds"}:
            if np.isfinite(last[name]):
                writer.add_scalar(f"training/{name}", last[name], last["step"])
        for name, picture in (pictures or {}).items():
            writer.add_image(name, picture, step, dataformats="HW")
        for name, values in (distributions or {}).items():
            writer.add_histogram(name, values, step)
