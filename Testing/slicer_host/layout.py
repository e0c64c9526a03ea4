"""The layout manager: which views there are, as `slicer.app.layoutManager()` gives them."""

from __future__ import annotations

import xml.etree.ElementTree as ET


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

    def renderWindow(self):
        return self.view.rw

    def resetFocalPoint(self):
        self.view.resetCamera()

    def forceRender(self):
        self.view.render()


class ThreeDWidget:
    def __init__(self, view):
        self.view = view

    def threeDView(self):
        return ThreeDView(self.view)

    def mrmlViewNode(self):
        return self.view.node


class _LayoutNode:
    def __init__(self):
        self.descriptions: dict[int, str] = {}

    def IsLayoutDescription(self, number):
        return number in self.descriptions

    def AddLayoutDescription(self, number, text):
        self.descriptions[number] = text
        return True


class _LayoutLogic:
    def __init__(self):
        self.node = _LayoutNode()

    def GetLayoutNode(self):
        return self.node


class LayoutManager:
    """Views exist from the start (Red, Yellow, Green, one 3D view) or from the first layout that names them."""

    def __init__(self, host):
        self.host, self.logic, self.layout = host, _LayoutLogic(), 3

    def layoutLogic(self):
        return self.logic

    def setLayout(self, number):
        self.layout = number
        text = self.logic.node.descriptions.get(number)
        for view in ET.fromstring(text).iter("view") if text else ():
            name = view.get("singletontag")
            if view.get("class") == "vtkMRMLSliceNode" and name not in self.host.views:
                self.host.addSliceView(name)

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

    def mrmlSliceLogics(self):
        return self.host.appLogic.GetSliceLogics()
