"""The tabs of the panel. A new one is a file in this folder with a class derived from `Tab`, and its line in `TABS`."""

from __future__ import annotations

from importlib import import_module

TABS = (("anomaly", "AnomalyTab"),)
"""Module and class of each tab, in order."""


class Tab:
    """What the panel calls. `panel` offers `logic`, `worker`, `log` and `resourcePath(name)`.

    A tab keeps its choices in `Parameters`, a `@parameterNodeWrapper` class whose field names no other tab uses: all
    tabs share one parameter node.
    """

    title = ""
    Parameters: type | None = None

    def __init__(self, panel):
        self.panel = panel
        self.parameters = None

    def setup(self, parent_widget) -> None:
        """Called once: builds the widgets into `parent_widget`, which has a vertical layout."""

    def set_parameter_node(self, parameters) -> None:
        """parameters: an instance of `Parameters`, or None while there is no scene to keep them in."""
        self.parameters = parameters

    def enter(self) -> None:
        """The panel is shown."""

    def exit(self) -> None:
        """Another module is shown."""

    def on_scene_about_to_close(self) -> None:
        """Nodes are still there, but not for long."""

    def on_scene_closed(self) -> None:
        """All nodes are gone; the parameter node will be a new one."""

    def cleanup(self) -> None:
        """The application closes, or the module is reloaded."""


def make_tabs(panel) -> list[Tab]:
    return [getattr(import_module(f".{module}", __package__), name)(panel) for module, name in TABS]
