from __future__ import annotations

import inspect
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk

from MedVAELib.cli.app import run
from MedVAELib.cli.sample import compare, compare_with_truth
from MedVAELib.cohort.cases import case_names
from MedVAELib.detection_outputs import DETECTION_FILES
from MedVAELib.errors import DeviceMemoryError
from MedVAELib.resources import resource_dir
from Testing.bundle.bundle_files import metadata, weights
from Testing.detection_standin import quick_report, standin_detection, standin_image
from Testing.scan.scan_files import dicom_series

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """A shipped bundle of the test's own, a place to stand in, and a report that is quick to write."""
    from MedVAELib.bundle import save_bundle

    monkeypatch.setenv("MEDVAE_RESOURCES", str(tmp_path / "Resources"))
    monkeypatch.setenv("MEDVAE_BUNDLES", str(tmp_path / "user"))
    quick_report(monkeypatch)
    monkeypatch.chdir(tmp_path)
    save_bundle(tmp_path / "Resources" / "bundles" / "healthy-anatomy", metadata(), weights(), "card")


@pytest.fixture
def detector(monkeypatch):
    """A stand-in for the detector, which records its calls and does `detector.act(call)` if set."""

    from MedVAELib.anomaly import detect

    signature = inspect.signature(detect.detect_anomalies)

    def called(*args, **settings):
        signature.bind(*args, **settings)  # the command calls the real detector only in ways that it takes
        return made.detect_anomalies(*args, **settings)

    class StandIn:
        act = None

        def __init__(self):
            self.calls = []

        def detect_anomalies(self, scan, *, progress, cancel, **settings):
            self.calls.append({"scan": scan, "cancel": cancel, **settings})
            progress("network", 0.5, "Halfway")
            if self.act is not None:
                self.act(self.calls[-1])
            progress("network", 1.0, "Done")
            return standin_detection(scan)

    made = StandIn()
    monkeypatch.setattr(detect, "detect_anomalies", called)
    monkeypatch.setattr(detect.Detector, "load", lambda bundle, device: SimpleNamespace(
        name=f"{bundle.name} on {device}", steps=[]))
    return made


@pytest.fixture
def scan(tmp_path):
    path = tmp_path / "patient.nii.gz"
    sitk.WriteImage(standin_image(), str(path))
    return path


def failed(capsys, *parts):
    """The run's output was one sentence on standard error and nothing else."""
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("medvae: ") and "Traceback" not in captured.err, captured.err
    for part in parts:
        assert str(part) in lines[0], lines[0]


def test_one_scan(detector, scan, tmp_path, capsys):
    assert run(["detect", str(scan), "--output", "out"]) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(DETECTION_FILES)
    captured = capsys.readouterr()
    assert f"Report: {Path('out') / 'report.html'}" in captured.out
    assert "left white matter" in captured.out and "The scan is a stand-in." in captured.err


def test_options_reach_the_detector(detector, scan):
    assert run(["detect", str(scan), "-o", "out", "--modality", "dwi", "--samples", "4", "--fpr", "0.05", "--score",
                "ssim", "--device", "cpu", "--seed", "7", "--bundle", "healthy-anatomy"]) == 0
    call = detector.calls[0]
    assert call["scan"].modality == "dwi" and call["bundle"].name == "healthy-anatomy"
    assert {key: call[key] for key in ("samples", "fpr", "score", "device", "seed")} == {
        "samples": 4, "fpr": 0.05, "score": "ssim", "device": "cpu", "seed": 7}


def test_no_findings_are_said_so(detector, scan, monkeypatch, capsys):
    def without(scan, **settings):
        result = standin_detection(scan)
        result.findings = []
        return result

    monkeypatch.setattr(detector, "detect_anomalies", without)
    assert run(["detect", str(scan), "-o", "out"]) == 0
    assert "No finding: 2.38 ml are above the threshold" in capsys.readouterr().out


def test_json_progress_is_alone_on_standard_output(detector, scan, capsys):
    detector.act = lambda call: print("a library's chatter")
    assert run(["detect", str(scan), "-o", "out", "--progress", "json"]) == 0
    captured = capsys.readouterr()
    reports = [json.loads(line) for line in captured.out.splitlines()]
    assert all(set(report) == {"stage", "fraction", "message"} for report in reports)
    fractions = [report["fraction"] for report in reports]
    assert fractions == sorted(fractions) and fractions[0] == 0 and fractions[-1] == 1
    assert "a library's chatter" in captured.err


def test_several_scans_in_folders_of_their_own(detector, scan, tmp_path):
    other = tmp_path / "b" / "patient.nii.gz"
    other.parent.mkdir()
    sitk.WriteImage(standin_image(1), str(other))
    assert run(["detect", str(scan), str(other), "--output", "out", "--device", "cpu"]) == 0
    first, second = (call["detector"] for call in detector.calls)
    assert first is second and first.name == "healthy-anatomy on cpu"
    folders = {f"{tmp_path.name}_patient", "b_patient"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*folders, "summary.csv"}
    assert all({file.name for file in (tmp_path / "out" / case).iterdir()} == set(DETECTION_FILES) for case in folders)


@pytest.mark.parametrize("output", ["patient", "patient/results", "."])
def test_results_never_lie_in_the_dicom_folder_itself(detector, tmp_path, capsys, output):
    folder = dicom_series(tmp_path / "patient")
    scans = [folder, tmp_path / "other.nii.gz"][: 2 if output == "." else 1]
    before = sorted(tmp_path.rglob("*"))
    assert run(["detect", *map(str, scans), "--output", output]) == 2
    assert "patient is read as a DICOM folder" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before and not detector.calls


def test_an_unusable_scan_does_not_stop_the_others(detector, scan, tmp_path, capsys):
    (tmp_path / "broken.nii.gz").write_bytes(b"no gzip")
    assert run(["detect", "broken.nii.gz", str(scan), "absent.nii.gz", "--output", "out"]) == 5
    lines = capsys.readouterr().err.strip().splitlines()
    assert "broken" in lines[0] and "absent" in lines[-2] and "2 of 3 scans failed" in lines[-1]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"patient", "summary.csv"}


@pytest.mark.parametrize("names, cases", [
    (["a.nii.gz", "b.nrrd", "c.d.mha"], ["a", "b", "c.d"]),
    (["x/flair.nii.gz", "y/flair.nii.gz", "z/t.nii"], ["x_flair", "y_flair", "t"]),
    (["x/f.nii", "x/f.nii.gz", "q/x/f.mha"], ["x_f", "x_f_2", "x_f_3"]),
    (["x/aux.nii.gz", "y/t1 .nii", "z/a:b.nii", "q/COM1.x.nii"], ["x_scan", "y_scan", "z_scan", "q_scan"]),
    (["dicom/", "auxiliary.nii", "com10.nii", "..nii.gz"], ["dicom", "auxiliary", "com10", "scan"]),
    (["/"], ["scan"]), ([".nii.gz"], ["scan"]),
])
def test_case_names_are_unique(names, cases):
    assert case_names([Path(name) for name in names]) == cases


def test_long_case_names_are_cut_and_stay_apart():
    names = case_names([Path(f"{'x' * 150}{end}.nii.gz") for end in "ab"])
    assert len(set(names)) == 2 and all(len(name) == 120 and name.startswith("xxx") for name in names)


# --- Failures: the documented code and one sentence ---


@pytest.mark.parametrize("arguments, part", [
    (["detect"], "--output"), (["detect", "-o", "out"], "--sample"),
    (["detect", "a.nii", "--sample", "-o", "o"], "not several"),
    (["detect", "a.nii", "--cohort", "c.csv", "-o", "o"], "not several"),
    (["detect", "a.nii", "--resume", "-o", "o"], "--resume"),
    (["detect", "--sample", "--scheduler", "host:1", "-o", "o"], "--scheduler"),
    (["detect", "--sample", "--series", "AX FLAIR", "-o", "o"], "--series"),
    (["detect", "--sample", "--modality", "dwi", "-o", "o"], "--modality"),
    (["detect", "a.nii", "-o", "o", "--samples", "10001"], "between 1 and 10000"),
    (["detect", "a.nii", "-o", "o", "--fpr", "0"], "--fpr"), (["detect", "a.nii", "-o", "o", "--fpr", "nan"], "fpr"),
    (["detect", "a.nii", "-o", "o", "--samples", "0"], "--samples"),
    (["detect", "a.nii", "-o", "o", "--modality", "ct"], "--modality"),
    (["detect", "a.nii", "-o", "o", "--device", "gpu"], "gpu"),
    (["detect", "a.nii", "-o", "o", "--nonsense"], "nonsense"),
    (["nonsense"], "nonsense"), (["train", "absent.yaml"], "absent.yaml"), (["bundles", "nonsense"], "nonsense"),
])
def test_wrong_usage_is_2(arguments, part, capsys, tmp_path):
    assert run(arguments) == 2
    failed(capsys, part)
    assert [path.name for path in tmp_path.iterdir()] == ["Resources"]


def test_missing_scan_is_3(detector, capsys, tmp_path):
    assert run(["detect", "absent.nii.gz", "-o", "out"]) == 3
    failed(capsys, "absent.nii.gz")
    assert not (tmp_path / "out").exists()


def test_unusable_scan_is_3(detector, capsys, tmp_path):
    (tmp_path / "scan.nii.gz").write_bytes(b"\x1f\x8b\x08 cut short")
    assert run(["detect", "scan.nii.gz", "-o", "out"]) == 3
    failed(capsys, "scan.nii.gz")
    assert not (tmp_path / "out").exists() and not detector.calls


@pytest.mark.parametrize("given", [["--bundle", "unknown"], ["--bundle", "/nonexistent/dir"]])
def test_unknown_bundle_is_4(detector, scan, capsys, given):
    assert run(["detect", str(scan), "-o", "out", *given]) == 4
    failed(capsys, given[1])


def test_a_file_for_a_folder_is_2_before_anything_is_computed(detector, scan, tmp_path, capsys):
    (tmp_path / "out").write_text("precious")
    assert run(["detect", str(scan), "-o", "out"]) == 2
    failed(capsys, "out", "--output")
    assert (tmp_path / "out").read_text() == "precious" and not detector.calls


def test_the_scan_itself_is_never_overwritten(detector, scan, tmp_path, capsys):
    scan = scan.rename(tmp_path / "brain.nii.gz")
    before = scan.read_bytes()
    assert run(["detect", str(scan), "-o", str(tmp_path)]) == 2
    failed(capsys, "brain.nii.gz")
    assert scan.read_bytes() == before and not detector.calls


class OutOfMemoryError(RuntimeError):
    """Named as torch's."""


@pytest.mark.parametrize("error", [
    MemoryError(), OutOfMemoryError("CUDA"), DeviceMemoryError("Not even on the CPU: close other programs."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory: you tried"),
])
def test_out_of_memory_is_6(detector, scan, tmp_path, capsys, error):
    def act(call):
        raise error

    detector.act = act
    assert run(["detect", str(scan), "-o", "out"]) == 6
    failed(capsys)
    assert not (tmp_path / "out").exists()


def test_the_unexpected_is_1_and_debug_shows_where(detector, scan, capsys):
    def act(call):
        raise ZeroDivisionError("a slip\non two lines")

    detector.act = act
    assert run(["detect", str(scan), "-o", "out"]) == 1
    failed(capsys, "ZeroDivisionError", "--debug")
    assert run(["detect", str(scan), "-o", "out", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_an_earlier_result_survives_a_failure(detector, scan, tmp_path):
    assert run(["detect", str(scan), "-o", "out"]) == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}

    def act(call):
        raise MemoryError

    detector.act = act
    assert run(["detect", str(scan), "-o", "out"]) == 6
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


# --- Cancelling ---


def test_a_signal_cancels_with_130_and_leaves_nothing(detector, scan, tmp_path, capsys):
    def act(call):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        call["cancel"].check()

    detector.act = act
    handler = signal.getsignal(signal.SIGINT)
    assert run(["detect", str(scan), "-o", "out"]) == 130
    failed(capsys, "Cancelled")
    assert not (tmp_path / "out").exists() and signal.getsignal(signal.SIGINT) is handler


SLOW = """
import sys, time
from types import ModuleType
fake = ModuleType("MedVAELib.anomaly.detect")
def detect_anomalies(scan, *, progress, cancel, **settings):
    progress("network", 0.5, "Halfway")
    while True:
        time.sleep(0.02)
        {check}
fake.detect_anomalies = detect_anomalies
sys.modules["MedVAELib.anomaly.detect"] = fake
from MedVAELib.cli.app import run
sys.exit(run(["detect", "patient.nii.gz", "-o", "out", "--progress", "json"]))
"""


@pytest.mark.parametrize("signals, check", [
    ([signal.SIGTERM], "cancel.check()"),
    ([signal.SIGINT, signal.SIGINT], "pass"),  # the second is obeyed although the work never looks at the token
])
@pytest.mark.skipif(sys.platform == "win32", reason="signals between processes are POSIX")
def test_a_killed_process_leaves_nothing(scan, tmp_path, signals, check):
    process = subprocess.Popen([sys.executable, "-c", SLOW.format(check=check)], cwd=tmp_path, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               env={**os.environ, "PYTHONPATH": str(ROOT)})
    for line in process.stdout:
        if json.loads(line)["stage"] == "network":
            break
    for number in signals:
        process.send_signal(number)
        time.sleep(0.2)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert not (tmp_path / "out").exists()


# --- The sample ---


@pytest.fixture
def sample(tmp_path):
    """The stand-in scan as the sample, with the lesion the stand-in finds and one it does not."""
    folder = tmp_path / "Resources" / "sample"
    folder.mkdir(parents=True)
    image = standin_image()
    sitk.WriteImage(image, str(folder / "flair.nii.gz"))
    truth_zyx = np.zeros(image.GetSize()[::-1], np.uint8)
    truth_zyx[14:18, 15:18, 14:16] = 2  # half of it is under the stand-in's mask
    truth_zyx[6:8, 10:12, 10:12] = 1
    truth = sitk.GetImageFromArray(truth_zyx)
    truth.CopyInformation(image)
    sitk.WriteImage(truth, str(folder / "truth.nii.gz"))

    def ras(index_xyz):
        x, y, z = image.TransformContinuousIndexToPhysicalPoint(index_xyz)
        return [-x, -y, z]

    (folder / "truth.json").write_text(json.dumps([
        {"name": "far away", "volume_ml": 0.8, "centroid_ras_mm": ras((10.5, 10.5, 6.5))},
        {"name": "near", "volume_ml": 2.4, "centroid_ras_mm": ras((14.5, 16.0, 15.5))},
    ]))
    return folder


def test_sample_is_compared_with_what_was_put_in(detector, sample, capsys):
    assert run(["detect", "--sample", "--output", "out"]) == 0
    out = capsys.readouterr().out
    assert "Found 1 of the 2 lesions put into the sample; 0 findings are none of them." in out
    near = next(line for line in out.splitlines() if " near " in line)
    assert "yes" in near and "50%" in near
    assert "no" in next(line for line in out.splitlines() if " far away " in line)


def test_a_lesion_of_which_next_to_nothing_is_flagged_is_not_found():
    labels = np.zeros((4, 5, 10), np.uint8)
    labels[0], labels[1] = 1, 2
    found = np.zeros(labels.shape, np.uint16)
    found[0, 0, :4], found[1, 0, :5], found[3] = 1, 2, 3  # 8 and 10 % of the lesions, and something else
    result = SimpleNamespace(components=sitk.GetImageFromArray(found),
                             findings=[SimpleNamespace(label=n) for n in (1, 2, 3)])
    outcome = compare(result, labels, [{"name": str(n), "volume_ml": 1.0} for n in (1, 2)])
    assert [lesion.found for lesion in outcome.lesions] == [False, True] and outcome.false_findings == (3,)


def test_findings_that_touch_no_lesion_are_counted(detector, sample, capsys):
    truth = sitk.ReadImage(str(sample / "truth.nii.gz"))
    truth[14:16, 15:18, 14:18] = 0
    sitk.WriteImage(truth, str(sample / "truth.nii.gz"))
    (sample / "truth.json").write_text(json.dumps(json.loads((sample / "truth.json").read_text())[:1]))
    assert run(["detect", "--sample", "--output", "out"]) == 0
    assert "Found 0 of the 1 lesions put into the sample; 1 findings are none of them." in capsys.readouterr().out


def test_an_installation_without_the_sample(detector, capsys):
    assert run(["detect", "--sample", "--output", "out"]) == 2
    failed(capsys, "sample")


def test_the_shipped_sample_agrees_with_itself(monkeypatch):
    """Its list and its mask describe the same lesions: a perfect mask finds them all and nothing else."""
    monkeypatch.delenv("MEDVAE_RESOURCES")
    labels = sitk.ReadImage(str(resource_dir() / "sample" / "truth.nii.gz"))
    present = sorted(set(sitk.GetArrayViewFromImage(labels).ravel().tolist()) - {0})
    outcome = compare_with_truth(SimpleNamespace(
        mask=labels > 0, components=labels, findings=[SimpleNamespace(label=label) for label in present]))
    assert len(outcome.lesions) == len(present) > 0 and all(lesion.covered == 1 for lesion in outcome.lesions)
    assert outcome.false_findings == ()
    listed = json.loads((resource_dir() / "sample" / "truth.json").read_text())
    shapes = sitk.LabelShapeStatisticsImageFilter()
    shapes.Execute(labels)
    for label, lesion in zip(present, listed, strict=True):
        assert lesion["volume_ml"] == pytest.approx(shapes.GetPhysicalSize(label) / 1000, abs=0.01)
        x, y, z = shapes.GetCentroid(label)  # LPS
        assert lesion["centroid_ras_mm"] == pytest.approx((-x, -y, z), abs=0.1)


def test_the_real_sample_end_to_end(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("MEDVAE_RESOURCES")
    monkeypatch.undo()  # the real report as well
    monkeypatch.chdir(tmp_path)
    assert (resource_dir() / "sample" / "flair.nii.gz").is_file()
    assert run(["detect", "--sample", "--output", "out", "--device", "cpu", "--samples", "4"]) == 0
    found = int(capsys.readouterr().out.split("Found ")[1].split()[0])
    assert found >= 1
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(DETECTION_FILES)


@pytest.mark.parametrize("report, said", [("", "report.html"), ("not written: no jinja2", "was not written: no j")])
def test_a_report_that_is_not_there_is_not_named(report, said, tmp_path, capsys):
    from MedVAELib.cli import detect, skull
    result = standin_detection()
    head = SimpleNamespace(warnings=(), planes_missing=(), planes_used=("axial",), measures=(), provenance={})
    for each in (result, head):
        each.provenance.update({"report": report} if report else {})
    detect._say(result, tmp_path, False)
    skull._say(head, tmp_path, False, False)
    lines = [line for line in capsys.readouterr().out.splitlines() if "eport" in line]
    assert len(lines) == 2 and all(said in line for line in lines)
    assert all(("report.html" in line) is not bool(report) for line in lines)
