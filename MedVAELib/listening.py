"""Listeners that need no package: progress as JSON lines, and Ctrl-C or SIGTERM as cancellation."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TextIO

from .progress import CancelToken

_SECONDS_BETWEEN_LINES = 0.1


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
