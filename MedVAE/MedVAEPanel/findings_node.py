"""The findings as a table node, and where each lies now."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import slicer
import vtk

from .columns import column
from .scan_node import own_ijk_to_ras

_IJK_TO_RAS = "MedVAE.DetectionIJKToRAS"
_UNITS = {"volume_ml": "ml", "peak": "score", "mean": "score"} | {
    f"{what}_{axis}_mm": "mm" for what in ("centroid", "peak") for axis in "ras"}
_FIRST = ("label", "polarity", "location", "volume_ml", "peak", "mean")


def add_findings_table(table, findings: Sequence[Mapping[str, Any]], ijk_to_ras: np.ndarray) -> None:
    """Fills the table node: one row per finding, surest first, the columns of findings.csv.

    ijk_to_ras: where the scan lay when the positions were measured.
    """
    names = list(findings[0]) if findings else list(_FIRST)
    table.SetUseColumnTitleAsColumnHeader(True)
    for name in names:
        values = [finding[name] for finding in findings]
        texts = any(isinstance(value, str) for value in values) or name in ("polarity", "location")
        whole = bool(values) and all(isinstance(value, int) for value in values)
        table.AddColumn(column(name, values, str if texts else int if whole else float))
        if name in _UNITS:
            table.SetColumnUnitLabel(name, _UNITS[name])
    table.SetLocked(True)
    table.SetAttribute(_IJK_TO_RAS, json.dumps(np.asarray(ijk_to_ras).tolist()))


def rows(table) -> list[dict[str, Any]]:
    """The findings of a table node, as it has them after saving and loading too."""
    names = [table.GetColumnName(index) for index in range(table.GetNumberOfColumns())]
    data = table.GetTable()
    found = []
    for row in range(table.GetNumberOfRows()):
        values = {name: data.GetValueByName(row, name) for name in names}
        found.append({name: value.ToString() if name in ("polarity", "location") else value.ToDouble()
                      for name, value in values.items()})
    return found


def position_now(table, volume, row: Mapping[str, Any]) -> tuple[float, float, float]:
    """World RAS (mm) of a finding's peak, wherever `volume`, the map or the scan, lies now."""
    measured = np.array([row["peak_r_mm"], row["peak_a_mm"], row["peak_s_mm"], 1.0])
    matrix = table.GetAttribute(_IJK_TO_RAS)
    if volume is None or not matrix:
        return tuple(float(value) for value in measured[:3])
    ijk = np.linalg.inv(np.array(json.loads(matrix))) @ measured
    ras = own_ijk_to_ras(volume) @ ijk
    world = [0.0, 0.0, 0.0]
    if volume.GetParentTransformNode() is None:
        return tuple(float(value) for value in ras[:3])
    transform = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(volume.GetParentTransformNode(), None, transform)
    transform.TransformPoint(ras[:3], world)
    return tuple(world)
