"""What a person types and chooses stays: keystroke by keystroke, when nodes are deleted, when a scene is added."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest

from .detections import ROOT, add_scan
from .skull_scenes import add_plane

PAGES = ROOT / "MedVAE" / "Resources" / "UI"


@pytest.fixture
def tabs(desk):
    """The tabs of the panel by name."""
    return {tab.name: tab for tab in desk.widget.tabs}


def typed(spin, text: str, leave: bool = True) -> None:
    """Key by key in the place of what stands there; leave: then Return."""
    from PySide6.QtCore import Qt
    from PySide6.QtTest import QTest

    spin.selectAll()
    QTest.keyClicks(spin, text)
    if leave:
        QTest.keyClick(spin, Qt.Key_Return)


@pytest.mark.parametrize("text", ["0.156", "0.05", "1.25"])
def test_a_pixel_size(tabs, text):
    skull = tabs["skull"]
    image = add_plane("axial", pixel_mm=None)
    skull.ui.axialSelector.setCurrentNode(image)
    typed(skull.ui.axialSpacingSpin, text)
    assert skull.ui.axialSpacingSpin.value == float(text)
    assert skull.planes[0].source.spacing_mm == pytest.approx((float(text), float(text)))


def test_other_numbers(tabs):
    skull, anomaly = tabs["skull"], tabs["anomaly"]
    typed(skull.ui.gaSpin, "24.5")
    typed(anomaly.ui.fprSpin, "2.5")
    assert (skull.parameters.gaWeeks, anomaly.parameters.falsePositivePercent) == (24.5, 2.5)


@pytest.mark.parametrize("page", sorted(PAGES.glob("*.ui")), ids=lambda page: page.stem)
def test_no_decimals_are_taken_while_they_are_typed(page):
    """Slicer writes a parameter back into its widget at once, which would cut off the digits that are still to come."""
    for spin in ElementTree.parse(page).iter("widget"):
        if spin.get("class") == "QDoubleSpinBox":
            tracking = spin.find("property[@name='keyboardTracking']/bool")
            assert tracking is not None and tracking.text == "false", spin.get("name")


def test_a_click_takes_what_is_being_typed(desk, tabs, monkeypatch):
    """On macOS a click does not take the focus from the number."""
    skull = tabs["skull"]
    desk.top.show()
    desk.widget.ui.tabWidget.setCurrentIndex(desk.widget.tabs.index(skull))
    skull.ui.gaSpin.setFocus()
    typed(skull.ui.gaSpin, "31.5", leave=False)
    assert skull.parameters.gaWeeks == 0
    begun = []
    monkeypatch.setattr(skull.run, "_begin", lambda: begun.append(skull.parameters.gaWeeks))
    skull.run._on_clicked()
    assert begun == [31.5]


def test_a_deleted_image_leaves_its_plane_empty(tabs):
    import slicer

    skull = tabs["skull"]
    images = [add_plane("axial"), add_plane("sagittal"), add_plane("coronal")]
    for plane, image in zip(skull.planes, images, strict=True):
        plane.selector.setCurrentNode(image)
    slicer.mrmlScene.RemoveNode(images[1])
    chosen = [skull.parameters.axial, skull.parameters.sagittal, skull.parameters.coronal]
    assert chosen == [images[0], None, images[2]]
    assert [plane.selector.currentNode() for plane in skull.planes] == chosen


def test_a_deleted_scan_is_not_replaced_by_a_result(desk, tabs, reply):
    import slicer

    first, second = add_scan("first"), add_scan("second")
    latent, anomaly = tabs["latent"], tabs["anomaly"]
    desk.ui.inputSelector.setCurrentNode(first)
    latent.ui.scanSelector.setCurrentNode(first)
    latent.ui.otherSelector.setCurrentNode(second)
    kept, gone = (desk.widget.logic.addResult(first, reply) for _ in range(2))
    anomaly.results.show_new(gone)
    slicer.mrmlScene.RemoveNode(second)
    assert latent.parameters.other is None and latent.ui.otherSelector.currentNode() is None
    slicer.mrmlScene.RemoveNode(gone.node("anomaly"))
    assert anomaly.parameters.result is None and kept.node("anomaly") is not None


def test_another_tabs_choices_are_no_work_for_a_tab(desk, tabs, monkeypatch):
    told = []
    monkeypatch.setattr(tabs["latent"].cohort, "update", lambda parameters: told.append(parameters))
    desk.ui.opacitySlider.value = 0.31
    tabs["latent"].ui.opacitySlider.value = 0.32
    desk.ui.opacitySlider.value = 0.33
    assert len(told) == 1


def test_a_scene_that_is_added_brings_its_choices(desk, tabs, tmp_path):
    import slicer

    scan, image = add_scan("mine"), add_plane("axial")
    desk.ui.inputSelector.setCurrentNode(scan)
    tabs["skull"].planes[0].selector.setCurrentNode(image)
    tabs["latent"].ui.otherSelector.setCurrentNode(scan)
    file = str(tmp_path / "scene.mrb")
    assert slicer.util.saveScene(file)
    slicer.mrmlScene.Clear(0)
    add_scan("another")
    slicer.util.loadScene(file)
    desk.pump(seconds=0.05)
    names = [node.GetName() if node is not None else None for node in (
        tabs["anomaly"].parameters.scan, tabs["skull"].parameters.axial, tabs["latent"].parameters.other)]
    assert names == ["mine", image.GetName(), "mine"]
    assert desk.ui.inputSelector.currentNode() is tabs["anomaly"].parameters.scan


def test_a_surprise_in_a_result_is_told_and_the_button_comes_back(desk, tabs, monkeypatch):
    """As what a new version of Slicer may bring."""
    run = tabs["anomaly"].run
    monkeypatch.setattr(desk.widget.worker, "request", lambda *a: None)
    run.start("detect", None, lambda folder: {}, lambda reply, seconds: [].nothing)
    run._on_result(run.running, {})
    assert run.running is None and "AttributeError" in tabs["anomaly"].ui.messageLabel.text
    assert "Traceback" in "\n".join(desk.widget.log.tail(50)) and not run.running


@pytest.mark.parametrize("top", [0.04, 6.0, 800.0])
def test_the_threshold_moves_in_steps_of_its_range(desk, tabs, reply, monkeypatch, top):
    """Whatever range was shown before."""
    from MedVAEPanel import display

    scan, slider = add_scan(), desk.ui.thresholdSlider
    tabs["anomaly"].results.show_new(desk.widget.logic.addResult(scan, reply))
    for shown in (0.04, 6.0, 800.0, top):
        monkeypatch.setattr(display, "threshold_range", lambda volume, shown=shown: shown)
        tabs["anomaly"].results._offer_threshold(tabs["anomaly"].results.volume)
    assert slider.maximum == pytest.approx(top) and top / 600 < slider.singleStep <= top / 50


def test_a_scene_saved_side_by_side_finds_its_layout_in_the_next_session(desk, monkeypatch):
    import slicer
    from MedVAEPanel import display, sample_data

    monkeypatch.setattr(sample_data, "register_sample_data", lambda: None)
    fresh = slicer.vtkMRMLLayoutNode()
    logic = SimpleNamespace(GetLayoutNode=lambda: fresh)
    monkeypatch.setattr(type(slicer.app.layoutManager()), "layoutLogic", lambda manager: logic)
    assert not fresh.IsLayoutDescription(display.COMPARE_LAYOUT)
    sys.modules[type(desk.widget).__module__].on_startup()
    assert display.COMPARED_VIEWS[0] in fresh.GetLayoutDescription(display.COMPARE_LAYOUT)


def test_a_slice_view_that_comes_with_another_layout_is_offered(desk, tabs, monkeypatch):
    import slicer

    manager, combo = slicer.app.layoutManager(), tabs["skull"].ui.axialViewCombo
    with monkeypatch.context() as patched:
        patched.setattr(type(manager), "sliceViewNames", lambda self: ["Red", "Slice4"])
        manager.layoutChanged.emit(manager.layout)
        offered = [combo.itemText(index) for index in range(combo.count)]
        assert offered == ["The image", "Slice in Red", "Slice in Slice4"]
    manager.layoutChanged.emit(manager.layout)
    assert combo.findText("Slice in Slice4") < 0


def test_the_scan_is_chosen_for_a_user_who_did_not_choose(desk, tabs):
    import slicer

    tab, selector = tabs["anomaly"], desk.ui.inputSelector
    first = add_scan("first")
    desk.pump(seconds=0.05)
    assert tab.parameters.scan is first
    selector.setCurrentNode(None)
    second = add_scan("second")
    desk.pump(seconds=0.05)
    assert tab.parameters.scan is None, "None is a choice"
    selector.setCurrentNode(second)
    slicer.mrmlScene.RemoveNode(second)
    add_scan("third")
    desk.pump(seconds=0.05)
    assert tab.parameters.scan is first, "nobody chose None"


def test_what_other_modules_do_is_not_looked_at(desk, tabs, monkeypatch):
    import slicer

    from Testing.panel.detections import add_scan

    tab, asked, request = tabs["anomaly"], [], desk.widget.worker.request
    monkeypatch.setattr(desk.widget.worker, "request", lambda task, *rest: (
        asked.append(task) if task == "describe" else request(task, *rest)))
    scan = add_scan()
    desk.pump(seconds=0.3)
    assert tab.parameters.scan is scan and asked == ["describe"]
    desk.widget.exit()
    slicer.util.arrayFromVolume(scan)[0] = 1
    slicer.util.arrayFromVolumeModified(scan)
    slicer.mrmlScene.RemoveNode(scan)
    temporary = add_scan("Another module's")
    desk.pump(seconds=0.3)
    assert tab.parameters.scan is None and asked == ["describe"]
    slicer.mrmlScene.RemoveNode(temporary)
    hidden = add_scan("Hidden")
    hidden.SetHideFromEditors(True)
    later = add_scan("T2 FLAIR")
    desk.widget.enter()
    desk.pump(seconds=0.3)
    assert tab.parameters.scan is later and len(asked) == 2
    desk.widget.exit()
    desk.widget.enter()
    desk.pump(seconds=0.3)
    assert len(asked) == 2, "an unchanged scan is written again"
    slicer.util.arrayFromVolumeModified(later)
    desk.widget.exit()  # before the question that waits a moment was asked
    desk.pump(seconds=0.3)
    assert len(asked) == 2
    desk.widget.enter()
    desk.pump(seconds=0.3)
    assert len(asked) == 3


def test_a_scan_is_written_once_for_the_look_and_for_the_detection(desk, tabs, monkeypatch):
    import slicer
    from MedVAEPanel import handed_over

    tab, worker, written, given = tabs["anomaly"], desk.widget.worker, [], []
    write, request = handed_over.write_scan, worker.request
    monkeypatch.setattr(handed_over, "write_scan", lambda *args: written.append(1) or write(*args))

    def spy(task, fields, *rest):
        if task in ("describe", "detect"):
            given.append((task, Path(fields["scan"]["array"]), np.load(fields["scan"]["array"])))
        return request(task, fields, *rest)

    monkeypatch.setattr(worker, "request", spy)
    scan = add_scan()
    tab.parameters.scan = scan
    for count in (1, 2):
        values = slicer.util.arrayFromVolume(scan).copy()
        assert desk.pump(lambda: "voxels" in tab.ui.statusLabel.text and tab.ui.detectButton.enabled, 60)
        tab.ui.detectButton.click()
        (looked, _, first), (detected, file, second) = given[-2:]
        assert (looked, detected, len(written)) == ("describe", "detect", count)
        np.testing.assert_array_equal(first, values)
        np.testing.assert_array_equal(second, values)
        slicer.util.updateVolumeFromArray(scan, values + 1)
        assert file.is_file(), "a scan that is changed takes the file of a detection away"
        tab.ui.detectButton.click()
        assert desk.pump(lambda: tab.running is None, 60)
    tab.parameters.scan = None
    assert not list(worker._folder.path.glob("scan-*"))


@pytest.mark.parametrize("error", [ValueError("This is no scan."), OSError(28, "no space left")])
def test_a_scan_that_cannot_be_handed_over_is_told(desk, tabs, monkeypatch, error):
    tab = tabs["anomaly"]
    tab.parameters.scan = add_scan()
    desk.ready()
    monkeypatch.setattr(tab.status.handed_over, "write", lambda *args: (_ for _ in ()).throw(error))
    tab.ui.detectButton.click()
    assert tab.running is None and error.args[-1] in tab.ui.messageLabel.text
    assert tab.ui.detectButton.enabled and not list(desk.widget.worker._folder.path.glob("detect-*"))


@pytest.mark.parametrize("away", [True, False])
def test_no_scan_is_refused_for_what_was_there_before(desk, tabs, monkeypatch, away):
    """Also when it cannot be handed to the worker: chosen while another module was in use, or changed in view."""
    import slicer

    from Testing.panel.detections import add_scan

    worker, tab, request = desk.widget.worker, tabs["anomaly"], desk.widget.worker.request
    monkeypatch.setattr(worker, "request", lambda task, fields, on_result, *rest: (
        on_result({"usable": False, "message": "Too dark."}) if task == "describe"
        else request(task, fields, on_result, *rest)))
    scan, button = add_scan(), tab.ui.detectButton
    assert desk.pump(lambda: "Too dark." in button.toolTip, 10) and tab.parameters.scan is scan
    monkeypatch.setattr(worker, "folder", lambda name: (_ for _ in ()).throw(OSError(28, "no space left")))
    if away:
        desk.widget.exit()
        tab.parameters.scan = add_scan("Another")
        desk.widget.enter()
    else:
        slicer.util.updateVolumeFromArray(scan, slicer.util.arrayFromVolume(scan) + 1)
    assert desk.pump(lambda: "no space left" in tab.ui.statusLabel.text, 10)
    assert "Too dark." not in button.toolTip


def test_views_side_by_side_that_slicer_starts_with_are_not_blank(desk, monkeypatch):
    """Slicer goes back to the layout it was quit in before the module has told of it."""
    import slicer
    from MedVAEPanel import display

    node = slicer.vtkMRMLLayoutNode()
    node.SetViewArrangement(display.COMPARE_LAYOUT)
    logic = slicer.app.layoutManager().layoutLogic()
    monkeypatch.setattr(logic, "GetLayoutNode", lambda: node)
    display.register_compare_layout()
    assert "MedVAEMap" in node.GetCurrentLayoutDescription()
