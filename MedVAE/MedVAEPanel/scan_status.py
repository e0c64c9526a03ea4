"""The line below the scan: what it looks like, or why it cannot be used."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from typing import Any

import qt
from slicer.i18n import tr as _

from .handed_over import HandedOver
from .saying import say
from .scan_node import placement, problem
from .watch import Watch

_PATIENCE_MS = 150
_ORIENTATIONS = {"S": _("axial"), "I": _("axial"), "A": _("coronal"), "P": _("coronal"), "L": _("sagittal"),
                 "R": _("sagittal")}


class ScanStatus:
    """Asks the worker for a quick look at the scan whenever it is another one, or changes."""

    def __init__(self, worker, label, on_change: Callable[[], None]):
        self.worker, self.label, self._on_change = worker, label, on_change
        self.refusal = ""
        """Why the scan cannot be used, as far as is known."""
        self.handed_over = HandedOver(worker)
        self._watch = Watch(lambda: self.look(self._scan))
        self._scan: Any = None
        self._key: tuple | None = None
        self._asked = 0
        self._timer = qt.QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(_PATIENCE_MS)
        self._timer.connect("timeout()", self._ask)

    def look(self, scan) -> None:
        """Shows the status of this scan; does nothing if it is the one shown and unchanged."""
        self._scan = scan
        self._watch.look_at([scan] if scan is not None else [])
        key = self._state(scan)
        if key == self._key:
            return
        self._key = key
        self._asked += 1  # answers to earlier questions do not matter any more
        self.refusal = problem(scan) if scan is not None else ""
        if scan is None or self.refusal:
            self._timer.stop()
            self.handed_over.drop()
            say(self.label, self.refusal or _("Choose a FLAIR or diffusion scan of a head."), bool(self.refusal))
        else:
            say(self.label, _("Looking at the scan…"))
            self._timer.start()
        self._on_change()

    def hurry(self) -> None:
        """Asks now what would be asked in a moment."""
        if self._timer.isActive():
            self._timer.stop()
            self._ask()

    def stop(self) -> None:
        """Looks at nothing until `look` is called; what is being asked is shown when it is answered."""
        if self._timer.isActive():
            self._timer.stop()
            self._key = None  # not asked yet
        self._watch.stop()
        self._scan = None

    @staticmethod
    def _state(scan) -> tuple | None:
        if scan is None:
            return None
        image = scan.GetImageData()
        place = placement(scan)
        return (scan.GetID(), scan.GetName(), image.GetMTime() if image else 0, place.ijk_to_ras.tobytes(), place.note)

    def _ask(self) -> None:
        scan, asked, folder = self._scan, self._asked, None
        if scan is None:
            return
        try:
            folder = self.worker.folder("look")
            given = self.handed_over.write(scan, folder)
        except OSError as error:
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)
            text = _("The scan cannot be handed to the worker ({reason}).").format(reason=error.strerror or error)
            return say(self.label, text, True)

        note = placement(scan).note

        def answered(show: Callable[[], None]) -> None:
            shutil.rmtree(folder, ignore_errors=True)
            if asked == self._asked:
                show()

        self.worker.request("describe", {"scan": given}, lambda reply: answered(lambda: self._show(reply, note)),
                            lambda error: answered(lambda: self._show_error(error)))

    def _show(self, reply: Mapping[str, Any], note: str) -> None:
        if not reply["usable"]:
            self.refusal = reply["message"]
            say(self.label, self.refusal, True)
        else:
            say(self.label, "\n".join([in_words(reply), *reply.get("warnings", []), *([note] if note else [])]))
        self._on_change()

    def _show_error(self, error: Mapping[str, Any]) -> None:
        self._key = None  # asked again at the next occasion
        say(self.label, "" if error.get("kind") == "Cancelled" else error["message"], True)
        self._on_change()


def in_words(reply: Mapping[str, Any]) -> str:
    """E.g. "FLAIR (its name says so); whole head; 1 × 1 × 3 mm, 256 × 256 × 60 voxels, axial slices (LPS)"."""
    kind = {"flair": "FLAIR", "dwi": _("Diffusion"), "other": _("Neither FLAIR nor diffusion")}.get(reply["modality"])
    reason = reply.get("modality_reason", "")
    kind = f"{kind} ({reason})" if kind and reason else kind or _("Modality: {reason}").format(reason=reason)
    content = {"stripped": _("brain without skull"), "head": _("whole head")}.get(reply.get("content"), "")
    spacing = " × ".join(f"{step:.3g}" for step in reply["spacing_mm"])
    size = " × ".join(str(count) for count in reply["size"])
    code = reply["orientation"]
    slices = _ORIENTATIONS.get(code[2:3], "")
    return "; ".join(part for part in (
        kind, content, f"{spacing} mm", _("{size} voxels").format(size=size),
        _("{slices} slices ({code})").format(slices=slices, code=code)) if part)
