"""What the worker offers: devices, packages and bundles. Asked once, and anew when something may have changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from slicer.i18n import tr as _


class Offers:
    """`info` and `bundles` are the worker's answers, empty until it has answered. `on_change()` is told of new ones."""

    def __init__(self, worker, log: Callable[[str], None], on_change: Callable[[], None]):
        self.info: Mapping[str, Any] = {}
        self.bundles: Mapping[str, Any] = {}
        self._worker, self._log, self._on_change = worker, log, on_change
        self._asked = self._unanswered = False

    def ask(self, again: bool = False) -> None:
        if self._asked and not again:
            return
        self._asked, self._unanswered = True, False
        self._worker.request("info", {}, self._on_info, self._on_no_answer)
        self._worker.request("bundles", {}, self._on_bundles, self._on_no_answer)

    def retry(self) -> None:
        """Asks anew if nothing was ever answered, as by a worker that could not start in time."""
        if self._unanswered and not self.bundles:
            self.ask(again=True)

    @property
    def missing(self) -> str:
        """One sentence when packages are missing, else ""."""
        names = ", ".join(self.info.get("missing", []))
        return _("Not installed: {names}. Open Setup below and click Install.").format(names=names) if names else ""

    def _on_info(self, reply: Mapping[str, Any]) -> None:
        self.info = reply
        self._on_change()

    def _on_bundles(self, reply: Mapping[str, Any]) -> None:
        self.bundles = reply
        self._on_change()

    def _on_no_answer(self, error: Mapping[str, Any]) -> None:
        self._asked, self._unanswered = False, True  # asked again when the panel is opened the next time, or by `retry`
        self._log(error["message"])
