"""The worker as a process: real inference over real pipes."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from MedVAELib import __version__
from MedVAELib.anomaly.detect import detect_anomalies
from MedVAELib.scan import Scan
from Testing.worker.requests import FAST, VOLUMES, as_arrays, loaded, request, same
from Testing.worker_process import WorkerProcess, handed_over

# --- What it is for --------------------------------------------------------------------------------------------------


def test_it_says_when_it_is_ready(fresh):
    assert fresh.receive() == {"event": "ready", "version": __version__, "pid": fresh.process.pid}


def test_a_detection_is_that_of_the_library_to_the_last_bit(worker, image, scan, tmp_path):
    answer = worker.ask(**request(1, scan, tmp_path / "1"))
    expected = detect_anomalies(Scan.from_image(image, name="scan"), **FAST)
    assert answer["event"] == "result", answer
    assert same(loaded(answer), as_arrays(expected))
    assert answer["findings"] == [f.row() for f in expected.findings] and expected.findings
    assert (answer["threshold"], answer["unit"], answer["modality"]) == (expected.threshold, expected.unit, "flair")
    assert answer["warnings"] == expected.warnings
    assert answer["provenance"]["bundle_sha256"] == expected.provenance["bundle_sha256"]
    assert {path.name for path in (tmp_path / "1").iterdir()} == {f"{name}.npy" for name in VOLUMES}


def test_a_file_gives_what_the_same_voxels_give(worker, image, scan, tmp_path):
    sitk.WriteImage(image, str(tmp_path / "saved.mha"))
    by_file = worker.ask(**request(2, {"file": str(tmp_path / "saved.mha")}, tmp_path / "2"))
    by_array = worker.ask(**request(3, scan, tmp_path / "3"))
    assert same(loaded(by_file), loaded(by_array))


def test_the_second_click_reuses_what_the_first_prepared(fresh, scan, tmp_path):
    first = fresh.ask(**request(1, scan, tmp_path / "1"))
    same_again = fresh.ask(**request(2, scan, tmp_path / "2"))
    stricter = fresh.ask(**request(3, {**scan, "name": "renamed"}, tmp_path / "3", fpr=0.001, modality="flair"))
    other_seed = fresh.ask(**request(4, scan, tmp_path / "4", seed=7))
    assert first["provenance"]["reused_stages"] == []
    assert {"load", "anatomy", "fit", "sampling"} <= set(first["provenance"]["timings_s"])
    for again in (same_again, stricter):
        assert again["provenance"]["reused_stages"] == ["anatomy", "fit", "sampling"]
    assert other_seed["provenance"]["reused_stages"] == ["anatomy", "fit"]
    assert same(loaded(first), loaded(same_again))
    assert stricter["threshold"] > first["threshold"] and loaded(stricter)["mask"].sum() < loaded(first)["mask"].sum()
    assert not np.array_equal(loaded(first)["std"], loaded(other_seed)["std"])


def test_it_keeps_the_last_two_scans_and_no_more(fresh, image, tmp_path):
    scans = [handed_over(image * factor, tmp_path, f"scan{factor}") for factor in (1, 2, 3)]
    reused = [fresh.ask(**request(n, scans[which], tmp_path / str(n), samples=1))["provenance"]["reused_stages"]
              for n, which in enumerate((0, 1, 0, 2, 0, 1))]
    assert ["anatomy" in stages for stages in reused] == [False, False, True, False, True, False]


def test_requests_wait_for_each_other_and_are_answered_in_turn(worker, scan, tmp_path):
    for number in (11, 12):
        worker.send(request(number, scan, tmp_path / str(number)))
    assert worker.answer(11)["event"] == worker.answer(12)["event"] == "result"


def test_progress_rises_and_names_the_stages(worker, image, tmp_path):
    worker.send(request(20, handed_over(image + 3, tmp_path), tmp_path / "20", samples=20))
    reports = []
    while (message := worker.receive()).get("event") == "progress":
        reports.append(message)
    fractions = [report["fraction"] for report in reports]
    assert fractions == sorted(fractions) and fractions[0] == 0 and fractions[-1] <= 1
    stages = list(dict.fromkeys(report["stage"] for report in reports))
    assert [s for s in stages if s not in ("done",)] == [
        "read", "load", "anatomy", "fit", "sampling", "restore", "score", "findings", "write"]
    assert all(report["message"] for report in reports)


@pytest.mark.parametrize("dtype", ["int16", "uint16", "float64", ">f4", "<f2", "int64"])
def test_any_number_type_will_do(worker, image, tmp_path, dtype):
    described = worker.ask(id=f"type {dtype}", task="describe", scan=handed_over(image, tmp_path, dtype=dtype))
    assert described["usable"], described


# --- Looks -----------------------------------------------------------------------------------------------------------


def test_describe_a_head(worker, image, tmp_path):
    seen = worker.ask(id=30, task="describe", scan=handed_over(image, tmp_path, "AX FLAIR"))
    assert seen["usable"] and seen["modality"] == "flair" and "AX FLAIR" in seen["modality_reason"]
    assert seen["size"] == list(image.GetSize()) and seen["spacing_mm"] == [2.2, 2.2, 2.2]
    assert seen["orientation"].startswith("RAS+oblique")


@pytest.mark.parametrize("case, content", [("ms_isbi_01", "head"), ("ms_ljubljana_19", "stripped")])
def test_describe_real_scans(worker, medvae_data, case, content):
    seen = worker.ask(id=31, task="describe", scan={"file": str(medvae_data / "brain/flair" / case / "flair.nii.gz")})
    assert seen["usable"] and seen["modality"] == "flair"
    assert seen["content"] == content


def test_describe_tells_a_stripped_brain(worker, image, tmp_path):
    distance = np.linalg.norm(np.indices(image.GetSize()[::-1]) - np.array([[[[40]]], [[[48]]], [[[40]]]]), axis=0)
    ball = sitk.GetImageFromArray((distance < 30).astype(np.float32))
    ball.CopyInformation(image)
    assert worker.ask(id=32, task="describe", scan=handed_over(image * ball + ball, tmp_path))["content"] == "stripped"
    assert worker.ask(id=33, task="describe", scan=handed_over(image, tmp_path))["content"] == "head"


def test_describe_says_why_a_scan_cannot_be_used(worker, image, tmp_path):
    flat = worker.ask(id=34, task="describe", scan=handed_over(image * 0, tmp_path, "flat"))
    assert not flat["usable"] and "flat is constant" in flat["message"] and flat["event"] == "result"
    tiny = {**handed_over(image, tmp_path, "tiny"), "spacing": [0.1, 0.1, 0.1]}
    assert "too little of a head" in worker.ask(id=35, task="describe", scan=tiny)["message"]


def test_info_and_bundles(worker):
    info = worker.ask(id=36, task="info")
    assert info["missing"] == [] and info["versions"]["medvae"] == __version__ and info["versions"]["torch"]
    assert info["devices"][-1]["name"] == "cpu" and info["default_device"] in {d["name"] for d in info["devices"]}
    found = {bundle["name"]: bundle for bundle in worker.ask(id=37, task="bundles")["bundles"]}
    shipped = found["healthy-anatomy"]
    assert shipped["valid"] and shipped["licence"] and shipped["training_data"] and shipped["results"]


def test_without_torch_it_still_says_what_is_missing(scan, tmp_path):
    code = "import sys; sys.modules['torch'] = None; from MedVAELib.worker.__main__ import main; main()"
    with WorkerProcess(code) as worker:
        info = worker.ask(id=1, task="info")
        assert info["missing"] == ["torch"] and info["devices"] == []
        assert worker.ask(id=2, task="bundles")["bundles"][0]["valid"]
        assert worker.ask(id=3, task="describe", scan=scan)["usable"]
        failed = worker.ask(**request(4, scan, tmp_path / "4"))
        assert failed["kind"] == "MissingPackage" and "torch is not installed" in failed["message"]
        assert not (tmp_path / "4").exists()


# --- Cancelling ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["read", "load", "anatomy", "fit", "sampling"])
def test_cancelling_leaves_nothing_and_the_worker_alive(worker, image, tmp_path, stage):
    scan = handed_over(image + 10 + len(stage), tmp_path)  # one the worker has not prepared
    worker.send(request(40, scan, tmp_path / "40", samples=5000))
    worker.until_stage(40, stage)
    worker.send({"cancel": 40})
    answer = worker.answer(40)
    assert (answer["event"], answer["kind"], answer["exit_code"]) == ("error", "Cancelled", 130)
    assert not (tmp_path / "40").exists()
    assert worker.ask(**request(41, scan, tmp_path / "41", samples=1))["event"] == "result"


@pytest.mark.parametrize("stage", ["restore", "score", "findings", "write"])
def test_cancelling_at_the_end_gives_all_or_nothing(worker, image, tmp_path, stage):
    """Here the result can be faster than the cancellation."""
    worker.send(request(42, handed_over(image + 30 + len(stage), tmp_path), tmp_path / "42"))
    worker.until_stage(42, stage)
    worker.send({"cancel": 42})
    answer = worker.answer(42)
    if answer["event"] == "result":
        assert set(loaded(answer)) == set(VOLUMES)
    else:
        assert answer["kind"] == "Cancelled" and not (tmp_path / "42").exists()


def test_a_waiting_request_is_cancelled_without_being_run(worker, image, scan, tmp_path):
    worker.send(request(43, handed_over(image + 50, tmp_path, "other"), tmp_path / "43"))
    worker.send(request(44, scan, tmp_path / "44"))
    worker.send({"cancel": 44})
    assert worker.answer(43)["event"] == "result"
    assert worker.receive()["kind"] == "Cancelled" and not (tmp_path / "44").exists()


def test_cancelling_what_has_ended_or_never_was_does_nothing(worker, scan):
    for number in (1, 999, "x", None, [1], {}):
        worker.send({"cancel": number})
    assert worker.ask(id=45, task="describe", scan=scan)["usable"]
