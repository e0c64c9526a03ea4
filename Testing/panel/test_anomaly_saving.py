"""Save, and read back where nothing is known of it: a fresh application in a process of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from .detections import add_scan
from .fresh_application import reopened

LOOK = """
tab = widget.tabs[0]
ui, parameters = tab.ui, tab.parameters
result = tab.results.result
view = host.views["Red"]
segmentation = result.node("segmentation")
inner = segmentation.GetSegmentation()
segments = [inner.GetNthSegment(index) for index in range(inner.GetNumberOfSegments())]
colour = result.node("anomaly").GetDisplayNode().GetColorNode()
rgba = [0.0] * 4
colour.GetColor(200, rgba)
told = dict(
    scan=parameters.scan.GetName(), result=parameters.result.GetName(), samples=ui.samplesSpin.value,
    percent=ui.fprSpin.value, modality=ui.modalityCombo.currentText, map=ui.mapCombo.currentText,
    opacity=ui.opacitySlider.value, threshold=ui.thresholdSlider.value, rows=ui.findingsTable.rowCount,
    first=[ui.findingsTable.item(0, c).text() for c in range(ui.findingsTable.columnCount)],
    provenance=result.provenance, under=result.scan is parameters.scan, names=[s.GetName() for s in segments],
    terms=segments[0].GetTerminology(), colour=rgba, foreground=view.composite.GetForegroundVolumeID(),
    wanted=result.node("anomaly").GetID(), transform=result.node("anomaly").GetParentTransformNode().GetName(),
)
ui.findingsTable.selectRow(0)
told["offset"] = view.node.GetSliceOffset()
image = view.image()
arrays = {role: slicer.util.arrayFromVolume(result.node(role)) for role in ("anomaly", "std")}
np.savez(sys.argv[3], image=image, **arrays)
ui.thresholdSlider.value = ui.thresholdSlider.maximum
told["acts"] = bool((view.image() != image).any())
ui.removeButton.click()
names = [node.GetName() or "" for node in slicer.util.getNodesByClass("vtkMRMLDisplayableNode")]
told["left"] = [name for name in names if "FLAIR" in name]
"""


LOOK_BESIDE = """
tab = widget.tabs[0]
legend, view = tab.results.result.node("anomaly").GetNthDisplayNode(1), host.views["MedVAEMap"]
with_legend = view.image()
legend.SetVisibility(False)
np.savez(sys.argv[3], changed=(view.image() != with_legend).any(axis=2))
told = dict(pressed=tab.ui.compareButton.checked, alone=host.views["MedVAEScan"].composite.GetForegroundVolumeID(),
            views=sorted(slicer.app.layoutManager().sliceViewNames()))
"""


@pytest.fixture
def saved(panel, reply, tmp_path):
    """A scene with a scan under a transform, a result, and choices that are not the defaults; saved as told."""
    import slicer

    scan = add_scan()
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "Registration")
    shift = np.eye(4)
    shift[:3, 3] = (5.0, 0.0, 12.0)
    transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(shift))
    scan.SetAndObserveTransformNodeID(transform.GetID())
    panel.ui.inputSelector.setCurrentNode(scan)
    result = panel.widget.logic.addResult(scan, reply, np.array(_unshifted(scan)))
    panel.tab.results.show_new(result)
    panel.ui.samplesSpin.value, panel.ui.fprSpin.value, panel.ui.opacitySlider.value = 7, 2.5, 0.65
    panel.ui.modalityCombo.setCurrentIndex(1)
    panel.ui.thresholdSlider.value = 2.5
    panel.ui.findingsTable.selectRow(0)
    panel.pump(seconds=0.05)
    table = panel.ui.findingsTable
    panel.expected = {
        "image": panel.image(), "offset": panel.host.views["Red"].node.GetSliceOffset(), "rows": table.rowCount,
        "first": [table.item(0, column).text() for column in range(table.columnCount)],
    }

    def save(name: str) -> Path:
        file = tmp_path / name
        if not file.suffix:
            file.mkdir()
        assert slicer.util.saveScene(str(file)), "the scene was not saved"
        if file.is_dir():
            return next(file.glob("*.mrml"))
        assert file.is_file()
        return file

    panel.save = save
    return panel


def _unshifted(scan):
    """Where the sample lies without the transform: there the positions in the reply were measured."""
    from MedVAEPanel.scan_node import own_ijk_to_ras

    return own_ijk_to_ras(scan)


@pytest.mark.parametrize("name,order", [("scene.mrb", "scene first"), ("scene.mrb", "panel first"),
                                        ("folder", "scene first")])
def test_everything_is_back_in_a_fresh_application(saved, reply, tmp_path, name, order):
    told = reopened(saved.save(name), order, tmp_path / "arrays.npz", LOOK)
    arrays = np.load(tmp_path / "arrays.npz")
    assert (told["scan"], told["result"], told["under"]) == ("FLAIR", "FLAIR anomaly", True)
    assert (told["samples"], told["percent"], told["modality"], told["map"]) == (7, 2.5, "FLAIR", "Anomaly score")
    assert told["opacity"] == pytest.approx(0.65) and told["threshold"] == pytest.approx(2.5)
    assert told["foreground"] == told["wanted"] and told["transform"] == "Registration"
    assert (told["rows"], told["first"]) == (saved.expected["rows"], saved.expected["first"])
    assert told["provenance"]["bundle_sha256"] == reply["provenance"]["bundle_sha256"]
    assert told["names"][0].startswith("1 ") and "Brain" in told["names"] and "49755003" in told["terms"]
    from MedVAEPanel import colours

    np.testing.assert_allclose(told["colour"], colours.sequential()[200], atol=0.01)
    for role in ("anomaly", "std"):
        np.testing.assert_array_equal(arrays[role], np.load(reply["arrays"][role]))
    assert told["offset"] == pytest.approx(saved.expected["offset"], abs=0.01)
    different = (np.abs(arrays["image"].astype(int) - saved.expected["image"].astype(int)).max(axis=2) > 12).mean()
    assert different < 0.01, f"{100 * different:.1f} % of the red view's pixels look different"
    assert told["acts"], "the threshold slider does nothing any more"
    assert told["left"] == ["FLAIR"], "Remove last result does not know the result any more"


def test_a_scene_saved_side_by_side_comes_back_so(saved, tmp_path):
    """With a legend in a view that comes into being only when the scene has been loaded."""
    saved.ui.compareButton.click()
    told = reopened(saved.save("scene.mrb"), "panel first", tmp_path / "arrays.npz", LOOK_BESIDE)
    saved.ui.compareButton.click()
    assert told["pressed"] and told["alone"] is None and "MedVAEMap" in told["views"]
    assert np.load(tmp_path / "arrays.npz")["changed"].sum() > 300, "no legend"


def test_a_scene_that_is_loaded_twice_has_two_results(saved):
    """Each of its own scan, and taken away alone."""
    import slicer
    from MedVAEPanel.results import nodes_of

    file = saved.save("scene.mrb")
    first = saved.tab.results.result
    nodes, scan = nodes_of(first.run), first.scan
    slicer.util.loadScene(str(file))
    second = saved.tab.results.result
    assert second != first and second.scan is saved.tab.parameters.scan is not scan and first.scan is scan
    assert saved.tab.results.Result.all() == [first, second]
    assert set(nodes_of(first.run)) == set(nodes) and len(nodes_of(second.run)) >= len(nodes)
    saved.ui.removeButton.click()
    assert saved.tab.results.Result.all() == [first] and not nodes_of(second.run)
    assert set(nodes_of(first.run)) == set(nodes) and second.node("anomaly") is None


@pytest.mark.parametrize("entered", [True, False])
def test_a_loaded_scene_keeps_its_views(saved, entered):
    """As they were saved, whatever the tab has chosen and whichever module is in use; what is chosen next is shown."""
    import slicer

    other, red, ui = add_scan("T1"), saved.host.views["Red"].composite, saved.ui
    for view in ("Red", "Yellow", "Green"):
        saved.host.views[view].composite.SetBackgroundVolumeID(other.GetID())
        saved.host.views[view].composite.SetForegroundVolumeID(None)
    saved.tab.results.result.node("segmentation").GetDisplayNode().SetVisibility(False)
    if not entered:
        saved.widget.exit()
    file = saved.save("scene.mrb")
    slicer.mrmlScene.Clear(0)
    slicer.util.loadScene(str(file))
    saved.pump(seconds=0.05)
    result = saved.tab.results.result
    assert ui.findingsTable.rowCount == saved.expected["rows"] and ui.thresholdSlider.value == pytest.approx(2.5)
    assert slicer.mrmlScene.GetNodeByID(red.GetBackgroundVolumeID()).GetName() == "T1"
    assert red.GetForegroundVolumeID() is None
    assert not result.node("segmentation").GetDisplayNode().GetVisibility()
    slicer.util.loadScene(str(file))  # added to what is there
    saved.pump(seconds=0.05)
    assert red.GetForegroundVolumeID() is None
    ui.mapCombo.setCurrentIndex(3)
    assert red.GetForegroundVolumeID() == saved.tab.results.volume.GetID()
