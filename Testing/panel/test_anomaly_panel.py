"""The tab Anomalies driven as a person does, with real inference behind it and the real MRML scene under it."""

import json
import os
import signal
import subprocess
import sys
from itertools import count

import numpy as np
import pytest
import SimpleITK as sitk

from MedVAELib.resources import resource_dir
from Testing.panel import detections
from Testing.panel.conftest import open_panel
from Testing.panel.ticks import INTERVAL_MS, Ticks

FACTORS = count(1.25, 0.25)


@pytest.fixture
def panel(desk):
    return desk


@pytest.fixture
def scan(panel):
    node = detections.add_scan()
    panel.ui.inputSelector.setCurrentNode(node)
    return node


@pytest.fixture
def new_scan(panel):
    """One that the warm worker has not seen, so that no stage is spared."""
    node = detections.add_scan("Unseen", sitk.ReadImage(str(detections.SAMPLE)) * next(FACTORS))
    panel.ui.inputSelector.setCurrentNode(node)
    return node


def test_a_click_shows_the_map_the_findings_and_where_they_came_from(panel, scan):
    import slicer
    from MedVAEPanel.anomaly_results import Result
    from MedVAEPanel.scan_node import own_ijk_to_ras

    slicer.util.setSliceViewerLayers(background=scan, fit=False)
    view = panel.host.views["Red"]
    view.fit()
    plain = panel.image().astype(int)
    panel.detect()
    assert panel.ui.findingsTable.rowCount >= 3
    result = Result.last()
    anomaly = result.node("anomaly")
    assert view.composite.GetForegroundVolumeID() == anomaly.GetID()
    score = slicer.util.arrayFromVolume(anomaly)
    peak = np.array(np.unravel_index(score.argmax(), score.shape))
    ras = own_ijk_to_ras(anomaly) @ np.append(peak[::-1], 1)
    view.logic.SetSliceOffset(ras[2])
    shown = panel.image().astype(int)
    assert plain.shape == shown.shape
    coloured = np.ptp(shown, axis=-1) > 60
    assert coloured.sum() > 50, "no coloured pixel in the red slice view"
    assert result.node("segmentation").GetSegmentation().GetNumberOfSegments() >= 3
    provenance = json.loads(anomaly.GetAttribute("MedVAE.Provenance"))
    assert provenance["bundle"] == "healthy-anatomy" and provenance["samples"] == 2


def test_the_same_result_as_the_library_to_the_last_bit(panel, scan):
    import slicer
    from MedVAEPanel.anomaly_results import Result

    from MedVAELib import Scan, detect_anomalies

    panel.detect()
    expected = detect_anomalies(Scan.read(detections.SAMPLE), device="cpu", samples=2)
    ours = slicer.util.arrayFromVolume(Result.last().node("anomaly"))
    np.testing.assert_array_equal(ours, sitk.GetArrayFromImage(expected.anomaly))


def test_the_interface_lives_while_it_computes(panel, new_scan, record_property):
    panel.ready()
    with Ticks() as ticks:
        panel.detect(samples=8)
    record_property("figure", f"event loop during a detection on the sample: {ticks}")
    assert ticks.count > 0.25 * ticks.seconds / (INTERVAL_MS / 1000), str(ticks)


STAGES = {"start": 0, "anatomy": 5, "fit": 38, "sampling": 43, "restore": 62, "score": 71, "findings": 85, "write": 95}
"""What the progress bar shows at least when a stage begins, in percent."""


@pytest.mark.timeout(900)  # a dozen seconds; on a crowded machine every cancelled worker has to be replaced
def test_cancel_at_each_stage_adds_nothing_and_the_next_click_works(panel, new_scan):
    panel.ready()
    before = detections.node_ids()
    panel.ui.samplesSpin.value = 8
    wanted, clicked = [0], []

    def click_when_reached(value):
        if value >= wanted[0] and panel.tab.running is not None and not clicked:
            clicked.append(value)
            panel.ui.detectButton.click()

    panel.ui.progressBar.connect("valueChanged(int)", click_when_reached)
    for stage, percent in STAGES.items():
        wanted[0] = percent or 101
        clicked.clear()
        panel.ui.detectButton.click()
        if stage == "start":
            panel.ui.detectButton.click()  # before the worker has said a word
        assert panel.pump(lambda: panel.tab.running is None, 120), stage
        assert panel.ui.messageLabel.text.startswith("Cancelled") and (clicked or stage == "start"), stage
        assert detections.node_ids() == before, f"something was added by a detection cancelled at '{stage}'"
        assert panel.ui.detectButton.text == "Detect anomalies" and panel.ui.detectButton.enabled, stage
    wanted[0] = 101
    panel.detect()


def test_a_killed_worker_is_reported_and_replaced(panel, scan):
    panel.ready()
    panel.ui.samplesSpin.value = 64
    panel.ui.detectButton.click()
    panel.pump(lambda: panel.ui.progressBar.value > 0, 60)
    os.kill(panel.widget.worker.pid, signal.SIGKILL)
    assert panel.pump(lambda: panel.tab.running is None, 20)
    assert panel.ui.messageLabel.text
    panel.detect()


def test_a_scan_removed_while_it_runs_ends_the_run(panel, scan):
    import slicer

    panel.ready()
    panel.ui.samplesSpin.value = 64
    panel.ui.detectButton.click()
    panel.pump(lambda: panel.ui.progressBar.value > 0, 60)
    slicer.mrmlScene.RemoveNode(scan)
    assert panel.pump(lambda: panel.tab.running is None, 60)
    assert not slicer.util.getNodesByClass("vtkMRMLSegmentationNode")


def test_closing_the_scene_while_it_runs_leaves_nothing(panel, scan):
    import slicer

    panel.ready()
    panel.ui.samplesSpin.value = 64
    panel.ui.detectButton.click()
    panel.pump(lambda: panel.ui.progressBar.value > 0, 60)
    slicer.mrmlScene.Clear(0)
    assert panel.pump(lambda: panel.tab.running is None, 20)
    panel.pump(seconds=0.5)
    assert not slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")


def test_no_worker_is_left_when_the_panel_goes(host):
    with open_panel(host, resource_dir()) as panel:
        panel.ui.inputSelector.setCurrentNode(detections.add_scan())
        panel.ready()
        assert panel.pump(lambda: panel.widget.worker.pid, 30)
        pid = panel.widget.worker.pid
        assert detections.alive(pid)
    assert panel.pump(lambda: not detections.alive(pid), 10)


def test_a_constant_volume_is_refused_with_a_reason(panel):
    image = sitk.ReadImage(str(detections.SAMPLE)) * 0
    panel.ui.inputSelector.setCurrentNode(detections.add_scan("Empty", image))
    status = panel.ui.statusLabel
    assert panel.pump(lambda: "same value" in status.text or "constant" in status.text, 60), status.text
    assert not panel.ui.detectButton.enabled


def test_importing_the_module_imports_no_torch():
    code = (
        "import sys; sys.path.insert(0, '.'); from Testing.slicer_host import application;"
        "application.start(views=False); sys.path.insert(0, 'MedVAE'); import MedVAE;"
        "print([m for m in ('torch', 'monai') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip().endswith("[]"), done.stdout + done.stderr
