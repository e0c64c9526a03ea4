"""The module without its panel: what scripts call waits for the worker, and the self-test uses it."""

from __future__ import annotations

import re
import sys

import numpy as np
import pytest

from MedVAELib.bundle import SKULL_SAMPLES
from Testing.panel.detections import ROOT, add_scan, alive, node_ids

_PART = (ROOT / "README.md").read_text(encoding="utf-8").split("## In 3D Slicer")[1]
EXAMPLE = re.search(r"```python\n(.*?)```", _PART, re.S)[1]


@pytest.fixture
def logic(panel):
    made = sys.modules["MedVAE"].MedVAELogic()
    yield made
    made.close()


def test_the_example_of_the_readme_runs(panel):
    import slicer

    names: dict = {}
    exec(EXAMPLE, names)
    result, skull = names["result"], names["skull"]
    for role, kind in (("anomaly", "ScalarVolume"), ("segmentation", "Segmentation"), ("findings", "Table")):
        assert result.node(role).IsA(f"vtkMRML{kind}Node") and slicer.mrmlScene.IsNodePresent(result.node(role))
    assert skull.surface.GetPolyData().GetNumberOfCells() > 1000 and np.isfinite(names["latents"]).all()
    assert skull.surface.GetAttribute("MedVAE.Samples") == str(SKULL_SAMPLES)
    assert names["logic"]._worker is None, "the example leaves a worker behind"


def test_one_worker_answers_and_goes(logic, panel):
    scan = add_scan()
    before = node_ids()
    first = logic.detect(scan, samples=2, device="cpu")
    pid = logic.worker.pid
    assert first.provenance["samples"] == 2 and first.provenance["settings"]["fpr"] == 0.01
    second = logic.detect(scan, samples=2, device="cpu", fpr=0.05)
    assert logic.worker.pid == pid and len(second.provenance["reused_stages"]) >= 3
    threshold = [float(each.node("anomaly").GetAttribute("MedVAE.Threshold")) for each in (first, second)]
    assert threshold[1] < threshold[0]
    assert not [each for each in logic.worker._folder.path.iterdir() if each.is_dir()], "files are left behind"
    assert logic.removeLastResult() and logic.removeLastResult() and node_ids() == before
    logic.close()
    assert panel.pump(lambda: not alive(pid), 10)


def test_what_cannot_be_done_is_an_error_in_a_sentence(logic):
    import slicer
    from MedVAEPanel.waiting import WorkerFailed

    from Testing.panel.skull_scenes import add_plane

    scan, empty = add_scan(), slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Empty")
    before = node_ids()
    for call, text in ((logic.detect, "no image"), (logic.encode, "no image")):
        with pytest.raises(ValueError, match=text):
            call(empty)
    with pytest.raises(WorkerFailed, match="nowhere") as caught:
        logic.detect(scan, bundle="nowhere")
    assert caught.value.kind == "BundleError"
    with pytest.raises(ValueError, match="axial: this image does not state how large its pixels are"):
        logic.predictSkull({"axial": add_plane("axial", pixel_mm=None)})
    assert len(node_ids() - before) == 2, "an image, its display and no result"


def test_a_scan_that_changes_meanwhile_gets_no_result(logic, monkeypatch):
    import slicer

    scan, ask = add_scan(), logic._ask

    def ask_and_change(*given):
        reply = ask(*given)
        slicer.util.updateVolumeFromArray(scan, slicer.util.arrayFromVolume(scan) + 1)
        return reply

    monkeypatch.setattr(logic, "_ask", ask_and_change)
    before = node_ids()
    with pytest.raises(ValueError, match="changed or removed meanwhile"):
        logic.detect(scan, samples=1, device="cpu")
    assert node_ids() == before


def test_an_interrupt_cancels(logic, monkeypatch):
    import slicer

    scan, turns = add_scan(), []

    def interrupt():
        turns.append(1)
        if len(turns) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(slicer.app, "processEvents", interrupt)
        with pytest.raises(KeyboardInterrupt):
            logic.detect(scan)
    assert all(job.cancelled for job in logic.worker._jobs.values())


# --- The self-test ---------------------------------------------------------------------------------------------------


@pytest.fixture
def said(panel, monkeypatch):
    """What the self-test shows."""
    texts: list[str] = []
    monkeypatch.setattr(sys.modules["MedVAE"].MedVAETest, "delayDisplay", lambda self, text, *rest: texts.append(text))
    return texts


def test_the_modules_own_test_runs_a_real_detection(panel, said):
    import slicer

    sys.modules["MedVAE"].MedVAETest().runTest()
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 1, "the sample, and no result"
    assert said[-1] == "Test passed"


def test_the_modules_own_test_fails_when_the_detection_is_wrong(panel, monkeypatch):
    import slicer

    module = sys.modules["MedVAE"]
    add = module.MedVAELogic.addResult

    def add_upside_down(self, scan, reply, *rest):
        result = add(self, scan, reply, *rest)
        slicer.util.updateVolumeFromArray(result.node("anomaly"),
                                          np.ascontiguousarray(np.load(reply["arrays"]["anomaly"])[::-1]))
        return result

    monkeypatch.setattr(module.MedVAELogic, "addResult", add_upside_down)
    with pytest.raises(AssertionError, match="of the three lesions|not greater than"):
        module.MedVAETest().runTest()


def test_without_torch_the_modules_own_test_tries_the_rest_and_says_so(panel, said, monkeypatch):
    """The panel, the way into the worker and out of it, and the nodes of a result need nothing that is not there."""
    from MedVAEPanel import results
    from MedVAEPanel.waiting import WorkerFailed

    module = sys.modules["MedVAE"]

    def ask(self, *given):
        raise WorkerFailed({"kind": "MissingPackage", "message": "The Python package torch is not installed."})

    monkeypatch.setattr(module.MedVAELogic, "_ask", ask)
    module.MedVAETest().runTest()
    assert said[-1] == "Skipped: The Python package torch is not installed."
    monkeypatch.setattr(results, "remove", lambda result: None)
    with pytest.raises(AssertionError, match="leaves nodes behind"):
        module.MedVAETest().runTest()
