"""From a volume node to what the worker needs: values in a file, geometry as SimpleITK has it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _

from .belonging import ROLE

SCAN_FILE = "scan.npy"
_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_MAX_SHEAR = 1e-4


@dataclass(frozen=True)
class Placement:
    """ijk_to_ras: 4×4, where the scan's voxels lie for the detection; note: what the user should know about it;
    in_place: whether that is where they lie in the world."""

    ijk_to_ras: np.ndarray
    note: str = ""
    in_place: bool = True

    def as_itk(self) -> dict[str, list[float]]:
        """Spacing, origin and direction (row by row), LPS mm."""
        lps = _RAS_TO_LPS @ self.ijk_to_ras
        spacing = np.linalg.norm(lps[:3, :3], axis=0)
        return {"spacing": spacing.tolist(), "origin": lps[:3, 3].tolist(),
                "direction": (lps[:3, :3] / spacing).ravel().tolist()}


def own_ijk_to_ras(node) -> np.ndarray:
    """Without the node's parent transform."""
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


def placement(node) -> Placement:
    """Where the scan lies in the world, if its axes are perpendicular there; else without its parent transform."""
    own = own_ijk_to_ras(node)
    transform = node.GetParentTransformNode()
    if transform is None:
        return Placement(own)
    if not transform.IsTransformToWorldLinear():
        return Placement(own, _("Its transform bends space and is left out of the detection."), False)
    to_world = vtk.vtkMatrix4x4()
    transform.GetMatrixTransformToWorld(to_world)
    world = slicer.util.arrayFromVTKMatrix(to_world) @ own
    axes = world[:3, :3] / np.linalg.norm(world[:3, :3], axis=0)
    if np.abs(axes.T @ axes - np.eye(3)).max() > _MAX_SHEAR:
        return Placement(own, _("Its transform shears the scan and is left out of the detection."), False)
    return Placement(world, _("Its transform is taken into account."))


def problem(node) -> str:
    """Why the node cannot be given to the worker at all, in one sentence; "" if it can."""
    if node is None:
        return _("Choose a scan.")
    if node.GetAttribute(ROLE):
        return _("This is a result of MedVAE: choose the scan it was made from.")
    image = node.GetImageData()
    if image is None or image.GetPointData() is None or image.GetPointData().GetScalars() is None:
        return _("This volume holds no image: load it again.")
    if image.GetNumberOfScalarComponents() != 1:
        return _("This volume has several values per voxel: choose a scalar volume.")
    return ""


def state(node) -> tuple:
    """Another one whenever the values or the place of the scan may have changed."""
    image = node.GetImageData()
    return (image.GetMTime() if image else 0, placement(node).ijk_to_ras.tobytes())


def write_scan(node, folder: str | Path) -> dict[str, Any]:
    """Writes the values into `folder` as they are and returns the request's "scan". Raises OSError on a full disk."""
    file = Path(folder) / SCAN_FILE
    write_array(slicer.util.arrayFromVolume(node), file)
    return as_request(node, file)


def as_request(node, file: Path) -> dict[str, Any]:
    """The request's "scan", whose values are in `file`."""
    return {"array": str(file), "name": node.GetName() or "scan", **placement(node).as_itk()}


def write_array(array: np.ndarray, file: Path) -> None:
    """As `.npy`. Raises OSError; unlike numpy.save, also on a full disk."""
    array = np.ascontiguousarray(array)
    with file.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, np.lib.format.header_data_from_array_1_0(array))
        stream.write(memoryview(array).cast("B"))
