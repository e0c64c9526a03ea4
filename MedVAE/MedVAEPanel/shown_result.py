"""What the parts of the tabs that show a result have in common: the one that is chosen, and taking away the last."""

from __future__ import annotations

from typing import Any, ClassVar

from slicer.i18n import tr as _

from . import results
from .belonging import original


class ShownResult:
    """`tab` gives the parameters, of which `result` is the node of role `chosen_by`."""

    Result: ClassVar[type[results.Result]]
    chosen_by: ClassVar[str]

    def __init__(self, tab, ui):
        self.tab, self.ui = tab, ui
        self._shown: Any = False  # what the views show; False: not known, as when a scene comes or goes
        ui.removeButton.connect("clicked(bool)", lambda *a: self.remove_last())

    @property
    def result(self):
        """None if none is chosen. A copy, which selectors offer too, shows the result that it was made from."""
        node = self.tab.parameters.result if self.tab.parameters is not None else None
        return self.Result.of(original(node)) if node is not None else None

    def update(self, parameters) -> None:
        """Called whenever the parameters may have changed. The views of a loaded scene stay as they were saved."""
        raise NotImplementedError

    def others(self, result) -> list:
        """Those that may take its place when it goes, the last one first of all."""
        return [each for each in reversed(self.Result.all()) if each != result]

    def remove_last(self) -> None:
        """Takes away all that the last run added; if that is shown, the one before it is, if any."""
        last = self.Result.last()
        if last is None:
            return
        shown, others, parameters = self.result, self.others(last), self.tab.parameters
        results.remove(last)
        if shown == last:
            parameters.result = others[0].node(self.chosen_by) if others else None
        self.update(parameters)
        self.ui.messageLabel.text = _("The last result was removed.")
