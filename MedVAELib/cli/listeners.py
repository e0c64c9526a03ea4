"""What listens to a running task: progress as a bar or JSON lines, and Ctrl-C or SIGTERM as cancellation."""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from types import FrameType
from typing import TextIO

from ..progress import CancelToken, Progress, no_progress
from .options import ProgressKind

_SECONDS_BETWEEN_LINES = 0.1


@contextmanager
def progress_listener(kind: ProgressKind) -> Iterator[Progress]:
    """A progress callback of the given kind.

    With JSON lines, standard output carries them alone: whatever else is printed meanwhile, by us or a library,
    goes to standard error.
    """
    if kind is ProgressKind.json:
        lines = JsonLines(sys.stdout)
        with redirect_stdout(sys.stderr):
            yield lines
    elif kind is ProgressKind.bar and sys.stderr.isatty():
        with _bar() as listener:
            yield listener
    else:
        yield no_progress


class JsonLines:
    """Writes {"stage", "fraction", "message"} as one JSON object per line, at most ten a second within a stage."""

    def __init__(self, stream: TextIO):
        self._stream: TextIO | None = stream
        self._stage, self._time, self._fraction = "", 0.0, 0.0

    def __call__(self, stage: str, fraction: float, message: str = "") -> None:
        now = time.monotonic()
        if stage == self._stage and fraction < 1.0 and now - self._time < _SECONDS_BETWEEN_LINES:
            return
        self._stage, self._time, self._fraction = stage, now, max(self._fraction, fraction)
        line = json.dumps({"stage": stage, "fraction": round(self._fraction, 4), "message": message})
        if self._stream is not None:
            try:
                self._stream.write(line + "\n")
                self._stream.flush()
            except BrokenPipeError:  # nobody listens any more; the results still matter
                self._stream = None


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


@contextmanager
def cancelled_by_signals() -> Iterator[CancelToken]:
    """A token that Ctrl-C or SIGTERM cancels; a second Ctrl-C interrupts at once (and still cleans up)."""
    token = CancelToken()
    if threading.current_thread() is not threading.main_thread():  # signals reach the main thread only
        yield token
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if token.cancelled:
            raise KeyboardInterrupt
        token.cancel()

    earlier = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield token
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
