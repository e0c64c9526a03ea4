"""What is seen of a predicted skull: pixels of the 3D view and of the slice views."""

from __future__ import annotations

import numpy as np
import pytest

from Testing.panel.conftest import open_panel
from Testing.panel.skull_scenes import SkullTabDriver, add_plane, add_volume, make_resources


@pytest.fixture(scope="module")
def predicted(host, tmp_path_factory):
    """The tab after a prediction from two planes, for all tests here; each sets what it looks at."""
    with open_panel(host, make_resources(tmp_path_factory.mktemp("resources"))) as panel:
        skull = SkullTabDriver(panel)
        for plane in ("axial", "coronal"):
            skull.choose(plane, add_plane(plane))
        skull.result = skull.predict(samples=8)
        yield skull


@pytest.fixture
def skull(predicted):
    """From the front and the right, from above, with the colours that fit."""
    ui, view = predicted.ui, predicted.panel.host.views["1"]
    ui.fitButton.click()
    ui.surfaceSlider.value, ui.planesButton.checked = 1.0, True
    view.resetCamera()
    camera = view.renderer.GetActiveCamera()
    camera.SetPosition(180, 260, 160)
    camera.SetFocalPoint(0, 0, 0)
    camera.SetViewUp(0, 0, 1)
    view.renderer.ResetCameraClippingRange()
    return predicted


def colourful(image: np.ndarray, than: int = 80) -> np.ndarray:
    return np.ptp(image.astype(int), axis=-1) > than


def view_3d(skull) -> np.ndarray:
    skull.panel.pump(seconds=0.02)
    return skull.panel.host.views["1"].image()


def test_the_surface_is_coloured_by_its_standard_deviation(skull):
    from MedVAEPanel import colours

    fitted = view_3d(skull)
    middle = fitted[200:300, 200:300]
    assert len(np.unique(middle.reshape(-1, 3), axis=0)) > 500 and colourful(middle).mean() > 0.5
    skull.ui.lowSpin.value, skull.ui.highSpin.value = 20.0, 30.0  # all of it lies below: one colour, the lowest
    lowest = view_3d(skull)[240:260, 240:260].reshape(-1, 3)
    hue = lowest.mean(0) / lowest.mean(0).max()
    wanted = colours.sequential()[0, :3]
    np.testing.assert_allclose(hue, wanted / wanted.max(), atol=0.15)
    shown = skull.result.surface.GetDisplayNode()
    skull.ui.defaultRangeButton.click()
    assert shown.GetScalarRange() == (0.2, 1.6) and skull.ui.highSpin.value == 1.6


def test_fit_spans_what_the_surface_holds(skull):
    import slicer

    std_mm = slicer.util.arrayFromModelPointData(skull.result.surface, "std_mm")
    low, high = skull.result.surface.GetDisplayNode().GetScalarRange()
    assert ((std_mm >= low - 0.01) & (std_mm <= high + 0.01)).mean() > 0.93
    assert high - low < std_mm.max() - std_mm.min() + 0.02


def test_views_that_slicer_has_tilted_show_planes_straight(skull):
    """As it tilts all of them to a scan that lies obliquely, when it is loaded."""
    import slicer

    view = skull.panel.host.views["Red"]
    turn = slicer.util.arrayFromVTKMatrix(view.node.GetSliceToRAS())
    turn[:3, :3] = np.array([[1, 0, 0], [0, 0.96, -0.28], [0, 0.28, 0.96]]) @ turn[:3, :3]
    plane = view.composite.GetBackgroundVolumeID()

    def tilt() -> None:
        view.node.GetSliceToRAS().DeepCopy(slicer.util.vtkMatrixFromArray(turn))
        view.node.UpdateMatrices()

    tilt()
    assert view.node.GetOrientation() == "Reformat"
    skull.ui.overlaySlider.value = 0.5
    assert view.node.GetOrientation() == "Reformat", "the user has turned it"
    view.composite.SetBackgroundVolumeID(None)
    skull.ui.overlaySlider.value = 0.6
    assert view.node.GetOrientation() == "Axial" and view.composite.GetBackgroundVolumeID() == plane


def test_a_surface_without_values_gets_the_default_range(skull):
    """As another module's remeshing leaves it, or a scene whose file of it is missing."""
    import slicer
    import vtk
    from MedVAEPanel.skull_display import fitting_range
    from MedVAEPanel.skull_parameters import DEFAULT_RANGE_MM

    surface = slicer.vtkMRMLModelNode()
    assert fitting_range(surface) == DEFAULT_RANGE_MM
    surface.SetAndObservePolyData(vtk.vtkPolyData())
    assert fitting_range(surface) == DEFAULT_RANGE_MM


def test_the_legend_is_in_the_3d_view_and_speaks_mm(skull):
    legends = [node for node in _display_nodes(skull.result.surface) if node.IsA("vtkMRMLColorLegendDisplayNode")]
    assert len(legends) == 1 and "mm" in legends[0].GetTitleText()
    before = view_3d(skull)
    legends[0].SetVisibility(False)
    after = view_3d(skull)
    legends[0].SetVisibility(True)
    changed = (before != after).any(-1)
    assert changed[:, 350:].any() and not changed[:, :350].any()


def _display_nodes(node) -> list:
    return [node.GetNthDisplayNode(index) for index in range(node.GetNumberOfDisplayNodes())]


def test_planes_stand_in_place_in_the_3d_view(skull):
    """They come out of the head where the standard planes lie, and go with the button."""
    with_planes = view_3d(skull)
    skull.ui.planesButton.click()
    without = view_3d(skull)
    skull.ui.planesButton.click()
    assert (with_planes != without).any(-1).mean() > 0.03
    for plane, across in (("axial", 2), ("coronal", 1)):
        card = skull.result.node(f"{plane} plane in 3D")
        assert "placed at the standard position" in card.GetName()
        bounds = np.array(card.GetPolyData().GetBounds()).reshape(3, 2)
        assert np.abs(bounds[across]).max() < 0.01, "through the head's centre"
        assert np.ptp(bounds, axis=1)[[axis for axis in range(3) if axis != across]].min() > 90
    assert skull.result.node("sagittal plane in 3D") is None


def test_the_image_lies_where_the_skull_was_predicted(skull):
    """On the placed axial image, the head is bright where the probability is high."""
    import slicer

    image, probability = skull.result.node("axial plane"), skull.result.node("probability")
    ras_to_ijk = np.linalg.inv(_matrix(image))
    voxels = np.argwhere(slicer.util.arrayFromVolume(probability)[48] > -1)
    ras = _matrix(probability) @ np.c_[voxels[:, ::-1], np.full(len(voxels), 48), np.ones(len(voxels))].T
    columns, rows = np.round((ras_to_ijk @ ras)[:2]).astype(int)
    grey = slicer.util.arrayFromVolume(image)[0]
    there = (rows >= 0) & (rows < grey.shape[0]) & (columns >= 0) & (columns < grey.shape[1])
    bright = grey[rows[there], columns[there]] > 110
    inside = slicer.util.arrayFromVolume(probability)[48][tuple(voxels[there].T)] > 0.5
    assert 2 * (bright & inside).sum() / (bright.sum() + inside.sum()) > 0.9


def _matrix(node) -> np.ndarray:
    import slicer
    import vtk

    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


@pytest.mark.parametrize("overlay", ["probability", "std"])
def test_overlays_over_the_planes(skull, overlay):
    ui, views = skull.ui, skull.panel.host.views
    titles = [ui.overlayCombo.itemText(index) for index in range(3)]
    ui.overlayCombo.setCurrentIndex(0)
    skull.panel.pump(seconds=0.02)
    plain = views["Red"].image()
    assert plain[150:350, 150:350].mean() > 100, "the axial image in the axial view"
    ui.overlayCombo.setCurrentIndex(1 if overlay == "probability" else 2)
    skull.panel.pump(seconds=0.02)
    assert overlay.split()[0][:4] in titles[1 if overlay == "probability" else 2].lower().replace("standard", "std")
    shown = views["Red"].image()
    changed = (shown.astype(int) != plain).any(-1)
    assert 0.005 < changed.mean() < (0.8 if overlay == "probability" else 0.2)
    assert views["Red"].composite.GetForegroundVolumeID() == skull.result.node(overlay).GetID()
    assert views["Yellow"].composite.GetBackgroundVolumeID() is None, "there was no sagittal plane"
    assert views["Green"].composite.GetBackgroundVolumeID() == skull.result.node("coronal plane").GetID()


def test_of_two_results_one_is_seen(skull):
    first = skull.result
    second = skull.predict(samples=4)
    visible = [result.surface.GetDisplayNode().GetVisibility() for result in (first, second)]
    assert visible == [0, 1]
    skull.ui.resultSelector.setCurrentNode(first.surface)
    visible = [result.surface.GetDisplayNode().GetVisibility() for result in (first, second)]
    assert visible == [1, 0] and skull.panel.host.views["Red"].composite.GetForegroundVolumeID() in {
        first.node("std").GetID(), first.node("probability").GetID()}


@pytest.mark.parametrize("entered", [True, False])
def test_a_result_that_comes_while_another_module_is_in_use_leaves_the_layout(skull, monkeypatch, entered):
    import slicer

    manager, layouts = slicer.app.layoutManager(), slicer.vtkMRMLLayoutNode
    monkeypatch.setattr(skull.panel.widget, "entered", entered)
    before = manager.layout
    manager.setLayout(layouts.SlicerLayoutOneUpRedSliceView)
    skull.tab.results.show_new(skull.result)
    assert manager.layout == (layouts.SlicerLayoutFourUpView if entered else layouts.SlicerLayoutOneUpRedSliceView)
    manager.setLayout(before)


def test_what_other_modules_do_to_the_views_is_looked_at_later(skull, monkeypatch):
    volume, ui, told = add_volume(), skull.ui, []
    skull.choose("sagittal", volume)
    skull.choose_view("sagittal", "Yellow")
    monkeypatch.setattr(skull.tab.planes[1], "update", lambda: told.append(1))
    view = skull.panel.host.views["Yellow"].node
    skull.panel.widget.exit()
    for offset in (10.0, 500.0):
        view.SetSliceOffset(offset)
        skull.panel.pump(seconds=0.2)
    assert not told
    skull.panel.widget.enter()
    assert told and "scroll to the plane" in ui.planesLabel.text
    told.clear()
    view.SetSliceOffset(10.0)
    assert skull.panel.pump(lambda: told, 5) and "scroll to the plane" not in ui.planesLabel.text
    skull.choose("sagittal", None)
    skull.choose_view("sagittal", "")
