"""A cohort in Slicer's plot view: a table of latents, a table and series of points per group, marks, and the chart."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _
from vtk.util.numpy_support import vtk_to_numpy

from . import results as runs
from .belonging import ROLE, run_of
from .columns import column
from .latent_results import Result
from .results import unused

COHORT, CHART, POINTS, SERIES, MARK = "cohort", "chart", "points of", "series of", "mark"
SCAN, SHOWN = "this scan", "what is shown"
"""The marks: where the encoded scan lies, and where the sliders stand."""
LABEL = "label"
_MOST_LATENTS = 1024
_MOST_GROUPS = 10
_QUARTERS = 4
_MARKER, _SMALL_MARKER, _MARK = 9, 6, 15
_CROWD = 200  # points from which on markers are small
_COLOURS = ((0.12, 0.47, 0.71), (0.90, 0.45, 0.05), (0.17, 0.63, 0.17), (0.58, 0.40, 0.74), (0.80, 0.62, 0.08),
            (0.09, 0.75, 0.81), (0.89, 0.47, 0.76), (0.55, 0.34, 0.29), (0.50, 0.50, 0.50),
            (0.35, 0.35, 0.80))
_MARK_COLOURS = {SCAN: (0.85, 0.10, 0.10), SHOWN: (0.0, 0.0, 0.0)}


@dataclass(frozen=True, eq=False)
class PlottedPlane:
    """points: (N, 2) of the cohort's rows. matrix (2, Z), offset (2,): where latents lie in it; None if unknown."""

    name: str
    axes: tuple[str, str]
    points: np.ndarray
    matrix: np.ndarray | None = None
    offset: np.ndarray | None = None

    def place(self, latents: np.ndarray) -> np.ndarray | None:
        return None if self.matrix is None else self.matrix @ latents + self.offset


class Cohort:
    """The nodes of one plotted cohort; everything it knows is in its table node, so it comes back with the scene. What
    was read of the table is kept until it changes."""

    def __init__(self, result: Result, table, chart):
        self.result, self.table, self.chart = result, table, chart
        self._read: dict[tuple[str, str], Any] = {}
        self._as_of = 0

    @classmethod
    def of(cls, chart) -> Cohort | None:
        """The cohort that a chart node shows, None for another chart."""
        result = Result.of(chart)
        table = result.node(COHORT) if result is not None else None
        return cls(result, table, chart) if table is not None else None

    @property
    def there(self) -> bool:
        """Whether its nodes are still in the scene."""
        return all(slicer.mrmlScene.GetNodeByID(node.GetID()) is node for node in (self.table, self.chart))

    def column(self, name: str) -> list[str]:
        """Texts of a column of the table."""
        table = self.table.GetTable()
        return self._once("texts", name, lambda: [
            table.GetValueByName(row, name).ToString() for row in range(table.GetNumberOfRows())])

    def numbers(self, names: Sequence[str]) -> np.ndarray:
        """(N, len(names)) of columns of the table; after loading a scene, numbers can be texts."""
        return np.stack([self._once("numbers", name, lambda name=name: self._numbers(name)) for name in names], 1)

    def _numbers(self, name: str) -> np.ndarray:
        column = self.table.GetTable().GetColumnByName(name)
        if column is not None and column.IsA("vtkDataArray"):
            return vtk_to_numpy(column).astype(float)
        return np.array([_number(text) for text in self.column(name)])

    def _once(self, kind: str, name: str, read: Callable[[], Any]) -> Any:
        as_of = self.table.GetTable().GetMTime()
        if as_of != self._as_of:
            self._read, self._as_of = {}, as_of
        if (kind, name) not in self._read:
            self._read[kind, name] = read()
        return self._read[kind, name]

    @property
    def has_latents(self) -> bool:
        """False if the model has too many to be kept in a table."""
        return self._latent_count <= _MOST_LATENTS

    def latents_of(self, row: int) -> np.ndarray:
        """(Z,) of a case, where there are any in the table."""
        table = self.table.GetTable()
        cells = (table.GetValueByName(row, f"mu_{index}") for index in range(self._latent_count))
        return np.array([_number(cell.ToString()) if cell.IsString() else cell.ToDouble() for cell in cells])

    @property
    def _latent_count(self) -> int:
        return int(self.table.GetAttribute("MedVAE.LatentCount"))

    @property
    def bundle(self) -> str:
        """SHA-256 of the model that the latents belong to."""
        return self.table.GetAttribute("MedVAE.BundleSHA256") or ""

    def is_mark(self, series_id: str, name: str) -> bool:
        mark = self.result.node(f"{SERIES} {name}")
        return mark is not None and mark.GetID() == series_id

    def row_of(self, series_id: str, point: int) -> int | None:
        """Which case a point of a series is; None for a mark or a series of another chart."""
        series = slicer.mrmlScene.GetNodeByID(series_id)
        if series is None or run_of(series) != self.result.run or series.GetTableNode() is None:
            return None
        column = series.GetTableNode().GetTable().GetColumnByName("row")
        return int(column.GetVariantValue(point).ToDouble()) if column is not None else None


def add_cohort(reply: Mapping[str, Any], name: str, settings: Mapping[str, Any]) -> Cohort:
    """Table and empty chart; `show` fills it. Raises OSError or ValueError if the files cannot be read."""
    mean = np.load(reply["arrays"]["mean"])
    result = Result.new()
    with runs.all_or_nothing(result):
        title = unused(_("{name} latents").format(name=name))
        folder = runs.make_folder(title, result.run)
        attributes = runs.provenance_attributes(reply, settings, {"LatentCount": mean.shape[1]})
        table = runs.new_node("vtkMRMLTableNode", result, COHORT, title, attributes)
        texts = {"case": reply["cases"], LABEL: reply["labels"], "file": reply["files"]}
        tags = {key: [_text(value) for value in values] for key, values in reply["tags"].items()}
        for header, values in {**texts, **tags}.items():
            table.AddColumn(column(header, values, str))
        kept = mean if mean.shape[1] <= _MOST_LATENTS else mean[:, :0]
        for index in range(kept.shape[1]):
            table.AddColumn(column(f"mu_{index}", kept[:, index], float))
        for plane, found in enumerate(reply["planes"]):
            points = np.load(reply["arrays"][f"points_{plane}"])
            for axis in range(2):
                table.AddColumn(column(f"{found['name']} {axis + 1}", points[:, axis], float))
        table.SetLocked(True)
        chart = runs.new_node("vtkMRMLPlotChartNode", result, CHART, title)
        for node in (table, chart):
            runs.put_beneath(folder, node)
            runs.mark_hanging(node, result.run)
    return Cohort(result, table, chart)


def show(cohort: Cohort, plane: PlottedPlane, colour: str) -> None:
    """Draws the cohort in a plane, a series for each group of `colour`: the label, or another column."""
    groups = group(cohort.column(colour))
    cases = cohort.column("case")
    chart = cohort.chart
    clear(cohort)
    size = _SMALL_MARKER if len(cases) > _CROWD else _MARKER
    for index, (name, rows) in enumerate(groups.items()):
        series = _add_series(cohort, name, _COLOURS[index % len(_COLOURS)], size)
        _fill_points(series.GetTableNode(), plane.points[rows], [cases[row] for row in rows], rows)
        chart.AddAndObservePlotSeriesNodeID(series.GetID())
    for name, rgb in _MARK_COLOURS.items():
        series = _add_series(cohort, name, rgb, _MARK, mark=True)
        _fill_points(series.GetTableNode(), np.zeros((0, 2)), [], [])
    chart.SetTitle("")
    chart.SetXAxisTitle(plane.axes[0])
    chart.SetYAxisTitle(plane.axes[1])
    chart.SetLegendVisibility(True)


def clear(cohort: Cohort) -> None:
    """Leaves an empty chart."""
    cohort.chart.RemoveAllPlotSeriesNodeIDs()
    _remove_points(cohort)


def mark(cohort: Cohort, name: str, place: np.ndarray | None) -> None:
    """Puts a mark (SCAN, SHOWN) at a point (2,), or takes it away."""
    series = cohort.result.node(f"{SERIES} {name}")
    if series is None:
        return
    chart, there = cohort.chart, cohort.chart.HasPlotSeriesNodeID(series.GetID())
    if place is None:
        if there:
            chart.RemovePlotSeriesNodeID(series.GetID())
        return
    _fill_points(series.GetTableNode(), place[None], [name], [])
    if not there:
        chart.AddAndObservePlotSeriesNodeID(series.GetID())
    chart.Modified()  # a view looks at its chart alone


def group(values: Sequence[str]) -> dict[str, list[int]]:
    """Rows by value; numbers of many kinds by quarter. What is empty comes last."""
    rows: dict[str, list[int]] = {}
    for row, value in enumerate(values):
        rows.setdefault(value, []).append(row)
    numbers = np.array([_number(value) for value in values if value])
    if len(rows) > _MOST_GROUPS and numbers.size and np.isfinite(numbers).all():
        rows = _quarters(values, numbers)
    empty = rows.pop("", None)
    found = dict(sorted(rows.items(), key=lambda each: _in_order(each[0])))
    if len(found) > _MOST_GROUPS:
        kept = sorted(found, key=lambda name: -len(found[name]))[: _MOST_GROUPS - 1]
        others = [row for name in found if name not in kept for row in found[name]]
        found = {name: found[name] for name in found if name in kept} | {_("others"): sorted(others)}
    if empty is not None:
        found[_("not known") if found else _("cohort")] = empty
    return found


def _in_order(name: str) -> tuple[bool, float, str]:
    """Numbers by size, then texts by their letters."""
    number = _number(name.split(" ")[0])
    return (True, 0.0, name) if np.isnan(number) else (False, number, name)


def _quarters(values: Sequence[str], numbers: np.ndarray) -> dict[str, list[int]]:
    edges = np.quantile(numbers, np.linspace(0, 1, _QUARTERS + 1))
    names = [f"{low:.4g} – {high:.4g}" for low, high in zip(edges[:-1], edges[1:], strict=True)]
    rows: dict[str, list[int]] = {}
    for row, value in enumerate(values):
        place = min(int(np.searchsorted(edges[1:-1], _number(value), side="right")), _QUARTERS - 1)
        rows.setdefault(names[place] if value else "", []).append(row)
    return {name: rows[name] for name in (*names, "") if name in rows}


# --- Nodes -----------------------------------------------------------------------------------------------------------


def _add_series(cohort: Cohort, name: str, rgb: Sequence[float], size: int, mark: bool = False):
    title = f"{cohort.table.GetName()}: {name}"
    table = runs.new_node("vtkMRMLTableNode", cohort.result, f"{POINTS} {name}", title, hidden=True)
    series = runs.new_node("vtkMRMLPlotSeriesNode", cohort.result, f"{SERIES} {name}", name, hidden=True)
    series.SetAndObserveTableNodeID(table.GetID())
    series.SetXColumnName("x")
    series.SetYColumnName("y")
    series.SetLabelColumnName("case")
    series.SetPlotType(series.PlotTypeScatter)
    series.SetLineStyle(series.LineStyleNone)
    shape = {SCAN: series.MarkerStyleDiamond, SHOWN: series.MarkerStyleCross}.get(name) if mark else None
    series.SetMarkerStyle(series.MarkerStyleCircle if shape is None else shape)
    series.SetMarkerSize(size)
    series.SetColor(*rgb)
    return series


def _remove_points(cohort: Cohort) -> None:
    for node in runs.nodes_of(cohort.result.run):
        if (node.GetAttribute(ROLE) or "").startswith((POINTS, SERIES)):
            slicer.mrmlScene.RemoveNode(node)


def _fill_points(node, points: np.ndarray, cases: Sequence[str], rows: Sequence[int]) -> None:
    """A lone point stands there twice: Slicer draws scatter plots as lines without a pen, which need two."""
    if len(points) == 1:
        points, cases, rows = np.repeat(points, 2, 0), [*cases] * 2, [*rows] * 2
    table = vtk.vtkTable()
    for index, name in enumerate("xy"):
        table.AddColumn(column(name, points[:, index], float))
    table.AddColumn(column("case", cases, str))
    if len(rows):
        table.AddColumn(column("row", rows, float))
    node.SetAndObserveTable(table)


def _text(value: Any) -> str:
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")
