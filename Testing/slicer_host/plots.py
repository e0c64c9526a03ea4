"""A plot view: VTK's chart, drawn offscreen from the chart that Slicer's view node names and clicked as by a mouse.

Slicer's own is a Qt widget (qMRMLPlotView), which the wheel lacks; what a panel uses of it is here under its names.
"""

from __future__ import annotations

import slicer
import vtk

from .pictures import window_image

_MARKERS = {"none": 0, "cross": 1, "plus": 2, "square": 3, "circle": 4, "diamond": 5}


class PlotView:
    """`connect("dataSelected(vtkStringArray*, vtkCollection*)", f)`: f(ids of series, their points) after a click."""

    def __init__(self, app, name: str = "PlotView1", size=(500, 500)):
        self.node = app.scene.GetSingletonNode(name, "vtkMRMLPlotViewNode")
        if self.node is None:  # else it is of a scene that was loaded
            self.node = slicer.vtkMRMLPlotViewNode()
            self.node.SetSingletonTag(name)
            self.node.SetName(name)
            self.node.SetLayoutName(name)
            app.scene.AddNode(self.node)
        self.view, self.chart = vtk.vtkContextView(), vtk.vtkChartXY()
        self.rw = self.view.GetRenderWindow()
        self.rw.SetOffScreenRendering(1)
        self.rw.SetSize(*size)
        self.view.GetScene().AddItem(self.chart)
        button, chart = vtk.vtkContextMouseEvent.LEFT_BUTTON, vtk.vtkChart
        self.chart.SetClickActionToButton(chart.SELECT, button)
        self.chart.SetActionToButton(chart.PAN, button)
        self.chart.AddObserver(vtk.vtkCommand.SelectionChangedEvent, lambda *a: self._tell_selection())
        self._plots: dict[str, vtk.vtkPlotLine] = {}
        self._listeners: list = []
        self._observed = None
        self.node.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *a: self._update())
        self._update()

    # --- What qMRMLPlotView offers -----------------------------------------------------------------------------------

    def connect(self, signal: str, function) -> bool:
        if signal.replace(" ", "") != "dataSelected(vtkStringArray*,vtkCollection*)":
            raise RuntimeError(f"a plot view has no signal {signal}")
        self._listeners.append(function)
        return True

    def disconnect(self, signal: str, function) -> bool:
        self._listeners.remove(function)
        return True

    def mrmlPlotViewNode(self):
        return self.node

    def RemovePlotSelections(self) -> None:
        self.chart.RemovePlotSelections()

    def fitToContent(self) -> None:
        self.chart.RecalculateBounds()

    # --- For tests ---------------------------------------------------------------------------------------------------

    def series_names(self) -> list[str]:
        return [plot.GetLabel() for plot in self._plots.values()]

    def click(self, series, row: int) -> None:
        """A click with the left button on a point of a series node."""
        self.rw.Render()
        x, y = (round(value) for value in self._pixel(series, row))
        interactor = self.view.GetInteractor()
        interactor.Initialize()
        interactor.SetEventInformation(x, y, 0, 0, "\0", 0, None)
        for event in ("MouseMoveEvent", "LeftButtonPressEvent", "LeftButtonReleaseEvent"):
            interactor.InvokeEvent(event)

    def image(self):
        """RGB uint8 array, row 0 on top."""
        return window_image(self.rw)

    def _pixel(self, series, row: int) -> list[float]:
        table, place = series.GetTableNode().GetTable(), []
        names = (series.GetXColumnName(), series.GetYColumnName())
        for index, (side, name) in enumerate(zip((vtk.vtkAxis.BOTTOM, vtk.vtkAxis.LEFT), names, strict=True)):
            axis, value = self.chart.GetAxis(side), table.GetValueByName(row, name).ToDouble()
            first, last = axis.GetPoint1()[index], axis.GetPoint2()[index]
            share = (value - axis.GetMinimum()) / (axis.GetMaximum() - axis.GetMinimum())
            place.append(first + share * (last - first))
        return place

    # --- From the scene ----------------------------------------------------------------------------------------------

    def _update(self) -> None:
        scene = slicer.mrmlScene
        chart = scene.GetNodeByID(self.node.GetPlotChartNodeID() or "")
        if chart is not self._observed:
            if self._observed is not None:
                self._observed.RemoveObserver(self._tag)
            self._observed = chart
            if chart is not None:
                self._tag = chart.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *a: self._update())
        ids: list[str] = []
        if chart is not None:
            ids = [chart.GetNthPlotSeriesNodeID(index) for index in range(chart.GetNumberOfPlotSeriesNodes())]
        series = {each: scene.GetNodeByID(each) for each in ids}
        for gone in [each for each in self._plots if series.get(each) is None]:
            self.chart.RemovePlotInstance(self._plots.pop(gone))
        for name, node in series.items():
            if node is not None and node.GetTableNode() is not None:
                self._draw(name, node)
        if chart is None:
            return
        self.chart.SetTitle(chart.GetTitle() or "" if chart.GetTitleVisibility() else "")
        self.chart.SetShowLegend(chart.GetLegendVisibility())
        for side, title in ((vtk.vtkAxis.BOTTOM, chart.GetXAxisTitle()), (vtk.vtkAxis.LEFT, chart.GetYAxisTitle())):
            self.chart.GetAxis(side).SetTitle(title or "")
            self.chart.GetAxis(side).SetGridVisible(chart.GetGridVisibility())

    def _draw(self, name: str, node) -> None:
        plot = self._plots.get(name)
        if plot is None:
            plot = self._plots[name] = vtk.vtkPlotLine()
            self.chart.AddPlot(plot)
        table = node.GetTableNode().GetTable()
        plot.SetLabel(node.GetName())
        plot.SetColorF(*node.GetColor())
        plot.GetPen().SetLineType(vtk.vtkPen.NO_PEN if node.GetLineStyle() == node.LineStyleNone
                                  else vtk.vtkPen.SOLID_LINE)
        plot.SetMarkerSize(node.GetMarkerSize())
        plot.SetMarkerStyle(_MARKERS[node.GetMarkerStyleAsString(node.GetMarkerStyle())])
        plot.SetInputData(table, node.GetXColumnName(), node.GetYColumnName())
        if node.GetLabelColumnName():
            plot.SetIndexedLabels(table.GetColumnByName(node.GetLabelColumnName()))

    def _tell_selection(self) -> None:
        ids, points = vtk.vtkStringArray(), vtk.vtkCollection()
        for name, plot in self._plots.items():
            chosen = plot.GetSelection()
            if chosen is not None and chosen.GetNumberOfValues():
                ids.InsertNextValue(name)
                points.AddItem(chosen)
        for listener in list(self._listeners):
            listener(ids, points)


class PlotWidget:
    """What `layoutManager().plotWidget(i)` gives."""

    def __init__(self, view: PlotView):
        self.view = view

    def plotView(self) -> PlotView:
        return self.view

    def mrmlPlotViewNode(self):
        return self.view.node
