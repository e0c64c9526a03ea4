"""What the training runs of all tasks have in common: the trainer they start with, and TensorBoard's events."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..bundle import load_bundle
from ..models import build_model
from .config import RunConfig
from .trainer import Trainer

_SETTLING = 300
"""Steps after its warm-up that a training may take to find its way before it is judged."""


def start_trainer(
    config: RunConfig, output: Path, device: torch.device, resume: bool,
    warm_up: Callable[[nn.Module], int] | None = None,
) -> Trainer:  # fmt: skip
    """The trainer of a run: new, from the config's initial weights, or resumed from the checkpoint in `output`.

    warm_up: gives the steps before which the run of a model is not judged; None: it is never judged, unless its loss
    is no number.
    """
    torch.manual_seed(config.trainer.seed)
    model = build_model(config.model_name, config.model_settings)
    if config.initial_weights:
        model.load_state_dict(load_bundle(config.initial_weights).state_dict())
    trainer = Trainer(model, config.trainer, output, device, warm_up(model) if warm_up else 0)
    if warm_up:
        trainer.watch_health(warm_up(model) + _SETTLING)
    if resume:
        trainer.resume()
    return trainer


def tensorboard(
    output: Path, validation: Mapping[str, float], pictures: Mapping[str, NDArray[np.float32]] | None = None,
    distributions: Mapping[str, NDArray[np.float32]] | None = None,
) -> None:  # fmt: skip
    """Adds a validation and the last training line to the TensorBoard events, where TensorBoard is installed.

    pictures: grey (H, W) in 0…1 by name; distributions: values of which a histogram is kept.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return
    lines = (output / "log.jsonl").read_text(encoding="utf-8").splitlines() if (output / "log.jsonl").exists() else []
    last = json.loads(lines[-1]) if lines else {"step": 0}
    with SummaryWriter(str(output / "tensorboard")) as writer:
        for name, value in validation.items():
            writer.add_scalar(f"validation/{name}", value, last["step"])
        for name in set(last) - {"step", "seconds", "validation"}:
            if np.isfinite(last[name]):
                writer.add_scalar(f"training/{name}", last[name], last["step"])
        for name, picture in (pictures or {}).items():
            writer.add_image(name, picture, last["step"], dataformats="HW")
        for name, values in (distributions or {}).items():
            writer.add_histogram(name, values, last["step"])
