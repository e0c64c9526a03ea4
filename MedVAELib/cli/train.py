"""`medvae train`: reproduce a shipped bundle, or train a new one, from one configuration file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import UsageError
from .listeners import cancelled_by_signals, progress_listener
from .options import DebugOption, DeviceOption, ProgressKind, ProgressOption


def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", show_default=False,
                                           help="What to train, on what data; see Resources/configs/.")],
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in the output.")] = False,
    output: Annotated[Path | None, typer.Option(
        "--output", "-o", metavar="DIR", show_default=False,
        help="Folder for checkpoints, loss curves, pictures and the bundle; by default as the config says.")] = None,
    device: DeviceOption = "auto",
    progress: ProgressOption = ProgressKind.bar,
    debug: DebugOption = False,
) -> None:
    """Train a model from a configuration file, with checkpoints, loss curves and pictures as it goes.

    Ctrl-C stops after the current step and keeps a checkpoint; --resume goes on from there.

    Examples:

        medvae train Resources/configs/healthy_anatomy.yaml --output runs/mine

        medvae train Resources/configs/healthy_anatomy.yaml --output runs/mine --resume --device cuda
    """
    if not config.is_file():
        raise UsageError(f"The configuration {config} does not exist: give a YAML file, "
                         "such as one of those in Resources/configs.")
    with cancelled_by_signals() as cancel, progress_listener(progress) as listener:
        listener("start", 0.0, "Starting")
        from ..training.run import train_from_config

        train_from_config(config, output=output, resume=resume, device=device, progress=listener, cancel=cancel)
