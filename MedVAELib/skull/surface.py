"""The skull as a smooth closed surface whose points carry the standard deviation of where it lies."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

# Without VTK's renderers: they need OpenGL, which a headless machine may lack.
from vtkmodules.util.numpy_support import numpy_to_vtk, vtk_to_numpy
from vtkmodules.vtkCommonCore import VTK_FLOAT, vtkStringArray
from vtkmodules.vtkCommonDataModel import vtkImageData, vtkPolyData
from vtkmodules.vtkFiltersCore import (
    vtkCleanPolyData,
    vtkFlyingEdges3D,
    vtkPolyDataConnectivityFilter,
    vtkPolyDataNormals,
    vtkWindowedSincPolyDataFilter,
)
from vtkmodules.vtkIOXML import vtkXMLPolyDataWriter

STD_ARRAY = "std_mm"
_SMOOTHING_ITERATIONS, _PASS_BAND = 30, 0.02


def head_surface(distance_mm: NDArray, distance_std_mm: NDArray, spacing_mm: float) -> vtkPolyData:
    """The zero level of a signed distance, (z, y, x) mm, positive inside, on an isotropic grid about the origin.

    Triangles in RAS mm, closed, facing outwards, smoothed without shrinking (Taubin's windowed sinc); point arrays
    `std_mm` and normals. Of several parts the largest is taken. Raises ValueError when nothing lies inside.
    """
    if not (distance_mm > 0).any():
        raise ValueError("nothing lies inside the surface")
    edges = vtkFlyingEdges3D()
    edges.SetInputData(_grid(_bordered(distance_mm), spacing_mm))
    edges.SetValue(0, 0.0)
    edges.ComputeNormalsOff()
    edges.ComputeGradientsOff()
    edges.ComputeScalarsOff()
    largest = vtkPolyDataConnectivityFilter()
    largest.SetInputConnection(edges.GetOutputPort())
    largest.SetExtractionModeToLargestRegion()
    used = vtkCleanPolyData()  # the other parts' points are still there
    used.SetInputConnection(largest.GetOutputPort())
    used.PointMergingOff()
    smooth = vtkWindowedSincPolyDataFilter()
    smooth.SetInputConnection(used.GetOutputPort())
    smooth.SetNumberOfIterations(_SMOOTHING_ITERATIONS)
    smooth.SetPassBand(_PASS_BAND)
    smooth.BoundarySmoothingOff()
    smooth.FeatureEdgeSmoothingOff()
    smooth.NonManifoldSmoothingOn()
    smooth.NormalizeCoordinatesOn()
    normals = vtkPolyDataNormals()
    normals.SetInputConnection(smooth.GetOutputPort())
    normals.SplittingOff()
    normals.ConsistencyOn()
    normals.AutoOrientNormalsOn()
    normals.Update()
    surface = normals.GetOutput()
    _attach_std(surface, distance_std_mm, spacing_mm)
    return surface


def points_of(surface: vtkPolyData) -> NDArray[np.float32]:
    """(N, 3) RAS mm."""
    return vtk_to_numpy(surface.GetPoints().GetData())


def triangles_of(surface: vtkPolyData) -> NDArray[np.int64]:
    """(M, 3) indices of points."""
    return vtk_to_numpy(surface.GetPolys().GetConnectivityArray()).reshape(-1, 3)


def std_of(surface: vtkPolyData) -> NDArray[np.float32]:
    """(N,) standard deviation in mm along the normal, by point."""
    return vtk_to_numpy(surface.GetPointData().GetArray(STD_ARRAY))


def write_surface(surface: vtkPolyData, path: str) -> None:
    """Writes a .vtp file in RAS mm and says so in the field that 3D Slicer looks for. Raises OSError."""
    told = vtkPolyData()
    told.ShallowCopy(surface)
    space = vtkStringArray()
    space.SetName("SPACE")
    space.InsertNextValue("RAS")
    told.GetFieldData().AddArray(space)
    writer = vtkXMLPolyDataWriter()
    writer.SetFileName(path)
    writer.SetInputData(told)
    if not writer.Write() or writer.GetErrorCode():
        raise OSError(f"{path} could not be written")


def _bordered(distance_mm: NDArray) -> NDArray[np.float32]:
    """Outside along the grid's border, so that the surface closes even where the head would leave the grid."""
    bordered = np.array(distance_mm, np.float32)
    for axis in range(3):
        for end in (0, -1):
            face = bordered[tuple(end if k == axis else slice(None) for k in range(3))]
            np.minimum(face, -1e-3, out=face)
    return bordered


def _grid(values_zyx: NDArray[np.float32], spacing_mm: float) -> vtkImageData:
    image = vtkImageData()
    image.SetDimensions(values_zyx.shape[::-1])
    image.SetSpacing(spacing_mm, spacing_mm, spacing_mm)
    image.SetOrigin([-(n - 1) / 2 * spacing_mm for n in values_zyx.shape[::-1]])
    image.GetPointData().SetScalars(numpy_to_vtk(values_zyx.ravel(), deep=True, array_type=VTK_FLOAT))
    return image


def _attach_std(surface: vtkPolyData, std_mm: NDArray, spacing_mm: float) -> None:
    middle = (np.array(std_mm.shape) - 1) / 2
    places_zyx = points_of(surface)[:, ::-1].T / spacing_mm + middle[:, None]
    values = map_coordinates(std_mm, places_zyx, order=1, mode="nearest").astype(np.float32)
    array = numpy_to_vtk(values, deep=True, array_type=VTK_FLOAT)
    array.SetName(STD_ARRAY)
    surface.GetPointData().AddArray(array)
    surface.GetPointData().SetActiveScalars(STD_ARRAY)
