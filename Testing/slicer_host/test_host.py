"""The host itself: a small scripted module is opened, clicked, rendered, saved with its scene and read back.

It runs in a process of its own, because the host's Qt and scene live once per process: on the host's stand-ins for
Slicer's Python and, where SLICER_SOURCE_DIR names a Slicer checkout, on Slicer's own.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

MODULE = '''
from typing import Annotated

import slicer
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper
from slicer.ScriptedLoadableModule import *
from slicer.util import VTKObservationMixin


@parameterNodeWrapper
class Parameters:
    scan: slicer.vtkMRMLScalarVolumeNode
    level: Annotated[int, WithinRange(1, 9)] = 3


class Toy(ScriptedLoadableModule):
    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = "Toy"


class ToyLogic(ScriptedLoadableModuleLogic):
    def getParameterNode(self):
        return Parameters(super().getParameterNode())


class ToyWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)

    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        whole = slicer.util.loadUI(self.resourcePath("UI/Toy.ui"))
        self.layout.addWidget(whole)
        self.ui = slicer.util.childWidgetVariables(whole)
        whole.setMRMLScene(slicer.mrmlScene)
        self.clicks, self.closed = 0, 0
        self.ui.goButton.connect("clicked(bool)", self.go)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.on_close)
        self.bind()

    def bind(self):
        self.parameters = ToyLogic().getParameterNode()
        self.parameters.connectGui(self.ui)

    def on_close(self, caller, event):
        self.closed += 1

    def go(self, *_):
        self.clicks += 1

    def cleanup(self):
        self.removeObservers()
'''

UI = """<?xml version="1.0"?><ui version="4.0"><class>Toy</class>
<widget class="qMRMLWidget" name="Toy"><layout class="QVBoxLayout">
<item><widget class="qMRMLNodeComboBox" name="scanSelector">
 <property name="nodeTypes"><stringlist><string>vtkMRMLScalarVolumeNode</string></stringlist></property>
 <property name="noneEnabled"><bool>true</bool></property>
 <property name="SlicerParameterName" stdset="0"><string>scan</string></property></widget></item>
<item><widget class="QSpinBox" name="levelSpin">
 <property name="SlicerParameterName" stdset="0"><string>level</string></property></widget></item>
<item><widget class="QPushButton" name="goButton"><property name="text"><string>Go</string></property></widget></item>
</layout></widget>
<customwidgets/><resources/>
<connections><connection><sender>Toy</sender><signal>mrmlSceneChanged(vtkMRMLScene*)</signal>
<receiver>scanSelector</receiver><slot>setMRMLScene(vtkMRMLScene*)</slot></connection></connections></ui>
"""

START = """
import os, sys
from pathlib import Path
import numpy as np
from Testing.slicer_host import application
host = application.start(views=False)
red = host.addSliceView("Red", "Axial")
import qt, slicer
"""

DRIVE = START + """
_, _, widget, top = application.loadModule("Toy.py")
import slicer.parameterNodeWrapper
print("from", slicer.parameterNodeWrapper.__file__)

# a click, the parameter node and its widgets, both ways
widget.ui.goButton.click()
assert widget.clicks == 1 and widget.ui.goButton.text == "Go"
widget.ui.levelSpin.value = 5
assert widget.parameters.level == 5
widget.parameters.level = 7
assert widget.ui.levelSpin.value == 7 and widget.ui.levelSpin.maximum == 9
try:
    widget.parameters.level = 10
except ValueError:
    pass
else:
    raise AssertionError("10 was taken, the range ends at 9")

# what Slicer refuses, the host refuses
try:
    widget.ui.goButton.connect("pushed()", widget.go)
except Exception:
    pass
else:
    raise AssertionError("a signal that does not exist was connected")

# a volume: chosen, shown in the red view, the same picture twice
array = np.zeros((20, 30, 40), np.float32)
array[:, 10:20, :20] = 100
node = slicer.util.addVolumeFromArray(array, name="block")
widget.ui.scanSelector.setCurrentNode(node)
assert widget.parameters.scan is node

# a node that is chosen by an attribute which came after it: shown, not only chosen
from Testing.slicer_host.qmrml_widgets import qMRMLNodeComboBox
box = qMRMLNodeComboBox()
box.noneEnabled, box.nodeTypes = True, ["vtkMRMLScalarVolumeNode"]
box.addAttribute("vtkMRMLScalarVolumeNode", "Toy.Role", "late")
box.setMRMLScene(slicer.mrmlScene)
late = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "late")
late.SetAttribute("Toy.Role", "late")
box.setCurrentNode(late)
assert box.currentNode() is late and box._c.currentText == "late"
box.forgetScene()
slicer.mrmlScene.RemoveNode(late)

black = red.image()
slicer.util.setSliceViewerLayers(background=node, fit=False)
red.fit()
first, second = red.image(), red.image()
assert black.max() == 0 and first.max() > 200 and (first == second).all()
lit = (first[..., 0] > 128).mean()
print("lit", lit)
assert 0.05 < lit < 0.5

# a segmentation's surface in the 3D view, found through the layout manager
layout = slicer.app.layoutManager()
assert layout.threeDWidget(0) is None and layout.threeDViewCount == 0
host.add3DView()
assert layout.threeDViewCount == 1 and layout.threeDWidget(1) is None
labels = slicer.util.addVolumeFromArray((array > 0).astype(np.uint8), name="labels",
                                        nodeClassName="vtkMRMLLabelMapVolumeNode")
segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
segmentation.CreateDefaultDisplayNodes()
assert slicer.modules.segmentations.logic().ImportLabelmapToSegmentationNode(labels, segmentation)
before = host.views["1"].image()
segmentation.CreateClosedSurfaceRepresentation()
view, camera = layout.threeDWidget(0).threeDView(), host.views["1"].camera
camera.SetPosition(0, 0, 90000)
view.resetFocalPoint()
assert list(camera.GetPosition()) == [0, 0, 90000], "this only turns the camera"
assert (host.views["1"].image() != before).any(axis=2).mean() < 0.02
view.resetCamera(False, True, True)
assert (host.views["1"].image() != before).any(axis=2).mean() > 0.02

# the views of a layout get their sizes in the event loop
layouts, named = layout.layoutLogic().GetLayoutNode(), '<item><view class="vtkMRMLSliceNode" singletontag="{}"/></item>'
layouts.AddLayoutDescription(501, "<layout>" + named.format("A") + named.format("B") + "</layout>")
layout.setLayout(501)
assert layout.sliceWidget("A").mrmlSliceNode().GetDimensions()[:2] == (640, 480)
slicer.app.processEvents()
assert all(layout.sliceWidget(name).mrmlSliceNode().GetDimensions()[:2] == (500, 500) for name in "AB")
layout.setLayout(layouts.SlicerLayoutFourUpView)

# what a timer calls is kept after it was called
import gc, weakref
class Called:
    times = 0
    def __call__(self): Called.times += 1
called = Called()
kept = weakref.ref(called)
qt.QTimer.singleShot(0, called)
del called
while not Called.times:
    slicer.app.processEvents()
gc.collect()
assert kept() is not None

# settings are kept within a run, in a folder of its own
slicer.app.settings().setValue("Toy/answer", 42)
assert int(slicer.app.userSettings().value("Toy/answer")) == 42

# the event loop turns: a timer and a child process
seen, printed = [], []
timer = qt.QTimer()
timer.setSingleShot(True)
timer.connect("timeout()", lambda: seen.append("timer"))
timer.start(10)
process = qt.QProcess()
process.connect("readyReadStandardOutput()", lambda: printed.append(bytes(process.readAllStandardOutput().data())))
process.start(sys.executable, ["-c", "print('hello')"])
assert process.waitForFinished(20000)
import time
limit = time.monotonic() + 20
while not (seen and b"hello" in b"".join(printed)) and time.monotonic() < limit:
    slicer.app.processEvents()
assert seen == ["timer"] and b"".join(printed).strip() == b"hello", (seen, printed)

node.SetAttribute("Toy.Note", "kept")
assert slicer.util.saveScene(str(Path("scene.mrb").resolve()))
slicer.mrmlScene.Clear(0)
assert widget.closed == 1 and widget.ui.scanSelector.currentNode() is None
widget.cleanup()
slicer.mrmlScene.Clear(0)
assert widget.closed == 1, "the observer outlived cleanup()"
print("driven")
"""

REOPEN = START + """
sys.path.insert(0, "")
slicer.util.loadScene(str(Path("scene.mrb").resolve()))
_, _, widget, top = application.loadModule("Toy.py")
node = widget.parameters.scan
assert node.GetName() == "block" and node.GetAttribute("Toy.Note") == "kept"
assert widget.ui.scanSelector.currentNode() is node and widget.ui.levelSpin.value == 7
assert slicer.util.arrayFromVolume(node).sum() == 100 * 20 * 10 * 20
print("reopened")
"""


@pytest.fixture(params=["stand-ins", "Slicer's own"])
def run(request, tmp_path):
    """Runs a script beside the module Toy.py in a fresh host; returns what it printed."""
    pytest.importorskip("PySide6", reason="PySide6 is not installed")
    pytest.importorskip("slicer_core", reason="slicer-core is not installed")
    environment = {key: value for key, value in os.environ.items() if key != "SLICER_SOURCE_DIR"}
    if request.param == "Slicer's own":
        if "SLICER_SOURCE_DIR" not in os.environ:
            pytest.skip("SLICER_SOURCE_DIR is not set")
        environment["SLICER_SOURCE_DIR"] = os.environ["SLICER_SOURCE_DIR"]
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    environment["TMPDIR"] = str(temporary)
    (tmp_path / "Toy.py").write_text(MODULE)
    (tmp_path / "Resources" / "UI").mkdir(parents=True)
    (tmp_path / "Resources" / "UI" / "Toy.ui").write_text(UI)

    def script(text: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", text], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert not (left := sorted(file.name for file in temporary.iterdir())), f"left in the temporary folder: {left}"
        return done.stdout

    script.source = environment.get("SLICER_SOURCE_DIR", str(ROOT / "Testing" / "slicer_host"))
    return script


def test_a_module_is_driven_saved_and_read_back_in_a_fresh_host(run):
    driven = run(DRIVE)
    assert f"from {run.source}" in driven and "driven" in driven
    assert "reopened" in run(REOPEN)


def test_a_ui_file_with_an_unknown_property_is_refused(run, tmp_path):
    (tmp_path / "Resources" / "UI" / "Toy.ui").write_text(UI.replace('name="text"', 'name="caption"'))
    with pytest.raises(AssertionError, match="goButton has no property caption"):
        run(DRIVE)
