"""Progress and cancellation, shared by every task: a callback out, a token in."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from .errors import Cancelled

Progress = Callable[[str, float, str], None]
"""Called as progress(stage, fraction, message); fraction in [0, 1] over the whole task, never decreasing."""
_SECONDS_BETWEEN_REPORTS = 0.1


def no_progress(stage: str, fraction: float, message: str = "") -> None:
    """The default listener: does nothing."""


def scaled(progress: Progress, start: float, stop: float) -> Progress:
    """A listener for one stage of a task, whose own 0…1 lies at start…stop of the whole."""

    def report(stage: str, fraction: float, message: str = "") -> None:
        progress(stage, start + (stop - start) * min(max(fraction, 0.0), 1.0), message)

    return report


def throttled(progress: Progress) -> Progress:
    """A listener that passes on at most ten reports a second within a stage, and no fraction that falls."""
    last, reported, highest = "", 0.0, 0.0

    def report(stage: str, fraction: float, message: str = "") -> None:
        nonlocal last, reported, highest
        now = time.monotonic()
        if stage == last and fraction < 1.0 and now - reported < _SECONDS_BETWEEN_REPORTS:
            return
        last, reported, highest = stage, now, max(highest, fraction)
        progress(stage, round(highest, 4), message)

    return report


class CancelToken:
    """Set from any thread or signal handler; long work calls `check()` between its steps (at least every second)."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def cancel(self) -> None:
        self._event.set()

    @property
    def cancelled(self) -> bool:
        return self._event.is_set()

    def check(self) -> None:
        """Raises Cancelled once `cancel()` was called."""
        if self._event.is_set():
            raise Cancelled()
