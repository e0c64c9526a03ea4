"""A button that runs one of the worker's tasks and is Cancel meanwhile, with the progress and the words below it."""

from __future__ import annotations

import shutil
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _

from .saying import say
from .worker_client import Job


@dataclass
class Running:
    """A task on its way. subject: the node it is about, as it was when the button was clicked."""

    subject: Any
    folder: Path
    started: float
    on_result: Callable[[Mapping[str, Any], float], str]
    why_cancelled: str = ""
    job: Job | None = None


class TaskRun:
    """`text`, `tip`: of the button while nothing runs. `missing()`: what keeps it from being clicked, as sentences.

    A click calls `begin()`, which calls `start`. `on_end()` is told when the task is over, whatever came of it.
    """

    def __init__(self, panel, button, progress_bar, message_label, text: str, tip: str,
                 missing: Callable[[], list[str]], begin: Callable[[], None], on_end: Callable[[], None]):
        self.panel, self.button, self.bar, self.label = panel, button, progress_bar, message_label
        self.text, self.tip, self._missing, self._begin, self._on_end = text, tip, missing, begin, on_end
        self.running: Running | None = None
        progress_bar.setVisible(False)
        button.connect("clicked(bool)", lambda *a: self._on_clicked())

    def start(self, task: str, subject, fields: Callable[[Path], Mapping[str, Any]],
              on_result: Callable[[Mapping[str, Any], float], str]) -> None:
        """Returns at once.

        fields(folder): the request; it writes the input into the task's own folder, which is removed at the end. The
        sentence of a ValueError is shown, and nothing is asked then.
        on_result(reply, seconds): puts the reply into the scene and returns what came of it, as a sentence; what it
        raises is shown, and unless it is ValueError or OSError, where it came from is in the log.
        """
        worker, folder = self.panel.worker, None
        try:
            folder = worker.folder(task)
            request = fields(folder)
        except (OSError, ValueError) as error:
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)
            text = str(error) if isinstance(error, ValueError) else _(
                "The image cannot be handed over ({reason}): make room in the folder for temporary files, "
                "{folder}.").format(reason=error.strerror or error, folder=slicer.app.temporaryPath)
            return self.say(text, bad=True)
        running = self.running = Running(subject, folder, time.monotonic(), on_result)
        self.bar.value = 0
        self.bar.setVisible(True)
        self.say(_("Starting…") if worker.state == "stopped" else _("Handing over the image…"))
        running.job = worker.request(
            task, {**request, "output": str(folder / "result")}, lambda reply: self._on_result(running, reply),
            lambda error: self._on_error(running, error), self._on_progress)
        self.update_button()

    def cancel(self, why: str) -> None:
        """Ends what runs within a second; `why` is what the user then reads."""
        running = self.running
        if running is None or running.why_cancelled:
            return
        running.why_cancelled = why
        self.say(_("Cancelling…"))
        self.update_button()
        self.panel.worker.cancel(running.job)

    def update_button(self) -> None:
        """Called whenever what `missing` looks at may have changed."""
        button = self.button
        if self.running is not None:
            button.text, button.enabled = _("Cancel"), not self.running.why_cancelled
            button.toolTip = _("Stops the computation; nothing is added to the scene.")
            return
        missing = self._missing()
        button.text, button.enabled = self.text, not missing
        button.toolTip = "\n".join(missing) or self.tip

    def say(self, text: str, bad: bool = False) -> None:
        say(self.label, text, bad)

    def _on_clicked(self) -> None:
        if self.running is not None:
            self.cancel(_("Cancelled; nothing was added to the scene."))
        else:
            focused = self.button.window().focusWidget()  # on macOS a click leaves it where a number was typed
            if hasattr(focused, "interpretText"):
                focused.interpretText()
            self._begin()

    def _on_progress(self, message: Mapping[str, Any]) -> None:
        self.bar.value = int(round(100 * message["fraction"]))
        if message.get("message"):
            self.say(message["message"] + "…")

    def _on_result(self, running: Running, reply: Mapping[str, Any]) -> None:
        try:
            text = running.on_result(reply, time.monotonic() - running.started)
        except (ValueError, OSError) as error:
            return self._end(running, str(error), bad=True)
        except Exception as error:  # whatever it is, the button must come back
            self.panel.log.add(traceback.format_exc())
            return self._end(running, _("The result could not be shown ({error}); see the log.").format(
                error=f"{type(error).__name__}: {error}"), bad=True)
        self._end(running, text)
        self.panel.offers.ask(again=True)  # free memory has changed

    def _on_error(self, running: Running, error: Mapping[str, Any]) -> None:
        if running.why_cancelled:
            return self._end(running, running.why_cancelled)
        text = error["message"]
        if error.get("log"):
            text = _("{problem} Its last words:\n{lines}\nClick again to start it anew.").format(
                problem=text, lines="\n".join(error["log"][-6:]))
        if error.get("kind") == "MissingPackage":
            self.panel.show_setup()
        self._end(running, text, bad=True)

    def _end(self, running: Running, text: str, bad: bool = False) -> None:
        shutil.rmtree(running.folder, ignore_errors=True)
        self.running = None
        self.bar.setVisible(False)
        self.say(text, bad)
        self.panel.log.add(text)
        self.update_button()
        self._on_end()
