"""How results look in the views: colours, transparency below a threshold, legend, which map lies over the scan."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import slicer

from . import colours
from .belonging import ROLE, mark, run_of
from .scan_node import placement

LEGEND_TITLES = {
    "anomaly": "-log10(p)", "residual": "scan units", "std": "scan units",
}
"""Role: the unit above its colours; short, because the view is the scan's. The tooltip of the map says more. The
reconstruction is a picture like the scan and has none."""
_WINDOW = "MedVAE.Range"
_RESIDUAL_THRESHOLD = "MedVAE.ResidualThreshold"
_EMPTY_CORNER = (0.97, 0.06)  # which a head fills least
_GREY = "vtkMRMLColorTableNodeGrey"


def prepare(volume, role: str, inside: np.ndarray, limit: float, scan, register: Callable) -> None:
    """Display of a new result volume. inside: its values in the brain; limit: the detection's threshold.

    register(class name, role, ending) adds a node as part of the run.
    """
    shown = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeDisplayNode")
    shown.SetAutoWindowLevel(False)  # before it sees the image: the histogram for it would hold up the interface
    shown.SetAutoThreshold(False)
    volume.SetAndObserveDisplayNodeID(shown.GetID())
    shown.SetInterpolate(False)  # a voxel's colour is its score
    if role == "reconstruction":
        _prepare_reconstruction(shown, scan, inside)
        return
    if role == "residual":  # its table has the threshold in it
        colour = register("vtkMRMLColorTableNode", "residual colours", "difference colours")
        colours.make_table(colour)
        shown.SetAndObserveColorNodeID(colour.GetID())
        top = _top(np.abs(inside), 99.7)
        _set_window(shown, -top, top)
        set_threshold(volume, 0.4 * top)
    else:
        shown.SetAndObserveColorNodeID(colours.sequential_node().GetID())
        top = np.ceil(max(_top(inside, 99.9), 2.5 * limit)) if role == "anomaly" else _top(inside, 99.7)
        _set_window(shown, 0.0, top)
        set_threshold(volume, limit if role == "anomaly" else 0.25 * top)
    _add_legend(volume, role)


def _prepare_reconstruction(shown, scan, inside: np.ndarray) -> None:
    """As the scan is shown, so that both can be compared; nothing outside of the brain."""
    shown.SetAndObserveColorNodeID(_GREY)
    match_greys(shown, scan)
    low = float(inside.min()) if inside.size else 0.0
    colours.hide_below(shown, low if low > 0 else np.finfo(np.float32).tiny)


def match_greys(shown, scan) -> None:
    """Black and white are as in the scan, if that is shown at all."""
    own = scan.GetScalarVolumeDisplayNode() if scan is not None else None
    if own is not None:
        shown.SetWindowLevel(own.GetWindow(), own.GetLevel())


def show_grey(volume, low: float, high: float) -> None:
    """A grey picture from `low`, black, to `high`, white, whatever its values are."""
    volume.CreateDefaultDisplayNodes()
    shown = volume.GetDisplayNode()
    shown.SetAutoWindowLevel(False)
    shown.SetAndObserveColorNodeID(_GREY)
    shown.SetWindowLevelMinMax(low, high)


def _top(values: np.ndarray, percentile: float) -> float:
    top = float(np.percentile(values, percentile)) if values.size else 1.0
    return top if np.isfinite(top) and top > 0 else 1.0


def _set_window(shown, low: float, high: float) -> None:
    shown.SetWindowLevelMinMax(low, high)
    shown.SetAttribute(_WINDOW, repr(float(high)))


def _add_legend(volume, role: str) -> None:
    steps = round(threshold_range(volume)) if role == "anomaly" else 4  # scores have whole numbers beside them
    views = [f"vtkMRMLSliceNode{tag}" for tag in ("Red", COMPARED_VIEWS[1])]  # in one view of each layout is enough
    colours.add_legend(volume, LEGEND_TITLES[role], "%.0f" if role == "anomaly" else "%.3g",
                       1 + (steps if steps <= 8 else 4), (0.055, 0.28), _EMPTY_CORNER, views)


def renew_legends(volumes) -> None:
    """A view that was made after a legend does not draw it: they come into the scene anew, as the user left them."""
    for volume in volumes:
        shown = [volume.GetNthDisplayNode(index) for index in range(volume.GetNumberOfDisplayNodes())]
        for legend in [node for node in shown if node is not None and node.IsA("vtkMRMLColorLegendDisplayNode")]:
            slicer.mrmlScene.RemoveNode(legend)
            volume.AddAndObserveDisplayNodeID(slicer.mrmlScene.AddNode(legend).GetID())
            mark(legend, run_of(volume))
            legend.Modified()  # only now it knows whose it is


# --- Threshold -------------------------------------------------------------------------------------------------------


def threshold_range(volume) -> float | None:
    """The highest useful threshold; None if the map has none."""
    shown = volume.GetScalarVolumeDisplayNode()
    text = shown.GetAttribute(_WINDOW) if shown is not None else None
    return float(text) if text else None


def threshold(volume) -> float:
    """Below it (for the signed residual: nearer to zero) the map is transparent."""
    shown = volume.GetScalarVolumeDisplayNode()
    text = shown.GetAttribute(_RESIDUAL_THRESHOLD)
    return float(text) if text else float(shown.GetLowerThreshold())


def set_threshold(volume, value: float) -> None:
    shown = volume.GetScalarVolumeDisplayNode()
    if volume.GetAttribute(ROLE) == "residual":
        colours.fill(shown.GetColorNode(), colours.diverging(value / max(threshold_range(volume) or 1.0, 1e-12)))
        shown.SetAttribute(_RESIDUAL_THRESHOLD, repr(float(value)))
        return
    # Never quite zero: outside of the brain every map is zero, and the scan shall stay visible there.
    colours.hide_below(shown, max(value, 1e-6 * (threshold_range(volume) or 1.0)))


# --- Views -----------------------------------------------------------------------------------------------------------

COMPARED_VIEWS = ("MedVAEScan", "MedVAEMap")
COMPARE_LAYOUT = 27451
_COMPARE_XML = (
    '<layout type="horizontal">'
    + "".join(
        f'<item><view class="vtkMRMLSliceNode" singletontag="{tag}"><property name="orientation" action="default">Axial'
        f'</property><property name="viewlabel" action="default">{label}</property><property name="viewcolor" '
        f'action="default">{colour}</property><property name="viewgroup" action="default">27</property></view></item>'
        for tag, label, colour in zip(COMPARED_VIEWS, ("Scan", "Map"), ("#8C8C8C", "#E8762D"), strict=True)
    )
    + "</layout>"
)


def show(scan, volume, opacity: float) -> None:
    """The map over the scan in all slice views. Where another scan was shown before, the view is turned to this one's
    planes, as Slicer does when it loads one, and fitted."""
    manager = slicer.app.layoutManager()
    for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
        alone = composite.GetLayoutName() == COMPARED_VIEWS[0]
        new = scan is not None and composite.GetBackgroundVolumeID() != scan.GetID()
        if scan is not None:
            composite.SetBackgroundVolumeID(scan.GetID())
        composite.SetForegroundVolumeID(None if alone or volume is None else volume.GetID())
        composite.SetForegroundOpacity(opacity)
        widget = manager.sliceWidget(composite.GetLayoutName()) if new and manager is not None else None
        if widget is not None:
            if placement(scan).in_place:  # in a sheared or bent one its planes are none of a view
                widget.sliceLogic().GetSliceNode().RotateToVolumePlane(scan, False)
            widget.sliceLogic().FitSliceToBackground()
    for legend in slicer.util.getNodesByClass("vtkMRMLColorLegendDisplayNode"):
        legend.Modified()  # legends do not notice by themselves that a script changed what the views show


def in_views(volume) -> bool:
    """Whether any slice view shows it; those side by side count only while they are there."""
    return any(volume.GetID() in (composite.GetForegroundVolumeID(), composite.GetBackgroundVolumeID())
               for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
               if (composite.GetLayoutName() in COMPARED_VIEWS) == comparing())


def set_opacity(volume, opacity: float) -> None:
    """In the views that show this map, and in no other."""
    for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
        if volume is not None and composite.GetForegroundVolumeID() == volume.GetID():
            composite.SetForegroundOpacity(opacity)


def register_compare_layout() -> None:
    """Scenes and settings name a layout by its number only: one that was saved side by side has to find it."""
    manager = slicer.app.layoutManager()
    node = manager.layoutLogic().GetLayoutNode() if manager is not None else None
    if node is not None and not node.IsLayoutDescription(COMPARE_LAYOUT):
        node.AddLayoutDescription(COMPARE_LAYOUT, _COMPARE_XML)
        if node.GetViewArrangement() == COMPARE_LAYOUT:  # set before anyone could know what it is: its views are blank
            node.SetViewArrangement(COMPARE_LAYOUT)


def comparing() -> bool:
    manager = slicer.app.layoutManager()
    return manager is not None and manager.layout == COMPARE_LAYOUT


def compare(on: bool, before: int | None = None) -> int | None:
    """Scan and scan with map side by side, linked; or back to the layout `before`. Returns the layout left."""
    manager = slicer.app.layoutManager()
    if manager is None or on == comparing():
        return before
    left = manager.layout
    if not on:
        manager.setLayout(before or slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
        return left
    register_compare_layout()
    manager.setLayout(COMPARE_LAYOUT)
    for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
        if composite.GetLayoutName() in COMPARED_VIEWS:
            composite.SetLinkedControl(True)
            composite.SetHotLinkedControl(True)
    return left


def fit_compared() -> None:
    """The views side by side show the whole head, in the slice that the axial view shows. To be called when Qt has laid
    them out: new ones have another shape before."""
    manager = slicer.app.layoutManager()
    for tag in COMPARED_VIEWS:
        widget = manager.sliceWidget(tag) if manager is not None else None
        if widget is not None:
            widget.sliceLogic().FitSliceToBackground()
    _follow_axial_view()


def _follow_axial_view() -> None:
    scene = slicer.mrmlScene
    axial = scene.GetNodeByID("vtkMRMLSliceNodeRed")
    for tag in COMPARED_VIEWS:
        view = scene.GetNodeByID(f"vtkMRMLSliceNode{tag}")
        if axial is not None and view is not None:
            centre = [axial.GetSliceToRAS().GetElement(row, 3) for row in range(3)]
            view.JumpSliceByOffsetting(*centre)


def look_at_in_3d() -> None:
    """Every 3D view turns to what it shows; if the layout has none, it is changed."""
    manager = slicer.app.layoutManager()
    if manager is None:
        return
    # Views that the layout does not have are counted, too.
    if not any(view.IsMappedInLayout() for view in slicer.util.getNodesByClass("vtkMRMLViewNode")):
        manager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
    for index in range(manager.threeDViewCount):
        view = manager.threeDWidget(index).threeDView()
        view.resetFocalPoint()  # aims at it, from as far as before
        view.resetCamera(False, True, True)  # comes near it, from the same side


def jump(ras) -> None:
    """All slice views go to the point (world RAS, mm)."""
    slicer.vtkMRMLSliceNode.JumpAllSlices(slicer.mrmlScene, *ras)
    crosshair = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
    if crosshair is not None:
        crosshair.SetCrosshairRAS(list(ras))
