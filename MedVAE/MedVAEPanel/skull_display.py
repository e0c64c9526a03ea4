"""How a predicted skull looks: colours and legend of its surface, overlays, planes in place, and the views."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

from . import colours
from .display import COMPARED_VIEWS
from .skull_parameters import DEFAULT_RANGE_MM

STD_ARRAY = "std_mm"
CARD_MARGIN = 1.3
"""Half the edge of a plane's picture in 3D, over half the head's length on it: it shall stand out of the surface."""
_MOST_CARD_PX = 240
_CARD_OPACITY = (0.1, 1.8)  # of a black pixel, and what brightness adds
_FIT_PERCENTILES = (2, 98)
_TOPS = {"probability": 1.0, "std": 0.5}
_HIDDEN_BELOW = {"probability": 0.05, "std": 0.02}


def prepare_surface(surface) -> None:
    surface.CreateDefaultDisplayNodes()
    shown = surface.GetDisplayNode()
    shown.SetAndObserveColorNodeID(colours.sequential_node().GetID())
    shown.SetActiveScalarName(STD_ARRAY)
    shown.SetScalarVisibility(True)
    shown.SetScalarRangeFlag(slicer.vtkMRMLDisplayNode.UseManualScalarRange)
    shown.SetScalarRange(*DEFAULT_RANGE_MM)
    shown.SetVisibility2D(True)
    shown.SetSliceIntersectionThickness(2)
    views = [view.GetID() for view in slicer.util.getNodesByClass("vtkMRMLViewNode")]
    colours.add_legend(surface, "std (mm)", "%.2f", 5, (0.1, 0.4), (0.97, 0.5), views)


def prepare_overlay(volume, role: str) -> None:
    volume.CreateDefaultDisplayNodes()
    shown = volume.GetDisplayNode()
    shown.SetAutoWindowLevel(False)
    shown.SetAutoThreshold(False)
    shown.SetAndObserveColorNodeID(colours.sequential_node().GetID())
    shown.SetWindowLevelMinMax(0.0, _TOPS[role])
    colours.hide_below(shown, _HIDDEN_BELOW[role])


def prepare_card(model) -> None:
    model.CreateDefaultDisplayNodes()
    shown = model.GetDisplayNode()
    shown.SetActiveScalarName("colour")
    shown.SetScalarVisibility(True)
    shown.SetScalarRangeFlag(slicer.vtkMRMLDisplayNode.UseDirectMapping)
    shown.SetLighting(False)
    shown.SetBackfaceCulling(False)
    shown.SetVisibility2D(False)


def card(grey_yx: np.ndarray, ijk_to_ras: np.ndarray, centre_yx_px, half_px: float) -> vtk.vtkPolyData:
    """The part of an image around a head as a flat grid of coloured points, in RAS mm.

    The darker the more transparent, since most of a frame is black and would hide the skull.
    """
    (row, column), (rows, columns) = centre_yx_px, grey_yx.shape
    top, left = max(0, int(row - half_px)), max(0, int(column - half_px))
    bottom, right = min(rows - 1, int(row + half_px) + 1), min(columns - 1, int(column + half_px) + 1)
    step = max(1, -(-max(bottom - top, right - left) // _MOST_CARD_PX))
    grey = grey_yx[top : bottom + 1 : step, left : right + 1 : step]
    bottom, right = top + step * (grey.shape[0] - 1), left + step * (grey.shape[1] - 1)
    corners = [(ijk_to_ras @ (x, y, 0.0, 1.0))[:3] for x, y in ((left, top), (right, top), (left, bottom))]
    plane = vtk.vtkPlaneSource()
    plane.SetOrigin(*corners[0])
    plane.SetPoint1(*corners[1])
    plane.SetPoint2(*corners[2])
    plane.SetResolution(grey.shape[1] - 1, grey.shape[0] - 1)
    plane.Update()
    flat = vtk.vtkPolyData()
    flat.CopyStructure(plane.GetOutput())
    rgba = np.repeat(grey.reshape(-1, 1), 4, 1)
    rgba[:, 3] = np.clip(_CARD_OPACITY[0] + _CARD_OPACITY[1] * rgba[:, 3], 0, 1)
    values = numpy_to_vtk(np.round(255 * rgba).astype(np.uint8), deep=True)
    values.SetName("colour")
    flat.GetPointData().SetScalars(values)
    return flat


def set_range(surface, low_mm: float, high_mm: float) -> None:
    """Which standard deviations the colours span."""
    surface.GetDisplayNode().SetScalarRange(low_mm, max(high_mm, low_mm + 1e-3))


def fitting_range(surface) -> tuple[float, float]:
    """What nearly all of the surface lies within, mm; the default where it has lost its values."""
    mesh = surface.GetPolyData()
    std_mm = mesh.GetPointData().GetArray(STD_ARRAY) if mesh is not None else None
    if std_mm is None:
        return DEFAULT_RANGE_MM
    low, high = np.percentile(vtk_to_numpy(std_mm), _FIT_PERCENTILES)
    return round(float(low), 2), round(max(float(high), float(low) + 0.01), 2)


def show_in_slices(planes: dict, volume, opacity: float, taken: Collection[str]) -> None:
    """Each plane in the views of its orientation, the volume over it.

    planes: their volumes by the orientation's name in Slicer. A view that shows another orientation stays as it is, and
    so do those that compare, which are the first tab's, and those in `taken`: to move a view whose slice is chosen as a
    plane would choose another one.
    """
    manager = slicer.app.layoutManager()
    for view in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
        tilted = view.GetOrientation() == view.GetReformatOrientationName()  # as by loading a scan that lies obliquely
        orientation = view.GetDefaultOrientation() if tilted else view.GetOrientation()
        plane = planes.get(orientation, False)
        # A scene keeps the nodes of views that the present layout does not have, and those have no logic.
        logic = slicer.app.applicationLogic().GetSliceLogic(view)
        if plane is False or logic is None or view.GetLayoutName() in {*COMPARED_VIEWS, *taken}:
            continue
        composite = logic.GetSliceCompositeNode()
        new = composite.GetBackgroundVolumeID() != (plane.GetID() if plane is not None else None)
        if tilted and new:
            view.SetOrientation(orientation)
        composite.SetBackgroundVolumeID(plane.GetID() if plane is not None else None)
        composite.SetForegroundVolumeID(volume.GetID() if volume is not None else None)
        composite.SetForegroundOpacity(opacity)
        widget = manager.sliceWidget(view.GetLayoutName()) if new and manager is not None else None
        if widget is not None:
            widget.sliceLogic().FitSliceToAll()
            view.JumpSliceByOffsetting(0.0, 0.0, 0.0)
