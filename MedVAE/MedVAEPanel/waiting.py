"""Asking the worker from a script, which waits for the answer while Slicer goes on."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import slicer

from .worker_client import WorkerClient

_PAUSE_S = 0.01


class WorkerFailed(RuntimeError):
    """The worker's sentence on why there is no result, and its last lines if it died. kind: as in the reply."""

    def __init__(self, error: Mapping[str, Any]):
        super().__init__("\n".join([error["message"], *error.get("log", [])]))
        self.kind = error.get("kind", "")


def ask(worker: WorkerClient, task: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The worker's answer. Raises WorkerFailed; an interrupt, where Python hears of it, cancels the request."""
    results: list[Mapping[str, Any]] = []
    errors: list[Mapping[str, Any]] = []
    job = worker.request(task, fields, results.append, errors.append)
    try:
        while not (results or errors):
            slicer.app.processEvents()
            time.sleep(_PAUSE_S)
    except BaseException:
        worker.cancel(job)
        raise
    if errors:
        raise WorkerFailed(errors[0])
    return dict(results[0])
