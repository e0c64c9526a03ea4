"""`slicer.app` and the module machinery: what Slicer's C++ application gives a scripted module."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
import types
from pathlib import Path

import slicer
import vtk
from PySide6 import QtCore, QtGui, QtWidgets
from PySide6.QtCore import Signal

from .ctk_widgets import CTK
from .layout import LayoutManager
from .pythonqt import connect, disconnect, patch_properties
from .qmrml_widgets import QMRML, qSlicerScriptedLoadableModuleWidget
from .scene import HeadlessSlicer
from .ui_loader import QUiLoader


class _SceneIO:
    def __init__(self, app):
        self.app = app

    def fileType(self, fn):
        name = str(fn).lower()
        if name.endswith((".mrb", ".mrml")):
            return "SceneFile"
        return "VolumeFile" if name.endswith((".nii", ".nii.gz", ".nrrd", ".mha", ".mhd", ".nhdr")) else "NoFile"

    def saveNodes(self, filetype, props, messages):
        if filetype != "SceneFile":
            raise NotImplementedError(f"the host saves scenes only, not a {filetype}")
        file, scene = props["fileName"], slicer.mrmlScene
        if file.endswith(".mrb"):
            return scene.WriteToMRB(file, None, messages)
        if file.endswith(".mrml"):  # the scene without the nodes' data, as Slicer does
            return bool(scene.Commit(file))
        return scene.SaveSceneToSlicerDataBundleDirectory(file, None, messages)

    def _load_scene(self, props, messages):
        file, clear, scene = props["fileName"], props.get("clear", False), slicer.mrmlScene
        if file.endswith(".mrb"):
            return scene.ReadFromMRB(file, clear, messages)
        scene.SetURL(file)
        return bool(scene.Connect(messages) if clear else scene.Import(messages))

    def loadNodes(self, filetype, props, coll, messages):
        if filetype == "SceneFile":
            return self._load_scene(props, messages)
        if filetype != "VolumeFile":
            messages.AddMessage(vtk.vtkCommand.ErrorEvent, f"no reader for {filetype}")
            return False
        opt = (1 if props.get("labelmap") else 0) + (4 if props.get("singleFile", True) else 0)
        n = (
            self.app.applicationLogic()
            .GetModuleLogic("Volumes")
            .AddArchetypeVolume(
                props["fileName"], props.get("name") or os.path.basename(props["fileName"]).split(".")[0], opt
            )
        )
        if n is None:
            return False
        coll.AddItem(n)
        if props.get("show", True):
            logic = self.app.applicationLogic()
            logic.GetSelectionNode().SetActiveVolumeID(n.GetID())
            logic.PropagateVolumeSelection()  # what lay over other scans goes, too
        return True


class _ModuleManager(QtCore.QObject):
    moduleAboutToBeUnloaded = Signal(str)

    def __init__(self):
        super().__init__()
        self.mods = {}

    def module(self, name):
        return self.mods.get(name)


class SlicerApplication(QtWidgets.QApplication):
    startupCompleted = Signal()

    def setup(self, headless):
        self._h = headless
        self._layout = LayoutManager(headless)
        self._mm = _ModuleManager()
        self._io = _SceneIO(self)
        self._testing = True
        self._private = tempfile.mkdtemp(prefix="slicer-host-")  # settings of one run never reach the next
        atexit.register(shutil.rmtree, self._private, ignore_errors=True)
        self.temporaryPath = tempfile.gettempdir()
        self.slicerHome = "/opt/Slicer"

    def mrmlScene(self):
        return slicer.mrmlScene

    def applicationLogic(self):
        return self._h.appLogic

    def layoutManager(self):
        return self._layout

    def moduleManager(self):
        return self._mm

    def coreIOManager(self):
        return self._io

    ioManager = coreIOManager

    def translate(self, ctx, text):
        return text

    def testingEnabled(self):
        return self._testing

    def userSettings(self):
        return QtCore.QSettings(os.path.join(self._private, "Slicer.ini"), QtCore.QSettings.IniFormat)

    settings = userSettings

    def pauseRender(self):
        pass

    def resumeRender(self):
        pass


def _single_shot(msec, receiver, member=None):
    """As Slicer's own (slicerqt.py): the timer, with what it calls, stays as long as the application."""
    timer = QtCore.QTimer(slicer.app.moduleManager())
    timer.setSingleShot(True)
    timer.timeout.connect(lambda: receiver())  # a bound method alone would be held weakly
    timer.start(msec)


class _Module:  # what slicer.modules.<name> is for a scripted module, plus the `parent` given to the module class
    def __init__(self, path=None, logic=None):
        self.path, self._logic, self.title, self.icon = path, logic, "", None

    def logic(self):
        return self._logic


OFFSCREEN = {"QT_QPA_PLATFORM": "offscreen", "VTK_DEFAULT_OPENGL_WINDOW": "vtkEGLRenderWindow"}


def start(views=True):
    """The application in this process, drawing offscreen: a HeadlessSlicer, with Red, Yellow, Green and a 3D view.

    With SLICER_SOURCE_DIR set to a Slicer checkout, Slicer's own Python is used in place of the host's.
    """
    for name, value in OFFSCREEN.items():
        os.environ.setdefault(name, value)
    headless, checkout = HeadlessSlicer(), os.environ.get("SLICER_SOURCE_DIR")
    install(headless, Path(checkout) / "Base" / "Python" / "slicer" if checkout else None)
    if views:
        for name, orientation in (("Red", "Axial"), ("Yellow", "Sagittal"), ("Green", "Coronal")):
            headless.addSliceView(name, orientation)
        headless.add3DView()
    return headless


def install(headless, slicerPython=None):
    """headless: a HeadlessSlicer; slicerPython: the folder Base/Python/slicer of a Slicer checkout, else ours."""
    app = QtWidgets.QApplication.instance() or SlicerApplication(["Slicer"])
    app.setup(headless)
    for m in (QtCore, QtGui, QtWidgets):
        for c in [getattr(m, k) for k in dir(m)]:  # dir(): PySide6 creates its classes lazily
            if isinstance(c, type) and issubclass(c, QtCore.QObject):
                patch_properties(c)
    base = QtCore.QObject
    base.name = property(lambda s: s.property("objectName"), lambda s, v: s.setProperty("objectName", v))
    # Shiboken ignores a "connect" set on the class: hook the lookup itself.
    orig = base.__getattribute__

    def lookup(s, n):
        if n == "connect" or n == "disconnect":
            native, mine = orig(s, n), connect if n == "connect" else disconnect
            return lambda *a: (
                mine(s, *a) if a and isinstance(a[0], str) and not a[0].startswith(("1", "2")) else native(*a)
            )  # PySide itself calls self.connect(obj, SIGNAL, fn)
        return orig(s, n)

    for cls in (base, QtCore.QProcess, QtCore.QTimer, QtCore.QIODevice):
        cls.__getattribute__ = lookup
    QtCore.QTimer.singleShot = staticmethod(_single_shot)
    base.className = lambda s: s.metaObject().className()
    QtWidgets.QDialog.exec_ = QtWidgets.QDialog.exec
    ask_for_file = QtWidgets.QFileDialog.getOpenFileName  # PythonQt gives the name alone
    QtWidgets.QFileDialog.getOpenFileName = staticmethod(lambda *a: ask_for_file(*a)[0])
    qt = types.ModuleType("qt")
    qt.__path__ = []
    for m in (QtCore, QtGui, QtWidgets):
        qt.__dict__.update({k: getattr(m, k) for k in dir(m) if not k.startswith("_")})
    qt.QUiLoader = QUiLoader
    ctk = types.ModuleType("ctk")
    ctk.__dict__.update(CTK)
    sys.modules["qt"], sys.modules["ctk"] = qt, ctk
    for k, v in QMRML.items():
        setattr(slicer, k, v)
    slicer.app, slicer.mrmlScene = app, headless.scene
    for n in ("modules", "moduleNames"):
        mod = types.ModuleType("slicer." + n)
        sys.modules["slicer." + n] = mod
        setattr(slicer, n, mod)
    for name, lg in headless.logics.items():
        setattr(slicer.modules, name.lower(), _Module(logic=lg))
    slicer.__path__.append(str(slicerPython or Path(__file__).parent / "slicer_python"))
    return app


def strayAttributes(root):
    """Attributes set on plain Qt widgets that are no Qt property: PythonQt raises there, PySide6 keeps them."""
    known, out = {**CTK, **QMRML}, {}
    for w in [root] + root.findChildren(QtWidgets.QWidget):
        if type(w).__module__.startswith("PySide6") or type(w) in known.values():
            bad = sorted(
                k
                for k, v in w.__dict__.items()
                if not k.startswith("_")
                and not isinstance(v, QtCore.SignalInstance)
                and not (isinstance(v, QtCore.QObject) and v.objectName == k)  # the loader of .ui files sets children
            )
            if bad:
                out[f"{w.objectName}:{type(w).__name__}"] = bad
    return out


def loadModule(path):
    """Import a scripted module file the way Slicer does; returns (pymodule, moduleObject, widgetObject, topQWidget)."""
    import importlib.util

    name = os.path.splitext(os.path.basename(path))[0]
    sys.path.insert(0, os.path.dirname(path))
    spec = importlib.util.spec_from_file_location(name, path)
    py = importlib.util.module_from_spec(spec)
    sys.modules[name] = py
    spec.loader.exec_module(py)
    parent = _Module(path)
    setattr(slicer.modules, name.lower(), parent)
    slicer.app.moduleManager().mods[name] = parent
    mod = getattr(py, name)(parent)
    setattr(slicer.modules, name + "Instance", mod)

    def make(top):
        widget = getattr(sys.modules[name], name + "Widget")(top)
        setattr(slicer.modules, name + "Widget", widget)
        widget.setup()
        return widget

    top = qSlicerScriptedLoadableModuleWidget(make)
    top.setMRMLScene(slicer.mrmlScene)
    parent.widgetRepresentation = lambda: top
    return py, mod, make(top), top
