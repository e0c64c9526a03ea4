"""What goes wrong at a desk: the panel says so in a sentence, leaves nothing, and works at the next click."""

from __future__ import annotations

import os
import resource
import shutil
import site
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from .detections import ROOT, SAMPLE, add_scan, alive, node_ids


@pytest.fixture
def panel(desk):
    return desk


@pytest.fixture
def scan(panel):
    node = add_scan()
    panel.ui.inputSelector.setCurrentNode(node)
    return node


@contextmanager
def small_files(limit_bytes: int):
    """No file can grow beyond this, in this process and those it starts: what a full disk is like."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def restart_worker(panel, **environment) -> None:
    """The next request starts a worker with these variables."""
    panel.widget.worker.environment.update(environment)  # before: whatever the panel asks next starts it
    panel.widget.worker.shutdown()
    panel.pump(seconds=0.05)
    panel.widget.offers.ask(again=True)


def click_and_wait(panel) -> str:
    """Clicks Detect, waits, returns the message."""
    panel.ui.samplesSpin.value = 2
    panel.ui.detectButton.click()
    assert panel.pump(lambda: panel.tab.running is None, 120)
    return panel.ui.messageLabel.text


def temporary_folders(panel) -> list[Path]:
    folder = panel.widget.worker._folder
    return [each for each in folder.path.glob("*") if each.is_dir()] if folder is not None else []


def test_no_room_for_the_scan(panel, scan):
    """It is written when it is looked at, and again when it was changed."""
    import slicer

    panel.ready()
    assert panel.pump(lambda: panel.widget.worker.state == "idle", 60)
    before = node_ids()
    with small_files(200_000):
        slicer.util.updateVolumeFromArray(scan, slicer.util.arrayFromVolume(scan) + 1)
        text = click_and_wait(panel)
    assert "cannot be handed over" in text and "make room" in text
    assert node_ids() == before and not temporary_folders(panel)
    assert panel.ui.detectButton.text == "Detect anomalies" and panel.ui.detectButton.enabled
    panel.detect()


def test_no_room_for_the_result(panel, scan):
    import slicer

    values = slicer.util.arrayFromVolume(scan)
    slicer.util.updateVolumeFromArray(scan, values.astype(np.int16))  # smaller than the maps of floats that come back
    panel.ready()
    before = node_ids()
    panel.widget.worker.shutdown()
    panel.widget.worker.command = [sys.executable]  # the limit comes down from this process
    with small_files(int(1.2 * values.size * 2)):
        text = click_and_wait(panel)
    assert "result cannot be written" in text and "make room" in text, text
    assert node_ids() == before
    assert panel.pump(lambda: [each.name[:5] for each in temporary_folders(panel)] == ["scan-"], 20), (
        f"more than the scan was left behind: {temporary_folders(panel)}")
    panel.widget.worker.shutdown()
    panel.detect()


def test_a_bundle_that_was_damaged_after_it_was_offered(panel, scan, tmp_path):
    resources = tmp_path / "Resources"
    shutil.copytree(ROOT / "Resources" / "bundles", resources / "bundles")
    for name in ("atlas", "sample"):
        (resources / name).symlink_to(ROOT / "Resources" / name)
    restart_worker(panel, MEDVAE_RESOURCES=str(resources))
    assert panel.pump(lambda: panel.tab.bundles.refusal() == "" and panel.tab.bundles._final, 60)
    panel.ready()
    weights = resources / "bundles" / "healthy-anatomy" / "model.safetensors"
    damaged = bytearray(weights.read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    weights.write_bytes(bytes(damaged))
    before = node_ids()
    text = click_and_wait(panel)
    assert "checksum" in text.lower() or "sha" in text.lower() or "damaged" in text.lower(), text
    assert node_ids() == before
    panel.widget.offers.ask(again=True)
    assert panel.pump(lambda: not panel.ui.detectButton.enabled, 30)
    assert weights.parent.name in panel.ui.detectButton.toolTip
    assert "damaged" in panel.ui.bundleCombo.currentText


@pytest.fixture(scope="module")
def python_without_torch(tmp_path_factory) -> Path:
    """All packages of this environment but torch and what stands on it."""
    folder = tmp_path_factory.mktemp("packages")
    for source in filter(Path.is_dir, map(Path, site.getsitepackages())):  # Debian's Python names one that is not there
        for entry in source.iterdir():
            if not entry.name.lower().startswith(("torch", "monai", "__editable__")) and entry.suffix != ".pth":
                if not (folder / entry.name).exists():
                    (folder / entry.name).symlink_to(entry)
    return folder


def test_without_torch_the_panel_says_what_is_missing_and_opens_setup(panel, scan, python_without_torch):
    whole, panel.widget.worker.command = panel.widget.worker.command, [sys.executable, "-S"]
    restart_worker(panel, PYTHONPATH=os.pathsep.join([str(ROOT), str(python_without_torch)]))
    assert panel.pump(lambda: panel.widget.offers.info.get("missing"), 60), list(panel.widget.log.lines)
    assert "torch" in panel.widget.offers.info["missing"]
    assert not panel.ui.detectButton.enabled
    assert "torch" in panel.ui.detectButton.toolTip and "Setup" in panel.ui.detectButton.toolTip
    assert not panel.widget.ui.setupSection.collapsed, "Setup did not open"
    assert panel.pump(lambda: "voxels" in panel.ui.statusLabel.text, 20), "the scan can be looked at without torch"
    panel.widget.worker.command = whole
    restart_worker(panel, PYTHONPATH=str(ROOT))
    panel.detect()


def test_torch_vanishes_after_the_panel_was_opened(panel, scan, python_without_torch):
    panel.ready()
    assert panel.pump(lambda: panel.widget.offers.info, 60)
    panel.widget.worker.command = [sys.executable, "-S"]
    panel.widget.worker.environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(python_without_torch)])
    panel.widget.worker.shutdown()
    before = node_ids()
    text = click_and_wait(panel)
    assert "torch" in text and "Setup" in text, text
    assert node_ids() == before and not panel.widget.ui.setupSection.collapsed


def test_a_worker_that_cannot_start(panel, scan, tmp_path):
    panel.ready()
    panel.widget.worker.shutdown()
    whole, panel.widget.worker.command = panel.widget.worker.command, [str(tmp_path / "PythonSlicer")]
    text = click_and_wait(panel)
    assert "cannot be started" in text
    panel.widget.worker.command = whole
    panel.detect()


def test_noise_is_no_brain(panel):
    noise = sitk.GetImageFromArray(np.random.default_rng(0).normal(100, 20, (60, 60, 60)).astype(np.float32))
    noise.SetSpacing((3, 3, 3))
    panel.ui.inputSelector.setCurrentNode(add_scan("Noise", noise))
    panel.ready()
    before = node_ids()
    assert "no brain was found" in click_and_wait(panel)
    assert node_ids() == before
    assert "#d9534f" in panel.ui.messageLabel.styleSheet


def test_volumes_that_cannot_be_scans_are_refused_at_once(panel):
    import slicer

    empty = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Empty")
    panel.ui.inputSelector.setCurrentNode(empty)
    assert "no image" in panel.ui.statusLabel.text and not panel.ui.detectButton.enabled
    assert "no image" in panel.ui.detectButton.toolTip
    slicer.util.updateVolumeFromArray(empty, np.ones((3, 3, 20), np.float32))
    assert panel.pump(lambda: "Looking" not in panel.ui.statusLabel.text and "no image" not in
                      panel.ui.statusLabel.text, 30)
    assert not panel.ui.detectButton.enabled and panel.ui.statusLabel.text == panel.ui.detectButton.toolTip
    panel.ui.inputSelector.setCurrentNode(None)
    assert "Choose a scan" in panel.ui.detectButton.toolTip and not panel.ui.detectButton.enabled


def test_a_result_is_no_scan(panel, scan):
    panel.detect()
    panel.ui.inputSelector.setCurrentNode(panel.tab.parameters.result)
    assert "result of MedVAE" in panel.ui.statusLabel.text and not panel.ui.detectButton.enabled
    panel.ui.inputSelector.setCurrentNode(scan)
    assert panel.ui.detectButton.enabled


def test_another_scan_chosen_while_one_is_read(panel, scan):
    """The result goes to the scan that was chosen at the click; the other one is next."""
    import slicer

    other = add_scan("Other", sitk.ReadImage(str(SAMPLE)) * 2.0)
    panel.ready()
    panel.ui.samplesSpin.value = 2
    panel.ui.detectButton.click()
    panel.ui.inputSelector.setCurrentNode(other)
    assert panel.ui.detectButton.text == "Cancel"
    assert panel.pump(lambda: panel.tab.running is None, 120)
    assert slicer.util.getNode("FLAIR anomaly").GetNodeReference("MedVAE.Scan") is scan
    panel.detect()
    assert slicer.util.getNode("Other anomaly").GetNodeReference("MedVAE.Scan") is other
    assert panel.host.views["Red"].composite.GetBackgroundVolumeID() == other.GetID()


def test_the_scan_is_closed_and_opened_again_while_the_panel_stays(panel, scan):
    import slicer

    panel.detect()
    slicer.mrmlScene.Clear(0)
    panel.pump(seconds=0.05)
    assert panel.ui.findingsTable.rowCount == 0 and not panel.ui.removeButton.enabled
    assert panel.tab.parameters.scan is None and not panel.ui.detectButton.enabled
    again = add_scan("Next patient")
    assert panel.pump(lambda: panel.tab.parameters.scan is again, 10), "a scan that is loaded is chosen"
    panel.detect()


def test_quitting_while_it_computes_leaves_no_process_and_no_files(panel, scan):
    import slicer

    panel.ready()
    panel.ui.samplesSpin.value = 64
    panel.ui.detectButton.click()
    assert panel.pump(lambda: panel.ui.progressBar.value > 4, 60)
    pid, folder = panel.widget.worker.pid, panel.widget.worker._folder.path
    assert alive(pid) and folder.is_dir()
    slicer.app.aboutToQuit.emit()
    assert panel.pump(lambda: not alive(pid), 5)
    assert not folder.exists() and panel.tab.running is None


def test_the_report_has_what_a_developer_needs_and_nothing_of_the_patient(panel):
    import qt

    name = "Doe^Jane 1961-03-04"
    panel.ui.inputSelector.setCurrentNode(add_scan(name, sitk.ReadImage(str(SAMPLE)) * 0))
    assert panel.pump(lambda: name in panel.ui.statusLabel.text or "Looking" not in panel.ui.statusLabel.text, 60)
    panel.pump(lambda: panel.widget.offers.info, 60)
    panel.widget.log.add(f"{name}: something about /home/jane/Doe scans/flair.nii.gz and C:\\Data\\Doe\\x.dcm")
    panel.widget.ui.reportButton.click()
    text = qt.QApplication.clipboard().text()
    for secret in ("Doe", "Jane", "jane", "1961", "flair.nii", "x.dcm", str(ROOT)):
        assert secret not in text, f"{secret!r} in the report:\n{text}"
    for wanted in ("torch", "CPU", "Settings", "samples", "something about"):
        assert wanted in text
