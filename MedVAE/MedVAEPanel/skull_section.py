"""The part of the tab that shows a predicted skull: colours, overlay, planes in place, measures."""

from __future__ import annotations

from slicer.i18n import tr as _

from . import display, skull_display
from .biometry_table import BiometryTable
from .plane_node import PLANES
from .shown_result import ShownResult
from .skull_parameters import DEFAULT_RANGE_MM
from .skull_results import PLACED, Result, card_role, plane_role

_ORIENTATIONS = {"axial": "Axial", "sagittal": "Sagittal", "coronal": "Coronal"}


class SkullSection(ShownResult):
    """Keeps widgets, parameter node and views in step."""

    Result, chosen_by = Result, "surface"

    def __init__(self, tab, ui):
        super().__init__(tab, ui)
        self.table = BiometryTable(ui.biometryTable)
        ui.resultSelector.addAttribute("vtkMRMLModelNode", "MedVAE.Role", "surface")
        ui.fitButton.connect("clicked(bool)", lambda *a: self._set_range(*skull_display.fitting_range(self._surface)))
        ui.defaultRangeButton.connect("clicked(bool)", lambda *a: self._set_range(*DEFAULT_RANGE_MM))

    @property
    def _surface(self):
        return self.result.surface if self.result is not None else None

    def show_new(self, result: Result) -> None:
        self.tab.parameters.result = result.surface
        self.update(self.tab.parameters)
        if self.tab.panel.entered:  # the layout is another module's meanwhile
            display.look_at_in_3d()

    def update(self, parameters) -> None:
        """Called whenever the parameters may have changed. The views of a loaded scene stay as they were saved."""
        result = self.result if parameters is not None else None
        ui = self.ui
        for widget in (ui.overlayCombo, ui.overlaySlider, ui.surfaceSlider, ui.lowSpin, ui.highSpin, ui.fitButton,
                       ui.defaultRangeButton, ui.planesButton, ui.biometryTable):
            widget.enabled = result is not None
        ui.removeButton.enabled = Result.last() is not None
        shown = None if result is None else (
            result.run, parameters.overlay, parameters.overlayOpacity, parameters.surfaceOpacity, parameters.stdLow,
            parameters.stdHigh, parameters.showPlanes)
        before, self._shown = self._shown, shown if parameters is not None else False
        run, run_before = (each[0] if each else None for each in (shown, before))
        if run != run_before:
            self.table.show(result.measures if result is not None else [])
            ui.summaryLabel.text = in_words(result) if result is not None else ""
        if before is False or parameters is None:
            return
        if run != run_before:
            self._show_alone(result)
        if result is not None and shown != before:
            self._show(result, parameters)

    @staticmethod
    def _show_alone(result: Result | None) -> None:
        """Of several results one is seen."""
        for each in Result.all():
            for role in ("surface", *map(card_role, PLANES)):
                node = each.node(role)
                if node is not None and node.GetDisplayNode() is not None:
                    node.GetDisplayNode().SetVisibility(each == result)

    def _show(self, result: Result, parameters) -> None:
        surface = result.surface
        skull_display.set_range(surface, parameters.stdLow, parameters.stdHigh)
        surface.GetDisplayNode().SetOpacity(parameters.surfaceOpacity)
        for plane in PLANES:
            card = result.node(card_role(plane))
            if card is not None:
                card.GetDisplayNode().SetVisibility(parameters.showPlanes)
        planes = {_ORIENTATIONS[plane]: result.node(plane_role(plane)) for plane in PLANES}
        volume = result.node(parameters.overlay.value) if parameters.overlay.value else None
        taken = {choice.source.view for choice in self.tab.planes if choice.source is not None}
        skull_display.show_in_slices(planes, volume, parameters.overlayOpacity, taken)

    def _set_range(self, low_mm: float, high_mm: float) -> None:
        parameters = self.tab.parameters
        parameters.stdLow, parameters.stdHigh = low_mm, high_mm


def in_words(result: Result) -> str:
    """Which planes a result was made from, where they are shown, and what to be careful about."""
    used = result.planes_used
    missing = [plane for plane in PLANES if plane not in used]
    text = _("Predicted from: {planes}.").format(planes=", ".join(used))
    if missing:
        text += " " + _("Missing: {planes}.").format(planes=", ".join(missing))
    text += " " + _("The images are not registered: each is {placed}.").format(placed=PLACED)
    return "\n".join([text, *result.provenance.get("warnings", [])])
