"""Options that several commands share, so that they read and behave the same everywhere."""

from __future__ import annotations

import glob
import os
import re
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

_SHELL_EXPANDS = os.name != "nt"


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


BundleOption = Annotated[str | None, typer.Option(
    metavar="NAME|DIR", show_default=False,
    help="Model to use (see 'medvae bundles list'); by default the one shipped with MedVAE.")]
SeriesOption = Annotated[str | None, typer.Option(
    metavar="NAME", show_default=False,
    help="Which series of a DICOM folder, or volume of a 4D file, when it holds several.")]
PatternOption = Annotated[str, typer.Option(metavar="GLOB", help="Which files of a folder.")]
PatientOption = Annotated[str, typer.Option(
    metavar="REGEX", help="Its first group, found in a file's path, is the patient.")]
DeviceOption = Annotated[str, typer.Option(
    "--device", metavar="auto|cpu|cuda[:i]|mps", callback=_checked_device,
    help="Where to compute. 'auto' takes a GPU when there is one that works.")]
ProgressOption = Annotated[ProgressKind, typer.Option(
    "--progress", help="A bar on the terminal, or one JSON object per line on standard output, or nothing.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="On failure, print the traceback as well.")]
