"""`medvae train`: reproduce a shipped bundle, or train a new one, from one configuration file."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from ..errors import Cancelled, UsageError
from ..listening import cancelled_by_signals
from .listeners import progress_listener
from .options import DebugOption, DeviceOption, ProgressKind, ProgressOption

TASKS = {"healthy-anatomy": "anomaly.train", "fetal-skull": "skull.train", "head-outline": "skull.train_outline"}
"""What a config's `task:` may name, with the module whose `train_from_config` trains it."""


def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", show_default=False,
                                           help="What to train, on what data; see Resources/configs/.")],
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in the output.")] = False,
    output: Annotated[Path | None, typer.Option(
        "--output", "-o", metavar="DIR", show_default=False,
        help="Folder for checkpoints, loss curves, pictures and the bundle; by default runs/ and the config's name."),
    ] = None,
    device: DeviceOption = "auto",
    progress: ProgressOption = ProgressKind.bar,
    debug: DebugOption = False,
) -> None:
    """Train a model from a configuration file, with checkpoints, loss curves and pictures as it goes.

    Ctrl-C stops after the current step and keeps a checkpoint; --resume goes on from there.

    Examples:

        medvae train Resources/configs/healthy-anatomy.yaml --output runs/mine

        medvae train Resources/configs/healthy-anatomy.yaml --output runs/mine --resume --device cuda
    """
    if not config.is_file():
        raise UsageError(f"The configuration {config} does not exist: give a YAML file, "
                         "such as one of those in Resources/configs.")
    output = output or Path("runs") / config.stem
    with cancelled_by_signals() as cancel, progress_listener(progress) as listener:
        listener("start", 0.0, "Starting")
        from ..training.config import read_task

        train_from_config = import_module(f"..{TASKS[read_task(config, TASKS)]}", __package__).train_from_config
        try:
            bundle = train_from_config(config, output=output, resume=resume, device=device, progress=listener,
                                       cancel=cancel)
        except Cancelled as error:
            raise Cancelled(f"Cancelled: the same command with --resume goes on from the checkpoint in {output}.") \
                from error
    if progress is not ProgressKind.json:
        print(f"Bundle: {bundle}")
