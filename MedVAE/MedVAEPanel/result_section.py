"""The part of the tab that shows a result: which map, how strongly, from which threshold; views, surfaces, findings."""

from __future__ import annotations

import qt
import slicer

from . import anomaly_results, display, segments
from .anomaly_results import Result
from .belonging import ROLE
from .findings_table import FindingsTable
from .parameters import Map
from .shown_result import ShownResult
from .silent import silent
from .watch import Watch


class ResultSection(ShownResult):
    """Keeps widgets, parameter node and views in step."""

    Result, chosen_by = Result, "anomaly"

    def __init__(self, tab, ui):
        super().__init__(tab, ui)
        self.findings = FindingsTable(ui.findingsTable, ui.summaryLabel, self._bring_into_view)
        self._places = Watch(self._on_changed)
        self._opacity: float | None = None
        self._layout_before: int | None = None
        self._comparing: bool | None = None  # what the views are arranged for; None: a scene comes or goes
        self._laid_out = qt.QTimer()  # Qt gives views their sizes in the event loop, after the layout has changed
        self._laid_out.setSingleShot(True)
        self._laid_out.setInterval(0)
        self._laid_out.connect("timeout()", self._fit_compared)
        ui.resultSelector.addAttribute("vtkMRMLScalarVolumeNode", ROLE, "anomaly")
        ui.thresholdSlider.connect("valueChanged(double)", self._on_threshold)
        ui.compareButton.connect("toggled(bool)", self._on_compare)
        ui.surfaceButton.connect("toggled(bool)", self._on_surfaces)

    @property
    def volume(self):
        """The map that is shown now, None if there is no result or the user deleted it."""
        result = self.result
        return result.node(self.tab.parameters.shownMap.value) if result is not None else None

    def show_new(self, result: Result) -> None:
        """A result that was just made comes into the views, as its anomaly map."""
        parameters = self.tab.parameters
        parameters.shownMap = Map.ANOMALY
        parameters.result = result.node("anomaly")
        self.update(parameters)

    def update(self, parameters) -> None:
        """Called whenever the parameters may have changed. The views of a loaded scene stay as they were saved."""
        if parameters is None:
            self._comparing = None
        result = self.result if parameters is not None else None
        volume = self.volume if result is not None else None
        ui = self.ui
        for widget in (ui.mapCombo, ui.opacitySlider, ui.surfaceButton, ui.findingsTable):
            widget.enabled = result is not None
        ui.compareButton.enabled = result is not None or display.comparing()  # the way back
        ui.removeButton.enabled = Result.last() is not None
        shown = (result.run, parameters.shownMap, volume.GetID() if volume else None) if result is not None else None
        shown = shown if parameters is not None else False
        if shown != self._shown:
            before, self._shown = self._shown, shown
            run, run_before = (each[0] if each else None for each in (shown, before))
            if run != run_before:
                self._fill(result)
            self._offer_threshold(volume)
            self._look_at_places()
            if before is not False and shown is not False:
                self._show(result, volume, parameters, run_before)
        elif parameters is not None and parameters.opacity != self._opacity:
            display.set_opacity(volume, parameters.opacity)
        self._opacity = parameters.opacity if parameters is not None else None

    def _show(self, result: Result | None, volume, parameters, run_before: str | None) -> None:
        for each in Result.all() if run_before != (result and result.run) else ():  # of several results one is seen
            segmentation = each.node("segmentation")
            if segmentation is not None and segmentation.GetDisplayNode() is not None:
                segmentation.GetDisplayNode().SetVisibility(each == result)
        if result is not None and volume is not None:
            self._match_greys()
            display.show(result.scan, volume, parameters.opacity)
            self._keep_scan_alone()

    def _bring_into_view(self) -> None:
        """Slicer shows what was loaded last, and other tabs what they made: the findings are not on that."""
        result, volume = self.result, self.volume
        shown = [each for each in (volume, result.scan) if each is not None]
        if shown and not any(map(display.in_views, shown)):
            display.show(result.scan, volume, self.tab.parameters.opacity)
            self._keep_scan_alone()

    def _match_greys(self) -> None:
        """The reconstruction is as bright as the scan is shown now."""
        volume = self.volume
        if volume is not None and volume.GetAttribute(ROLE) == Map.RECONSTRUCTION.value and volume.GetDisplayNode():
            display.match_greys(volume.GetDisplayNode(), self.result.scan)

    def _look_at_places(self) -> None:
        """Results follow their scans, also while another module is in use, where registering is done: a map that stayed
        behind would lie over other anatomy."""
        if self.tab.parameters is None:
            return self._places.stop()
        self._follow()
        places = [node for each in Result.all() for node in (each.scan, each.place) if node is not None]
        scan = self.result.scan if self.result is not None else None
        shown = scan.GetDisplayNode() if scan is not None else None
        self._places.look_at([*places, shown] if shown is not None else places)

    def _on_changed(self) -> None:
        self._follow()
        self._match_greys()

    def _follow(self) -> None:
        anomaly_results.follow_scans()
        self.findings.renew_positions()

    def _keep_scan_alone(self) -> None:
        """Side by side, the left view shows the scan without outlines."""
        segmentation = self.result.node("segmentation")
        if segmentation is not None:
            segments.hide_in(segmentation, display.COMPARED_VIEWS[0] if display.comparing() else None)

    def _fill(self, result: Result | None) -> None:
        ui = self.ui
        self.findings.show(result)
        segmentation = result.node("segmentation") if result is not None else None
        self._set_checked(ui.surfaceButton, segmentation is not None and segments.surfaces_shown(segmentation))
        self._set_checked(ui.compareButton, display.comparing())

    def _offer_threshold(self, volume) -> None:
        slider = self.ui.thresholdSlider
        top = display.threshold_range(volume) if volume is not None else None
        slider.enabled = top is not None
        if top is None:
            return
        with silent(slider):
            step = 10.0 ** int(f"{top / 50:e}".split("e")[1])
            slider.decimals = max(0, min(6, -int(f"{step:e}".split("e")[1])))
            slider.minimum, slider.maximum = 0.0, top
            slider.singleStep, slider.pageStep = step, 10 * step  # after the range, beyond which CTK takes no step
            slider.value = display.threshold(volume)

    def _on_threshold(self, value: float) -> None:
        if self.volume is not None:
            display.set_threshold(self.volume, value)

    def _on_compare(self, on: bool) -> None:
        self._comparing = not on
        self._layout_before = display.compare(on, self._layout_before)

    def _fit_compared(self) -> None:
        if display.comparing():
            display.fit_compared()

    def leave(self) -> None:
        """Other modules, and Slicer at its next start, find the layout that there was before."""
        if display.comparing():
            self._on_compare(False)

    def cleanup(self) -> None:
        self._laid_out.stop()
        self._places.stop()

    def on_layout_changed(self) -> None:
        """Whoever changed it: the views side by side are entered and left by other ways than the button, too. Those of
        a scene that was loaded, or changed while another module was in use, stay as they are."""
        if self.tab.parameters is None or not self.tab.panel.entered:
            self._comparing = None
            return
        on, before = display.comparing(), self._comparing
        if on == before:
            return
        self._comparing = on
        self._set_checked(self.ui.compareButton, on)
        self.ui.compareButton.enabled = self.result is not None or on
        if on and before is not None:
            self._laid_out.start()
        if self.result is not None and self.volume is not None:
            if before is not None:
                display.show(self.result.scan, self.volume, self.tab.parameters.opacity)
                self._keep_scan_alone()
            if on:
                volumes = [self.result.node(each.value) for each in Map]
                display.renew_legends([volume for volume in volumes if volume is not None])

    def _on_surfaces(self, on: bool) -> None:
        segmentation = self.result.node("segmentation") if self.result is not None else None
        if segmentation is not None:
            with slicer.util.WaitCursor():
                segments.show_surfaces(segmentation, on)
            if on:
                display.look_at_in_3d()

    def others(self, result: Result) -> list[Result]:
        """Of the same scan."""
        of_scan = anomaly_results.results_of(result.scan) if result.scan is not None else []
        return [each for each in reversed(of_scan) if each != result]

    @staticmethod
    def _set_checked(button, on: bool) -> None:
        with silent(button):
            button.checked = bool(on)
