"""`medvae train`: reproduce a shipped bundle, or train a new one, from one configuration file."""

from __future__ import annotations

import os
import time
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from ..errors import Cancelled, InputError, UsageError
from ..listening import cancelled_by_signals
from ..progress import CancelToken, Progress, no_progress
from .listeners import progress_listener, spoken
from .options import DebugOption, DeviceOption, ProgressKind, ProgressOption

TASKS = {
    "healthy-anatomy": "anomaly.train", "fetal-skull": "skull.train", "head-outline": "skull.train_outline",
    "images": "latent.train",
}
"""What a config's `task:` may name, with the module whose `train_from_config` trains it."""
_SECONDS_TO_SPEAK = 10.0


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

    Ctrl-C stops after the current step and keeps a checkpoint; --resume goes on from there. Several GPUs, or several
    processes on a CPU, share a run when torchrun starts it, with the same result.

    Examples:

        medvae train Resources/configs/healthy-anatomy.yaml --output runs/mine

        medvae train Resources/configs/healthy-anatomy.yaml --output runs/mine --resume --device cuda

        torchrun --nproc-per-node 2 -m MedVAELib train Resources/configs/vae-8.yaml --output runs/vae-8
    """
    if not config.is_file():
        raise UsageError(f"The configuration {config} does not exist: give a YAML file, "
                         "such as one of those in Resources/configs.")
    output = output or Path("runs") / config.stem
    with cancelled_by_signals() as cancel, progress_listener(progress) as listener:
        listener("start", 0.0, "Starting")
        try:
            bundle, first = _train(config, resume, output, device, listener, cancel)
        except Cancelled as error:
            raise Cancelled(f"Cancelled: the same command with --resume goes on from the checkpoint in {output}.") \
                from error
        except (InputError, UsageError) as error:
            # What is wrong with config or data every process finds: the first is to say it, and torchrun, which sees
            # it end, ends the others by a signal.
            if os.environ.get("RANK", "0") != "0" and _ended_within(_SECONDS_TO_SPEAK, cancel):
                raise typer.Exit(error.exit_code) from error
            raise
    if first and progress is not ProgressKind.json:
        print(f"Bundle: {bundle}")


def _ended_within(seconds: float, cancel: CancelToken) -> bool:
    end = time.monotonic() + seconds
    while not cancel.cancelled and time.monotonic() < end:
        time.sleep(0.1)
    return cancel.cancelled


def _train(
    config: Path, resume: bool, output: Path, device: str, progress: Progress, cancel: CancelToken
) -> tuple[Path, bool]:
    """The bundle's folder, and whether this process is the first."""
    from ..models.registry import ModelConfigError
    from ..training.config import read_task
    from ..training.processes import joined
    from ..training.run import check_output

    train_from_config = import_module(f"..{TASKS[read_task(config, TASKS)]}", __package__).train_from_config
    check_output(output, resume)  # before images are read for minutes
    try:
        with joined(device) as (own_device, first):
            bundle = train_from_config(config, output=output, resume=resume, device=own_device,
                                       progress=spoken(progress) if first else no_progress, cancel=cancel)
    except ModelConfigError as error:
        raise InputError(f"{config}: section 'model': {error}") from error
    return bundle, first
