"""The layout manager: which views there are, as `slicer.app.layoutManager()` gives them."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import slicer
import vtk
from PySide6 import QtCore

from .plots import PlotView, PlotWidget

_FOUR_UP = 3
_WITHOUT_PLOT = (2, _FOUR_UP)  # vtkMRMLLayoutNode::SlicerLayoutConventionalView and SlicerLayoutFourUpView
_WITH_PLOT = range(36, 41)  # SlicerLayoutConventionalPlotView and the four after it
_WITH_3D = (2, _FOUR_UP, 36, 37, 38)
_SIZE_BEFORE = (640, 480)  # of a view that Qt has not laid out yet


class SliceWidget:
    def __init__(self, view):
        self.view = view

    def sliceLogic(self):
        return self.view.logic

    def mrmlSliceNode(self):
        return self.view.node

    def mrmlSliceCompositeNode(self):
        return self.view.composite


class ThreeDView:
    """What `threeDWidget(i).threeDView()` offers."""

    def __init__(self, view):
        self.view = view

    def mrmlViewNode(self):
        return self.view.node

    def resetFocalPoint(self):
        """Aims at what is shown, from where the camera is."""
        bounds, camera = [0.0] * 6, self.view.renderer.GetActiveCamera()
        self.view.renderer.ComputeVisiblePropBounds(bounds)
        camera.SetFocalPoint(*((bounds[axis] + bounds[axis + 1]) / 2 for axis in (0, 2, 4)))
        self.view.renderer.ResetCameraClippingRange()

    def resetCamera(self, resetRotation=True, resetTranslation=True, resetDistance=True):
        self.view.camera.Reset(resetRotation, resetTranslation, resetDistance, self.view.renderer)

    def forceRender(self):
        self.view.render()


class ThreeDWidget:
    def __init__(self, view):
        self.view = view

    def threeDView(self):
        return ThreeDView(self.view)

    def mrmlViewNode(self):
        return self.view.node


class _LayoutLogic:
    def __init__(self, node):
        self.node = node

    def GetLayoutNode(self):
        return self.node


def _make_layout_node(scene):
    """Slicer's own; the layouts that are asked for by number are described as far as views come into being by them."""
    node = slicer.vtkMRMLLayoutNode()
    node.SetSingletonTag("Singleton")
    plot = '<item><view class="vtkMRMLPlotViewNode" singletontag="PlotView1"/></item>'
    for number in _WITHOUT_PLOT:
        node.AddLayoutDescription(number, "<layout></layout>")
    for number in _WITH_PLOT:
        node.AddLayoutDescription(number, f"<layout>{plot}</layout>")
    node.SetViewArrangement(_FOUR_UP)
    return scene.AddNode(node)


class LayoutManager(QtCore.QObject):
    """Views exist from the start (Red, Yellow, Green, one 3D view) or from the first layout that names them.

    The scene's layout node is Slicer's own: module logics change the layout through it. As in Slicer, a layout that is
    set while a scene is loaded comes about when the loading has ended, after the scene has told of that; and the slice
    views that a layout names get their sizes, side by side in `viewport`, only when the event loop turns.
    """

    layoutChanged = QtCore.Signal(int)

    def __init__(self, host):
        super().__init__()
        self.host = host
        self.viewport = (1000, 500)
        self.node = _make_layout_node(host.scene)
        self.logic = _LayoutLogic(self.node)
        self.node.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *a: self._update())
        host.scene.AddObserver(slicer.vtkMRMLScene.EndBatchProcessEvent, lambda *a: self._update())

    @property
    def layout(self):
        return self.node.GetViewArrangement()

    def layoutLogic(self):
        return self.logic

    def setLayout(self, number):
        self.node.SetViewArrangement(number)

    def _update(self):
        if self.host.scene.IsBatchProcessing():
            return
        for view in self._three_d_views():
            view.node.SetMappedInLayout(self.layout in _WITH_3D)
        for name, kind in self._named():
            if kind == "vtkMRMLSliceNode" and name not in self.host.views:
                self.host.addSliceView(name, size=_SIZE_BEFORE)
            elif kind == "vtkMRMLPlotViewNode" and not self.host.plot_views:
                self.host.plot_views.append(PlotView(self.host, name))
        QtCore.QMetaObject.invokeMethod(self, "layOut", QtCore.Qt.QueuedConnection)
        self.layoutChanged.emit(self.layout)

    def _named(self):
        """Names and classes of the views that the layout's description has."""
        text = self.node.GetLayoutDescription(self.layout)
        views = ET.fromstring(text).iter("view") if text else ()
        return [(view.get("singletontag"), view.get("class")) for view in views]

    @QtCore.Slot()
    def layOut(self):
        names = [name for name, kind in self._named() if kind == "vtkMRMLSliceNode"]
        for name in names if all(name in self.host.views for name in names) else ():
            self.host.views[name].resize(self.viewport[0] // len(names), self.viewport[1])

    def sliceViewNames(self):
        return [name for name, view in self.host.views.items() if hasattr(view, "composite")]

    def sliceWidget(self, name):
        return SliceWidget(self.host.views[name]) if name in self.sliceViewNames() else None

    @property
    def threeDViewCount(self):
        return len(self._three_d_views())

    def threeDWidget(self, number):
        views = self._three_d_views()
        return ThreeDWidget(views[number]) if 0 <= number < len(views) else None

    def _three_d_views(self):
        return [view for view in self.host.views.values() if not hasattr(view, "composite")]

    @property
    def plotViewCount(self):
        return len(self.host.plot_views)

    def plotWidget(self, number):
        return PlotWidget(self.host.plot_views[number]) if 0 <= number < self.plotViewCount else None

    def mrmlSliceLogics(self):
        return self.host.appLogic.GetSliceLogics()
