"""What a skull prediction becomes in the scene: surface, volumes, placed planes and measures, in one folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import vtk
from slicer.i18n import tr as _
from vtk.util.numpy_support import numpy_to_vtk

from . import results as runs
from . import skull_display
from .columns import column
from .display import show_grey
from .plane_node import PLANES
from .results import unused

PLACED = _("placed at the standard position")
"""Nothing says where an image truly lay: it is put through the head's centre."""
_SOURCE = "MedVAE.Plane."
_VOLUMES = {"probability": "skull probability", "std": "skull probability std"}
_COLUMNS = {"title": "Measure", "value": "Value", "std": "SD", "low": "95 % from", "high": "95 % to", "unit": "Unit",
            "percentile": "Percentile"}


@dataclass(frozen=True)
class Result(runs.Result):
    """One prediction's nodes in the scene."""

    kind = "skull."

    @property
    def surface(self):
        return self.node("surface")

    @property
    def planes_used(self) -> list[str]:
        return list(self.provenance.get("planes", []))

    @property
    def measures(self) -> list[dict[str, Any]]:
        """As in the table node, so that they come back with a saved scene."""
        node = self.node("biometry")
        if node is None:
            return []
        table = node.GetTable()
        return [{key: _value(table.GetValueByName(row, column)) for key, column in _COLUMNS.items()}
                for row in range(table.GetNumberOfRows())]


def plane_role(plane: str) -> str:
    """Of the plane as a volume, for the slice views."""
    return f"{plane} plane"


def card_role(plane: str) -> str:
    """Of the plane as a picture that stands in the 3D view."""
    return f"{plane} plane in 3D"


def add_result(sources: Mapping[str, Any], reply: Mapping[str, Any], settings: Mapping[str, Any]) -> Result:
    """Adds a worker's reply to the scene, in a folder of its own; nothing is left behind if that fails.

    sources: the node of each plane. settings: as they were asked for. Raises OSError or ValueError if the result's
    files cannot be read.
    """
    arrays = {name: np.load(path) for name, path in reply["arrays"].items()}
    result = Result.new()
    with runs.all_or_nothing(result):
        _add(sources, reply, arrays, settings, result)
    return result


def _add(sources, reply, arrays, settings, result: Result) -> None:
    first = next(sources[plane] for plane in PLANES if plane in sources)
    title = unused(f"{first.GetName()} skull")
    attributes = runs.provenance_attributes(
        reply, settings, {"Planes": ", ".join(sources), "GestationalAge": reply.get("ga_weeks")})
    references = {_SOURCE + plane: source for plane, source in sources.items()}
    folder = runs.make_folder(title, result.run)
    made = []

    def register(class_name: str, role: str, ending: str):
        made.append(runs.new_node(class_name, result, role, f"{title} {ending}".strip(), attributes, references))
        return made[-1]

    surface = register("vtkMRMLModelNode", "surface", "")
    surface.SetAndObservePolyData(_poly_data(arrays))
    skull_display.prepare_surface(surface)
    ijk_to_ras = np.array(reply["ijk_to_ras"])
    for role, ending in _VOLUMES.items():
        volume = register("vtkMRMLScalarVolumeNode", role, ending.removeprefix("skull "))
        runs.fill_volume(volume, arrays[role], ijk_to_ras=ijk_to_ras)
        skull_display.prepare_overlay(volume, role)
    for place in reply["planes"]:
        _add_plane(place, arrays[f"plane_{place['plane']}"], register)
    _fill_table(register("vtkMRMLTableNode", "biometry", "biometry"), reply["measures"])
    for node in made:
        if node.IsA("vtkMRMLDisplayableNode") or node.IsA("vtkMRMLTableNode"):
            runs.put_beneath(folder, node)
        runs.mark_hanging(node, result.run)


def _poly_data(arrays: Mapping[str, np.ndarray]) -> vtk.vtkPolyData:
    triangles = arrays["triangles"].astype(np.int64)
    cells = vtk.vtkCellArray()
    offsets = np.arange(0, 3 * len(triangles) + 1, 3, dtype=np.int64)
    cells.SetData(numpy_to_vtk(offsets, deep=True, array_type=vtk.VTK_ID_TYPE),
                  numpy_to_vtk(triangles.ravel(), deep=True, array_type=vtk.VTK_ID_TYPE))
    points = vtk.vtkPoints()
    points.SetData(numpy_to_vtk(arrays["points"].astype(np.float32), deep=True))
    surface = vtk.vtkPolyData()
    surface.SetPoints(points)
    surface.SetPolys(cells)
    std_mm = numpy_to_vtk(arrays["std_mm"].astype(np.float32), deep=True)
    std_mm.SetName(skull_display.STD_ARRAY)
    surface.GetPointData().SetScalars(std_mm)
    normals = vtk.vtkPolyDataNormals()
    normals.SetInputData(surface)
    normals.SplittingOff()
    normals.Update()
    return normals.GetOutput()


def _add_plane(place: Mapping[str, Any], grey_yx: np.ndarray, register) -> None:
    """The image where such a plane would lie, as a volume for the slice views and as a picture in the 3D view."""
    plane, ijk_to_ras = place["plane"], np.array(place["ijk_to_ras"])
    volume = register("vtkMRMLScalarVolumeNode", plane_role(plane), f"{plane} plane, {PLACED}")
    runs.fill_volume(volume, np.round(255 * grey_yx).astype(np.uint8)[None], ijk_to_ras=ijk_to_ras)
    show_grey(volume, 0, 255)
    card = register("vtkMRMLModelNode", card_role(plane), f"{plane} plane in 3D, {PLACED}")
    half_px = skull_display.CARD_MARGIN * place["semi_axes_mm"][0] / place["pixel_mm"]
    card.SetAndObservePolyData(skull_display.card(grey_yx, ijk_to_ras, place["centre_yx_px"], half_px))
    skull_display.prepare_card(card)


def _fill_table(node, measures: list[Mapping[str, Any]]) -> None:
    node.SetUseColumnTitleAsColumnHeader(True)
    rows = [{**measure, "low": measure["interval"][0], "high": measure["interval"][1],
             "percentile": "" if measure["percentile"] is None else json.dumps(measure["percentile"])}
            for measure in measures]
    for key, title in _COLUMNS.items():
        texts = key in ("title", "unit", "percentile")  # no percentile is an empty text
        node.AddColumn(column(title, [row[key] for row in rows], str if texts else float))
    node.SetLocked(True)


def _value(cell) -> Any:
    """A cell of a table as it was written: after loading, numbers can be texts."""
    text = cell.ToString()
    try:
        return float(text)
    except ValueError:
        return text
