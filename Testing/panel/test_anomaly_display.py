"""How a result looks and how the panel's widgets change that, at once; on one real detection."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from .detections import SAMPLE, add_scan, node_ids


@pytest.fixture
def panel(desk):
    """In the layout that Slicer starts with, entered and hidden, whatever the test before did to it."""
    import slicer

    desk.widget.enter()
    slicer.app.layoutManager().setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
    yield desk
    desk.top.hide()


@pytest.fixture
def shown(panel, reply):
    """The panel with a result, as it is when a detection has just ended."""
    panel.scan = add_scan()
    panel.ui.inputSelector.setCurrentNode(panel.scan)
    panel.before = node_ids()
    panel.result = panel.widget.logic.addResult(panel.scan, reply, settings={"fpr": 0.01, "samples": 2})
    panel.tab.results.show_new(panel.result)
    panel.go_to_peak = lambda: go_to_peak(panel)
    panel.go_to_peak()
    return panel


def go_to_peak(panel) -> None:
    """All slice views at the highest score."""
    from MedVAEPanel import display
    from MedVAEPanel.findings_node import position_now, rows

    table = panel.result.node("findings")
    display.jump(position_now(table, panel.result.place, rows(table)[0]))
    panel.pump(seconds=0.02)


def coloured(image: np.ndarray) -> int:
    """Pixels that are no grey."""
    return int((np.ptp(image.astype(int), axis=2) > 40).sum())


def scan_alone(panel) -> np.ndarray:
    """The red view without any overlay, outline or legend."""
    from MedVAEPanel import display

    panel.result.node("segmentation").GetDisplayNode().SetVisibility(False)
    display.show(panel.scan, None, 0.0)
    image = panel.image()
    display.show(panel.scan, panel.tab.results.volume, panel.tab.parameters.opacity)
    return image


def outlines(panel, on: bool) -> None:
    panel.result.node("segmentation").GetDisplayNode().SetVisibility(on)


def test_the_overlay_lies_where_the_score_is_high_and_nowhere_else(shown):
    import slicer
    import vtk

    outlines(shown, False)
    view = shown.host.views["Red"]
    legend = shown.result.node("anomaly").GetNthDisplayNode(1)
    legend.SetVisibility(False)
    image, plain = shown.image().astype(int), scan_alone(shown).astype(int)
    changed = np.abs(image - plain).max(axis=2) > 8
    assert 5 < changed.sum() < 0.2 * changed.size
    score_zyx = slicer.util.arrayFromVolume(shown.result.node("anomaly"))
    to_ijk = vtk.vtkMatrix4x4()
    shown.result.node("anomaly").GetRASToIJKMatrix(to_ijk)
    to_ras = view.node.GetXYToRAS()
    height = image.shape[0]
    wrong = 0
    for row, column in np.argwhere(changed):
        ijk = to_ijk.MultiplyPoint(to_ras.MultiplyPoint((column + 0.5, height - row - 0.5, 0, 1)))[:3]
        i, j, k = np.round(ijk).astype(int)
        near = score_zyx[max(k - 1, 0) : k + 2, max(j - 1, 0) : j + 2, max(i - 1, 0) : i + 2]
        wrong += near.size == 0 or near.max() < 2.0
    assert wrong == 0, f"{wrong} of {changed.sum()} coloured pixels are not where the score is above the threshold"


def test_the_threshold_slider_acts_at_once(shown):
    outlines(shown, False)
    slider = shown.ui.thresholdSlider
    assert slider.enabled and slider.value == pytest.approx(2.0), "it does not start at the detection's threshold"
    counts = []
    for value in (1.0, 2.0, slider.maximum):
        slider.value = value
        counts.append(coloured(shown.image()))
    assert counts[0] > counts[1] > counts[2]
    assert shown.ui.findingsTable.rowCount > 0, "moving the slider must not change what was found"


def test_opacity_acts_at_once_and_zero_shows_the_scan(shown):
    shown.ui.opacitySlider.value = 0.0
    outlines(shown, False)
    shown.result.node("anomaly").GetNthDisplayNode(1).SetVisibility(False)
    assert (shown.image() == scan_alone(shown)).all()
    shown.ui.opacitySlider.value = 1.0
    strong = np.ptp(shown.image().astype(int), axis=2).sum()
    shown.ui.opacitySlider.value = 0.4
    assert 0 < np.ptp(shown.image().astype(int), axis=2).sum() < 0.7 * strong
    assert shown.host.views["Red"].composite.GetForegroundOpacity() == pytest.approx(0.4)


@pytest.mark.parametrize("index,role", [(1, "residual"), (2, "reconstruction"), (3, "std"), (0, "anomaly")])
def test_switching_maps(shown, index, role):
    shown.ui.mapCombo.setCurrentIndex((index + 1) % 4)
    shown.ui.mapCombo.setCurrentIndex(index)
    node = shown.result.node(role)
    assert all(shown.host.views[name].composite.GetForegroundVolumeID() == node.GetID()
               for name in ("Red", "Yellow", "Green"))
    assert shown.tab.parameters.shownMap.value == role
    assert shown.ui.thresholdSlider.enabled == (role != "reconstruction")
    outlines(shown, False)
    assert (coloured(shown.image()) > 20) == (role != "reconstruction")


def test_the_reconstruction_is_as_bright_as_the_scan_is_shown_now(shown):
    of_scan = shown.scan.GetDisplayNode()
    of_map = shown.result.node("reconstruction").GetDisplayNode()

    def window_scan(window: float, level: float) -> None:
        of_scan.SetAutoWindowLevel(False)
        of_scan.SetWindowLevel(window, level)
        shown.pump(seconds=0.2)

    window_scan(300.0, 170.0)
    assert (of_map.GetWindow(), of_map.GetLevel()) != (300.0, 170.0), "nothing to be seen by"
    shown.ui.mapCombo.setCurrentIndex(2)
    assert (of_map.GetWindow(), of_map.GetLevel()) == (300.0, 170.0)
    window_scan(500.0, 260.0)
    assert (of_map.GetWindow(), of_map.GetLevel()) == (500.0, 260.0), "it does not follow"


def test_the_residual_is_blue_below_red_above_and_clear_around_zero(shown):
    outlines(shown, False)
    shown.ui.mapCombo.setCurrentIndex(1)
    slider = shown.ui.thresholdSlider
    slider.value = slider.maximum * 0.1
    image = shown.image().astype(int)
    red = (image[..., 0] - image[..., 2] > 60).sum()
    blue = (image[..., 2] - image[..., 0] > 60).sum()
    assert red > 50 and blue > 50
    slider.value = slider.maximum * 0.6
    fewer = shown.image().astype(int)
    assert (np.abs(fewer[..., 0] - fewer[..., 2]) > 60).sum() < 0.6 * (red + blue)


def test_the_legend_names_the_unit_and_is_drawn(shown):
    outlines(shown, False)
    legend = shown.result.node("anomaly").GetNthDisplayNode(1)
    assert legend.IsA("vtkMRMLColorLegendDisplayNode")
    assert legend.GetTitleText() == "-log10(p)" and "-log10(p), where p is" in shown.ui.mapCombo.toolTip
    with_legend = shown.image()
    legend.SetVisibility(False)
    without = shown.image()
    right = slice(int(0.75 * without.shape[1]), None)
    assert coloured(with_legend[:, right]) - coloured(without[:, right]) > 300, "no colour bar in the red view"
    changed = np.argwhere((with_legend != without).any(axis=2))
    height, width = np.ptp(changed, axis=0) / without.shape[:2]
    assert height < 0.4 and width < 0.25, "the legend covers the scan"


def test_a_finding_chosen_is_gone_to_and_outlined_in_white(shown):
    table, views = shown.ui.findingsTable, shown.host.views
    display = shown.result.node("segmentation").GetDisplayNode()
    inner = shown.result.node("segmentation").GetSegmentation()
    for row in (1, 0):
        table.selectRow(row)
        node = shown.result.node("findings").GetTable()
        ras = [node.GetValueByName(row, f"peak_{axis}_mm").ToDouble() for axis in "ras"]
        for name, axis in (("Red", 2), ("Yellow", 0), ("Green", 1)):
            assert abs(views[name].node.GetSliceToRAS().GetElement(axis, 3) - ras[axis]) < 1.0
        names = {inner.GetSegment(inner.GetNthSegmentID(index)).GetName(): inner.GetNthSegmentID(index)
                 for index in range(inner.GetNumberOfSegments())}
        chosen = next(segment for name, segment in names.items() if name.startswith(f"{row + 1} "))
        others = [segment for name, segment in names.items() if name != "Brain" and segment != chosen]
        assert display.GetSegmentOpacity2DOutline(chosen) == 1.0
        assert all(display.GetSegmentOpacity2DOutline(other) < 1.0 for other in others)
        assert tuple(display.GetSegmentOverrideColor(chosen)) == (1.0, 1.0, 1.0)
        assert display.GetSegmentOverrideColor(others[0])[0] < 0, "the one chosen before is still white"


def outlined(result) -> list[str]:
    """Names of the segments that are shown in white."""
    node = result.node("segmentation")
    inner, display = node.GetSegmentation(), node.GetDisplayNode()
    ids = [inner.GetNthSegmentID(index) for index in range(inner.GetNumberOfSegments())]
    return [inner.GetSegment(each).GetName() for each in ids if display.GetSegmentOverrideColor(each)[0] == 1.0]


def test_a_finding_is_not_gone_to_in_another_patients_scan(shown):
    """Slicer shows a scan that is loaded by itself, without what lay over the one before."""
    import slicer

    shown.ui.compareButton.click()
    shown.ui.compareButton.click()
    other = slicer.util.loadVolume(str(SAMPLE), {"name": "Roe"})
    slicer.mrmlScene.GetNodeByID("vtkMRMLSliceCompositeNodeMedVAEMap").SetBackgroundVolumeID(shown.scan.GetID())
    view = shown.host.views["Red"].composite
    assert view.GetBackgroundVolumeID() == other.GetID() and view.GetForegroundVolumeID() is None
    shown.ui.findingsTable.selectRow(1)
    assert view.GetBackgroundVolumeID() == shown.scan.GetID()
    assert view.GetForegroundVolumeID() == shown.result.node("anomaly").GetID()
    view.SetBackgroundVolumeID(other.GetID())  # beneath the map, as another sequence of this patient
    shown.ui.findingsTable.selectRow(0)
    assert view.GetBackgroundVolumeID() == other.GetID(), "the user chose that"


def test_a_row_that_was_deleted_takes_no_outline_from_the_others(shown, reply):
    """In a table that the user unlocked, with its segment, as seen when the scene is loaded again."""
    findings, inner = shown.result.node("findings"), shown.result.node("segmentation").GetSegmentation()
    findings.SetLocked(False)
    findings.RemoveRow(1)
    inner.RemoveSegment(inner.GetNthSegmentID(2))
    shown.tab.results.findings.show(shown.result)
    left = [(rank, finding["location"]) for rank, finding in enumerate(reply["findings"], 1) if rank != 2]
    for row, (rank, location) in enumerate(left):
        shown.ui.findingsTable.selectRow(row)
        assert outlined(shown.result) == ([f"{rank} {location}"] if rank != 3 else [])


def test_findings_beyond_the_first_ones_share_a_segment(panel, reply, monkeypatch):
    from MedVAEPanel import segments

    monkeypatch.setattr(segments, "MAX_SEGMENTS", 2)
    scan = add_scan()
    panel.tab.results.show_new(panel.widget.logic.addResult(scan, reply))
    result, rest = panel.tab.results.result, f"{len(reply['findings']) - 2} less sure ones"
    for row, name in ((0, f"1 {reply['findings'][0]['location']}"), (2, rest), (len(reply["findings"]) - 1, rest)):
        panel.ui.findingsTable.selectRow(row)
        assert outlined(result) == [name]


def test_choosing_the_same_finding_again_goes_there_again(shown):
    import qt

    table, view = shown.ui.findingsTable, shown.host.views["Red"]
    table.selectRow(0)
    at = view.node.GetSliceOffset()
    view.logic.SetSliceOffset(at + 30)
    from PySide6.QtTest import QTest

    shown.top.show()
    QTest.mouseClick(table.viewport(), qt.Qt.LeftButton, pos=table.visualItemRect(table.item(0, 0)).center())
    assert view.node.GetSliceOffset() == pytest.approx(at)


def test_a_finding_follows_the_scan_when_it_is_moved_afterwards(shown):
    import slicer

    table, view = shown.ui.findingsTable, shown.host.views["Red"]
    table.selectRow(0)
    at = view.node.GetSliceOffset()
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    moved = np.eye(4)
    moved[2, 3] = 25.0
    transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(moved))
    shown.scan.SetAndObserveTransformNodeID(transform.GetID())
    table.selectRow(1)
    table.selectRow(0)
    assert view.node.GetSliceOffset() == pytest.approx(at + 25.0, abs=0.01)


def test_the_table_is_surest_first_and_says_where(shown, reply):
    table = shown.ui.findingsTable
    assert table.rowCount == len(reply["findings"])
    first = reply["findings"][0]
    texts = [table.item(0, column).text() for column in range(table.columnCount)]
    assert texts[0].startswith(first["location"]) and texts[1] == f"{first['volume_ml']:.2f}"
    side = "R" if first["peak_r_mm"] > 0 else "L"
    assert texts[4].startswith(f"{side}{abs(round(first['peak_r_mm']))} ")
    means = [finding["mean"] for finding in reply["findings"] if finding["polarity"] == "bright"]
    assert means == sorted(means, reverse=True)
    assert str(len(reply["findings"])) in shown.ui.summaryLabel.text


def test_segments_carry_terms_ranks_and_the_voxels_of_the_findings(shown, reply):
    import slicer

    node = shown.result.node("segmentation")
    inner = node.GetSegmentation()
    components = np.load(reply["arrays"]["components"])
    assert inner.GetNumberOfSegments() == min(len(reply["findings"]), 41) + 1
    for row in range(3):
        finding = reply["findings"][row]
        segment_id = inner.GetNthSegmentID(row)
        segment = inner.GetSegment(segment_id)
        assert segment.GetName() == f"{row + 1} {finding['location']}"
        terms = segment.GetTerminology()
        assert "SCT^49755003^Morphologically Altered Structure" in terms and "SCT^4147007^Mass" in terms
        voxels = slicer.util.arrayFromSegmentBinaryLabelmap(node, segment_id, shown.scan)
        np.testing.assert_array_equal(voxels > 0, components == finding["label"])


@pytest.mark.skipif("SLICER_SOURCE_DIR" not in os.environ, reason="SLICER_SOURCE_DIR names no Slicer checkout")
def test_the_terms_are_those_of_slicers_own_lists(panel):
    from MedVAEPanel import segments

    folder = Path(os.environ["SLICER_SOURCE_DIR"]) / "Modules" / "Loadable" / "Terminologies" / "Resources"
    if not folder.is_dir():
        pytest.skip("the checkout lacks the terminologies")
    types = json.loads((folder / "SegmentationCategoryTypeModifier-SlicerGeneralAnatomy.json").read_text("utf-8"))
    regions = json.loads((folder / "AnatomicRegionAndModifier-DICOM-Master.json").read_text("utf-8"))

    def codes(entries) -> dict:
        return {"^".join(each[key] for key in ("CodingSchemeDesignator", "CodeValue", "CodeMeaning")): each
                for each in entries}

    categories = codes(types["SegmentationCodes"]["Category"])
    for term in (segments._LESION, segments._BRAIN):
        context, category, kind, modifier, region_context, region, _ = term.split("~")
        assert context == types["SegmentationCategoryTypeContextName"] and modifier == "^^"
        assert kind in codes(categories[category]["Type"])
        assert region_context in ("", regions["AnatomicContextName"])
        assert region == "^^" or region in codes(regions["AnatomicCodes"]["AnatomicRegion"])


def test_show_3d(shown):
    view = shown.host.views["1"]
    view.camera.SetPosition(0.0, 50_000.0, 0.0)
    empty = view.image()
    shown.ui.surfaceButton.click()
    assert (view.image() != empty).any(axis=2).mean() > 0.02, "nothing in the 3D view, or far away"
    shown.ui.surfaceButton.click()
    assert not shown.result.node("segmentation").GetDisplayNode().GetVisibility3D()


def test_show_3d_where_the_layout_has_no_such_view(shown):
    import slicer

    manager, layouts = slicer.app.layoutManager(), slicer.vtkMRMLLayoutNode
    manager.setLayout(layouts.SlicerLayoutOneUpRedSliceView)
    shown.ui.surfaceButton.click()
    assert manager.layout == layouts.SlicerLayoutFourUpView
    shown.ui.surfaceButton.click()
    manager.setLayout(layouts.SlicerLayoutConventionalView)
    shown.ui.surfaceButton.click()
    assert manager.layout == layouts.SlicerLayoutConventionalView, "it has one"


def test_side_by_side_shows_the_scan_alone_on_the_left_and_goes_back(shown):
    import slicer

    manager = slicer.app.layoutManager()
    before = manager.layout
    go_to_peak(shown)
    shown.ui.compareButton.click()
    shown.pump(seconds=0.02)
    left, right = (shown.host.views[name] for name in ("MedVAEScan", "MedVAEMap"))
    assert left.composite.GetBackgroundVolumeID() == right.composite.GetBackgroundVolumeID() == shown.scan.GetID()
    assert left.composite.GetForegroundVolumeID() is None
    assert right.composite.GetForegroundVolumeID() == shown.result.node("anomaly").GetID()
    assert left.composite.GetLinkedControl() and right.composite.GetLinkedControl()
    offset = shown.host.views["Red"].node.GetSliceOffset()
    assert left.node.GetSliceOffset() == pytest.approx(right.node.GetSliceOffset()) == pytest.approx(offset)
    assert coloured(left.image()) == 0 < coloured(right.image())
    shown.ui.compareButton.click()
    assert manager.layout == before


def test_views_are_turned_to_the_planes_of_a_scan_that_lies_obliquely(shown, reply):
    """As Slicer turns them when it loads one, and the others to which another scan is brought do not know of."""
    import slicer
    from MedVAEPanel.scan_node import own_ijk_to_ras

    scan = add_scan("Oblique")
    turn = np.eye(4)
    turn[1:3, 1:3] = [[0.96, -0.28], [0.28, 0.96]]
    scan.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(turn @ own_ijk_to_ras(scan)))
    shown.tab.results.show_new(shown.widget.logic.addResult(scan, reply))
    shown.ui.compareButton.click()
    shown.pump(seconds=0.05)
    across = turn[:3, 2]
    views = {name: shown.host.views[name].node for name in ("Red", "MedVAEScan", "MedVAEMap")}
    try:
        for name, view in views.items():
            normal = slicer.util.arrayFromVTKMatrix(view.GetSliceToRAS())[:3, 2]
            assert normal @ across == pytest.approx(1.0, abs=1e-4), name
    finally:
        for name in ("Red", "Yellow", "Green", "MedVAEScan", "MedVAEMap"):
            shown.host.views[name].node.SetOrientationToDefault()


def test_side_by_side_leaves_legends_as_the_user_wants_them(shown):
    import slicer

    hidden, deleted, own = (shown.result.node(role).GetNthDisplayNode(1) for role in ("anomaly", "residual", "std"))
    hidden.SetVisibility(False)
    slicer.mrmlScene.RemoveNode(deleted)
    own.SetTitleText("mine")
    shown.ui.compareButton.click()
    legends = slicer.util.getNodesByClass("vtkMRMLColorLegendDisplayNode")
    assert {legend.GetTitleText(): legend.GetVisibility() for legend in legends} == {"-log10(p)": 0, "mine": 1}
    shown.ui.removeButton.click()
    assert not slicer.util.getNodesByClass("vtkMRMLColorLegendDisplayNode")


def test_side_by_side_shows_the_whole_head_in_views_that_are_laid_out_later(shown, monkeypatch):
    """Qt gives views their sizes only after the layout has told that it is another one."""
    import slicer

    monkeypatch.setattr(slicer.app.layoutManager(), "viewport", (400, 500))
    views = shown.host.views
    for name in ("MedVAEScan", "MedVAEMap"):
        if name in views:  # else it comes into being with such a size
            views[name].resize(640, 480)
    shown.ui.compareButton.click()
    shown.pump(seconds=0.02)
    bounds = np.zeros(6)
    shown.scan.GetRASBounds(bounds)
    low, high = bounds.reshape(3, 2).T
    for name in ("MedVAEScan", "MedVAEMap"):
        node = views[name].node
        assert node.GetDimensions()[:2] == (200, 500)
        assert (np.array(node.GetFieldOfView()[:2]) >= (high - low)[:2] - 1e-6).all(), "the head is cut"
        centre = [node.GetSliceToRAS().GetElement(row, 3) for row in range(3)]
        np.testing.assert_allclose(centre[:2], (low + high)[:2] / 2, atol=0.1)
        assert centre[2] == pytest.approx(views["Red"].node.GetSliceOffset())


def test_views_that_are_left_at_once_are_not_fitted(shown, monkeypatch):
    from MedVAEPanel import display

    fitted, button = [], shown.ui.compareButton
    monkeypatch.setattr(display, "fit_compared", lambda: fitted.append(1))
    button.click()
    button.click()
    shown.pump(seconds=0.02)
    assert not fitted
    button.click()
    shown.pump(seconds=0.02)
    assert fitted == [1]
    button.click()
    button.click()
    shown.tab.results.cleanup()
    shown.pump(seconds=0.02)
    assert fitted == [1], "the panel is gone"


def test_side_by_side_may_be_left_by_another_way_than_its_button(shown):
    """As by the toolbar, or by the plot of a cohort."""
    import slicer

    manager, button = slicer.app.layoutManager(), shown.ui.compareButton
    before, outlines = manager.layout, shown.result.node("segmentation").GetDisplayNode()
    button.click()
    assert button.checked and outlines.GetNumberOfViewNodeIDs() > 0
    manager.setLayout(before)
    assert not button.checked and outlines.GetNumberOfViewNodeIDs() == 0, "outlines stay hidden in other views"
    button.click()
    assert button.checked and manager.layout != before
    button.click()
    assert manager.layout == before


def test_another_module_finds_the_layout_that_there_was(shown):
    import slicer

    manager = slicer.app.layoutManager()
    manager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutConventionalView)
    shown.ui.compareButton.click()
    shown.widget.exit()
    assert manager.layout == slicer.vtkMRMLLayoutNode.SlicerLayoutConventionalView
    assert not shown.ui.compareButton.checked
    manager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
    shown.widget.enter()
    assert manager.layout == slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView


def test_results_lie_beneath_the_scan_with_provenance(shown):
    import slicer
    import vtk

    hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
    children = vtk.vtkIdList()
    hierarchy.GetItemChildren(hierarchy.GetItemByDataNode(shown.scan), children, False)
    names = {hierarchy.GetItemName(children.GetId(index)) for index in range(children.GetNumberOfIds())}
    assert names == {f"FLAIR {ending}" for ending in (
        "anomaly", "difference from healthy", "healthy reconstruction", "uncertainty", "anomalies", "findings")}
    for role in ("anomaly", "residual", "reconstruction", "std", "segmentation", "findings"):
        node = shown.result.node(role)
        assert len(node.GetAttribute("MedVAE.BundleSHA256")) == 64 and node.GetAttribute("MedVAE.Bundle")
        assert shown.result.scan is shown.scan
    assert shown.result.provenance["settings"]["fpr"] == 0.01 and shown.result.provenance["samples"] == 2


def test_volumes_are_float_on_the_scans_own_grid_and_the_uncertainty_is_not_flat(shown, reply):
    import slicer

    for role in ("anomaly", "residual", "reconstruction", "std"):
        node = shown.result.node(role)
        values = slicer.util.arrayFromVolume(node)
        assert values.dtype == np.float32
        np.testing.assert_array_equal(values, np.load(reply["arrays"][role]))
        assert node.GetImageData().GetDimensions() == shown.scan.GetImageData().GetDimensions()
    std = slicer.util.arrayFromVolume(shown.result.node("std"))
    assert len(np.unique(std)) > 1000


def test_a_second_result_is_numbered_shown_and_removed_alone(shown, reply):
    first = {node.GetID() for node in _nodes(shown.result)}
    between = node_ids()
    second = shown.widget.logic.addResult(shown.scan, reply)
    shown.tab.results.show_new(second)
    assert second.node("anomaly").GetName() == "FLAIR anomaly (2)"
    assert second.node("findings").GetName() == "FLAIR findings (2)"
    assert shown.ui.resultSelector.currentNode() is second.node("anomaly")
    assert not shown.result.node("segmentation").GetDisplayNode().GetVisibility(), "outlines of both results"
    shown.ui.resultSelector.setCurrentNode(shown.result.node("anomaly"))
    assert shown.host.views["Red"].composite.GetForegroundVolumeID() == shown.result.node("anomaly").GetID()
    shown.ui.removeButton.click()
    assert node_ids() == between and {node.GetID() for node in _nodes(shown.result)} == first
    shown.ui.removeButton.click()
    assert node_ids() == shown.before
    assert not shown.ui.removeButton.enabled and shown.ui.findingsTable.rowCount == 0


def test_of_several_results_the_outlines_of_one_are_seen(shown, reply):
    """Also of one that came into view by itself, as with a scene that was added."""
    others = [shown.widget.logic.addResult(shown.scan, reply) for _ in range(2)]
    shown.tab.results.show_new(others[1])
    seen = [each.node("segmentation").GetDisplayNode().GetVisibility() for each in (shown.result, *others)]
    assert seen == [0, 0, 1]


def test_what_to_be_careful_about_is_said_with_the_result(shown, reply):
    """Not of another result, and also in a scene that was loaded."""
    doubted = shown.widget.logic.addResult(shown.scan, {**reply, "warnings": ["It may be meaningless."]})
    shown.tab.results.show_new(doubted)
    assert shown.ui.summaryLabel.text.splitlines()[1:] == ["It may be meaningless."]
    shown.ui.resultSelector.setCurrentNode(shown.result.node("anomaly"))
    assert "meaningless" not in shown.ui.summaryLabel.text + shown.ui.messageLabel.text


def test_what_a_user_put_beneath_a_result_stays_when_it_goes(shown):
    import slicer

    hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
    notes = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "Notes")
    item = hierarchy.GetItemByDataNode(notes) or hierarchy.CreateItem(hierarchy.GetSceneItemID(), notes)
    hierarchy.SetItemParent(item, hierarchy.GetItemByDataNode(shown.result.node("anomaly")))
    shown.ui.removeButton.click()
    assert hierarchy.GetItemByDataNode(notes) == item
    assert hierarchy.GetItemParent(item) == hierarchy.GetItemByDataNode(shown.scan)


def test_copies_that_a_user_made_stay_when_the_result_goes(shown):
    """As Crop Volume, Mask Volume and Data → Clone make them, with the attributes of the node."""
    import slicer

    residual = shown.result.node("residual")
    copy = slicer.modules.volumes.logic().CloneVolume(slicer.mrmlScene, residual, "my copy")
    other = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "my other copy")
    other.CopyContent(residual)
    assert shown.result.node("residual") is residual
    colour = copy.GetDisplayNode().GetColorNode()
    shown.ui.removeButton.click()
    left = [slicer.mrmlScene.GetNodeByID(each) for each in node_ids() - shown.before]
    assert {node for node in left if node.IsA("vtkMRMLVolumeNode")} == {copy, other} and colour in left
    assert copy.GetDisplayNode().GetColorNode() is colour and not shown.ui.removeButton.enabled


def test_a_copy_that_is_chosen_shows_the_result_it_was_made_from(shown):
    import slicer

    rows, anomaly = shown.ui.findingsTable.rowCount, shown.result.node("anomaly")
    copy = slicer.modules.volumes.logic().CloneVolume(slicer.mrmlScene, anomaly, "my copy")
    shown.tab.parameters.result = copy
    assert shown.tab.results.result == shown.result and shown.ui.findingsTable.rowCount == rows > 0
    shown.ui.removeButton.click()
    assert shown.tab.results.result is None and shown.ui.findingsTable.rowCount == 0


def test_the_result_looked_at_stays_when_another_ones_is_removed(shown, reply):
    other = add_scan("Other")
    shown.tab.results.show_new(shown.widget.logic.addResult(other, reply))
    shown.ui.resultSelector.setCurrentNode(shown.result.node("anomaly"))
    shown.ui.removeButton.click()
    assert shown.tab.results.result == shown.result and shown.ui.findingsTable.rowCount > 0
    assert shown.result.node("segmentation").GetDisplayNode().GetVisibility()


def test_results_share_their_colours_but_for_the_one_with_a_threshold_in_it(shown, reply):
    import slicer

    def tables() -> list:
        nodes = slicer.util.getNodesByClass("vtkMRMLColorTableNode")
        return [node for node in nodes if node.GetType() == node.User]

    assert len(tables()) == 2
    second = shown.widget.logic.addResult(shown.scan, reply)
    shown.tab.results.show_new(second)
    assert len(tables()) == 3
    first, other = (each.node("anomaly").GetDisplayNode() for each in (shown.result, second))
    assert first.GetColorNode() is other.GetColorNode()
    shown.ui.removeButton.click()
    assert len(tables()) == 2 and shown.result.node("std").GetDisplayNode().GetColorNode() is first.GetColorNode()


def _nodes(result):
    from MedVAEPanel.results import nodes_of

    return nodes_of(result.run)


def test_a_result_that_the_user_takes_apart_does_no_harm(shown):
    import slicer

    slicer.mrmlScene.RemoveNode(shown.result.node("segmentation"))
    shown.ui.findingsTable.selectRow(0)
    shown.ui.surfaceButton.click()
    slicer.mrmlScene.RemoveNode(shown.result.node("residual"))
    shown.ui.mapCombo.setCurrentIndex(1)
    shown.ui.thresholdSlider.value = 1.0
    slicer.mrmlScene.RemoveNode(shown.result.node("anomaly"))
    shown.pump(seconds=0.05)
    shown.ui.mapCombo.setCurrentIndex(0)
    shown.ui.removeButton.click()
    assert node_ids() == shown.before


def test_a_result_that_cannot_be_added_leaves_nothing(panel, reply, monkeypatch):
    from MedVAEPanel import segments

    scan = add_scan()
    before = node_ids()

    def fail(*arguments):
        raise OSError("no memory")

    monkeypatch.setattr(segments, "fill", fail)
    with pytest.raises(OSError, match="no memory"):
        panel.widget.logic.addResult(scan, reply)
    assert node_ids() == before


def test_a_scan_that_was_cropped_meanwhile_gets_no_result(panel, reply):
    import slicer

    scan = add_scan()
    slicer.util.updateVolumeFromArray(scan, slicer.util.arrayFromVolume(scan)[:-5].copy())
    with pytest.raises(ValueError, match="changed while the detection ran"):
        panel.widget.logic.addResult(scan, reply)
