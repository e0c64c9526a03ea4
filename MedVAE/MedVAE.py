"""MedVAE for 3D Slicer: module, widget, logic and self-test, as Slicer looks for them. The work is in MedVAEPanel."""

import sys

if sys.version_info < (3, 10):  # noqa: UP036 (of an older Slicer, which would stumble over the next import)
    raise ImportError("MedVAE needs Slicer 5.10 or later: install it from https://download.slicer.org.")

import contextlib
import shutil
import unittest
from pathlib import Path

import numpy as np
import qt
import slicer
from MedVAEPanel import anomaly_results, library, results, scan_node
from MedVAEPanel.log import PanelLog
from MedVAEPanel.log_section import LogSection, names_of_scans
from MedVAEPanel.offers import Offers
from MedVAEPanel.tabs import make_tabs
from MedVAEPanel.waiting import ask
from MedVAEPanel.worker_client import WorkerClient, python_command
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

DOCUMENTATION = "https://github.com/MedVAE/MedVAE#in-3d-slicer"


class MedVAE(ScriptedLoadableModule):
    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("MedVAE")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Neuroimaging")]
        parent.dependencies = ["Colors", "Plots", "SampleData", "Segmentations"]
        parent.contributors = ["MedVAE contributors"]
        parent.helpText = _(
            "Shows where a brain scan (FLAIR or diffusion MRI) departs from the healthy brain behind it, as a coloured "
            "map with a ranked list of findings. Choose a scan and click <b>Detect anomalies</b>.<br>"
            "The other tabs predict a 3D fetal skull from ultrasound planes, with its uncertainty, and explore the "
            "latent spaces of variational autoencoders.<br>"
            "Research use only: not for diagnosis."
        ) + "<br>" + _('<a href="{address}">Documentation</a>').format(address=DOCUMENTATION)
        parent.acknowledgementText = _(
            "If MedVAE helps your research, please cite it by name, version and the bundle that was used; both are "
            "kept with every result. MedVAE builds on PyTorch, MONAI and SimpleITK."
        )
        slicer.app.connect("startupCompleted()", on_startup)


def on_startup() -> None:
    from MedVAEPanel.display import register_compare_layout
    from MedVAEPanel.sample_data import register_sample_data

    register_compare_layout()
    register_sample_data()


class MedVAEWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel: tabs above, Log and Setup below. `Tab` says what a tab sees of it."""

    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self.log = PanelLog(names_of_scans)
        self.worker = None
        self.offers = None
        self.entered = False
        self._before_import = results.there()
        self.tabs = []
        self.log_section = None
        self.setup_section = None

    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        self.logic = MedVAELogic()
        try:
            folder = library.library_root()
        except ImportError as error:
            problem = qt.QLabel(str(error))
            problem.wordWrap = True
            self.layout.addWidget(problem)
            return
        self.worker = WorkerClient(python_command(), folder, self.log.add, temporary=slicer.app.temporaryPath)
        self.offers = Offers(self.worker, self.log.add, self._on_offers)
        self.uiWidget = slicer.util.loadUI(self.resourcePath("UI/MedVAE.ui"))
        self.layout.addWidget(self.uiWidget)
        self.ui = slicer.util.childWidgetVariables(self.uiWidget)
        self.uiWidget.setMRMLScene(slicer.mrmlScene)
        self.tabs = make_tabs(self)
        for tab in self.tabs:
            page = tab.make_page()
            page.setMRMLScene(slicer.mrmlScene)
            self.ui.tabWidget.addTab(page, tab.title)
            tab.setup(page)
        self._set_up_sections()
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(scene, scene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(scene, scene.StartImportEvent, self.onSceneStartImport)
        self.addObserver(scene, scene.EndImportEvent, self.onSceneImported)
        slicer.app.connect("aboutToQuit()", self.worker.shutdown)
        if slicer.app.layoutManager() is not None:
            slicer.app.layoutManager().connect("layoutChanged(int)", self.onLayoutChanged)
        self.initializeParameterNode()

    def _set_up_sections(self) -> None:
        from MedVAEPanel.setup_section import SetupSection

        self.log_section = LogSection(self, self.ui)
        self.setup_section = SetupSection(self)
        self.setup_section.setup(self.ui.setupSection)

    def show_setup(self) -> None:
        """Opens the section where missing packages are installed."""
        self.ui.setupSection.collapsed = False

    def _on_offers(self) -> None:
        if self.offers.missing:
            self.show_setup()
        for tab in self.tabs:
            tab.on_offers()

    def cleanup(self):
        self.removeObservers()
        if self.worker is None:
            return
        if slicer.app.layoutManager() is not None:
            slicer.app.layoutManager().disconnect("layoutChanged(int)", self.onLayoutChanged)
        for tab in self.tabs:
            tab.set_parameter_node(None)
            tab.cleanup()
        if self.log_section is not None:
            self.log_section.cleanup()
        slicer.app.disconnect("aboutToQuit()", self.worker.shutdown)
        self.worker.shutdown()

    def enter(self):
        if self.worker is None:  # `setup` says why
            return
        self.entered = True
        self.initializeParameterNode()
        for tab in self.tabs:
            tab.enter()
        self.offers.ask()

    def exit(self):
        for tab in self.tabs:
            tab.exit()
        self.entered = False

    def onReload(self):
        """Slicer reloads MedVAE.py alone; its parts have to be forgotten first."""
        for name in [name for name in sys.modules if name.split(".")[0] == "MedVAEPanel"]:
            del sys.modules[name]
        ScriptedLoadableModuleWidget.onReload(self)
        if self.parent.isEntered:  # the new panel is in view, which Slicer does not tell it
            slicer.modules.MedVAEWidget.enter()

    def initializeParameterNode(self):
        node = self.logic.getParameterNode()
        for tab in self.tabs:
            if tab.Parameters is not None and (tab.parameters is None or tab.parameters.parameterNode is not node):
                tab.set_parameter_node(tab.Parameters(node, f"{tab.name}."))

    def onSceneStartClose(self, caller, event):
        for tab in self.tabs:
            tab.on_scene_about_to_close()
            tab.set_parameter_node(None)

    def onSceneEndClose(self, caller, event):
        for tab in self.tabs:
            tab.on_scene_closed()
        self.initializeParameterNode()

    def onSceneStartImport(self, caller, event):
        """Selectors choose nothing for a moment when an import ends, which must not reach the choices it brings."""
        for tab in self.tabs:
            tab.set_parameter_node(None)
        self._before_import = results.there()

    def onSceneImported(self, caller, event):
        results.renumber_imported(self._before_import)
        self.initializeParameterNode()

    def onLayoutChanged(self, layout):
        for tab in self.tabs:
            tab.on_layout_changed()


class MedVAELogic(ScriptedLoadableModuleLogic):
    """What the panel does, for scripts: no widgets here.

    `detect`, `predictSkull` and `encode` wait for the result while Slicer goes on. They raise ValueError for what
    cannot be used, OSError for what cannot be written or read, and `waiting.WorkerFailed` with the worker's sentence.
    """

    def __init__(self, parent=None):
        ScriptedLoadableModuleLogic.__init__(self, parent)
        self._worker = None

    @property
    def worker(self) -> WorkerClient:
        """Started with the first question and kept warm until `close`, or until Slicer ends."""
        if self._worker is None:
            root = library.library_root()
            self._worker = WorkerClient(python_command(), root, temporary=slicer.app.temporaryPath)
            slicer.app.connect("aboutToQuit()", self._worker.shutdown)
        return self._worker

    def close(self) -> None:
        """Ends the worker; the next question starts another."""
        worker, self._worker = self._worker, None
        if worker is not None:
            slicer.app.disconnect("aboutToQuit()", worker.shutdown)
            worker.shutdown()

    def detect(self, scan, modality="auto", samples=16, fpr=0.01, bundle="", device="auto", seed=0):
        """Anomalies of a scan, as nodes beneath it: `result.node("anomaly")`, "residual", "reconstruction", "std",
        "segmentation", "findings". The settings are those of `medvae detect`; without `bundle` the shipped one."""
        settings = {"modality": modality, "samples": samples, "fpr": fpr, "device": device, "seed": seed}
        settings |= {"bundle": str(bundle)} if bundle else {}
        with self._folder("detect") as folder:
            given = self.request(scan, folder)
            matrix, before = scan_node.placement(scan).ijk_to_ras, scan_node.state(scan)
            reply = self._ask("detect", {"scan": given, **settings}, folder)
            if not slicer.mrmlScene.IsNodePresent(scan) or scan_node.state(scan) != before:
                raise ValueError(_("The scan was changed or removed meanwhile, so its result was dropped."))
            return self.addResult(scan, reply, matrix, settings)

    def predictSkull(self, planes, spacingMm=0.0, gaWeeks=0.0, samples=None, bundle="", device="auto", seed=0):
        """The fetal skull behind `planes`, volume nodes by "axial", "sagittal", "coronal", as nodes in a folder:
        `result.surface`, `result.node("probability")`, "std", "biometry". spacingMm: of the pixels of images that do
        not state it. gaWeeks: gestational age, 0 if not known. samples: by default as many as `medvae skull` draws."""
        from MedVAEPanel import plane_node, skull_results

        settings = {"device": device, "seed": seed} | ({"samples": samples} if samples is not None else {})
        settings |= ({"bundle": str(bundle)} if bundle else {}) | ({"ga_weeks": float(gaWeeks)} if gaWeeks else {})
        for plane, node in planes.items():
            source = plane_node.PlaneSource(node)
            if spacingMm and not source.problem_of_volume() and not plane_node.states_size(node):
                plane_node.type_size(node, spacingMm)
            if source.problem():
                raise ValueError(f"{plane}: {source.problem()}")
        with self._folder("skull") as folder:
            given = {plane: plane_node.PlaneSource(node).write(folder, plane) for plane, node in planes.items()}
            reply = self._ask("skull", {"planes": given, **settings}, folder)
            if not all(slicer.mrmlScene.IsNodePresent(node) for node in planes.values()):
                raise ValueError(_("An image was removed meanwhile; the result was dropped."))
            drawn = {"samples": reply["provenance"]["samples"]}
            return skull_results.add_result(planes, reply, settings | drawn)

    def encode(self, scan, bundle="flair-latents", device="auto") -> np.ndarray:
        """The latents (Z,) of a scan, or of a picture for a model of pictures. bundle: a name or a folder."""
        with self._folder("encode") as folder:
            given = self.request(scan, folder)
            reply = self._ask("latent_encode", {"scan": given, "bundle": str(bundle), "device": device}, folder)
            return np.load(reply["arrays"]["mean"])

    @contextlib.contextmanager
    def _folder(self, name: str):
        folder = self.worker.folder(name)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _ask(self, task: str, fields: dict, folder: Path) -> dict:
        return ask(self.worker, task, {**fields, "output": str(folder / "result")})

    def request(self, scan, folder: str | Path) -> dict:
        """Writes the scan into `folder` and returns the "scan" of a worker's request. Raises ValueError, OSError."""
        reason = scan_node.problem(scan)
        if reason:
            raise ValueError(reason)
        return scan_node.write_scan(scan, folder)

    def addResult(self, scan, reply, ijkToRAS=None, settings=None):
        """A worker's reply to "detect" as nodes beneath the scan; see `anomaly_results.add_result`."""
        matrix = scan_node.placement(scan).ijk_to_ras if ijkToRAS is None else ijkToRAS
        return anomaly_results.add_result(scan, reply, matrix, settings or {})

    def removeLastResult(self) -> bool:
        """Takes away all that the last detection added; False if there is none."""
        last = anomaly_results.Result.last()
        if last is not None:
            results.remove(last)
        return last is not None


class MedVAETest(ScriptedLoadableModuleTest):
    """Puts a made result into the scene, which needs no PyTorch, and runs a real detection on the sample."""

    def setUp(self):
        slicer.mrmlScene.Clear()

    def runTest(self):
        self.setUp()
        self.test_a_made_result()
        self.setUp()
        try:
            self.test_detection_on_the_sample()
        except unittest.SkipTest as skipped:  # Slicer's own button "Test" would call it a failure
            self.delayDisplay(f"Skipped: {skipped}")

    def test_a_made_result(self):
        from MedVAEPanel.self_test import run_without_torch

        run_without_torch(self)

    def test_detection_on_the_sample(self):
        from MedVAEPanel.self_test import run

        run(self)
