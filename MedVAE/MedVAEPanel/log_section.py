"""The section Log: what happened, and the report that a user sends when something went wrong."""

from __future__ import annotations

import qt
import slicer


def names_of_scans() -> list[str]:
    """Of all volumes in the scene."""
    return [node.GetName() or "" for node in slicer.util.getNodesByClass("vtkMRMLVolumeNode")]


class LogSection:
    """`panel` offers `log`, `offers` and `tabs`; `ui` the widgets."""

    def __init__(self, panel, ui):
        self.panel = panel
        self._show = ui.logText.appendPlainText
        panel.log.listeners.append(self._show)
        ui.reportButton.connect("clicked(bool)", lambda *a: qt.QApplication.clipboard().setText(self.report()))

    def cleanup(self) -> None:
        if self._show in self.panel.log.listeners:  # a module can be cleaned up twice
            self.panel.log.listeners.remove(self._show)

    def report(self) -> str:
        """Text for a bug report."""
        panel = self.panel
        application = {"3D Slicer": getattr(slicer.app, "applicationVersion", "unknown")}
        settings = {tab.name: tab.settings() for tab in panel.tabs}
        return panel.log.report(application, panel.offers.info, settings)
