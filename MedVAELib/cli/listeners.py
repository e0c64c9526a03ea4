"""What shows the progress of a running task: a bar or JSON lines."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stdout

from ..listening import json_lines
from ..progress import Progress, no_progress
from .options import ProgressKind


@contextmanager
def progress_listener(kind: ProgressKind) -> Iterator[Progress]:
    """A progress callback of the given kind.

    With JSON lines, standard output carries them alone: whatever else is printed meanwhile, by us or a library,
    goes to standard error.
    """
    if kind is ProgressKind.json:
        lines = json_lines(sys.stdout)
        with redirect_stdout(sys.stderr):
            yield lines
    elif kind is ProgressKind.bar and sys.stderr.isatty():
        with _bar() as listener:
            yield listener
    else:
        yield no_progress


@contextmanager
def _bar() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as RichProgress

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with RichProgress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("Starting", total=1.0)

        def listener(stage: str, fraction: float, message: str = "") -> None:
            bar.update(task, completed=fraction, description=(message or stage).replace("[", r"\["))

        yield listener


def spoken(progress: Progress) -> Progress:
    """What is to stay on the screen, also where no progress is shown, is printed besides."""

    def told(stage: str, fraction: float, message: str = "") -> None:
        progress(stage, fraction, message)
        if stage == "parts":
            print(message, flush=True)
        elif stage == "warning":
            warn([message])

    return told


def warn(warnings: Iterable[str]) -> None:
    for warning in warnings:
        print(f"medvae: warning: {warning}", file=sys.stderr, flush=True)
