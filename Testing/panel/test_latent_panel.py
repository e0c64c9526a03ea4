"""The tab Latent space driven as a person does, with a real model behind it and the real MRML scene under it."""

from __future__ import annotations

import json
import os
import signal

import numpy as np
import pytest
import SimpleITK as sitk

from Testing.panel.detections import add_scan, node_ids
from Testing.panel.fresh_application import reopened
from Testing.panel.latent_scenes import LATENTS, SHAPE, head, lively_bundle, make_resources, write_cohort
from Testing.panel.latent_scenes import write_table as write_latents


@pytest.fixture(scope="module")
def resources(tmp_path_factory):
    return make_resources(tmp_path_factory.mktemp("resources"))


@pytest.fixture(scope="module")
def table(resources, tmp_path_factory):
    return write_latents(tmp_path_factory.mktemp("table") / "latents.csv", resources / "bundles" / "flair-latents")


def place(volume) -> np.ndarray:
    from MedVAEPanel.scan_node import own_ijk_to_ras

    return own_ijk_to_ras(volume)


def view(name="Red"):
    import slicer

    return slicer.app.layoutManager().sliceWidget(name).mrmlSliceCompositeNode()


def lonely(points: np.ndarray, mark: np.ndarray) -> list[int]:
    """The three points with most room around them, which a click cannot miss."""
    scaled = np.concatenate([points, mark[None]]) / np.ptp(points, axis=0)
    away = np.linalg.norm(scaled[:, None] - scaled[None], axis=-1) + 9 * np.eye(len(scaled))
    return np.argsort(-away.min(1)[:-1])[:3].tolist()


def test_encode_and_move_one_latent_at_a_time(latent, resources):
    """What is shown is what the library decodes, on the scan's own grid."""
    from MedVAELib.latent.model import load_latent_model
    from MedVAELib.scan import Scan

    scan, image = head()
    volume = latent.encode(scan)
    np.testing.assert_array_equal(place(volume), place(scan))
    assert volume.GetName() == "Doe FLAIR decoded" and latent.array().shape == sitk.GetArrayViewFromImage(image).shape
    model = load_latent_model(resources / "bundles" / "flair-latents", "cpu")
    prepared = model.prepare(Scan.from_image(image))
    mean = model.encode(prepared.image[None])[0]
    np.testing.assert_allclose(latent.explorer.latents, mean[0], atol=1e-4)
    assert latent.explorer.sliders.indices == [1, 3, 2, 0, 4], "not by their KL divergence"

    first, pixels = latent.array(), latent.panel.image()
    assert view().GetForegroundVolumeID() == volume.GetID() and view().GetBackgroundVolumeID() == scan.GetID()
    latent.move(1, 3.5)
    mean[0, 3] = 3.5
    expected = sitk.GetArrayFromImage(prepared.to_scan(model.decode(mean)[0, 0]))
    np.testing.assert_allclose(latent.array(), expected, atol=1e-3)
    assert np.abs(latent.array() - first).max() > 0.05 and (latent.panel.image() != pixels).any()
    assert latent.explorer.volume is volume, "the same volume follows the sliders"
    kept = json.loads(volume.GetAttribute("MedVAE.Latents"))
    assert len(kept) == LATENTS and kept[3] == pytest.approx(3.5)
    latent.ui.resetButton.click()
    latent.settle()
    np.testing.assert_array_equal(latent.array(), first)
    latent.ui.opacitySlider.value = 0.25
    assert view().GetForegroundOpacity() == 0.25


def test_dragging_never_piles_up_requests(latent, record_property):
    latent.encode(head()[0])
    before, slider = latent.explorer.live.sent, latent.explorer.sliders.slider(0)
    for step in range(40):
        slider.value = -2 + 0.1 * step
    slider.value = 3.0
    assert latent.explorer.live.sent == before + 1, "more than one request under way"
    latent.settle()
    assert latent.explorer.live.sent == before + 2
    dragged = latent.array()
    latent.ui.resetButton.click()
    latent.settle()
    assert not np.array_equal(latent.array(), dragged)
    latent.move(0, 3.0)
    np.testing.assert_array_equal(latent.array(), dragged)
    assert not list(latent.explorer.folder().glob("decoded*")), "files were left behind"


def test_without_a_scan_on_the_models_own_grid(latent):
    assert not latent.ui.encodeButton.enabled and "Choose a scan" in latent.ui.encodeButton.toolTip
    latent.tab.parameters.seed = 7
    latent.ui.sampleButton.click()
    latent.settle()
    volume, first = latent.explorer.volume, latent.array()
    assert first.shape == SHAPE and volume.GetName() == "flair-latents decoded"
    assert "seed 7" in latent.ui.exploreLabel.text and latent.ui.seedSpin.value == 8
    assert view().GetBackgroundVolumeID() == volume.GetID() and latent.panel.image().max() > 0
    latent.ui.sampleButton.click()
    latent.settle()
    assert not np.array_equal(latent.array(), first)
    latent.ui.seedSpin.value = 7
    latent.ui.sampleButton.click()
    latent.settle()
    np.testing.assert_array_equal(latent.array(), first)
    latent.pick(latent.ui.labelCombo, "MS")
    drawn = []
    for _ in range(40):
        latent.ui.sampleButton.click()
        latent.settle()
        drawn.append(latent.explorer.latents[3])
    assert 0.5 < np.mean(drawn) < 1.5, "not drawn around the label's mean"


def test_between_two_scans(latent):
    scan, other = head()[0], head("Roe FLAIR", lesion_ras_mm=(25.0, 15.0, 5.0), seed=3)[0]
    latent.encode(scan)
    assert not latent.ui.interpolateSlider.enabled and "second scan" in latent.ui.interpolateSlider.toolTip
    latent.encode(scan, other)
    first, (node, latents) = latent.array(), latent.explorer.encoding.other
    assert node is other and latent.ui.interpolateSlider.enabled
    latent.ui.interpolateSlider.value = 1.0
    latent.settle()
    np.testing.assert_allclose(latent.explorer.latents, latents)
    assert "Roe FLAIR" in latent.ui.exploreLabel.text and not np.array_equal(latent.array(), first)
    latent.ui.interpolateSlider.value = 0.0
    latent.settle()
    np.testing.assert_array_equal(latent.array(), first)
    latent.ui.otherSelector.setCurrentNode(scan)
    assert not latent.ui.encodeButton.enabled and "first one" in latent.ui.encodeButton.toolTip
    latent.ui.interpolateSlider.value = 1.0
    latent.encode(scan, other)
    assert latent.ui.interpolateSlider.value == 0.0, "what is shown is the scan again"


def test_order_and_number_of_sliders(latent):
    from MedVAEPanel.latent_parameters import Order

    latent.tab.parameters.order = Order.SEPARATION
    latent.ui.slidersSpin.value = 2
    assert latent.explorer.sliders.indices[0] == 3 and len(latent.explorer.sliders.indices) == 2
    latent.tab.parameters.order = Order.KL
    assert latent.explorer.sliders.indices == [1, 3]


def test_a_cohort_with_its_scan_marked_and_points_to_click(latent, table):
    import slicer

    latent.encode(head()[0])
    cohort, plots = latent.plot(table), slicer.app.layoutManager().plotWidget(0).plotView()
    assert plots.series_names() == ["MS", "healthy", "this scan", "what is shown"]
    plane = latent.tab.cohort._plane
    scan = cohort.result.node("series of this scan").GetTableNode().GetTable()
    expected = plane.matrix @ latent.explorer.encoding.latents + plane.offset
    np.testing.assert_allclose([scan.GetValueByName(0, axis).ToDouble() for axis in "xy"], expected, atol=1e-6)
    labels = np.array(cohort.column("label"))
    axis = plane.points[:, 0]
    assert abs(axis[labels == "MS"].mean() - axis[labels == "healthy"].mean()) > 1.0

    for case in lonely(plane.points, expected):
        name = labels[case]
        plots.click(cohort.result.node(f"series of {name}"), int((labels[:case] == name).sum()))
        latent.wait(lambda case=case: f"case{case} " in latent.ui.exploreLabel.text, "the clicked case", 10)
        latent.settle()
        np.testing.assert_allclose(latent.explorer.latents, cohort.latents_of(case), atol=1e-6)
    shown = cohort.result.node("series of what is shown").GetTableNode().GetTable()
    np.testing.assert_allclose(shown.GetValueByName(0, "x").ToDouble(), axis[case], atol=1e-6)
    plots.click(cohort.result.node("series of this scan"), 0)
    latent.wait(lambda: "own latents" in latent.ui.exploreLabel.text, "back at the scan", 10)
    np.testing.assert_allclose(latent.explorer.latents, latent.explorer.encoding.latents)
    latent.move(1, -3.0)
    assert shown is not cohort.result.node("series of what is shown").GetTableNode().GetTable(), "the mark stays behind"

    latent.pick(latent.ui.colourCombo, "repetition time")
    assert len(plots.series_names()) == 6 and plots.series_names()[0][0].isdigit()
    latent.pick(latent.ui.planeCombo, "t-SNE")
    assert "this scan" not in plots.series_names() and cohort.chart.GetXAxisTitle() == "t-SNE 1"
    latent.pick(latent.ui.planeCombo, "Most important latents")
    assert cohort.chart.GetXAxisTitle() == "Latent 1" and "this scan" in plots.series_names()


def test_points_are_hidden_when_they_come_into_the_scene(latent, table):
    """Selectors and the subject hierarchy look at a node then, and not again when it hides."""
    import slicer
    import vtk

    came = []

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def added(scene, event, node):
        came.append((node.GetAttribute("MedVAE.Role") or "", bool(node.GetHideFromEditors())))

    tag = slicer.mrmlScene.AddObserver(slicer.mrmlScene.NodeAddedEvent, added)
    try:
        latent.plot(table)
    finally:
        slicer.mrmlScene.RemoveObserver(tag)
    hidden = {role for role, hides in came if hides}
    assert hidden == {f"{kind} {name}" for kind in ("points of", "series of")
                      for name in ("MS", "healthy", "this scan", "what is shown")}
    assert {"cohort", "chart"} <= {role for role, hides in came if not hides}


def test_scans_as_a_cohort_and_one_of_them_loaded_by_a_click(latent, tmp_path):
    import slicer

    source = write_cohort(tmp_path / "Doe")
    cohort = latent.plot(source)
    assert cohort.column("case") == [f"case{index}" for index in range(6)]
    assert "Left out: broken" in latent.ui.cohortLabel.text and "damaged" in latent.ui.cohortLabel.text
    latent.ui.loadCheck.checked = True
    latent.tab.cohort.show_case(3)
    latent.wait(lambda: latent.explorer.encoding is not None, "encoded")
    loaded = latent.ui.scanSelector.currentNode()
    assert loaded.GetName() == "case3"
    assert loaded.GetStorageNode() is None, "saving the scene would write over the cohort's file"
    np.testing.assert_allclose(latent.explorer.latents, cohort.latents_of(3), atol=1e-4)
    latent.tab.cohort.show_case(3)
    latent.wait(lambda: latent.tab.run.running is None, "encoded again")
    assert len([node for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
                if node.GetName().startswith("case3") and "decoded" not in node.GetName()]) == 1


def test_what_is_moved_comes_back_into_the_views_after_generating(latent):
    """Which shows another volume, as a detection does: what the text speaks of would not be what is seen."""
    scan = head()[0]
    latent.encode(scan)
    latent.click(latent.ui.generateButton, latent.tab.generating)
    assert view().GetForegroundVolumeID() != latent.explorer.volume.GetID()
    latent.ui.resetButton.click()
    latent.settle()
    assert view().GetForegroundVolumeID() == latent.explorer.volume.GetID() and latent.ui.exploreLabel.text
    latent.move(0, 2.0)
    assert not latent.ui.exploreLabel.text, "no longer the scan's own latents"
    latent.panel.widget.exit()
    view().SetForegroundVolumeID(None)
    latent.move(0, 1.0)
    latent.panel.widget.enter()
    assert view().GetForegroundVolumeID() is None, "the views are another module's"


def test_generate_and_take_it_away_again(latent, table):
    import slicer

    scan = head()[0]
    latent.wait(lambda: latent.ui.generateButton.enabled, "ready")
    before = node_ids()
    latent.ui.countSpin.value = 3
    latent.click(latent.ui.generateButton, latent.tab.generating)
    made = [slicer.mrmlScene.GetNodeByID(each) for each in sorted(node_ids() - before)]
    volumes = [node for node in made if node.IsA("vtkMRMLScalarVolumeNode")]
    assert len(volumes) == 3 and latent.array(volumes[0]).shape == SHAPE and latent.ui.seedSpin.value == 3
    latent.encode(scan)
    once = node_ids()
    latent.pick(latent.ui.labelCombo, "healthy")
    latent.click(latent.ui.generateButton, latent.tab.generating)
    volumes = [node for each in node_ids() - once if (node := slicer.mrmlScene.GetNodeByID(each)).IsA(
        "vtkMRMLScalarVolumeNode")]
    assert len(volumes) == 3
    for volume in volumes:
        np.testing.assert_array_equal(place(volume), place(scan))
        assert latent.array(volume).shape == latent.array(scan).shape
        provenance = json.loads(volume.GetAttribute("MedVAE.Provenance"))
        assert (provenance["seed"], provenance["label"], provenance["settings"]["count"]) == (3, "healthy", 3)
        assert provenance["bundle"] == "flair-latents" and len(provenance["bundle_sha256"]) == 64
    assert len({latent.array(volume).tobytes() for volume in volumes}) == 3
    with_volumes = node_ids()
    latent.plot(table)
    for expected in (with_volumes, once):
        latent.ui.removeButton.click()
        assert node_ids() - expected == set() and expected - node_ids() == set()
    latent.ui.removeButton.click()
    latent.ui.removeButton.click()
    assert node_ids() == before and not latent.ui.removeButton.enabled and latent.explorer.encoding is None


def test_pictures_with_a_model_of_pictures(latent, resources):
    """A picture is a volume of one slice, as Slicer loads a radiograph; a scan of many is told so, and the reverse."""
    import slicer

    from MedVAELib.latent.model import load_latent_model

    pixels = np.random.default_rng(0).random((1, 16, 16), np.float32)
    image = sitk.GetImageFromArray(pixels)
    image.SetSpacing((0.5, 0.25, 1.0))
    picture, (scan, _) = add_scan("Doe XR", image), head()
    latent.ui.scanSelector.setCurrentNode(picture)
    latent.click(latent.ui.encodeButton, latent.tab.run)
    assert "Doe XR is a picture, and volumes are asked for" in latent.ui.messageLabel.text
    latent.pick(latent.ui.bundleCombo, "digits 0.1.0")
    latent.wait(lambda: latent.tab.info.ready and latent.tab.info.bundle == "digits", "the model known")
    latent.ui.scanSelector.setCurrentNode(scan)
    latent.click(latent.ui.encodeButton, latent.tab.run)
    assert "is a volume of 24 slices, and pictures are asked for" in latent.ui.messageLabel.text
    latent.ui.scanSelector.setCurrentNode(None)
    latent.ui.sampleButton.click()
    latent.settle()
    assert latent.array().shape == (1, 16, 16)

    volume = latent.encode(picture)
    np.testing.assert_array_equal(place(volume), place(picture))
    model = load_latent_model(resources / "bundles" / "digits", "cpu")
    mean = model.encode(pixels[None])[0]
    np.testing.assert_allclose(latent.array()[0], model.decode(mean)[0, 0], atol=1e-4)
    latent.move(0, 3.0)
    first, moments = latent.explorer.sliders.indices[0], model.statistics.all
    mean[0, first] = moments.mean[first] + 3 * moments.std[first]
    np.testing.assert_allclose(latent.array()[0], model.decode(mean)[0, 0], atol=1e-4)
    before = node_ids()
    latent.ui.countSpin.value = 2
    latent.click(latent.ui.generateButton, latent.tab.generating)
    made = [slicer.mrmlScene.GetNodeByID(each) for each in node_ids() - before]
    made = [node for node in made if node.IsA("vtkMRMLScalarVolumeNode")]
    assert [latent.array(node).shape for node in made] == [(1, 16, 16)] * 2
    np.testing.assert_array_equal(place(made[0]), place(picture))


def test_models_that_cannot_be_explored(latent, resources, tmp_path):
    latent.tab.parameters.bundle = str(tmp_path / "nowhere")
    latent.wait(lambda: "nowhere" in latent.ui.generateButton.toolTip, "refused")
    folder = lively_bundle(tmp_path / "mine").path
    latent.tab.parameters.bundle = str(folder)
    latent.wait(lambda: latent.ui.generateButton.enabled, "a bundle from a folder usable")
    assert latent.tab.settings()["bundle"] == "a folder"
    latent.ui.sampleButton.click()
    latent.settle()
    assert latent.explorer.volume.GetName() == "mine decoded"


def test_cancel_and_a_killed_worker(latent, tmp_path):
    source = write_cohort(tmp_path / "cohort", 30)
    latent.wait(lambda: latent.tab.info.ready, "ready")
    latent.tab.parameters.cohort = str(source)
    before = node_ids()
    latent.wait(lambda: latent.ui.plotButton.enabled, "ready")
    latent.ui.plotButton.click()
    assert latent.ui.plotButton.text == "Cancel" and latent.tab.running is not None
    latent.wait(lambda: latent.ui.cohortBar.value > 5, "under way")
    latent.ui.plotButton.click()
    latent.wait(lambda: latent.tab.running is None, "cancelled", 5)
    assert "Cancelled" in latent.ui.cohortLabel.text and node_ids() == before

    latent.encode(head()[0])
    first = latent.array()
    os.kill(latent.panel.widget.worker.pid, signal.SIGKILL)
    latent.wait(lambda: latent.panel.widget.worker.pid is None, "dead", 20)
    latent.move(0, 3.0)
    moved = latent.array()
    assert np.abs(moved - first).max() > 0.01, "a new worker knows the scan from its file"
    with latent.panel.widget.worker.closed():  # as by an installation: the files are gone, too
        pass
    latent.move(0, -3.0)
    assert np.abs(latent.array() - moved).max() > 0.01, latent.ui.exploreLabel.text
    with latent.panel.widget.worker.closed():
        pass
    latent.ui.countSpin.value = 1
    latent.click(latent.ui.generateButton, latent.tab.generating)
    assert "1 volumes in" in latent.ui.generateLabel.text


def test_a_scan_that_changes_or_goes_is_not_explored_any_more(latent):
    import slicer

    scan = head()[0]
    latent.encode(scan)
    slicer.util.updateVolumeFromArray(scan, slicer.util.arrayFromVolume(scan) * 2)
    latent.explorer.sliders.slider(0).value = 2.0
    assert latent.ui.exploreLabel.text == "The scan was changed: encode it again."
    latent.wait(lambda: latent.explorer.encoding is None, "forgotten", 10)
    assert "encode it again" in latent.ui.messageLabel.text
    latent.wait(lambda: latent.ui.encodeButton.enabled, "ready")
    latent.ui.encodeButton.click()
    slicer.util.updateVolumeFromArray(scan, slicer.util.arrayFromVolume(scan) * 2)
    latent.wait(lambda: latent.tab.running is None, "over")
    assert "changed meanwhile" in latent.ui.messageLabel.text and latent.explorer.encoding is None
    latent.encode(scan)
    slicer.mrmlScene.RemoveNode(scan)
    assert latent.explorer.encoding is None
    latent.panel.pump(seconds=0.3)
    latent.ui.sampleButton.click()
    latent.settle()
    assert latent.array().shape == SHAPE


def test_the_scene_comes_back(latent, table, resources, tmp_path):
    """Choices, the decoded volume and the plot, in views as they were. What is decoded before the scan is encoded again
    lies on the model's own grid, in a volume of its own."""
    import slicer

    from MedVAELib.latent.model import load_latent_model

    latent.encode(head()[0])
    latent.move(0, 2.0)
    latent.plot(table)
    latent.pick(latent.ui.colourCombo, "repetition time")
    shown, file = latent.array(), tmp_path / "scene.mrb"
    manager, four_up = slicer.app.layoutManager(), slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView
    manager.setLayout(four_up)
    view().SetForegroundOpacity(0.15)
    latent.tab.cohort.cohort.chart.GetNthPlotSeriesNode(0).SetColor(0.1, 0.2, 0.3)
    assert slicer.util.saveScene(str(file))
    slicer.mrmlScene.Clear(0)
    assert latent.explorer.volume is None and latent.tab.cohort.cohort is None
    slicer.util.loadScene(str(file))
    latent.panel.pump(seconds=0.2)
    loaded = latent.explorer.volume
    np.testing.assert_allclose(latent.array(), shown, atol=1e-6)
    cohort = latent.tab.cohort.cohort
    assert manager.layout == four_up and view().GetForegroundOpacity() == pytest.approx(0.15)
    assert cohort.chart.GetNthPlotSeriesNode(0).GetColor() == pytest.approx((0.1, 0.2, 0.3))
    latent.pick(latent.ui.planeCombo, "PCA")
    assert manager.layout != four_up and cohort.chart.GetXAxisTitle().startswith("PC 1")
    latent.pick(latent.ui.planeCombo, "LDA")
    assert cohort.column("case")[7] == "case7" and latent.ui.colourCombo.currentText == "repetition time"
    assert latent.ui.planeCombo.currentText == "LDA" and "this scan" not in cohort.chart.GetTitle()
    latent.tab.cohort.show_case(7)
    latent.settle()
    np.testing.assert_allclose(latent.explorer.latents, cohort.latents_of(7), atol=1e-6)
    model = load_latent_model(resources / "bundles" / "flair-latents", "cpu")
    decoded = model.decode(cohort.latents_of(7)[None].astype(np.float32))[0, 0]
    np.testing.assert_allclose(latent.array(), decoded, atol=1e-4)  # on the model's own grid
    assert "case7" in latent.ui.exploreLabel.text
    np.testing.assert_allclose(latent.array(loaded), shown, atol=1e-6)
    assert json.loads(latent.explorer.volume.GetAttribute("MedVAE.Provenance"))["bundle"] == "flair-latents"
    while latent.ui.removeButton.enabled:
        latent.ui.removeButton.click()
    assert not [node for node in slicer.util.getNodesByClass("vtkMRMLTableNode")]


LOOK = """
section, clicked = next(tab for tab in widget.tabs if tab.name == "latent").cohort, []
section.show_case = clicked.append
cohort, label = section.cohort, section.cohort.column("label")[7]
before = cohort.column("label")[:7].count(label)
plots = slicer.app.layoutManager().plotWidget(0).plotView()
plots.click(cohort.result.node(f"series of {label}"), before)
for _ in range(20):
    slicer.app.processEvents()
told = dict(clicked=clicked)
"""


def test_a_loaded_plot_can_be_clicked(latent, table, tmp_path):
    """In a session that had no plot before: its view comes into being only when the scene has been loaded."""
    import slicer

    latent.plot(table)
    latent.pick(latent.ui.planeCombo, "t-SNE")  # where no point covers another
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    assert reopened(tmp_path / "scene.mrb", "panel first", tmp_path / "none", LOOK) == {"clicked": [7]}


def test_the_report_has_nothing_of_the_patient(latent, table, tmp_path):
    import qt

    latent.encode(head("Doe^Jane 1961-03-04")[0])
    latent.tab.parameters.cohort = str(tmp_path / "Jane" / "latents.csv")
    latent.click(latent.ui.plotButton, latent.tab.cohort.run)
    assert "#d9534f" in latent.ui.cohortLabel.styleSheet and "does not exist" in latent.ui.cohortLabel.text
    latent.panel.widget.ui.reportButton.click()
    text = qt.QApplication.clipboard().text()
    assert '"order": "kl"' in text and "Doe" not in text and "1961" not in text and "Jane" not in text
