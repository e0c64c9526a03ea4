"""The worker as a process: real inference over real pipes, and every way in which a run can go wrong."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from MedVAELib import __version__
from MedVAELib.anomaly.detect import detect_anomalies
from MedVAELib.preprocessing.geometry import ras_grid, to_grid
from MedVAELib.resources import resource_dir
from MedVAELib.scan import Scan
from Testing.worker_process import PATIENCE_S, ROOT, WorkerProcess, handed_over

VOLUMES = ("anomaly", "residual", "reconstruction", "std", "mask", "brain", "components")
FAST = {"samples": 2, "device": "cpu"}
posix = pytest.mark.skipif(sys.platform == "win32", reason="signals between processes are POSIX")


@pytest.fixture(scope="module")
def image():
    """The bundled sample on a coarser grid, tilted, so that geometry matters."""
    source = sitk.ReadImage(str(resource_dir() / "sample" / "flair.nii.gz"), sitk.sitkFloat32)
    grid = ras_grid((0, 0, 0), (80, 96, 80), 2.2)
    turn = np.array(sitk.Euler3DTransform((0, 0, 0), 0.05, 0.0, 0.1).GetMatrix()).reshape(3, 3)
    grid.SetDirection((turn @ np.array(grid.GetDirection()).reshape(3, 3)).ravel().tolist())
    grid.SetOrigin((turn @ np.array(grid.GetOrigin())).tolist())
    return sitk.Round(to_grid(source, grid))


@pytest.fixture(scope="module")
def worker():
    """One worker for all tests that leave it alive."""
    with WorkerProcess() as process:
        yield process


@pytest.fixture
def fresh():
    with WorkerProcess() as process:
        yield process


@pytest.fixture
def scan(image, tmp_path):
    return handed_over(image, tmp_path)


def request(number, scan, output, **settings):
    return {"id": number, "task": "detect", "scan": scan, "output": str(output), **FAST, **settings}


def loaded(answer):
    return {name: np.load(path) for name, path in answer["arrays"].items()}


def as_arrays(detection):
    return {name: sitk.GetArrayFromImage(getattr(detection, name)) for name in VOLUMES}


def same(first, second):
    return all(first[n].dtype == second[n].dtype and first[n].tobytes() == second[n].tobytes() for n in VOLUMES)


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
    reused = [fresh.ask(**request(n, scans[which], tmp_path / str(n)))["provenance"]["reused_stages"]
              for n, which in enumerate((0, 1, 0, 2, 0, 1))]  # fmt: skip
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
        "read", "load", "anatomy", "fit", "sampling", "restore", "score", "findings", "write"]  # fmt: skip
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
    code = "import sys; sys.modules['torch'] = None; from MedVAELib.worker.server import main; main()"
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


# --- Ends ------------------------------------------------------------------------------------------------------------


def start_long_run(worker, scan, output):
    worker.send(request(1, scan, output, samples=10_000))
    worker.until_stage(1, "sampling")


def test_end_of_input_ends_it_at_once(fresh, scan, tmp_path):
    start_long_run(fresh, scan, tmp_path / "out")
    fresh.process.stdin.close()
    assert fresh.wait() == 0
    assert not (tmp_path / "out").exists()


def test_a_shutdown_ends_it_at_once(fresh, scan, tmp_path):
    start_long_run(fresh, scan, tmp_path / "out")
    fresh.send({"task": "shutdown"})
    assert fresh.wait() == 0 and not (tmp_path / "out").exists()


@posix
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_at_once(fresh, scan, tmp_path, number):
    start_long_run(fresh, scan, tmp_path / "out")
    fresh.process.send_signal(number)
    assert fresh.wait() == 128 + number and not (tmp_path / "out").exists()
    assert "Traceback" not in fresh.log


@posix
def test_killed_in_mid_run_it_leaves_no_result_and_a_new_one_works(fresh, scan, tmp_path):
    start_long_run(fresh, scan, tmp_path / "out")
    fresh.process.kill()
    assert fresh.wait() == -signal.SIGKILL
    while fresh.receive() is not None:  # what was under way is read; then the end is seen
        pass
    assert not list(tmp_path.glob("out/*.npy"))
    with WorkerProcess() as successor:
        assert successor.ask(**request(1, scan, tmp_path / "out"))["event"] == "result"


@posix
def test_it_does_not_outlive_a_killed_parent(tmp_path):
    code = ("import subprocess, sys, time; p = subprocess.Popen([sys.executable, '-m', 'MedVAELib.worker'],"
            " stdin=subprocess.PIPE, stdout=subprocess.PIPE); p.stdout.readline(); print(p.pid, flush=True);"
            " time.sleep(600)")
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    orphan = int(parent.stdout.readline())
    assert alive(orphan)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + PATIENCE_S
    while alive(orphan) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(orphan)


def alive(pid):
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"


# --- Bad requests ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", [
    b"garbage", b"{", b"[1, 2]", b"7", b"null", b"\xff\xfe\x00", b'{"task": "info"}', b'{"id": null, "task": "info"}',
    b'{"id": true, "task": "info"}', b'{"id": [1], "task": "info"}', b"[" * 100_000, b"x" * (5 << 20),
])  # fmt: skip
def test_a_line_that_is_no_request_is_refused_and_nothing_else_happens(worker, scan, line):
    worker.send_raw(line + b"\n\n")
    refused = worker.receive()
    assert (refused["id"], refused["event"], refused["kind"]) == (None, "error", "UsageError")
    assert "\n" not in refused["message"]
    assert worker.ask(id=50, task="describe", scan=scan)["usable"]


@pytest.mark.parametrize("changed, kind, part", [
    ({"task": "fly"}, "UsageError", "detect"), ({"task": None}, "UsageError", "task"),
    ({"scan": None}, "UsageError", "scan"), ({"scan": {}}, "UsageError", "array"),
    ({"output": None}, "UsageError", "output"), ({"samples": "many"}, "UsageError", "samples"),
    ({"samples": 0}, "UsageError", "samples"), ({"samples": True}, "UsageError", "samples"),
    ({"fpr": 2}, "UsageError", "fpr"), ({"score": "magic"}, "UsageError", "magic"),
    ({"modality": "ct"}, "UsageError", "ct"), ({"device": "gpu"}, "UsageError", "gpu"),
    ({"bundle": "unknown"}, "BundleError", "unknown"), ({"seed": 1.5}, "UsageError", "seed"),
])  # fmt: skip
def test_a_wrong_field_is_one_sentence(worker, scan, tmp_path, changed, kind, part):
    failed = worker.ask(**{**request(51, scan, tmp_path / "51"), **changed})
    assert failed["event"] == "error" and failed["kind"] == kind and part in failed["message"], failed
    assert "\n" not in failed["message"] and not (tmp_path / "51").exists()


@pytest.mark.parametrize("changed", [
    {"spacing": [1, 1]}, {"spacing": "1,1,1"}, {"origin": [0, 0, None]}, {"direction": [1] * 8},
    {"spacing": [1, 1, float("nan")]}, {"origin": None},
])  # fmt: skip
def test_wrong_geometry_is_one_sentence(worker, scan, changed):
    failed = worker.ask(id=52, task="describe", scan={**scan, **changed})
    assert failed["kind"] == "UsageError" and next(iter(changed)) in failed["message"]


def test_axes_that_are_no_axes(worker, scan):
    seen = worker.ask(id=53, task="describe", scan={**scan, "direction": [1, 0, 0, 1, 0, 0, 0, 0, 1]})
    assert not seen["usable"] and "axes" in seen["message"]


def test_the_file_of_the_voxels_is_gone_or_damaged(worker, scan, tmp_path):
    cut = tmp_path / "cut.npy"
    cut.write_bytes(Path(scan["array"]).read_bytes()[:5000])
    objects = tmp_path / "objects.npy"
    np.save(objects, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    for path in (tmp_path / "absent.npy", cut, objects, tmp_path):
        failed = worker.ask(**request(54, {**scan, "array": str(path)}, tmp_path / "54"))
        assert (failed["kind"], failed["exit_code"]) == ("InputError", 3), failed
        assert not (tmp_path / "54").exists()


def test_an_id_is_taken_until_it_is_answered(worker, image, tmp_path):
    worker.send(request(55, handed_over(image + 60, tmp_path), tmp_path / "55"))
    worker.send({"id": 55, "task": "info"})
    messages = [worker.receive()]
    while messages[-1].get("id") is not None:
        messages.append(worker.receive())
    assert "already" in messages[-1]["message"]
    assert worker.answer(55)["event"] == "result"


# --- Bad surroundings ------------------------------------------------------------------------------------------------


def test_no_brain_is_an_input_error(worker, image, tmp_path):
    noise = sitk.GetImageFromArray(np.random.default_rng(0).normal(100, 20, (80, 96, 80)).astype(np.float32))
    noise.CopyInformation(image)
    failed = worker.ask(**request(60, handed_over(noise, tmp_path, "noise"), tmp_path / "60"))
    assert (failed["kind"], failed["exit_code"]) == ("InputError", 3) and "no brain" in failed["message"]
    assert str(tmp_path) not in failed["message"]


def damage(bundle: Path):
    weights = bundle / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)


def test_a_damaged_bundle_is_named_and_the_good_one_still_works(scan, tmp_path):
    bundle = tmp_path / "bundles" / "mine"
    shutil.copytree(resource_dir() / "bundles" / "healthy-anatomy", bundle)
    with WorkerProcess(MEDVAE_BUNDLES=str(bundle.parent)) as worker:
        assert worker.ask(**request(1, scan, tmp_path / "1", bundle="mine"))["event"] == "result"
        damage(bundle)  # while the worker has it warm
        failed = worker.ask(**request(2, scan, tmp_path / "2", bundle=str(bundle)))
        assert (failed["kind"], failed["exit_code"]) == ("BundleError", 4) and "SHA-256" in failed["message"]
        listed = {entry["name"]: entry for entry in worker.ask(id=3, task="bundles")["bundles"]}
        assert not listed["mine"]["valid"] and "SHA-256" in listed["mine"]["problem"]
        assert listed["healthy-anatomy"]["valid"]
        assert worker.ask(**request(4, scan, tmp_path / "4"))["event"] == "result"


def limit_file_size():
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))


@posix
def test_a_disk_that_refuses_leaves_no_result(scan, tmp_path):
    with WorkerProcess(preexec_fn=limit_file_size) as worker:  # the limit stands in for a full disk
        failed = worker.ask(**request(1, scan, tmp_path / "1"))
        assert failed["kind"] == "UsageError" and "cannot be written" in failed["message"], failed
        assert not (tmp_path / "1").exists()
        assert worker.ask(id=2, task="describe", scan=scan)["usable"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_full_disk_is_said_and_there_is_room_again_afterwards(worker, scan, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", small], capture_output=True).returncode:
        pytest.skip("this system does not let a disk be mounted")
    try:
        failed = worker.ask(**request(61, scan, small / "61"))
        assert "No space left" in failed["message"] and "make room" in failed["message"], failed
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", small], check=True)
    assert worker.ask(**request(62, scan, tmp_path / "62"))["event"] == "result"


def test_an_output_that_is_a_file_or_holds_other_files(worker, scan, tmp_path):
    (tmp_path / "file").write_text("precious")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mask.npy").write_text("precious")
    for place in ("file", "full"):
        failed = worker.ask(**request(63, scan, tmp_path / place))
        assert failed["kind"] == "UsageError" and place in failed["message"], failed
    assert (tmp_path / "file").read_text() == (tmp_path / "full" / "mask.npy").read_text() == "precious"


STRANGE_TASKS = """
import os, sys
from MedVAELib.worker import server, tasks
def chatter(job):
    print("a library's chatter")
    os.system("echo chatter of a child")
    return {"stdin": sys.stdin.read()}
def memory(job):
    raise MemoryError
def slip(job):
    raise ZeroDivisionError("a slip\\non two lines")
tasks.TASKS |= {"chatter": chatter, "memory": memory, "slip": slip}
server.main()
"""


def test_what_others_print_does_not_reach_the_protocol():
    with WorkerProcess(STRANGE_TASKS) as worker:
        assert worker.ask(id=1, task="chatter") == {"id": 1, "event": "result", "stdin": ""}
        assert worker.ask(id=2, task="info")["event"] == "result"
        worker.process.stdin.close()
        worker.wait()
        assert "a library's chatter" in worker.log and "chatter of a child" in worker.log


def test_memory_and_mistakes_are_told_and_survived():
    with WorkerProcess(STRANGE_TASKS) as worker:
        failed = worker.ask(id=1, task="memory")
        assert (failed["kind"], failed["exit_code"]) == ("DeviceMemoryError", 6) and "memory" in failed["message"]
        failed = worker.ask(id=2, task="slip")
        assert (failed["kind"], failed["exit_code"]) == ("InternalError", 1)
        assert "ZeroDivisionError: a slip on two lines" in failed["message"]
        worker.process.stdin.close()
        worker.wait()
        assert worker.log.count("Traceback") == 1
