"""A scene with a predicted skull, saved and read back where nothing is known of it: a fresh application."""

from __future__ import annotations

import numpy as np
import pytest

from .conftest import open_panel
from .fresh_application import reopened
from .skull_scenes import SkullTabDriver, add_plane, add_volume, make_resources

LOOK = """
tab = next(tab for tab in widget.tabs if tab.name == "skull")
ui, result = tab.ui, tab.results.result
surface, legends = result.surface, slicer.util.getNodesByClass("vtkMRMLColorLegendDisplayNode")
colour, rgba = surface.GetDisplayNode().GetColorNode(), [0.0] * 4
colour.GetColor(200, rgba)
told = dict(
    planes=[ui.axialSelector.currentNode().GetName(), ui.sagittalSelector.currentNode().GetName()],
    coronal=ui.coronalSelector.currentNode() is None, view=ui.sagittalViewCombo.currentText,
    pixel=ui.axialSpacingSpin.value, weeks=ui.gaSpin.value, samples=ui.samplesSpin.value, words=ui.planesLabel.text,
    summary=ui.summaryLabel.text, rows=[[ui.biometryTable.item(r, c).text() for c in range(5)]
                                        for r in range(ui.biometryTable.rowCount)],
    range=list(surface.GetDisplayNode().GetScalarRange()), spins=[ui.lowSpin.value, ui.highSpin.value], colour=rgba,
    opacity=surface.GetDisplayNode().GetOpacity(), legends=len(legends), provenance=result.provenance,
    source=surface.GetNodeReference("MedVAE.Plane.axial") is ui.axialSelector.currentNode(),
    bounds=list(surface.GetPolyData().GetBounds()), foreground=host.views["Red"].composite.GetForegroundVolumeID(),
    overlay=result.node("std").GetID(),
)
view = host.views["1"]
view.resetCamera()
camera = view.renderer.GetActiveCamera()
camera.SetPosition(180, 260, 160)
camera.SetFocalPoint(0, 0, 0)
camera.SetViewUp(0, 0, 1)
view.renderer.ResetCameraClippingRange()
shown = view.image()
told["colourful"] = float((np.ptp(shown[150:350, 150:350].astype(int), axis=-1) > 80).mean())
ui.planesButton.click()
told["acts"] = float((view.image() != shown).any(-1).mean())
np.save(sys.argv[3], slicer.util.arrayFromModelPointData(surface, "std_mm"))
ui.removeButton.click()
told["left"] = [node.GetName() for node in slicer.util.getNodesByClass("vtkMRMLDisplayableNode") if "skull" in
                (node.GetName() or "")]
"""


@pytest.fixture(scope="module")
def saved(host, tmp_path_factory):
    """The scene file and what was seen before it was saved."""
    import slicer

    folder = tmp_path_factory.mktemp("scene")
    with open_panel(host, make_resources(tmp_path_factory.mktemp("resources"))) as panel:
        skull = SkullTabDriver(panel)
        ui = skull.ui
        skull.choose("axial", add_plane("axial", "Frame", pixel_mm=None))
        ui.axialSpacingSpin.value = 0.5
        panel.host.views["Yellow"].node.SetSliceOffset(0.0)
        skull.choose("sagittal", add_volume())
        skull.choose_view("sagittal", "Yellow")
        ui.gaSpin.value = 30.5
        result = skull.predict(samples=7)
        ui.lowSpin.value, ui.highSpin.value, ui.surfaceSlider.value = 0.5, 4.0, 0.85
        panel.pump(seconds=0.05)
        table = ui.biometryTable
        seen = {"rows": [[table.item(row, column).text() for column in range(5)] for row in range(table.rowCount)],
                "summary": ui.summaryLabel.text, "provenance": result.provenance,
                "std_mm": slicer.util.arrayFromModelPointData(result.surface, "std_mm").copy(),
                "bounds": result.surface.GetPolyData().GetBounds()}
        # Of a view that a fresh application's layout does not have, as scenes saved in a comparing layout hold them.
        other = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceNode", "Compare")
        other.SetLayoutName("Compare")
        file = folder / "scene.mrb"
        assert slicer.util.saveScene(str(file)) and file.is_file()
    return file, seen


@pytest.mark.parametrize("order", ["scene first", "panel first"])
def test_everything_is_back_in_a_fresh_application(saved, order, tmp_path):
    file, seen = saved
    told = reopened(file, order, tmp_path / "std.npy", LOOK)
    std_mm = np.load(tmp_path / "std.npy")
    assert told["planes"] == ["Frame", "Volume"] and told["coronal"] and told["view"] == "Slice in Yellow"
    assert (told["pixel"], told["weeks"], told["samples"]) == (0.5, 30.5, 7) and "coronal" in told["words"]
    assert told["rows"] == seen["rows"] and told["summary"] == seen["summary"]
    assert told["provenance"] == seen["provenance"] and told["source"]
    assert told["range"] == pytest.approx([0.5, 4.0]) and told["spins"] == pytest.approx([0.5, 4.0])
    assert told["opacity"] == pytest.approx(0.85) and told["legends"] == 1
    from MedVAEPanel import colours

    np.testing.assert_allclose(told["colour"], colours.sequential()[200], atol=0.01)
    np.testing.assert_allclose(std_mm, seen["std_mm"], atol=1e-5)
    np.testing.assert_allclose(told["bounds"], seen["bounds"], atol=0.01)
    assert told["foreground"] == told["overlay"] and told["colourful"] > 0.1 and told["acts"] > 0.01
    assert told["left"] == [], "Remove last result does not know the result any more"


def test_a_scene_that_is_loaded_twice_has_two_results_with_a_folder_each(host, saved, tmp_path):
    import slicer
    from MedVAEPanel.results import _folders

    with open_panel(host, tmp_path) as panel:
        skull = SkullTabDriver(panel)
        for _ in range(2):
            slicer.util.loadScene(str(saved[0]))
        results = skull.tab.results.Result.all()
        assert len(results) == 2 and sorted(_folders().values()) == [each.run for each in results]
        for left in (results[:1], []):
            skull.ui.removeButton.click()
            assert skull.tab.results.Result.all() == left and list(_folders().values()) == [each.run for each in left]
            assert all(each.surface is not None for each in left)


@pytest.mark.parametrize("entered", [True, False])
def test_a_loaded_scene_keeps_its_views(host, saved, tmp_path, entered):
    """As they were saved, whatever the tab has chosen and whichever module is in use; what is chosen next is shown."""
    import slicer

    with open_panel(host, tmp_path) as panel:
        skull, ui = SkullTabDriver(panel), SkullTabDriver(panel).ui
        slicer.util.loadScene(str(saved[0]))
        panel.pump(seconds=0.05)
        red = host.views["Red"].composite
        red.SetBackgroundVolumeID(ui.sagittalSelector.currentNode().GetID())
        red.SetForegroundVolumeID(None)
        skull.tab.results.result.surface.GetDisplayNode().SetVisibility(False)
        if not entered:
            panel.widget.exit()
        assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
        slicer.mrmlScene.Clear(0)
        slicer.util.loadScene(str(tmp_path / "scene.mrb"))
        panel.pump(seconds=0.05)
        result = skull.tab.results.result
        assert not result.surface.GetDisplayNode().GetVisibility() and ui.biometryTable.rowCount > 0
        assert slicer.mrmlScene.GetNodeByID(red.GetBackgroundVolumeID()).GetName() == "Volume"
        assert red.GetForegroundVolumeID() is None
        ui.overlayCombo.setCurrentIndex(1)
        assert red.GetForegroundVolumeID() == result.node("probability").GetID()
