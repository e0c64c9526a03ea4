"""The tab Anomalies: choose a scan, detect, look. What is detected is shown by `result_section`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import qt
import slicer
import vtk
from slicer.i18n import tr as _

from . import choices
from .anomaly_results import add_result
from .belonging import ROLE
from .parameters import AnomalyParameters
from .result_section import ResultSection
from .scan_node import placement, problem, state
from .scan_status import ScanStatus
from .tabs import TaskTab
from .task_run import TaskRun

_SEED = 0
_MODALITIES = {"flair", "dwi"}


class AnomalyTab(TaskTab):
    name = "anomaly"
    title = _("Anomalies")
    order = 10
    page = "Anomaly"
    Parameters = AnomalyParameters

    def setup(self, page) -> None:
        self.ui = ui = slicer.util.childWidgetVariables(page)
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.NodeAboutToBeRemovedEvent, self._on_node_removed)
        self.addObserver(scene, scene.NodeAddedEvent, self._on_node_added)
        self._soon = qt.QTimer()  # a node that is being loaded has no image yet
        self._soon.setSingleShot(True)
        self._soon.setInterval(0)
        self._soon.connect("timeout()", self._choose_a_scan)
        self._had_scan = False  # and gave it up: "None" is chosen
        self.results = ResultSection(self, ui)
        self.run = TaskRun(
            self.panel, ui.detectButton, ui.progressBar, ui.messageLabel, _("Detect anomalies"),
            _("Compares the scan with the healthy brain behind it. You can keep working meanwhile."),
            self._missing, self.detect, self._on_parameters)
        self.status = ScanStatus(self.panel.worker, ui.statusLabel, self.run.update_button)
        self.model = choices.ModelChoice(self, ui, lambda bundle: not _MODALITIES.isdisjoint(bundle["modality"]))
        self.bundles = self.model.bundles
        ui.sampleButton.connect("clicked(bool)", lambda *a: self._load_sample())

    # --- Scene and parameters ----------------------------------------------------------------------------------------

    def set_parameter_node(self, parameters) -> None:
        self.bind(parameters, self.ui, self._on_parameters)
        self._had_scan = False
        if parameters is not None:
            self._choose_a_scan()
            self._on_parameters()
        else:
            self.status.look(None)
            self.results.update(None)

    def enter(self) -> None:
        self.results.on_layout_changed()
        self._choose_a_scan()
        self._on_parameters()
        self.status.hurry()  # before the questions that make the worker load PyTorch

    def exit(self) -> None:
        """What other modules do to volumes does not concern this one: nothing is chosen, copied or asked meanwhile."""
        self.results.leave()
        self._soon.stop()
        self.status.stop()

    def on_layout_changed(self) -> None:
        self.results.on_layout_changed()

    def on_scene_about_to_close(self) -> None:
        self.run.cancel(_("The scene was closed, so the detection was cancelled."))

    def cleanup(self) -> None:
        super().cleanup()
        self._soon.stop()
        self.results.cleanup()
        self.status.stop()

    def _choose_a_scan(self) -> None:
        """If none is chosen: the one in the views, else the first that is no result of ours."""
        if not self.panel.entered or self.parameters is None or self.parameters.scan is not None or self._had_scan:
            return
        active = slicer.app.applicationLogic().GetSelectionNode().GetActiveVolumeID()
        nodes = [slicer.mrmlScene.GetNodeByID(active)] if active else []
        nodes += slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
        for node in nodes:
            plain = node is not None and node.GetClassName() == "vtkMRMLScalarVolumeNode"
            if plain and not node.GetHideFromEditors() and not node.GetAttribute(ROLE) and not problem(node):
                self.parameters.scan = node
                return

    def _on_parameters(self, caller=None, event=None) -> None:
        parameters = self.parameters
        if parameters is None:
            return
        self.model.show(parameters)
        self._had_scan |= parameters.scan is not None
        self._look_at_scan()
        self.run.update_button()
        self.results.update(parameters)

    def _look_at_scan(self) -> None:
        if self.panel.entered and self.running is None and self.parameters is not None:
            self.status.look(self.parameters.scan)

    def _on_node_added(self, caller, event) -> None:
        if self.panel.entered:
            self._soon.start()

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _on_node_removed(self, caller, event, node) -> None:
        if self.running is not None and node is self.running.subject:
            self.run.cancel(_("The scan was removed, so its detection was cancelled."))
        if self.parameters is not None and node is self.parameters.scan:
            self._had_scan = False
        self.let_go(node, "scan", "result")

    # --- Detecting ---------------------------------------------------------------------------------------------------

    def _missing(self) -> list[str]:
        """What keeps the button from being clicked, one sentence each."""
        parameters = self.parameters
        if parameters is None:
            return [_("The scene is being closed.")]
        reasons = [problem(parameters.scan) or self.status.refusal, self.panel.offers.missing, self.model.refusal()]
        return [reason for reason in reasons if reason]

    def detect(self) -> None:
        """Starts a detection of the chosen scan with the chosen settings; returns at once."""
        if self._missing():  # the scan can have been changed this very moment
            return self.run.update_button()
        parameters = self.parameters
        scan = parameters.scan
        self.panel.log.secrets.add(scan.GetName() or "")
        settings = {
            "modality": parameters.modality.value, **self.model.request(), "samples": parameters.samples,
            "fpr": parameters.falsePositivePercent / 100, "score": "zscore", "seed": _SEED,
        }
        ijk_to_ras, before = placement(scan).ijk_to_ras, state(scan)

        def add(reply: Mapping[str, Any], seconds: float) -> str:
            if not slicer.mrmlScene.IsNodePresent(scan):
                raise ValueError(_("The scan was removed meanwhile; its result was dropped."))
            if state(scan) != before:
                raise ValueError(_("The scan was changed meanwhile, so its result was dropped: detect again."))
            self.results.show_new(add_result(scan, reply, ijk_to_ras, settings))
            return choices.outcome(reply, seconds)

        self.panel.log.add(f"Detection started ({parameters.samples} samples, {parameters.device}).")
        self.run.start("detect", scan, lambda folder: {"scan": self.status.handed_over.write(scan, folder), **settings},
                       add)

    # --- Helpers -----------------------------------------------------------------------------------------------------

    def _load_sample(self) -> None:
        from .sample_data import load_sample

        node = load_sample()
        if node is not None and self.parameters is not None:
            self.parameters.scan = node

    def settings(self) -> dict[str, Any]:
        parameters = self.parameters
        return {} if parameters is None else {
            "modality": parameters.modality.value, "bundle": parameters.bundle or "default",
            "device": parameters.device, "samples": parameters.samples,
            "false positives": f"{parameters.falsePositivePercent:g} %",
        }
