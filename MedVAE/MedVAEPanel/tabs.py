"""The tabs of the panel. Every module `*_tab.py` in this folder is one: it holds one class derived from `Tab`."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import qt
import slicer
import vtk
from slicer.util import VTKObservationMixin


class Tab(VTKObservationMixin):
    """What the panel calls. `panel` offers `logic`, `worker`, `log`, `offers`, `entered` (whether it is the module in
    use), `show_setup()` and `resourcePath(name)`.

    A tab keeps its choices in `Parameters`, a `@parameterNodeWrapper` class. All tabs share one parameter node, in
    which the names of a tab's fields begin with its `name`, so that no two tabs get into each other's way.
    """

    name = ""
    """A word of its own, which saved scenes know it by."""
    title = ""
    order = 100
    """Tabs stand by this number, smallest first."""
    page = ""
    """The tab's widgets: Resources/UI/<page>.ui. Without it the tab gets an empty page and fills it in `setup`."""
    Parameters: type | None = None

    def __init__(self, panel):
        VTKObservationMixin.__init__(self)
        self.panel = panel
        self.parameters = None
        self._gui_tag = None
        self._observers_of_node: list[int] = []

    @property
    def running(self):
        """What is computed for this tab now, None if nothing is; nothing can be installed meanwhile."""
        return None

    def make_page(self):
        if self.page:
            return slicer.util.loadUI(self.panel.resourcePath(f"UI/{self.page}.ui"))
        page = slicer.qMRMLWidget()
        page.setLayout(qt.QVBoxLayout())
        return page

    def setup(self, page) -> None:
        """Called once: `page` is what `make_page` returned, with the scene set."""

    def set_parameter_node(self, parameters) -> None:
        """parameters: an instance of `Parameters`, or None while there is no scene to keep them in."""
        self.parameters = parameters

    def bind(self, parameters, ui, on_change: Callable) -> None:
        """For `set_parameter_node`: what the widgets of `ui` show and what `parameters` holds is one; `on_change` is
        told of every change to this tab's fields."""
        if self.parameters is not None:
            self.parameters.disconnectGui(self._gui_tag)
            for tag in self._observers_of_node:
                self.parameters.RemoveObserver(tag)
        self.parameters, self._observers_of_node = parameters, []
        if parameters is not None:
            node = parameters.parameterNode

            def observe(event, callback, *priority) -> int:
                self._observers_of_node.append(node.AddObserver(event, callback, *priority))
                return self._observers_of_node[-1]

            # Slicer 5.10 leaves the observer of connectGui behind: Python frees it while the node still calls it.
            parameters.AddObserver = observe
            self._gui_tag = parameters.connectGui(ui)
            del parameters.AddObserver

            def values() -> list:
                return [getattr(parameters, name) for name in type(parameters).__annotations__]

            seen = values()

            def changed(caller, event) -> None:  # or another tab's fields did
                nonlocal seen
                if seen != (now := values()):
                    seen = now
                    on_change(caller, event)

            observe(vtk.vtkCommand.ModifiedEvent, changed)

    def let_go(self, node, *names: str) -> None:
        """Nothing is chosen any more where `node`, which is about to be removed, was: else its selector would choose
        the next node in its list."""
        for name in names:
            if self.parameters is not None and getattr(self.parameters, name) is node:
                setattr(self.parameters, name, None)

    def on_offers(self) -> None:
        """`panel.offers` has changed: devices, installed packages or bundles."""

    def settings(self) -> dict[str, object]:
        """What the diagnostic report says of this tab: no names of scans, no file names."""
        return {}

    def enter(self) -> None:
        """The panel is shown."""

    def exit(self) -> None:
        """Another module is shown."""

    def on_layout_changed(self) -> None:
        """The user, a module or a scene that was loaded changed the layout of the views. The views of a loaded scene
        come into being only now, after the parameter node was set."""

    def on_scene_about_to_close(self) -> None:
        """Nodes are still there, but not for long."""

    def on_scene_closed(self) -> None:
        """All nodes are gone; the parameter node will be a new one."""

    def cleanup(self) -> None:
        """The application closes, or the module is reloaded. What was observed with `addObserver` is so no more."""
        self.removeObservers()


class TaskTab(Tab):
    """A tab that computes one thing at a time. `setup` makes `run`, a `TaskRun`, and `model`, a `ModelChoice`."""

    run: Any
    model: Any

    @property
    def running(self):
        return self.run.running

    def on_offers(self) -> None:
        self.model.on_offers(self.panel.offers)
        self.run.update_button()


def make_tabs(panel) -> list[Tab]:
    """One tab of each module, in their order."""
    modules = [each.name for each in pkgutil.iter_modules([str(Path(__file__).parent)]) if each.name.endswith("_tab")]
    return sorted((_tab_of(module)(panel) for module in modules), key=lambda tab: (tab.order, tab.name))


def _tab_of(name: str) -> type[Tab]:
    module = import_module(f".{name}", __package__)
    found = [each for each in vars(module).values()
             if isinstance(each, type) and issubclass(each, Tab) and each.__module__ == module.__name__]
    if len(found) != 1 or not found[0].name:
        raise TypeError(f"{module.__file__} must hold one class derived from Tab, with a name.")
    return found[0]
