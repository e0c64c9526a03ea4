"""The tab Fetal skull driven as a person does, with real inference behind it and the real MRML scene under it."""

from __future__ import annotations

import json
import os
import signal

import numpy as np
import pytest
import torch

from Testing.panel.detections import alive, node_ids
from Testing.panel.skull_scenes import (
    AXES_MM,
    SkullTabDriver,
    add_plane,
    add_volume,
    make_resources,
    picture,
)


@pytest.fixture(scope="module")
def resources(tmp_path_factory):
    return make_resources(tmp_path_factory.mktemp("resources"))


@pytest.fixture
def skull(opened):
    """The tab, in an empty scene."""
    import slicer

    slicer.mrmlScene.Clear(0)
    yield SkullTabDriver(opened)
    slicer.mrmlScene.Clear(0)


def folders() -> list[str]:
    import slicer
    import vtk

    hierarchy, items = slicer.mrmlScene.GetSubjectHierarchyNode(), vtk.vtkIdList()
    hierarchy.GetItemChildren(hierarchy.GetSceneItemID(), items, True)
    names = [items.GetId(index) for index in range(items.GetNumberOfIds())]
    return [hierarchy.GetItemName(item) for item in names if hierarchy.IsItemLevel(item, "Folder")]


def test_one_two_three_planes(skull):
    import slicer

    panel, ui = skull.panel, skull.ui
    assert not ui.predictButton.enabled and "Choose one plane" in ui.predictButton.toolTip
    nodes = {}
    for count, plane in enumerate(("axial", "sagittal", "coronal"), 1):
        nodes[plane] = add_plane(plane)
        skull.choose(plane, nodes[plane])
        result = skull.predict()
        assert result.planes_used == list(nodes)
        words = ui.planesLabel.text
        assert "300 × 280 pixels of 0.5 mm" in words and ("Missing" in words) == (count < 3)
        missing = [each for each in ("sagittal", "coronal") if each not in nodes]
        assert all(each in ui.summaryLabel.text for each in [*nodes, *missing, "placed at the standard position"])
        assert ui.summaryLabel.text.count("Missing") == bool(missing)
    surface = result.surface
    assert surface.GetName() == "Doe axial skull (3)" and folders() == [f"Doe axial skull{n}" for n in
                                                                       ("", " (2)", " (3)")]
    assert surface.GetPolyData().GetNumberOfCells() > 1000
    extent = np.array(surface.GetPolyData().GetBounds()).reshape(3, 2)
    np.testing.assert_allclose(extent[1, 1] - extent[1, 0], 2 * AXES_MM["axial"][0], rtol=0.12)
    probability = result.node("probability")
    middle = slicer.util.arrayFromVolume(probability)[48, 48, 48]
    assert middle > 0.9 and probability.GetSpacing()[0] == pytest.approx(1.3 * 2 * AXES_MM["axial"][0] / 96, rel=0.02)
    assert surface.GetNodeReference("MedVAE.Plane.coronal") is nodes["coronal"]
    provenance = json.loads(surface.GetAttribute("MedVAE.Provenance"))
    assert provenance["bundle"] == "fetal-skull" and provenance["outline_bundle"] == "head-outline"
    assert surface.GetAttribute("MedVAE.Samples") == "6" and surface.GetAttribute("MedVAE.BundleSHA256")
    assert panel.widget.tabs[0].results.result is None and not panel.ui.removeButton.enabled


def test_what_the_panel_repeats_of_the_library_is_so(skull):
    """The panel imports none of it, as it may be installed later."""
    from MedVAEPanel import skull_tab

    from MedVAELib.bundle import SKULL_SAMPLES
    from MedVAELib.growth_charts import FIRST_WEEK, LAST_WEEK

    assert skull.tab.parameters.samples == SKULL_SAMPLES
    assert skull_tab._WEEKS == (FIRST_WEEK, LAST_WEEK)


def test_measures_with_spread_and_percentile(skull):
    skull.choose("axial", add_plane("axial"))
    skull.predict(samples=8)
    table = skull.ui.biometryTable

    def column(number):
        return [table.item(row, number).text() for row in range(table.rowCount)]

    assert table.rowCount == 5 and set(column(4)) == {"–"}
    skull.ui.gaSpin.value = 27.5
    skull.predict(samples=8)
    assert "Biparietal diameter" in column(0)[0] and column(3) == ["mm", "mm", "mm", "%", "ml"]
    assert float(column(1)[1]) == pytest.approx(104, rel=0.12) and float(column(2)[2]) > 0
    assert all(text != "–" for text in column(4)[:3]) and column(4)[3:] == ["–", "–"]
    skull.ui.gaSpin.value = 5.0
    assert "growth charts cover" in skull.ui.predictButton.toolTip and not skull.ui.predictButton.enabled


def test_the_same_result_as_the_library(skull, resources):
    import slicer

    from MedVAELib.skull.planes import PlaneImage
    from MedVAELib.skull.predict import SkullPredictor, predict_skull

    skull.choose("axial", add_plane("axial"))
    skull.choose("coronal", add_plane("coronal"))
    result = skull.predict()
    folder = resources / "bundles"
    predictor = SkullPredictor.load(folder / "fetal-skull", "cpu", folder / "head-outline")
    planes = {plane: PlaneImage.from_array(picture(plane), 0.5) for plane in ("axial", "coronal")}
    threads = torch.get_num_threads()
    expected = predict_skull(planes, predictor=predictor, samples=6)
    assert threads == torch.get_num_threads()
    ours = slicer.util.arrayFromVolume(result.node("std"))
    np.testing.assert_allclose(ours, np.asarray(_array(expected.std)), atol=1e-5)
    std_mm = slicer.util.arrayFromModelPointData(result.surface, "std_mm")
    assert std_mm.max() > 0.01 and len(std_mm) == expected.surface.GetNumberOfPoints()


def _array(image):
    import SimpleITK as sitk

    return sitk.GetArrayFromImage(image)


def test_without_a_pixel_size_nothing_is_guessed(skull):
    ui = skull.ui
    bare, stated = add_plane("axial", "Frame", pixel_mm=None), add_plane("axial", "Stated")
    skull.choose("axial", bare)
    skull.panel.pump(lambda: skull.tab.model.refusal() == "" and skull.panel.widget.offers.bundles, 60)
    assert not ui.predictButton.enabled and "enter their size in mm" in ui.predictButton.toolTip
    assert "enter their size in mm" in ui.planesLabel.text
    assert ui.axialSpacingSpin.enabled and ui.axialSpacingSpin.value == 0
    ui.axialSpacingSpin.value = 0.5
    skull.ready()
    assert "of 0.5 mm" in ui.planesLabel.text
    assert "given" in json.dumps(skull.predict().provenance["input"])
    skull.choose("axial", stated)
    assert ui.axialSpacingSpin.value == 0.5 and not ui.axialSpacingSpin.enabled
    skull.choose("axial", add_plane("axial", "Another frame", pixel_mm=None))
    assert ui.axialSpacingSpin.value == 0 and not ui.predictButton.enabled, "a size was taken for another image"
    skull.choose("sagittal", bare)
    assert ui.sagittalSpacingSpin.value == 0.5, "the size belongs to the image"
    skull.choose("axial", None)
    skull.ready()
    ui.sagittalSpacingSpin.value = 0.0
    assert not ui.predictButton.enabled


def test_a_picture_file_states_no_size_even_if_it_pretends(skull, tmp_path):
    import slicer

    node = add_plane("axial", "Screenshot", pixel_mm=0.2646)
    storage = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLVolumeArchetypeStorageNode")
    storage.SetFileName(str(tmp_path / "screenshot.JPG"))
    node.SetAndObserveStorageNodeID(storage.GetID())
    skull.choose("axial", node)
    assert skull.ui.axialSpacingSpin.enabled and not skull.ui.predictButton.enabled
    storage.SetFileName(str(tmp_path / "saved.nrrd"))  # as saving the scene does
    skull.choose("axial", None)
    skull.choose("axial", node)
    assert skull.ui.axialSpacingSpin.enabled and not skull.ui.predictButton.enabled


def test_a_picture_file_that_is_not_to_be_written_over_is_one_still(panel, tmp_path):
    """Its file's name is what tells that it states no size."""
    import slicer
    from MedVAEPanel import plane_node

    node = add_plane("axial", "Screenshot", pixel_mm=0.2646)
    assert plane_node.states_size(node)
    storage = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLVolumeArchetypeStorageNode")
    storage.SetFileName(str(tmp_path / "screenshot.JPG"))
    node.SetAndObserveStorageNodeID(storage.GetID())
    plane_node.forget_file(node)
    assert node.GetStorageNode() is None and not plane_node.states_size(node)


def test_the_sample_planes_by_one_click(skull, tmp_path, monkeypatch):
    """On stand-ins in the place of the files that come with MedVAE."""
    import slicer
    from MedVAEPanel import library
    from PIL import Image

    folder = tmp_path / "sample" / "skull"
    folder.mkdir(parents=True)
    for plane in AXES_MM:
        Image.fromarray(picture(plane)).save(folder / f"{plane}.png")
    (folder / "truth.json").write_text(json.dumps({"spacing_mm": 0.5, "ga_weeks": 29.0}))
    monkeypatch.setattr(library, "resource", lambda name: tmp_path / name)
    skull.ui.sampleButton.click()
    nodes = [getattr(skull.ui, f"{plane}Selector").currentNode() for plane in AXES_MM]
    assert len(set(nodes)) == 3 and skull.ui.gaSpin.value == 29.0
    assert [getattr(skull.ui, f"{plane}SpacingSpin").value for plane in AXES_MM] == [0.5] * 3
    count = slicer.mrmlScene.GetNumberOfNodes()
    skull.ui.sampleButton.click()
    assert slicer.mrmlScene.GetNumberOfNodes() == count, "loaded once"
    result = skull.predict()
    assert result.planes_used == list(AXES_MM) and "%" not in skull.ui.biometryTable.item(0, 4).text()
    assert skull.ui.biometryTable.item(0, 4).text() != "–"


def test_the_same_image_twice(skull):
    node = add_plane("axial")
    skull.choose("axial", node)
    skull.ready()
    skull.choose("coronal", node)
    assert not skull.ui.predictButton.enabled
    assert "same image" in skull.ui.predictButton.toolTip and "same image" in skull.ui.planesLabel.text
    before = node_ids()
    skull.choose("coronal", add_plane("axial", "A copy"))
    text = skull.click_and_wait()
    assert "axial and as coronal" in text and "#d9534f" in skull.ui.messageLabel.styleSheet
    assert len(node_ids() - before) == 2, "only the copy and its display are new"


def test_images_that_cannot_be_planes(skull):
    ui = skull.ui
    cases = [
        (add_volume(), "this is a volume: choose the slice view"),
        (add_plane("axial", "Small", values=np.zeros((20, 40), np.uint8)), "only 40 × 20 pixels"),
        (add_plane("axial", "Two", values=np.zeros((60, 60, 2), np.uint8)), "several values per pixel"),
    ]
    for node, reason in cases:
        skull.choose("sagittal", node)
        assert reason in ui.planesLabel.text and reason in ui.predictButton.toolTip and not ui.predictButton.enabled
    import slicer

    skull.choose("sagittal", slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Empty"))
    assert "no image" in ui.planesLabel.text
    before = node_ids()
    dark = 80 + picture("axial") // 32  # darker, it would be brightened
    for name, values in (("Blank", np.full((200, 200), 7, np.uint8)), ("Dark", dark)):
        node = add_plane("axial", name, values=values)
        before |= {node.GetID(), node.GetDisplayNode().GetID()}
        skull.choose("sagittal", node)
        text = skull.click_and_wait()
        assert "blank" in text or "no outline of a head" in text
    assert node_ids() == before


def test_a_colour_frame_and_a_huge_one(skull):
    frame = np.repeat(picture("axial")[..., None], 3, -1)
    skull.choose("axial", add_plane("axial", "Colour", values=frame))
    small = skull.predict(samples=4)
    huge = np.kron(picture("axial", (400, 400), 0.5), np.ones((10, 10), np.uint8))
    skull.choose("axial", add_plane("axial", "Huge", pixel_mm=0.05, values=huge))
    large = skull.predict(samples=4)
    assert [m["value"] for m in small.measures][:3] == pytest.approx([m["value"] for m in large.measures][:3], rel=0.02)


def test_a_loop_of_frames_without_a_pixel_size(skull):
    """Slicer takes 1 mm for every edge of its voxels; a volume of 1 mm that lies obliquely states it."""
    loop, ui = add_volume((1.0, 1.0, 1.0)), skull.ui
    skull.panel.host.views["Red"].node.SetSliceOffset(0.0)
    skull.choose("axial", loop)
    skull.choose_view("axial", "Red")
    assert "enter their size in mm" in ui.planesLabel.text and ui.axialSpacingSpin.enabled
    ui.axialSpacingSpin.value = 0.25
    assert "of 0.25 mm" in ui.planesLabel.text and skull.tab.planes[0].source.spacing_mm == (0.25, 0.25)
    turned = add_volume((1.0, 1.0, 1.0))
    turned.SetIJKToRASDirections(0.8, -0.6, 0, 0.6, 0.8, 0, 0, 0, 1)
    skull.choose("axial", turned)
    skull.show_in("Red", turned)
    assert not ui.axialSpacingSpin.enabled and skull.tab.planes[0].source.spacing_mm == (1.0, 1.0)
    loaded = add_volume((1.0, 1.0, 1.0))
    loaded.SetIJKToRASDirections(-1, 0, 0, 0, -1, 0, 0, 0, 1)  # as a file in LPS without a geometry
    loaded.SetOrigin(42, 52, -40)
    skull.choose("axial", loaded)
    skull.show_in("Red", loaded)
    assert skull.panel.pump(lambda: "show it there" not in ui.planesLabel.text, 5)
    assert ui.axialSpacingSpin.enabled and "enter their size in mm" in ui.planesLabel.text


@pytest.mark.parametrize("turned", [False, True])
def test_the_slice_that_a_view_shows(skull, turned):
    """Rows and columns in mm whatever the voxels' sizes and however the view is turned."""
    import slicer

    volume, view = add_volume(), skull.panel.host.views["Red"].node
    view.SetOrientation("Axial")
    skull.choose("axial", volume)
    skull.choose_view("axial", "Red")
    view.SetSliceOffset(400.0)
    assert skull.panel.pump(lambda: "shows no slice" in skull.ui.predictButton.toolTip, 10)
    view.SetSliceOffset(0.0)
    if turned:
        turn = slicer.util.arrayFromVTKMatrix(view.GetSliceToRAS())
        turn[:3, :2] = turn[:3, :2] @ np.array([[0.8, -0.6], [0.6, 0.8]])
        view.GetSliceToRAS().DeepCopy(slicer.util.vtkMatrixFromArray(turn))
        view.UpdateMatrices()
    skull.ready()
    source = skull.tab.planes[0].source
    assert source.spacing_mm == (1.0, 1.0) and not skull.ui.axialSpacingSpin.enabled
    values = source._values()
    rows, columns = ((values > 100).any(axis).sum() for axis in (1, 0))
    half = (np.hypot(0.8 * 52, 0.6 * 42), np.hypot(0.8 * 42, 0.6 * 52)) if turned else (52, 42)
    assert (rows, columns) == pytest.approx((2 * half[0], 2 * half[1]), abs=3)
    try:
        result = skull.predict()
    finally:
        view.SetOrientation("Axial")
    ofd = next(m for m in result.measures if "occipitofrontal" in m["title"])
    assert ofd["value"] == pytest.approx(104, rel=0.12)
    assert result.provenance["settings"]["slices of views"] == {"axial": "Red"}


def test_a_second_click_predicts_from_the_same_slice(skull):
    """What is predicted is shown in other views than those whose slices are chosen."""
    view = skull.panel.host.views["Red"]
    view.node.SetOrientation("Axial")
    volume = add_volume()
    view.node.SetSliceOffset(20.0)
    skull.choose("axial", volume)
    skull.choose_view("axial", "Red")
    first, second = skull.predict(), skull.predict()
    assert view.node.GetSliceOffset() == 20.0 and view.composite.GetBackgroundVolumeID() == volume.GetID()
    assert [each["value"] for each in first.measures] == [each["value"] for each in second.measures]
    green = skull.panel.host.views["Green"].composite
    assert green.GetForegroundVolumeID() == second.node(skull.tab.parameters.overlay.value).GetID()


def test_a_view_that_shows_another_image_is_not_cut(skull):
    """As when another scan was loaded since: what the user sees there is no slice of the image that was chosen."""
    volume, other, ui = add_volume(), add_volume(name="Other"), skull.ui
    skull.panel.host.views["Red"].node.SetSliceOffset(0.0)
    skull.choose("axial", volume)
    skull.choose_view("axial", "Red")
    skull.ready()
    skull.show_in("Red", other)
    ui.predictButton.click()  # at once, before anybody was told
    assert skull.tab.running is None and "Red does not show this image" in ui.planesLabel.text
    skull.show_in("Red", volume)
    skull.ready()
    skull.show_in("Red", other)
    assert skull.panel.pump(lambda: not ui.predictButton.enabled, 5)
    skull.choose("axial", other)
    skull.ready()


def test_cancel_takes_effect_and_the_next_click_works(skull):
    skull.choose("axial", add_plane("axial"))
    skull.ready()
    before = node_ids()
    skull.ui.samplesSpin.value = 1024
    skull.ui.predictButton.click()
    assert skull.ui.predictButton.text == "Cancel"
    assert skull.panel.pump(lambda: skull.ui.progressBar.value > 15 or skull.tab.running is None, 120)
    assert skull.tab.running is not None, "it was over before it could be cancelled"
    skull.ui.predictButton.click()
    assert skull.panel.pump(lambda: skull.tab.running is None, 5), "still running five seconds after Cancel"
    assert "Cancelled" in skull.ui.messageLabel.text and node_ids() == before
    skull.predict()


def test_a_killed_worker_is_reported_and_replaced(skull):
    skull.choose("axial", add_plane("axial"))
    skull.ready()
    skull.ui.samplesSpin.value = 1024
    skull.ui.predictButton.click()
    skull.panel.pump(lambda: skull.ui.progressBar.value > 0, 60)
    pid = skull.panel.widget.worker.pid
    os.kill(pid, signal.SIGKILL)
    assert skull.panel.pump(lambda: skull.tab.running is None, 20) and not alive(pid)
    assert "worker has ended" in skull.ui.messageLabel.text
    skull.predict()


def test_an_image_removed_while_it_runs_ends_the_run(skull):
    import slicer

    node = add_plane("axial")
    skull.choose("axial", node)
    skull.choose("coronal", add_plane("coronal"))
    skull.ready()
    skull.ui.samplesSpin.value = 1024
    skull.ui.predictButton.click()
    slicer.mrmlScene.RemoveNode(node)
    assert skull.panel.pump(lambda: skull.tab.running is None, 60)
    assert "removed" in skull.ui.messageLabel.text and not slicer.util.getNodesByClass("vtkMRMLTableNode")
    assert "coronal" in skull.ui.planesLabel.text


def test_remove_last_result_leaves_the_scene_as_it_was(skull):
    skull.choose("axial", add_plane("axial"))
    skull.ready()
    before, folders_before = node_ids(), folders()
    first = skull.predict()
    once = node_ids()
    skull.predict()
    skull.predict()
    skull.ui.resultSelector.setCurrentNode(first.surface)
    skull.ui.removeButton.click()
    assert skull.tab.results.result == first, "the one looked at"
    skull.ui.removeButton.click()
    assert node_ids() == once and skull.tab.results.result == first
    skull.ui.removeButton.click()
    assert node_ids() == before and folders() == folders_before
    assert not skull.ui.removeButton.enabled and skull.ui.biometryTable.rowCount == 0


def test_the_report_has_what_a_developer_needs_and_nothing_of_the_patient(skull):
    import qt

    skull.choose("axial", add_plane("axial", "Doe^Jane 1961-03-04"))
    skull.ui.gaSpin.value = 28.0
    skull.predict()
    skull.panel.widget.ui.reportButton.click()
    text = qt.QApplication.clipboard().text()
    assert '"planes": ["axial"]' in text and "fetal-skull" not in skull.ui.messageLabel.text
    assert "Doe" not in text and "1961" not in text and "28" not in text.split("Settings")[1].split("Last lines")[0]
