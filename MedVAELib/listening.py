"""Listeners that need no package: progress as JSON lines, and Ctrl-C or SIGTERM as cancellation."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from types import FrameType
from typing import Any, TextIO

from .progress import CancelToken, Progress, throttled

_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name))
_listening = 0  # blocks of `cancelled_by_signals` that are open


def print_anything() -> None:
    """What standard output and error cannot spell, as a log file on Windows, is printed escaped and ends no run."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # Slicer's own do not have it
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def whoever_listens() -> Iterator[None]:
    """Within, what standard output or error do not take any more, as their reader has gone or a disk is full, is lost
    and ends nothing: the results still matter. Programs without a window have neither of them."""
    out, error = _Lossy(sys.stdout), _Lossy(sys.stderr)
    with redirect_stdout(out), redirect_stderr(error):
        try:
            yield
        finally:
            out.flush()
            error.flush()


class _Lossy:
    def __init__(self, stream: TextIO | None):
        self._stream = open(os.devnull, "w", encoding="utf-8") if stream is None else stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError:
            self._give_up()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            self._give_up()

    def _give_up(self) -> None:
        """What is still in the buffer would be tried again when the interpreter ends, and change its exit code."""
        with suppress(OSError):  # no file at all
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


def json_lines(stream: TextIO) -> Progress:
    """Writes {"stage", "fraction", "message"} as one JSON object per line, `throttled`."""
    listening = True

    def write(stage: str, fraction: float, message: str = "") -> None:
        nonlocal listening
        if listening:
            try:
                stream.write(json.dumps({"stage": stage, "fraction": fraction, "message": message}) + "\n")
                stream.flush()
            except OSError:  # nobody listens any more; the results still matter
                listening = False

    return throttled(write)


@contextmanager
def cancelled_by_signals() -> Iterator[CancelToken]:
    """A token that Ctrl-C, SIGTERM or a closed terminal (unless under nohup) cancels; a second Ctrl-C interrupts at
    once (and still cleans up).

    Processes forked within, such as those that load data, hear neither: `timeout`, Slurm or a terminal tell the whole
    group, and this process needs them until it has stopped in order, which ends them.
    """
    global _listening
    token = CancelToken()
    if threading.current_thread() is not threading.main_thread():  # signals reach the main thread only
        yield token
        return

    def handle(number: int, frame: FrameType | None) -> None:
        # SIGTERM may come twice by itself: `timeout` and torchrun tell this process and then its group.
        if token.cancelled and number == signal.SIGINT:
            raise KeyboardInterrupt
        token.cancel()

    heard = [number for number in _SIGNALS
             if number in (signal.SIGINT, signal.SIGTERM) or signal.getsignal(number) is not signal.SIG_IGN]
    earlier = {number: signal.signal(number, handle) for number in heard}
    _listening += 1
    try:
        yield token
    finally:
        _listening -= 1
        for number, handler in earlier.items():
            signal.signal(number, handler)


_before_fork = threading.local()


def _deaf_if_listening() -> None:
    # Blocked, not ignored: PyTorch's data loaders set handlers of their own in the processes they start. Before the
    # fork, as PyTorch starts threads in the new process before anything of Python runs there.
    _before_fork.heard = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS if _listening else ())


def _hear_again() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _before_fork.heard)


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(before=_deaf_if_listening, after_in_parent=_hear_again)
