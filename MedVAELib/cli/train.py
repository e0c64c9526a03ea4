"""`medvae train`: reproduce a shipped bundle, or train a new one, from one configuration file."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from ..errors import Cancelled, UsageError
from ..listening import cancelled_by_signals
from ..progress import no_progress
from .listeners import progress_listener
from .options import DebugOption, DeviceOption, ProgressKind, ProgressOption

TASKS = {
    "healthy-anatomy": "anomaly.train", "fetal-skull": "skull.train", "head-outline": "skull.train_outline",
    "images": "latent.train",
}  # fmt: skip
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
        from ..training.config import read_task
        from ..training.processes import joined

        train_from_config = import_module(f"..{TASKS[read_task(config, TASKS)]}", __package__).train_from_config
        try:
            with joined(device) as (own_device, first):
                bundle = train_from_config(config, output=output, resume=resume, device=own_device,
                                           progress=listener if first else no_progress, cancel=cancel)
        except Cancelled as error:
            raise Cancelled(f"Cancelled: the same command with --resume goes on from the checkpoint in {output}.") \
                from error
    if first and progress is not ProgressKind.json:
        print(f"Bundle: {bundle}")
