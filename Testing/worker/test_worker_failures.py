"""The worker as a process: every way in which a run can go wrong."""

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

from MedVAELib.resources import resource_dir
from Testing.worker.requests import posix, request
from Testing.worker_process import PATIENCE_S, ROOT, WorkerProcess, handed_over

# --- Ends ------------------------------------------------------------------------------------------------------------


STRANGE_TASKS = """
import os, sys, time
from pathlib import Path
from MedVAELib.worker import server
server.hold_signals()  # as there, before NumPy starts its threads
import numpy as np
from MedVAELib.worker import requests, tasks
def half(job):
    def arrays():
        yield "first", np.zeros(3)
        job.progress("half", 0.5)
        time.sleep(600)
    return requests.hand_over(Path(job.request["output"]), arrays(), 2, job, job.progress)
def large(job):
    return requests.hand_over(Path(job.request["output"]), [("values", np.zeros(1 << 18))], 1, job, job.progress)
def chatter(job):
    print("a library's chatter")
    os.system("echo chatter of a child")
    return {"stdin": sys.stdin.read()}
def memory(job):
    raise MemoryError
def slip(job):
    raise ZeroDivisionError("a slip\\non two lines")
def nothing(job):
    return {"dice": float("nan")}
from MedVAELib.worker.__main__ import main
tasks.TASKS |= {"half": half, "large": large, "chatter": chatter, "memory": memory, "slip": slip, "nothing": nothing}
main()
"""


@pytest.fixture
def strange():
    with WorkerProcess(STRANGE_TASKS) as process:
        yield process


def hand_half_over(worker, output):
    """The worker has written one of two files to the folder `output` when this returns."""
    worker.send({"id": 1, "task": "half", "output": str(output)})
    worker.until_stage(1, "half")
    (half,) = output.rglob("*.npy")
    assert half.parent != output


@pytest.mark.parametrize("way", ["end of input", "shutdown", *(
    pytest.param(number, marks=posix) for number in (signal.SIGTERM, signal.SIGINT))])
def test_it_ends_at_once_and_takes_its_unfinished_files_along(strange, tmp_path, way):
    hand_half_over(strange, tmp_path / "out")
    if way == "end of input":
        strange.process.stdin.close()
    elif way == "shutdown":
        strange.send({"task": "shutdown"})
    else:
        strange.process.send_signal(way)
    assert strange.wait() == (128 + way if isinstance(way, int) else 0)
    assert list(tmp_path.rglob("*")) == [tmp_path / "out"]
    assert "Traceback" not in strange.log


def test_it_ends_at_once_while_a_model_computes(fresh, scan, tmp_path):
    fresh.send(request(1, scan, tmp_path / "out", samples=10_000))
    fresh.until_stage(1, "sampling")
    fresh.process.stdin.close()
    assert fresh.wait() == 0


@posix
def test_killed_in_mid_run_it_leaves_no_result_and_another_one_works(strange, worker, scan, tmp_path):
    hand_half_over(strange, tmp_path / "out")
    strange.process.kill()
    assert strange.wait() == -signal.SIGKILL
    while strange.receive() is not None:  # what was under way is read; then the end is seen
        pass
    assert not list(tmp_path.glob("out/*.npy"))
    assert worker.ask(**request(49, scan, tmp_path / "out"))["event"] == "result"


@posix
def test_it_does_not_outlive_a_killed_parent():
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
])
def test_a_line_that_is_no_request_is_refused_and_nothing_else_happens(worker, scan, line):
    worker.send_raw(line + b"\n\n")
    refused = worker.receive()
    assert (refused["id"], refused["event"], refused["kind"]) == (None, "error", "UsageError")
    assert "\n" not in refused["message"]
    assert worker.ask(id=50, task="describe", scan=scan)["usable"]


@pytest.mark.parametrize("changed, kind, part", [
    ({"task": "fly"}, "UsageError", "detect"), ({"task": None}, "UsageError", "task"),
    ({"task": []}, "UsageError", "task"),
    ({"scan": None}, "UsageError", "scan"), ({"scan": {}}, "UsageError", "array"),
    ({"output": None}, "UsageError", "output"), ({"samples": "many"}, "UsageError", "samples"),
    ({"samples": 0}, "UsageError", "samples"), ({"samples": True}, "UsageError", "samples"),
    ({"fpr": 2}, "UsageError", "fpr"), ({"score": "magic"}, "UsageError", "magic"),
    ({"modality": "ct"}, "UsageError", "ct"), ({"device": "gpu"}, "UsageError", "gpu"),
    ({"bundle": "unknown"}, "BundleError", "unknown"), ({"seed": 1.5}, "UsageError", "seed"),
])
def test_a_wrong_field_is_one_sentence(worker, scan, tmp_path, changed, kind, part):
    failed = worker.ask(**{**request(51, scan, tmp_path / "51"), **changed})
    assert failed["event"] == "error" and failed["kind"] == kind and part in failed["message"], failed
    assert "\n" not in failed["message"] and not (tmp_path / "51").exists()


@pytest.mark.parametrize("changed", [
    {"spacing": [1, 1]}, {"spacing": "1,1,1"}, {"origin": [0, 0, None]}, {"direction": [1] * 8},
    {"spacing": [1, 1, float("nan")]}, {"origin": None},
])
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
    with WorkerProcess(STRANGE_TASKS, preexec_fn=limit_file_size) as worker:  # the limit stands in for a full disk
        failed = worker.ask(id=1, task="large", output=str(tmp_path / "1"))
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


def test_what_others_print_does_not_reach_the_protocol(strange):
    assert strange.ask(id=1, task="chatter") == {"id": 1, "event": "result", "stdin": ""}
    assert strange.ask(id=2, task="info")["event"] == "result"
    strange.process.stdin.close()
    strange.wait()
    assert "a library's chatter" in strange.log and "chatter of a child" in strange.log


def test_memory_and_mistakes_are_told_and_survived(strange):
    failed = strange.ask(id=1, task="memory")
    assert (failed["kind"], failed["exit_code"]) == ("DeviceMemoryError", 6) and "memory" in failed["message"]
    failed = strange.ask(id=2, task="slip")
    assert (failed["kind"], failed["exit_code"]) == ("InternalError", 1)
    assert "ZeroDivisionError: a slip on two lines" in failed["message"]
    failed = strange.ask(id=3, task="nothing")
    assert failed["event"] == "error" and "JSON" in failed["message"], "an answer that is no JSON"
    strange.process.stdin.close()
    strange.wait()
    assert strange.log.count("Traceback") == 1
