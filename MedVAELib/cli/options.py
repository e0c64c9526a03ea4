"""Options that several commands share, so that they read and behave the same everywhere."""

from __future__ import annotations

import glob
import os
import re
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

_SHELL_EXPANDS = os.name != "nt"


def new_app(**settings: Any) -> typer.Typer:
    """For commands that are called by `medvae NAME`, and are an app of their own."""
    return typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
                       context_settings={"help_option_names": ["-h", "--help"]}, **settings)


class ProgressKind(str, Enum):
    """How progress is shown."""

    bar = "bar"
    json = "json"
    none = "none"


def _checked_device(value: str) -> str:
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", value):
        raise typer.BadParameter(f"{value!r} is not a device: use auto, cpu, cuda, cuda:1 or mps.")
    return value


def expanded(files: list[Path] | None) -> list[Path] | None:
    """Callback of arguments that are files: what other shells do with wildcards and those of Windows do not."""
    if _SHELL_EXPANDS or not files:
        return files
    return [Path(name) for file in files
            for name in (not os.path.exists(file) and sorted(glob.glob(str(file)))) or [str(file)]]


DeviceOption = Annotated[str, typer.Option(
    "--device", metavar="auto|cpu|cuda[:i]|mps", callback=_checked_device,
    help="Where to compute. 'auto' takes a GPU when there is one that works.")]
ProgressOption = Annotated[ProgressKind, typer.Option(
    "--progress", help="A bar on the terminal, or one JSON object per line on standard output, or nothing.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="On failure, print the traceback as well.")]
