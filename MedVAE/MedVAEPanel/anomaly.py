"""The tab Anomalies: choose a scan, detect, look. What is detected is shown by `result_section`."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import qt
import slicer
import vtk
from slicer.i18n import tr as _

from . import choices
from .anomaly_results import add_result
from .parameters import AnomalyParameters
from .result_section import ResultSection
from .scan_node import ROLE, placement, problem
from .scan_status import ScanStatus
from .tabs import Tab
from .worker_client import Job

_SEED = 0


@dataclass
class Running:
    """A detection on its way: which scan, and as it was when the button was clicked."""

    scan: Any
    ijk_to_ras: np.ndarray
    settings: dict[str, Any]
    folder: Path
    started: float
    why_cancelled: str = ""
    job: Job | None = None


class AnomalyTab(Tab):
    title = _("Anomalies")
    page = "Anomaly"
    Parameters = AnomalyParameters

    def setup(self, page) -> None:
        self.ui = ui = slicer.util.childWidgetVariables(page)
        self.running: Running | None = None
        self.info: Mapping[str, Any] = {}
        self._info_asked = False
        self._gui_tag = self._observer = None
        scene = slicer.mrmlScene
        self._observers = [scene.AddObserver(scene.NodeAboutToBeRemovedEvent, self._on_node_removed),
                           scene.AddObserver(scene.NodeAddedEvent, lambda *a: self._soon.start())]  # fmt: skip
        self._soon = qt.QTimer()  # a node that is being loaded has no image yet
        self._soon.setSingleShot(True)
        self._soon.setInterval(0)
        self._soon.connect("timeout()", self._choose_a_scan)
        self.results = ResultSection(self, ui)
        self.status = ScanStatus(self.panel.worker, ui.statusLabel, self._update_button)
        self.bundles = choices.ComboChoice(ui.bundleCombo, lambda name: self._set("bundle", name))
        self.devices = choices.ComboChoice(ui.deviceCombo, lambda name: self._set("device", name))
        self.devices.offer(choices.devices({}), "auto", final=False)
        self.bundles.offer(choices.Offer([choices.Entry("", _("Default"))]), "", final=False)
        ui.progressBar.setVisible(False)
        ui.detectButton.connect("clicked(bool)", lambda *a: self._on_detect_clicked())
        ui.sampleButton.connect("clicked(bool)", lambda *a: self._load_sample())
        ui.reportButton.connect("clicked(bool)", lambda *a: qt.QApplication.clipboard().setText(self.report()))
        self.panel.log.listeners.append(ui.logText.appendPlainText)

    # --- Scene and parameters ----------------------------------------------------------------------------------------

    def set_parameter_node(self, parameters) -> None:
        if self.parameters is not None:
            self.parameters.disconnectGui(self._gui_tag)
            self.parameters.RemoveObserver(self._observer)
        self.parameters = parameters
        if parameters is not None:
            self._gui_tag = parameters.connectGui(self.ui)
            self._observer = parameters.AddObserver(vtk.vtkCommand.ModifiedEvent, self._on_parameters)
            self._choose_a_scan()
            self._on_parameters()
        else:
            self.status.look(None)
            self.results.update(None)

    def enter(self) -> None:
        self._choose_a_scan()
        self.status.hurry()  # before the questions that make the worker load PyTorch
        self.ask_worker()

    def on_scene_about_to_close(self) -> None:
        self.cancel(_("The scene was closed, so the detection was cancelled."))

    def cleanup(self) -> None:
        for tag in self._observers:
            slicer.mrmlScene.RemoveObserver(tag)
        self._soon.stop()
        self.status.stop()
        self.panel.log.listeners.clear()

    def _choose_a_scan(self) -> None:
        """If none is chosen: the one in the views, else the first that is no result of ours."""
        if self.parameters is None or self.parameters.scan is not None:
            return
        active = slicer.app.applicationLogic().GetSelectionNode().GetActiveVolumeID()
        nodes = [slicer.mrmlScene.GetNodeByID(active)] if active else []
        nodes += slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
        for node in nodes:
            plain = node is not None and node.GetClassName() == "vtkMRMLScalarVolumeNode"
            if plain and not node.GetAttribute(ROLE) and not problem(node):
                self.parameters.scan = node
                return

    def _on_parameters(self, caller=None, event=None) -> None:
        parameters = self.parameters
        if parameters is None:
            return
        self.bundles.choose(parameters.bundle)
        self.devices.choose(parameters.device)
        if self.running is None:
            self.status.look(parameters.scan)
        self._update_button()
        self.results.update(parameters)

    def _set(self, name: str, value: Any) -> None:
        if self.parameters is not None:
            setattr(self.parameters, name, value)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _on_node_removed(self, caller, event, node) -> None:
        if self.running is not None and node is self.running.scan:
            self.cancel(_("The scan was removed, so its detection was cancelled."))

    # --- The worker's offers -----------------------------------------------------------------------------------------

    def ask_worker(self, again: bool = False) -> None:
        """What it can compute on and which bundles there are."""
        if self._info_asked and not again:
            return
        self._info_asked = True
        self.panel.worker.request("info", {}, self._on_info, self._on_no_answer)
        self.panel.worker.request("bundles", {}, self._on_bundles, self._on_no_answer)

    def _on_info(self, reply: Mapping[str, Any]) -> None:
        self.info = reply
        self.devices.offer(choices.devices(reply), self.parameters.device if self.parameters else "auto")
        if reply.get("missing"):
            self.panel.show_setup()
        self._update_button()

    def _on_bundles(self, reply: Mapping[str, Any]) -> None:
        self.bundles.offer(choices.bundles(reply), self.parameters.bundle if self.parameters else "")
        self._update_button()

    def _on_no_answer(self, error: Mapping[str, Any]) -> None:
        self._info_asked = False  # asked again when the panel is opened the next time
        self.panel.log.add(error["message"])

    # --- Detecting ---------------------------------------------------------------------------------------------------

    def _missing(self) -> list[str]:
        """What keeps the button from being clicked, one sentence each."""
        parameters = self.parameters
        if parameters is None:
            return [_("The scene is being closed.")]
        reasons = [problem(parameters.scan) or self.status.refusal]
        if self.info.get("missing"):
            reasons.append(_("Not installed: {names}. Open Setup below and click Install.").format(
                names=", ".join(self.info["missing"])))  # fmt: skip
        reasons.append(self.bundles.refusal())
        return [reason for reason in reasons if reason]

    def _update_button(self) -> None:
        button = self.ui.detectButton
        if self.running is not None:
            button.text, button.enabled = _("Cancel"), not self.running.why_cancelled
            button.toolTip = _("Stops the detection; nothing is added to the scene.")
            return
        missing = self._missing()
        button.text, button.enabled = _("Detect anomalies"), not missing
        button.toolTip = "\n".join(missing) or _("Compares the scan with the healthy brain behind it. "
                                                 "You can keep working meanwhile.")  # fmt: skip

    def _on_detect_clicked(self) -> None:
        if self.running is not None:
            self.cancel(_("Cancelled; nothing was added to the scene."))
        else:
            self.detect()

    def detect(self) -> None:
        """Starts a detection of the chosen scan with the chosen settings; returns at once."""
        parameters, worker = self.parameters, self.panel.worker
        scan = parameters.scan
        self.panel.log.secrets.add(scan.GetName() or "")
        settings = {
            "modality": parameters.modality.value, "bundle": parameters.bundle or self.bundles.default,
            "device": parameters.device, "samples": parameters.samples, "fpr": parameters.falsePositivePercent / 100,
            "score": "zscore", "seed": _SEED,
        }  # fmt: skip
        if not settings["bundle"]:
            del settings["bundle"]
        folder = None
        try:
            folder = worker.folder("detection")
            given = self.panel.logic.request(scan, folder)
        except OSError as error:
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)
            reason = error.strerror or error
            return self._say(_("The scan cannot be handed over ({reason}): make room in the folder for temporary "
                               "files, {folder}.").format(reason=reason, folder=slicer.app.temporaryPath), bad=True)
        running = Running(scan, placement(scan).ijk_to_ras, settings, folder, time.monotonic())
        self.running = running
        self.ui.progressBar.value = 0
        self.ui.progressBar.setVisible(True)
        self._say(_("Starting…") if worker.state == "stopped" else _("Handing over the scan…"))
        self.panel.log.add(f"Detection started ({parameters.samples} samples, {parameters.device}).")
        running.job = worker.request(
            "detect", {"scan": given, **settings, "output": str(folder / "result")},
            lambda reply: self._on_result(running, reply), lambda error: self._on_error(running, error),
            self._on_progress)  # fmt: skip
        self._update_button()

    def cancel(self, why: str) -> None:
        """Ends a running detection within a second."""
        running = self.running
        if running is None or running.why_cancelled:
            return
        running.why_cancelled = why
        self._say(_("Cancelling…"))
        self._update_button()
        self.panel.worker.cancel(running.job)

    def _on_progress(self, message: Mapping[str, Any]) -> None:
        self.ui.progressBar.value = int(round(100 * message["fraction"]))
        if message.get("message"):
            self._say(message["message"] + "…")

    def _on_result(self, running: Running, reply: Mapping[str, Any]) -> None:
        try:
            if not slicer.mrmlScene.IsNodePresent(running.scan):
                raise ValueError(_("The scan was removed meanwhile; its result was dropped."))
            result = add_result(running.scan, reply, running.ijk_to_ras, running.settings)
        except (ValueError, OSError, KeyError) as error:
            return self._end(running, str(error), bad=True)
        self._end(running, choices.outcome(reply, time.monotonic() - running.started))
        self.results.show_new(result)
        self.ask_worker(again=True)  # free memory has changed

    def _on_error(self, running: Running, error: Mapping[str, Any]) -> None:
        if running.why_cancelled:
            return self._end(running, running.why_cancelled)
        text = error["message"]
        if error.get("log"):
            text += _(" Its last words:\n{lines}\nClick again to start it anew.").format(
                lines="\n".join(error["log"][-6:]))  # fmt: skip
        if error.get("kind") == "MissingPackage":
            self.panel.show_setup()
        self._end(running, text, bad=True)

    def _end(self, running: Running, text: str, bad: bool = False) -> None:
        shutil.rmtree(running.folder, ignore_errors=True)
        self.running = None
        self.ui.progressBar.setVisible(False)
        self._say(text, bad)
        self.panel.log.add(text)
        self._on_parameters()
        self._update_button()

    def _say(self, text: str, bad: bool = False) -> None:
        self.ui.messageLabel.text = text
        self.ui.messageLabel.setStyleSheet("color: #d9534f" if bad else "")

    # --- Helpers -----------------------------------------------------------------------------------------------------

    def _load_sample(self) -> None:
        from .sample_data import load_sample

        node = load_sample()
        if node is not None and self.parameters is not None:
            self.parameters.scan = node

    def report(self) -> str:
        """Text for a bug report."""
        names = {node.GetName() for node in slicer.util.getNodesByClass("vtkMRMLVolumeNode")}
        self.panel.log.secrets |= {name for name in names if name}
        parameters = self.parameters
        settings = {} if parameters is None else {
            "modality": parameters.modality.value, "bundle": parameters.bundle or "default",
            "device": parameters.device, "samples": parameters.samples,
            "false positives": f"{parameters.falsePositivePercent:g} %",
        }  # fmt: skip
        application = {"3D Slicer": getattr(slicer.app, "applicationVersion", "unknown")}
        return self.panel.log.report(application, self.info, settings)
