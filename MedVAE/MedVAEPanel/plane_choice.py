"""One plane's row in the tab: which image, which slice of it, and how large its pixels are."""

from __future__ import annotations

from collections.abc import Callable

import slicer
from slicer.i18n import tr as _

from . import plane_node
from .choices import ComboChoice, Entry, Offer
from .display import COMPARED_VIEWS
from .plane_node import PlaneSource
from .silent import silent

TITLES = {"axial": _("Axial"), "sagittal": _("Sagittal"), "coronal": _("Coronal")}


class PlaneChoice:
    """`name`: of the plane, which the widgets and the parameters are called after. `on_change()` is told when the user
    typed a pixel size."""

    def __init__(self, tab, ui, name: str, on_change: Callable[[], None]):
        self.tab, self.name, self._on_change = tab, name, on_change
        self.title = TITLES[name]
        self.selector, self.spin = getattr(ui, f"{name}Selector"), getattr(ui, f"{name}SpacingSpin")
        self.views = ComboChoice(getattr(ui, f"{name}ViewCombo"), self._on_view)
        # Bound here: a parameter node's own binding would offer the parameter's class alone, and no colour images.
        self.selector.connect("currentNodeChanged(vtkMRMLNode*)", self._on_node)
        self.spin.connect("valueChanged(double)", self._on_typed)
        self.offer_views()

    @property
    def source(self) -> PlaneSource | None:
        """What is chosen; None for nothing."""
        parameters = self.tab.parameters
        node = getattr(parameters, self.name) if parameters is not None else None
        return PlaneSource(node, getattr(parameters, f"{self.name}View")) if node is not None else None

    def choose(self, source: PlaneSource | None) -> None:
        parameters = self.tab.parameters
        setattr(parameters, f"{self.name}View", source.view if source is not None else "")
        setattr(parameters, self.name, source.node if source is not None else None)

    def offer_views(self) -> None:
        """The slice views that there are now."""
        manager = slicer.app.layoutManager()
        there = manager.sliceViewNames() if manager is not None else ()
        names = [name for name in there if name not in COMPARED_VIEWS]
        tip = _("The slice that this view shows when you click Predict skull; it stays there.")
        offer = Offer([Entry("", _("The image"), _("An image of one slice, as it is."))])
        offer += [Entry(name, _("Slice in {view}").format(view=name), tip) for name in names]
        parameters = self.tab.parameters
        self.views.offer(offer, getattr(parameters, f"{self.name}View") if parameters is not None else "", final=False)

    def update(self) -> None:
        """Shows what the parameters hold."""
        source = self.source
        with silent(self.selector):
            self.selector.setCurrentNode(source.node if source is not None else None)
        self.views.choose(getattr(self.tab.parameters, f"{self.name}View"))
        self.views.combo.enabled = source is not None
        if source is not None:
            plane_node.remember_format(source.node)
        usable = source is not None and not source.problem_of_volume()
        spacing = source.spacing_mm if usable else None
        stated = usable and plane_node.states_size(source.node)
        with silent(self.spin):
            self.spin.enabled = usable and not stated
            self.spin.value = spacing[0] if spacing else 0.0
        if not usable:
            self.spin.toolTip = ""
        elif stated:
            self.spin.toolTip = _("The image states it: {row:.4g} × {column:.4g} mm.").format(
                row=spacing[0], column=spacing[1])
        else:
            self.spin.toolTip = _("The image does not state how large its pixels are. Enter what the ultrasound "
                                  "machine says; nothing is guessed.")

    def problem(self) -> str:
        """Why the chosen image cannot be this plane, as a sentence; "" if it can or none is chosen."""
        source = self.source
        reason = source.problem() if source is not None else ""
        return f"{self.title}: {reason}" if reason else ""

    def in_words(self) -> str:
        """E.g. "axial (562 × 744 pixels of 0.156 mm)"; the plane is one without problems."""
        source = self.source
        row, column = source.spacing_mm
        edge = f"{row:.3g}" if abs(row - column) < 1e-3 * row else f"{row:.3g} × {column:.3g}"
        size = "{} × {}".format(*source.size_px)
        return _("{plane} ({size} pixels of {edge} mm)").format(plane=self.title.lower(), size=size, edge=edge)

    def _on_node(self, node) -> None:
        if self.tab.parameters is not None:
            setattr(self.tab.parameters, self.name, node)

    def _on_view(self, view: str) -> None:
        if self.tab.parameters is not None:
            setattr(self.tab.parameters, f"{self.name}View", view)

    def _on_typed(self, value: float) -> None:
        source = self.source
        if source is not None and not plane_node.states_size(source.node):
            plane_node.type_size(source.node, value)
            self._on_change()
