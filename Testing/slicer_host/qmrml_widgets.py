"""Stand-ins for Slicer's MRML widgets, bound to the real scene, on PySide6."""

from __future__ import annotations

import vtk
from PySide6 import QtWidgets
from PySide6.QtCore import Property, Signal

from .ctk_widgets import ctkDoubleSpinBox, ctkRangeWidget, ctkSliderWidget


class qMRMLWidget(QtWidgets.QWidget):
    mrmlSceneChanged = Signal(object)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._scene = None

    def mrmlScene(self):
        return self._scene

    def setMRMLScene(self, s):
        if s is not self._scene:
            self._scene = s
            self.mrmlSceneChanged.emit(s)


class qSlicerWidget(qMRMLWidget):
    pass


class qMRMLNodeComboBox(qMRMLWidget):
    currentNodeChanged = Signal(object)
    currentNodeIDChanged = Signal(str)
    currentNodeValid = Signal(bool)
    nodeActivated = Signal(object)
    signalOverloads = {"currentNodeChanged(bool)": "currentNodeValid"}

    def __init__(self, parent=None):
        super().__init__(parent)
        self._c = QtWidgets.QComboBox(self)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._c)
        self._p = dict(
            nodeTypes=[],
            showHidden=False,
            showChildNodeTypes=True,
            noneEnabled=False,
            addEnabled=True,
            removeEnabled=True,
            editEnabled=False,
            renameEnabled=False,
            selectNodeUponCreation=True,
            noneDisplay="None",
            baseName="",
        )
        self._tags = []
        self._cur = None
        self._attrs = []
        self._items = []
        self._c.activated.connect(self._activated)

    def setMRMLScene(self, s):
        self.forgetScene()
        self._scene = s
        if s is not None:

            @vtk.calldata_type(vtk.VTK_OBJECT)
            def added(c, e, node):
                if self._ok(node):
                    self._refresh()

            @vtk.calldata_type(vtk.VTK_OBJECT)
            def leaving(c, e, node):
                if node is not None and node.GetID() in self._items:
                    self._remove(self._items.index(node.GetID()))

            self._tags = [
                s.AddObserver(s.NodeAddedEvent, added),
                s.AddObserver(s.NodeAboutToBeRemovedEvent, leaving, -10.0),
                s.AddObserver(s.EndCloseEvent, lambda *a: self._refresh()),
                s.AddObserver(s.EndImportEvent, lambda *a: self._renew()),
            ]
        self._refresh()
        self.mrmlSceneChanged.emit(s)

    def forgetScene(self):
        """Follows the scene no more."""
        while self._tags:
            self._scene.RemoveObserver(self._tags.pop())

    def addAttribute(self, nodeType, name, value=None):
        self._attrs.append((nodeType, name, value))
        self._refresh()

    def _ok(self, n):
        types, name = self._p["nodeTypes"], n.GetClassName()
        if name not in types and not (self._p["showChildNodeTypes"] and any(n.IsA(t) for t in types)):
            return False
        if n.GetHideFromEditors() and not self._p["showHidden"]:
            return False
        for t, a, v in self._attrs:
            if n.IsA(t) and (n.GetAttribute(a) is None or (v is not None and n.GetAttribute(a) != str(v))):
                return False
        return True

    def _nodes(self):
        s = self._scene
        if s is None:
            return []
        found = {}  # by class: to ask every node of a scene costs more than all else a test does
        for t in self._p["nodeTypes"]:
            nodes = s.GetNodesByClass(t)
            nodes.UnRegister(None)
            found.update((n.GetID(), n) for n in map(nodes.GetItemAsObject, range(nodes.GetNumberOfItems())))
        return sorted(filter(self._ok, found.values()), key=s.GetNodes().IndexOfFirstOccurrence)

    def _refresh(self):
        nodes = self._nodes()
        ids = [n.GetID() for n in nodes]
        cur = self._cur if self._cur in ids else None
        if cur is None and not self._p["noneEnabled"] and ids:
            cur = ids[0]
        self._c.blockSignals(True)
        self._c.clear()
        self._items = []

        def add(text, val):
            self._c.addItem(text)
            self._items.append(val)

        if self._p["noneEnabled"]:
            add(self._p["noneDisplay"], None)
        for n in nodes:
            add(n.GetName(), n.GetID())
        self._c.setCurrentIndex(self._items.index(cur) if cur in self._items else -1)
        self._c.blockSignals(False)
        self._set(cur)

    def _remove(self, row):
        """As in Slicer, where the node's row goes and the combo box chooses its neighbour."""
        self._c.blockSignals(True)
        self._c.removeItem(row)
        self._c.blockSignals(False)
        del self._items[row]
        at = self._c.property("currentIndex")
        self._set(self._items[at] if at >= 0 else None)

    def _renew(self):
        """As in Slicer, where all rows go after an import and come anew: nothing is chosen any more."""
        if self._p["noneEnabled"]:
            self._set(None)
        self._refresh()

    def _set(self, nid):
        if nid == self._cur:
            return
        self._cur = nid
        n = self.currentNode()
        self.currentNodeChanged.emit(n)
        self.currentNodeIDChanged.emit(nid or "")
        self.currentNodeValid.emit(n is not None)

    def _activated(self, i):
        self._set(self._items[i])
        self.nodeActivated.emit(self.currentNode())

    def currentNode(self):
        return self._scene.GetNodeByID(self._cur) if self._scene is not None and self._cur else None

    def setCurrentNode(self, n):
        self.setCurrentNodeID(n.GetID() if n is not None and not isinstance(n, str) else (n or ""))

    def setCurrentNodeID(self, nid):
        nid = nid or None
        if nid is not None and nid not in [n.GetID() for n in self._nodes()]:
            nid = None
        if nid is not None and nid not in self._items:
            self._refresh()  # the attributes that it is chosen by came after the node
        self._c.blockSignals(True)
        self._c.setCurrentIndex(self._items.index(nid) if nid in self._items else -1)
        self._c.blockSignals(False)
        self._set(nid)

    def _sp(self, k, v):
        self._p[k] = list(v) if k == "nodeTypes" else v
        self._refresh()

    currentNodeID = Property(str, lambda s: s._cur or "", setCurrentNodeID)

    def setNodeTypes(self, v):
        self._sp("nodeTypes", v)

    nodeTypes = Property("QStringList", lambda s: s._p["nodeTypes"], setNodeTypes)


def _withProps(cls, names):  # Property must exist when the meta object is built -> make a subclass namespace
    ns = {}
    for k, t in names.items():
        ns[k] = Property(t, lambda s, k=k: s._p[k], lambda s, v, k=k: s._sp(k, v))
        ns["set" + k[0].upper() + k[1:]] = lambda s, v, k=k: s._sp(k, v)
    return type(cls)(cls.__name__, (cls,), ns)


qMRMLNodeComboBox = _withProps(
    qMRMLNodeComboBox,
    {
        **{
            k: bool
            for k in (
                "showHidden",
                "showChildNodeTypes",
                "noneEnabled",
                "addEnabled",
                "removeEnabled",
                "editEnabled",
                "renameEnabled",
                "selectNodeUponCreation",
            )
        },
        "noneDisplay": str,
        "baseName": str,
    },
)


class qMRMLSliderWidget(ctkSliderWidget):
    pass


class qMRMLSpinBox(ctkDoubleSpinBox):
    pass


class qMRMLRangeWidget(ctkRangeWidget):
    pass


class qSlicerScriptedLoadableModuleWidget(qSlicerWidget):
    """What is around a scripted module's Python widget, which `make(top)` makes, also anew."""

    def __init__(self, make):
        super().__init__()
        self.setLayout(QtWidgets.QVBoxLayout())
        self._make, self._entered = make, True

    def reload(self):
        return self._make(self)

    isEntered = Property(bool, lambda s: s._entered, lambda s, v: setattr(s, "_entered", v))


class qSlicerScriptedLoadableModule:
    pass


QMRML = {name: value for name, value in list(globals().items()) if name.startswith(("qMRML", "qSlicer"))}
