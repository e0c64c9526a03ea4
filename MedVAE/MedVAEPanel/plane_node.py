"""From a volume node, or what a slice view shows of it, to the image of a standard plane with its pixel size."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _

from .belonging import ROLE
from .scan_node import own_ijk_to_ras, placement, write_array

PLANES = ("axial", "sagittal", "coronal")
MIN_EDGE_PX, MAX_EDGE_PX = 32, 4096
_TYPED = "MedVAE.PixelSize"
"""Attribute of an image that does not state its pixel size: the size that the user typed, or empty."""
_SCREEN_FORMATS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".gif")
"""What such a file says of its size is meant for printing, and Slicer takes 1 mm where it says nothing."""


@dataclass(frozen=True)
class PlaneSource:
    """Where a plane comes from: an image, or, with the name of a slice view, the slice of a volume shown there."""

    node: Any
    view: str = ""

    @property
    def spacing_mm(self) -> tuple[float, float] | None:
        """Size of a pixel along a row and along a column; None as long as nobody knows it."""
        typed = typed_size(self.node)
        if not states_size(self.node):
            return (typed, typed) if typed else None
        if self.view:
            return (_finest(self.node),) * 2
        kept = _kept_axes(self.node)
        return (_spacing(self.node)[kept[0]], _spacing(self.node)[kept[1]])

    @property
    def size_px(self) -> tuple[int, int]:
        """Pixels along a row and along a column, of an image without problems."""
        if self.view:
            return _cut(self.node, slice_node(self.view)).size
        dimensions, kept = self.node.GetImageData().GetDimensions(), _kept_axes(self.node)
        return dimensions[kept[0]], dimensions[kept[1]]

    def problem_of_volume(self) -> str:
        """Why the node can hold no plane at all, whatever else is chosen."""
        return _problem_of_volume(self.node)

    def problem(self) -> str:
        """Why this can be no plane, in one sentence; "" if it can."""
        return self.problem_of_volume() or (self._problem_of_slice() if self.view else self._problem_of_image())

    def _problem_of_image(self) -> str:
        if min(self.node.GetImageData().GetDimensions()) > 1:
            return _("this is a volume: choose the slice view that shows the plane.")
        return _problem_of_size(self.size_px) or self._problem_of_spacing()

    def _problem_of_slice(self) -> str:
        if slice_node(self.view) is None:
            return _("there is no slice view {view} any more: choose another.").format(view=self.view)
        if not _shows(self.view, self.node):
            return _("the view {view} does not show this image: show it there and scroll to the plane.").format(
                view=self.view)
        if _cut(self.node, slice_node(self.view)) is None:
            return _("the view {view} shows no slice of this volume: scroll to the plane there.").format(view=self.view)
        return _problem_of_size(self.size_px) or self._problem_of_spacing()

    def _problem_of_spacing(self) -> str:
        if self.spacing_mm is None:
            return _("this image does not state how large its pixels are: enter their size in mm.")
        return ""

    def write(self, folder: Path, name: str) -> dict[str, Any]:
        """Writes the plane's values as `folder/name.npy` and returns the request's entry. Raises OSError."""
        values = self._values()
        file = folder / f"{name}.npy"
        write_array(values, file)
        given = {"array": str(file), "name": self.node.GetName() or name}
        row, column = self.spacing_mm
        return given | ({"spacing": [row, column]} if states_size(self.node) else {"spacing_mm": row})

    def _values(self) -> np.ndarray:
        """(rows, columns) or (rows, columns, 3 or 4)."""
        if self.view:
            return _resliced(self.node, _cut(self.node, slice_node(self.view)))
        thin = ({0, 1, 2} - set(_kept_axes(self.node))).pop()
        return np.take(slicer.util.arrayFromVolume(self.node), 0, axis=2 - thin)


def states_size(node) -> bool:
    """Whether the volume knows the size of its pixels. Exactly 1 mm, along the world's axes if it has several slices,
    is Slicer's for "not known", as of a loop of ultrasound frames."""
    if node.GetAttribute(_TYPED) is not None or is_screen_format(node):
        return False
    spacing = _spacing(node)
    kept = _kept_axes(node)
    if min(node.GetImageData().GetDimensions()) == 1:
        return not spacing[kept[0]] == spacing[kept[1]] == 1.0
    return spacing != [1.0] * 3 or not np.array_equal(np.abs(own_ijk_to_ras(node)[:3, :3]), np.eye(3))


def typed_size(node) -> float | None:
    """The pixel size in mm that the user gave for an image that does not state it."""
    text = node.GetAttribute(_TYPED)
    return float(text) if text else None


def type_size(node, size_mm: float) -> None:
    """It belongs to the image, is saved with it, and is never taken for another. 0: not known."""
    node.SetAttribute(_TYPED, repr(float(size_mm)) if size_mm > 0 else "")


def remember_format(node) -> None:
    """Marks a picture file's volume, since saving the scene turns it into a format that states sizes."""
    if is_screen_format(node) and node.GetAttribute(_TYPED) is None:
        type_size(node, 0.0)


def forget_file(node) -> None:
    """Saving the scene does not write over the file that a volume was loaded from. What its format tells is kept."""
    remember_format(node)
    storage = node.GetStorageNode()
    if storage is not None:  # without one Slicer asks where to; its names cannot be taken away in every version
        node.SetAndObserveStorageNodeID(None)
        slicer.mrmlScene.RemoveNode(storage)


def slice_node(view: str):
    """What says where the view's plane lies; None without such a view."""
    return _node_of_view("vtkMRMLSliceNode", view)


def composite_node(view: str):
    """What says which images the view shows; None without such a view."""
    return _node_of_view("vtkMRMLSliceCompositeNode", view)


def _node_of_view(kind: str, view: str):
    return next((node for node in slicer.util.getNodesByClass(kind) if node.GetLayoutName() == view), None)


def _shows(view: str, node) -> bool:
    """The slice of an image that nobody sees is nobody's choice."""
    composite = composite_node(view)
    return composite is not None and node.GetID() in (composite.GetBackgroundVolumeID(),
                                                      composite.GetForegroundVolumeID())


def _problem_of_volume(node) -> str:
    if node.GetAttribute(ROLE):
        return _("this is a result of MedVAE: choose an image.")
    image = node.GetImageData()
    if image is None or image.GetPointData() is None or image.GetPointData().GetScalars() is None:
        return _("this volume holds no image: load it again.")
    if image.GetNumberOfScalarComponents() not in (1, 3, 4):
        return _("this volume has several values per pixel: choose a grey or colour image.")
    return ""


def _problem_of_size(size_px: tuple[int, int]) -> str:
    if min(size_px) < MIN_EDGE_PX:
        return _("this has only {size} pixels: choose the whole frame.").format(size="{} × {}".format(*size_px))
    return ""


def is_screen_format(node) -> bool:
    """Whether the volume comes from a picture file, which cannot state how large tissue is."""
    storage = node.GetStorageNode()
    name = (storage.GetFileName() or "") if storage is not None else ""
    return name.lower().endswith(_SCREEN_FORMATS)


def _spacing(node) -> list[float]:
    return np.linalg.norm(placement(node).ijk_to_ras[:3, :3], axis=0).round(9).tolist()


def _finest(node) -> float:
    return min(_spacing(node))


def _kept_axes(node) -> tuple[int, int]:
    """The two axes of a single-slice image: i and j, unless one of them has one pixel only."""
    dimensions = node.GetImageData().GetDimensions()
    thin = next((axis for axis in (2, 1, 0) if dimensions[axis] == 1), 2)
    first, second = (axis for axis in (0, 1, 2) if axis != thin)
    return first, second


# --- The slice that a view shows -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Cut:
    """to_ijk: (4, 4), from the pixels (column, row, 0) of the slice to the volume's voxels."""

    size: tuple[int, int]
    to_ijk: np.ndarray


def _cut(node, view) -> _Cut | None:
    """The part of the view's plane that the volume fills, as wide as it is, on its finest voxels; None outside of it.

    Rows run downwards on the screen.
    """
    ijk_to_ras = placement(node).ijk_to_ras
    slice_to_ras = slicer.util.arrayFromVTKMatrix(view.GetSliceToRAS())
    dimensions = np.array(node.GetImageData().GetDimensions())
    corners = np.array([[(-0.5, n - 0.5)[bit >> axis & 1] for axis, n in enumerate(dimensions)] for bit in range(8)])
    on_screen = (np.linalg.inv(slice_to_ras) @ ijk_to_ras @ np.c_[corners, np.ones(8)].T)[:3]
    low, high = on_screen.min(1), on_screen.max(1)
    if low[2] > 0 or high[2] < 0:
        return None
    step = max(_finest(node), (high - low)[:2].max() / MAX_EDGE_PX)
    columns, rows = np.maximum(np.floor((high - low)[:2] / step + 1e-6), 1).astype(int)
    pixel_to_slice = np.diag([step, -step, 1.0, 1.0])
    pixel_to_slice[:2, 3] = low[0] + step / 2, high[1] - step / 2
    return _Cut((int(columns), int(rows)), np.linalg.inv(ijk_to_ras) @ slice_to_ras @ pixel_to_slice)


def _resliced(node, cut: _Cut) -> np.ndarray:
    from vtk.util.numpy_support import vtk_to_numpy

    image = vtk.vtkImageData()
    image.ShallowCopy(node.GetImageData())
    image.SetSpacing(1, 1, 1)
    image.SetOrigin(0, 0, 0)
    reslice = vtk.vtkImageReslice()
    reslice.SetInputData(image)
    reslice.SetResliceAxes(slicer.util.vtkMatrixFromArray(cut.to_ijk))
    reslice.SetInterpolationModeToLinear()
    reslice.SetOutputSpacing(1, 1, 1)
    reslice.SetOutputOrigin(0, 0, 0)
    reslice.SetOutputExtent(0, cut.size[0] - 1, 0, cut.size[1] - 1, 0, 0)
    reslice.Update()
    values = vtk_to_numpy(reslice.GetOutput().GetPointData().GetScalars())
    return values.reshape(cut.size[1], cut.size[0], *values.shape[1:])
