"""Lines in, lines out: reads requests, runs one at a time, cancels them, and ends at once when nobody listens."""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from .. import __version__
from ..errors import Cancelled, UsageError
from ..failures import Failure
from ..progress import CancelToken, throttled

MAX_LINE_BYTES = 4 << 20
_END_SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP")

Task = Callable[["Job"], Mapping[str, Any]]


class Job:
    """One request while it waits and runs: its fields, its token, its progress, and the folder it may leave behind."""

    def __init__(self, request: Mapping[str, Any], reply: Callable[[Mapping[str, Any]], None]):
        self.id, self.task, self.request = request["id"], request.get("task"), request
        self.cancel = CancelToken()
        self.partial: Path | None = None
        """A folder with unfinished files, to be removed should the process have to end at once."""
        self.progress = throttled(lambda stage, fraction, message: reply({
            "id": self.id, "event": "progress", "stage": stage, "fraction": fraction, "message": message}))


class Server:
    """Requests from `source`, replies to `sink`. Tasks run one after the other in the thread that calls `run`."""

    def __init__(self, tasks: Mapping[str, Task], source: BinaryIO, sink: BinaryIO):
        self._tasks, self._source, self._sink = tasks, source, sink
        self._waiting: queue.Queue[Job] = queue.Queue()
        self._open: dict[int | str, Job] = {}  # waiting or running, by id
        self._lock = threading.Lock()  # of _open
        self._writing = threading.Lock()

    def run(self) -> None:
        """Never returns: the process ends with its standard input, a signal, or a shutdown request."""
        self._reply({"event": "ready", "version": __version__, "pid": os.getpid()})
        threading.Thread(target=self._read, name="requests", daemon=True).start()
        while True:
            job = self._waiting.get()
            answer = self._answer(job)
            with self._lock:
                self._open.pop(job.id, None)
            try:
                self._reply({"id": job.id, **answer})
            except (TypeError, ValueError) as error:  # an answer that is no JSON
                self._refuse(error, job.id)

    def end(self, code: int) -> None:
        """Ends the process at once, whatever runs; unfinished files go with it. Waits for no lock."""
        for job in list(self._open.values()):
            if job.partial is not None:
                shutil.rmtree(job.partial, ignore_errors=True)
        os._exit(code)

    def _answer(self, job: Job) -> dict[str, Any]:
        try:
            job.cancel.check()
            answer = self._tasks[job.task](job)
            return {"event": "result", **answer}
        except Exception as error:
            if job.cancel.cancelled and not isinstance(error, Cancelled):
                error = Cancelled()  # what broke while being cancelled does not matter any more
            failure = Failure.of(error)
            if failure.unexpected:
                traceback.print_exc()
            print(f"{job.task} {job.id}: {failure.kind}", file=sys.stderr, flush=True)
            return {"event": "error", "kind": failure.kind, "exit_code": failure.exit_code, "message": failure.message}

    def _reply(self, message: Mapping[str, Any]) -> None:
        line = json.dumps(message, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace") + b"\n"
        try:
            with self._writing:
                self._sink.write(line)
                self._sink.flush()
        except OSError:  # nobody listens any more
            self.end(0)

    # --- The reading thread ------------------------------------------------------------------------------------------

    def _read(self) -> None:
        try:
            while line := self._source.readline(MAX_LINE_BYTES):
                if not line.endswith(b"\n") and len(line) == MAX_LINE_BYTES:
                    while (rest := self._source.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
                        pass
                    self._refuse(UsageError("A request is longer than a request can be."))
                elif line.strip():
                    self._take(line)
        finally:
            self.end(0)

    def _take(self, line: bytes) -> None:
        try:
            request = json.loads(line.decode("utf-8"))
            if not isinstance(request, dict):
                raise ValueError
        except (ValueError, RecursionError):
            return self._refuse(UsageError("A request must be one JSON object on one line."))
        if isinstance(request.get("cancel"), (int, str)):
            return self._cancel(request["cancel"])
        if request.get("task") == "shutdown":
            return self.end(0)
        number = request.get("id")
        if not isinstance(number, (int, str)) or isinstance(number, bool):
            return self._refuse(UsageError("A request needs an id, a number or a text."))
        with self._lock:
            known = number in self._open
        if known:
            return self._refuse(UsageError(f"There is already a request with the id {number}."))
        if not isinstance(request.get("task"), str) or request["task"] not in self._tasks:
            names = ", ".join(sorted(self._tasks))
            return self._refuse(UsageError(f"There is no task {request.get('task')!r}: use one of {names}."), number)
        job = Job(request, self._reply)
        with self._lock:
            self._open[number] = job
        self._waiting.put(job)

    def _refuse(self, error: Exception, number: int | str | None = None) -> None:
        failure = Failure.of(error)
        self._reply({"id": number, "event": "error", "kind": failure.kind, "exit_code": failure.exit_code,
                     "message": failure.message})

    def _cancel(self, number: object) -> None:
        """An id that is not open has ended already: nothing to do."""
        with self._lock:
            job = self._open.get(number) if isinstance(number, (int, str)) else None
        if job is not None:
            job.cancel.cancel()


def private_streams() -> tuple[BinaryIO, BinaryIO]:
    """Standard input and output for the protocol alone: what a library prints goes to standard error.

    Standard input is replaced by nothing: on Windows, loading a library can wait for a thread that reads it.
    """
    source, sink = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    sys.stdout.flush()
    os.dup2(2, 1)
    sys.stdin, sys.stdout = open(0, closefd=False, encoding="utf-8"), sys.stderr
    return source, sink


def hold_signals() -> set[int]:
    """Keeps the signals that shall end the process for `end_on_signals`; threads started after this inherit it."""
    if not hasattr(signal, "pthread_sigmask"):
        return set()  # Windows ends a process without asking it
    numbers = {getattr(signal, name) for name in _END_SIGNALS}
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    return numbers


def end_on_signals(server: Server, numbers: set[int]) -> None:
    """Waits for signals in a thread: the main thread hears of them only between two steps of a computation."""
    if numbers:
        threading.Thread(target=lambda: server.end(128 + signal.sigwait(numbers)), name="signals", daemon=True).start()
