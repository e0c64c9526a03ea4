"""Columns of table nodes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import vtk
from vtk.util.numpy_support import numpy_to_vtk

_NUMBERS = {int: np.intc, float: np.float64}


def column(name: str, values: Sequence | np.ndarray, kind: type) -> vtk.vtkAbstractArray:
    """Values under a name. kind: str, int or float, which all of them are."""
    if kind is str:
        made = vtk.vtkStringArray()
        for value in values:
            made.InsertNextValue(value)
    else:
        made = numpy_to_vtk(np.ascontiguousarray(values, _NUMBERS[kind]), deep=True)
    made.SetName(name)
    return made
