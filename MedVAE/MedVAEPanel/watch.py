"""Being told, once in a while, that any of some nodes has changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import qt
import slicer
import vtk

_EVENTS = (vtk.vtkCommand.ModifiedEvent, slicer.vtkMRMLVolumeNode.ImageDataModifiedEvent,
           slicer.vtkMRMLTransformableNode.TransformModifiedEvent)
_PATIENCE_MS = 100


class Watch:
    """`on_change()` is called a moment after the last of several changes."""

    def __init__(self, on_change: Callable[[], None]):
        self._tags: list[tuple] = []
        self._nodes: list = []
        self._timer = qt.QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(_PATIENCE_MS)
        self._timer.connect("timeout()", on_change)

    def look_at(self, nodes: Iterable) -> None:
        """From now on these, and no others."""
        nodes = list(dict.fromkeys(nodes))
        if nodes == self._nodes:
            return
        self.stop()
        self._nodes = nodes
        self._tags = [(node, node.AddObserver(event, lambda *a: self._timer.start()))
                      for node in nodes for event in _EVENTS]

    def stop(self) -> None:
        self._timer.stop()
        for node, tag in self._tags:
            node.RemoveObserver(tag)
        self._tags, self._nodes = [], []
