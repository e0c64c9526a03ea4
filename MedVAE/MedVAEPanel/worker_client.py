"""Talking to the worker process: requests out, replies in, without ever waiting for it.

The worker is started with the first request and kept warm. Whatever happens to it (crash, kill, no memory, not
installed), every request ends with exactly one call of `on_result` or `on_error`, and the next one starts it anew.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import tempfile
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import qt
from slicer.i18n import tr as _

from .temporary import TemporaryFolder

CANCEL_GRACE_MS = 800
START_LIMIT_MS = 60_000
_TAIL_LINES = 12
_CRASH = "exit abnormally"
"""What Slicer's launcher, which PythonSlicer is, says when Python has crashed: it itself ends with the code 1."""


@dataclass
class Job:
    """One request on its way. The callbacks are called from the event loop."""

    id: int
    task: str
    on_result: Callable[[Mapping[str, Any]], None]
    on_error: Callable[[Mapping[str, Any]], None]
    on_progress: Callable[[Mapping[str, Any]], None] | None = None
    line: bytes = field(default=b"", repr=False)
    cancelled: bool = False


def make_process():
    """The real thing; tests hand in their own."""
    return qt.QProcess()


class WorkerClient:
    """`command`: program and arguments; `library`: folder of MedVAELib, put on the worker's PYTHONPATH."""

    def __init__(
        self, command: list[str], library: str | Path, log: Callable[[str], None] = lambda line: None,
        process_factory: Callable[[], Any] = make_process, temporary: str | Path | None = None,
        environment: Mapping[str, str] | None = None,
    ):
        self.command, self.library = list(command), str(library)
        self.environment = dict(environment or {})
        self._log, self._make_process, self._temporary = log, process_factory, temporary
        self._process: Any = None
        self._pid: int | None = None  # of the worker itself: the process may be a launcher
        self._ready = False
        self._jobs: dict[int, Job] = {}
        self._last_id = self._starts = 0
        self._buffer, self._errors = b"", b""
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._folder: TemporaryFolder | None = None
        self._closed = False

    # --- For the panel -----------------------------------------------------------------------------------------------

    @property
    def state(self) -> str:
        """"stopped", "starting", "idle" or "busy"."""
        if self._process is None:
            return "stopped"
        if not self._ready:
            return "starting"
        return "busy" if self._jobs else "idle"

    @property
    def pid(self) -> int | None:
        """Process id of the running worker, once it is ready."""
        return self._pid

    def folder(self, name: str) -> Path:
        """A new folder for one job's files, readable by this user only. Raises OSError when it cannot be made."""
        if self._folder is None or not self._folder.path.is_dir():
            self._folder = TemporaryFolder(self._temporary)
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self._folder.path))

    def request(
        self, task: str, fields: Mapping[str, Any], on_result: Callable[[Mapping[str, Any]], None],
        on_error: Callable[[Mapping[str, Any]], None],
        on_progress: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> Job:
        """Sends a request, starting the worker if need be. Returns at once."""
        self._last_id += 1
        line = json.dumps({"id": self._last_id, "task": task, **fields}).encode("ascii") + b"\n"
        job = Job(self._last_id, task, on_result, on_error, on_progress, line)
        self._jobs[job.id] = job
        if self._closed:
            job.cancelled = True
            self._later(0, self._drop, job.id)
        elif self._process is None:
            self._start()
        elif self._ready:
            self._send(line)
        return job

    def cancel(self, job: Job) -> None:
        """Asks the worker to stop; if it has not within 0.8 s, it is killed, and the requests behind this one are sent
        to a new one. `on_error` follows, kind "Cancelled"."""
        if self._jobs.get(job.id) is not job or job.cancelled:
            return
        job.cancelled = True
        computed = self._ready and next(iter(self._jobs.values())) is job  # one at a time, in the order they came
        if self._ready:
            self._send(json.dumps({"cancel": job.id}).encode("ascii") + b"\n")
        if computed:
            self._later(CANCEL_GRACE_MS, self._kill_if_open, job.id)
        else:
            self._later(0, self._drop, job.id)

    def shutdown(self) -> None:
        """Ends the worker now and removes the temporary folder. Open requests end as cancelled."""
        with self.closed():
            pass

    @contextlib.contextmanager
    def closed(self) -> Iterator[None]:
        """`shutdown`, and within no worker starts: requests end as cancelled at once, also those that are made when
        others end."""
        before, self._closed = self._closed, True
        try:
            for job in self._jobs.values():
                job.cancelled = True
            self._kill(_("MedVAE was closed."))
            if self._folder is not None:
                self._folder.remove()
                self._folder = None
            yield
        finally:
            self._closed = before

    # --- The process -------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        process = self._process = self._make_process()
        self._ready, self._pid, self._buffer, self._errors = False, None, b"", b""
        self._tail.clear()
        process.connect("readyReadStandardOutput()", lambda: self._read(process))
        process.connect("readyReadStandardError()", lambda: self._read_errors(process))
        process.connect("finished(int,QProcess::ExitStatus)", lambda *a: self._finished(process))
        process.connect("errorOccurred(QProcess::ProcessError)", lambda error: self._failed(process, error))
        self._run(process)
        self._starts += 1
        self._later(START_LIMIT_MS, self._give_up, self._starts)

    def _run(self, process) -> None:
        """Starts `python -m MedVAELib.worker` from the library's folder."""
        environment = qt.QProcessEnvironment.systemEnvironment()
        inherited = environment.value("PYTHONPATH", "")
        environment.insert("PYTHONPATH", os.pathsep.join([self.library, *([inherited] if inherited else [])]))
        environment.insert("PYTHONUNBUFFERED", "1")
        environment.insert("PYTHONIOENCODING", "utf-8")  # on Windows the log would be in its code page
        for name, value in self.environment.items():
            environment.insert(name, value)
        process.setProcessEnvironment(environment)
        process.setWorkingDirectory(self.library)  # `-m` looks there first: not where the user happens to be
        process.start(self.command[0], [*self.command[1:], "-m", "MedVAELib.worker"])

    @staticmethod
    def _later(milliseconds: int, call: Callable[[int], None], number: int) -> None:
        """Slicer keeps what a timer calls until it ends: so it is told a number, not a job, which holds a scan."""
        qt.QTimer.singleShot(milliseconds, lambda: call(number))

    def _give_up(self, start: int) -> None:
        if self._starts == start and not self._ready:
            self._kill(_("It did not start within a minute."))

    def _send(self, line: bytes) -> None:
        self._process.write(line)

    def _read(self, process) -> None:
        if process is not self._process:
            return
        self._buffer += bytes_of(process.readAllStandardOutput())
        *lines, self._buffer = self._buffer.split(b"\n")
        for line in lines:
            if process is self._process:  # a callback can have ended it
                self._receive(line)

    def _read_errors(self, process) -> None:
        if process is not self._process:
            return
        self._errors += bytes_of(process.readAllStandardError())
        *lines, self._errors = self._errors.split(b"\n")
        for line in lines:
            text = line.decode("utf-8", "replace").rstrip()
            if text:
                self._tail.append(text)
                self._log(f"worker: {text}")

    def _receive(self, line: bytes) -> None:
        try:
            message = json.loads(line)
            event = message["event"]
        except (ValueError, KeyError, TypeError):
            self._log(f"worker: {line.decode('utf-8', 'replace').rstrip()}")
            return
        if event == "ready":
            self._ready, self._pid = True, message.get("pid")
            self._log(f"The worker is ready (MedVAE {message.get('version', '?')}).")
            for job in [job for job in self._jobs.values() if not job.cancelled]:
                self._send(job.line)
            return
        job = self._jobs.get(message.get("id"))
        if job is None:
            if message.get("kind") != "Cancelled":
                self._log(f"worker: {message.get('message', event)}")
        elif event == "progress":
            if job.on_progress is not None and not job.cancelled:
                self._tell(job.on_progress, message)
        elif event == "result" and not job.cancelled:
            self._close(job, job.on_result, message)
        else:
            self._close(job, job.on_error, _CANCELLED if job.cancelled else message)

    def _close(self, job: Job, callback: Callable[[Mapping[str, Any]], None], message: Mapping[str, Any]) -> None:
        del self._jobs[job.id]
        self._tell(callback, message)

    def _failed(self, process, error) -> None:
        """Other errors than a failed start are followed by `finished`."""
        if process is self._process and error == qt.QProcess.FailedToStart:
            self._process = None
            self._ended(process, _("{program} cannot be started.").format(program=self.command[0]))

    def _finished(self, process) -> None:
        if process is not self._process:
            return
        self._read(process)
        self._read_errors(process)
        if process is self._process:
            self._process = None
            crashed = process.exitStatus() == qt.QProcess.CrashExit or any(_CRASH in line for line in self._tail)
            self._ended(process, _("It crashed or was killed, perhaps because memory ran out.") if crashed
                        else _("Its exit code was {code}.").format(code=process.exitCode()))

    def _drop(self, job_id: int) -> None:
        """One that still waits: the worker will pass over it, or was never told of it."""
        job = self._jobs.get(job_id)
        if job is not None:
            self._close(job, job.on_error, _CANCELLED)
            if not self._jobs and not self._ready:
                self._kill(_("It was ended to cancel."))

    def _kill_if_open(self, job_id: int) -> None:
        if job_id in self._jobs:
            self._log("The worker did not stop in time and was ended.")
            self._kill(_("It was ended to cancel."), keep_others=True)

    def _kill(self, reason: str, keep_others: bool = False) -> None:
        process, pid = self._process, self._pid
        if process is None:
            return
        self._process = None  # what it still says does not matter
        if pid:
            with contextlib.suppress(OSError):
                os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))
        process.closeWriteChannel()  # a worker behind a launcher ends with its standard input
        process.kill()
        process.waitForFinished(1000)
        self._ended(process, reason, keep_others)

    def _ended(self, process, reason: str, keep_others: bool = False) -> None:
        """Every open request ends here, or only those that were cancelled; the next one starts a new worker."""
        self._ready, self._pid = False, None
        jobs = [job for job in self._jobs.values() if job.cancelled or not keep_others]
        for job in jobs:
            del self._jobs[job.id]
        process.deleteLater()
        if not all(job.cancelled for job in jobs):
            self._log(f"The worker has ended. {reason}")
        text = _("The worker has ended. {reason}").format(reason=reason)
        message = {"kind": "WorkerError", "exit_code": 1, "message": text, "log": list(self._tail)}
        for job in jobs:
            self._tell(job.on_error, _CANCELLED if job.cancelled else message)
        if self._jobs and self._process is None and not self._closed:
            self._start()

    def _tell(self, callback: Callable[[Any], None], what: Any) -> None:
        """One that fails must not keep the others from hearing what is theirs."""
        try:
            callback(what)
        except Exception:
            self._log(f"What the worker said could not be used.\n{traceback.format_exc()}")


_CANCELLED = {"kind": "Cancelled", "exit_code": 130, "message": _("Cancelled.")}


def bytes_of(data) -> bytes:
    """What a QByteArray holds; older versions of PythonQt give it as text."""
    data = data.data()
    return data.encode("utf-8", "surrogateescape") if isinstance(data, str) else bytes(data)


def python_command() -> list[str]:
    """The Python that Slicer runs; outside of Slicer, this one."""
    import sys

    import slicer

    name = "PythonSlicer.exe" if os.name == "nt" else "PythonSlicer"
    beside = Path(slicer.app.slicerHome) / "bin" / name
    if beside.is_file():
        return [str(beside)]
    found = shutil.which("PythonSlicer")
    return [found or sys.executable]
