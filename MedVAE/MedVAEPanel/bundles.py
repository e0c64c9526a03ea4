"""Importing and verifying bundles from the panel, in a process of their own, without waiting for it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import qt
from slicer.i18n import tr as _

from .library import MODULE_DIR
from .worker_client import bytes_of, run_module


class BundleCommand:
    """Runs `bundle_command.py`, one at a time. `python`: program and arguments of Slicer's Python."""

    def __init__(self, python: Sequence[str], environment: Mapping[str, str] | None = None):
        self.python, self.environment = list(python), dict(environment or {})
        self._process: Any = None

    @property
    def running(self) -> bool:
        return self._process is not None

    def start(self, arguments: Sequence[str], on_done: Callable[[Mapping[str, Any]], None]) -> None:
        """Returns at once; `on_done` gets the command's answer, or {"error": sentence}."""
        process = self._process = qt.QProcess()
        process.connect("finished(int,QProcess::ExitStatus)", lambda *_: self._finished(process, on_done))
        process.connect("errorOccurred(QProcess::ProcessError)", lambda error: self._failed(process, error, on_done))
        module = [f"{__package__}.bundle_command", *arguments]
        run_module(process, self.python, MODULE_DIR, module, self.environment)

    def stop(self) -> None:
        """Ends a running command; its `on_done` is not called."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.waitForFinished(1000)
            process.deleteLater()

    def _failed(self, process, error, on_done) -> None:
        if process is self._process and error == qt.QProcess.FailedToStart:
            self._process = None
            process.deleteLater()
            on_done({"error": _("{program} cannot be started.").format(program=Path(self.python[0]).name)})

    def _finished(self, process, on_done) -> None:
        if process is not self._process:
            return
        self._process = None
        printed, errors = (bytes_of(each).decode("utf-8", "replace")
                           for each in (process.readAllStandardOutput(), process.readAllStandardError()))
        process.deleteLater()
        try:
            answer = json.loads(printed.strip().splitlines()[-1])
        except (ValueError, IndexError):
            last = (errors.strip().splitlines() or [_("it was ended")])[-1]
            answer = {"error": _("The bundle was not read ({reason}).").format(reason=last)}
        on_done(answer)
