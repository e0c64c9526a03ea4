"""A cohort on a Dask cluster: one task per case, the same results and the same summary as on one machine."""

from __future__ import annotations

import contextlib
import threading
import uuid
from asyncio import TimeoutError as WaitedLongEnough  # before Python 3.11 not the one that is built in
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..bundle import load_bundle
from ..errors import UsageError
from ..failures import Failure
from ..progress import CancelToken, Progress, no_progress
from .run import Task, Told, run_case, start
from .summary import Summary

_CONNECT_S, _LOOK_S = 15, 0.5
_ONE_AT_A_TIME = threading.Lock()
"""A worker process has one model, whose buffers and settings are those of one case: threads take turns."""


def run_on_cluster(
    cases: Sequence[Any], output: Path, settings: Task, scheduler: str, *, resume: bool = False,
    progress: Progress = no_progress, cancel: CancelToken | None = None, told: Told = lambda row, result: None,
) -> list[Any]:
    """As `run_cohort`, on the workers of the scheduler at `scheduler` (host:port).

    Scans, bundle and output must lie where every worker sees them under the same paths. Raises UsageError when
    there is no such scheduler or the package `distributed` is missing, else as `run_cohort`.
    """
    try:
        from distributed import Client, Event, wait
    except ImportError:
        words = "--scheduler needs the package distributed: in MedVAE's folder run  pip install \".[cluster]\"."
        raise UsageError(words) from None
    settings.check(cases)
    cancel = cancel or CancelToken()
    bundle = load_bundle(settings.bundle)
    settings, output = replace(settings, bundle=str(bundle.path)), output.resolve()
    cases = [case.resolved() for case in cases]
    try:
        client = Client(scheduler, timeout=_CONNECT_S, set_as_default=False)
    except (OSError, ValueError, WaitedLongEnough) as error:
        raise UsageError(f"There is no Dask scheduler at {scheduler} ({error}): start one, or leave out --scheduler.") \
            from None
    with client, client.as_current():  # wait() takes the current client
        rows, waiting = start(cases, output, settings, bundle, resume, told, cancel)
        stop = Event(f"medvae-{uuid.uuid4().hex}", client)
        futures = {client.submit(_case_on_worker, cases[i], output, settings, stop.name, pure=False): i
                   for i in waiting}
        pending = set(futures)
        try:
            with Summary(rows, output, cancel) as summary:
                while pending:
                    cancel.check()
                    try:
                        done, pending = wait(pending, timeout=_LOOK_S, return_when="FIRST_COMPLETED")
                    except WaitedLongEnough:
                        summary.write_if_due()
                        continue
                    for future in done:
                        index = futures[future]
                        rows[index] = _row(cases[index], settings, future)
                        summary.changed()
                        told(rows[index], None)
                    summary.write_if_due()
                    finished = len(futures) - len(pending)
                    progress("cohort", finished / len(futures), f"{finished} of {len(futures)} cases")
        except CancelledError as error:  # of the futures: their scheduler is gone
            raise UsageError(f"The connection to the Dask scheduler at {scheduler} was lost: start it again, and this "
                             "command with --resume.") from error
        finally:
            if pending:
                with contextlib.suppress(Exception):  # the scheduler may be gone
                    stop.set()  # a task that runs does not hear of the next line
            client.cancel(list(pending), force=True)
    return rows


def _row(case: Any, settings: Task, future: Any) -> Any:
    """What the worker returned; a worker that died, or a task that never ran, is a failure of that case."""
    error = future.exception()
    return settings.row.of_failure(case, Failure.of(error), 0.0) if error is not None else future.result()


def _case_on_worker(case: Any, output: Path, settings: Task, stop: str) -> Any:
    with _stopped_by(stop) as cancel:
        return _in_turn(case, output, settings, cancel)


def _in_turn(case: Any, output: Path, settings: Task, cancel: CancelToken) -> Any:
    with _ONE_AT_A_TIME:
        bundle = load_bundle(settings.bundle)
        model = _model(settings, bundle.sha256)
        row, _ = run_case(case, output, settings, bundle, model, no_progress, cancel)
        if settings.degraded(model):
            _model.cache_clear()
        return row


@contextlib.contextmanager
def _stopped_by(name: str) -> Iterator[CancelToken]:
    """A token that is cancelled as soon as the event of this name is set, wherever that happens."""
    from distributed import Event, get_client

    event, cancel, over = Event(name, get_client()), CancelToken(), threading.Event()

    def watch() -> None:
        while not over.is_set():
            if event.wait(timeout=_LOOK_S):
                return cancel.cancel()

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield cancel
    finally:
        over.set()


@lru_cache(maxsize=1)
def _model(settings: Task, sha256: str) -> Any:
    """Loaded once per worker process."""
    return settings.load(load_bundle(settings.bundle))
