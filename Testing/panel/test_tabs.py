"""A new tab is one file: dropped into a copy of the module, in a fresh application."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys

import pytest

from .conftest import Panel
from .detections import ROOT, add_scan

NEW_TAB = '''
import qt
import slicer
from slicer.parameterNodeWrapper import parameterNodeWrapper

from .tabs import Tab
from .task_run import TaskRun


@parameterNodeWrapper
class EchoParameters:
    scan: slicer.vtkMRMLScalarVolumeNode
    samples: int = 3


class EchoTab(Tab):
    name, title, order = "echo", "Echo", 15
    Parameters = EchoParameters

    def setup(self, page):
        self.button, self.bar, self.message = qt.QPushButton(), qt.QProgressBar(), qt.QLabel()
        for widget in (self.button, self.bar, self.message):
            page.layout().addWidget(widget)
        self.ends = 0
        self.run = TaskRun(self.panel, self.button, self.bar, self.message, "Ask", "Asks the worker.", lambda: [],
                           lambda: self.run.start("info", None, lambda folder: {}, self.show), self.on_end)
        self.run.update_button()

    def show(self, reply, seconds):
        return f"MedVAE {reply['versions']['medvae']}"

    def on_end(self):
        self.ends += 1

    def settings(self):
        return {"echoes": self.parameters.samples}
'''
OPEN = """
import json, os, sys, time
from pathlib import Path
from Testing.slicer_host import application
host = application.start(views=False)
import slicer
_, _, widget, top = application.loadModule(os.path.join(sys.argv[1], "MedVAE.py"))
widget.enter()
anomaly, echo, *_ = widget.tabs
echo.parameters.samples = 7
node = widget.logic.getParameterNode()
scan = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Other")
echo.parameters.scan = scan
echo.button.click()
words = [echo.button.text]
end = time.monotonic() + 60
while echo.ends == 0 and time.monotonic() < end:
    slicer.app.processEvents()
    time.sleep(0.005)
told = dict(
    titles=[widget.ui.tabWidget.tabText(index) for index in range(widget.ui.tabWidget.count)],
    samples=[anomaly.parameters.samples, echo.parameters.samples], words=[*words, echo.button.text, echo.message.text],
    scans=[anomaly.parameters.scan is None, echo.parameters.scan is scan], report=widget.log_section.report(),
    kept=sorted(name for name in node.GetParameterNames() if name.endswith("samples")),
)
slicer.mrmlScene.Clear(0)
told["after"] = echo.parameters.samples
widget.cleanup()
print("TOLD" + json.dumps(told))
"""


@pytest.fixture
def copy(tmp_path):
    """The extension with MedVAELib beside it, as in a clone."""
    shutil.copytree(ROOT / "MedVAE", tmp_path / "MedVAE", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("MedVAELib", "Resources"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path / "MedVAE"


def _open(module, code=OPEN):
    pytest.importorskip("PySide6", reason="PySide6 is not installed")
    pytest.importorskip("slicer_core", reason="slicer-core is not installed")
    return subprocess.run([sys.executable, "-c", code, str(module)], capture_output=True, text=True, cwd=ROOT,
                          timeout=120)


def test_a_file_in_the_folder_is_a_tab_of_the_panel(copy):
    (copy / "MedVAEPanel" / "echo_tab.py").write_text(NEW_TAB)
    done = _open(copy)
    assert "TOLD" in done.stdout, done.stdout + done.stderr
    told = json.loads(done.stdout.split("TOLD")[1])
    assert told["titles"] == ["Anomalies", "Echo", "Fetal skull", "Latent space"]
    assert told["words"][:2] == ["Cancel", "Ask"] and told["words"][2].startswith("MedVAE ")
    assert told["samples"] == [16, 7], "a field of the same name belongs to each tab alone"
    assert told["scans"] == [True, True]
    assert {"echo.samples"} <= set(told["kept"])
    assert '"echoes": 7' in told["report"]
    assert told["after"] == 3, "the scene was closed"


def test_a_file_that_holds_no_tab_is_named(copy):
    (copy / "MedVAEPanel" / "broken_tab.py").write_text("from .tabs import Tab\n")
    done = _open(copy)
    assert done.returncode != 0 and "broken_tab.py must hold one class derived from Tab" in done.stderr


NO_LIBRARY = """
import sys
from Testing.slicer_host import application
host = application.start(views=False)
import qt
import slicer
_, _, widget, top = application.loadModule(sys.argv[1] + "/MedVAE.py")
widget.enter()
slicer.mrmlScene.Clear(0)
widget.exit()
print("SAID", [label.text for label in top.findChildren(qt.QLabel)])
widget.cleanup()
"""


def test_without_the_library_the_panel_says_so_and_raises_nothing(tmp_path):
    shutil.copytree(ROOT / "MedVAE", tmp_path / "MedVAE", ignore=shutil.ignore_patterns("__pycache__"))
    done = _open(tmp_path / "MedVAE", NO_LIBRARY)
    said = done.stdout.split("SAID")[-1]
    assert said.count("MedVAELib is neither in") == 1 and "install the extension again" in said, done.stderr
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr


def test_an_older_slicer_is_told_which_one_is_needed(monkeypatch):
    source = (ROOT / "MedVAE" / "MedVAE.py").read_text(encoding="utf-8")
    code = compile(ast.parse(source, feature_version=(3, 9)), "MedVAE.py", "exec")
    monkeypatch.setattr(sys, "version_info", (3, 9, 10))
    with pytest.raises(ImportError, match="needs Slicer 5.10 or later"):
        exec(code, {"__name__": "MedVAE"})


@pytest.mark.parametrize("in_view", [True, False])
def test_a_panel_that_is_reloaded_is_entered_where_it_is_in_view(host, in_view):
    """Slicer's button Reload: a new panel of new modules, and the one before follows the scene no more."""
    import slicer

    slicer.mrmlScene.Clear(0)
    before, panel = dict(sys.modules), Panel(host)
    old = panel.widget
    if not in_view:
        old.exit()
        panel.top.isEntered = False
    try:
        old.onReload()
        panel.widget = new = slicer.modules.MedVAEWidget
        assert new is not old and not isinstance(new.tabs[0], type(old.tabs[0])) and new.entered == in_view
        for selector in old.uiWidget.findChildren(slicer.qMRMLNodeComboBox):
            selector.forgetScene()
        scan = add_scan()
        panel.pump(seconds=0.1)
        assert (new.tabs[0].parameters.scan is scan) == in_view and old.tabs[0].parameters is None
    finally:
        panel.close()
        sys.modules.update({name: module for name, module in before.items() if name.startswith("MedVAE")})


def test_no_observer_is_left_on_the_node_of_a_scene_that_closes(host):
    """Slicer 5.10 does not remove the one that it adds itself, and crashes when Python has freed it."""
    import slicer
    import vtk

    class Parameters:
        """As far as a `@parameterNodeWrapper` class of Slicer 5.10 goes."""

        samples: int = 1

        def __init__(self, node):
            self.parameterNode = node

        def AddObserver(self, event, callback, priority=0.0):
            return self.parameterNode.AddObserver(event, callback, priority)

        def RemoveObserver(self, tag):
            self.parameterNode.RemoveObserver(tag)

        def connectGui(self, ui):
            self.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: heard.append("Slicer"))
            return 1

        def disconnectGui(self, tag):
            assert tag == 1

    sys.path.insert(0, str(ROOT / "MedVAE"))
    from MedVAEPanel.tabs import Tab

    heard, node, tab = [], slicer.vtkMRMLScriptedModuleNode(), Tab(None)
    tab.bind(Parameters(node), None, lambda *_: heard.append("tab"))
    tab.parameters.samples = 2
    node.Modified()
    tab.parameters.AddObserver(vtk.vtkCommand.DeleteEvent, lambda *_: None)
    assert sorted(heard) == ["Slicer", "tab"]
    tab.parameters.samples = 3
    tab.bind(None, None, None)
    node.Modified()
    assert len(heard) == 2 and not node.HasObserver(vtk.vtkCommand.ModifiedEvent)
