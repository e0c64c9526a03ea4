"""The worker's client against real processes: most of them are small scripts that misbehave in one way."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import textwrap
import time
import weakref
from pathlib import Path

import pytest

from .detections import ROOT, alive

PREAMBLE = """
import json, os, signal, subprocess, sys, time
def say(**message): print(json.dumps(message), flush=True)
def hear(): return json.loads(sys.stdin.readline() or os._exit(0))
say(event="ready", version="test", pid=os.getpid())
"""


@pytest.fixture
def make_client(host, tmp_path):
    """make_client(script) gives a client whose worker runs that script; lines of its log are in `.lines`."""
    from MedVAEPanel.worker_client import WorkerClient

    made = []

    def make(script: str | None = None, command: list[str] | None = None, preamble: str = PREAMBLE):
        library = ROOT
        if script is not None:
            library = tmp_path / f"library{len(made)}"
            package = library / "MedVAELib" / "worker"
            package.mkdir(parents=True)
            (library / "MedVAELib" / "__init__.py").touch()
            (package / "__init__.py").touch()
            (package / "__main__.py").write_text(preamble + textwrap.dedent(script), encoding="utf-8")
        lines: list[str] = []
        client = WorkerClient(command or [sys.executable], library, lines.append, temporary=tmp_path)
        client.lines = lines
        made.append(client)
        return client

    yield make
    for client in made:
        client.shutdown()


@pytest.fixture(autouse=True)
def panel_on_path(host, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "MedVAE"))


class Answer:
    """What came of a request."""

    def __init__(self, client, task="work", **fields):
        self.results, self.errors, self.progress = [], [], []
        self.job = client.request(task, fields, self.results.append, self.errors.append, self.progress.append)

    @property
    def done(self) -> bool:
        return bool(self.results or self.errors)


def pump(until, seconds: float = 20.0) -> bool:
    import slicer

    limit = time.monotonic() + seconds
    while not until():
        if time.monotonic() > limit:
            return False
        slicer.app.processEvents()
        time.sleep(0.002)
    return True


def test_starts_with_the_first_request_and_stays_warm(make_client):
    client = make_client("""
        while True:
            request = hear()
            say(id=request["id"], event="progress", stage="a", fraction=0.5, message="half")
            say(id=request["id"], event="result", task=request["task"], pid=os.getpid())
    """)
    assert client.state == "stopped"
    first = Answer(client)
    assert client.state == "starting"
    assert pump(lambda: first.done)
    assert first.progress[0]["fraction"] == 0.5 and first.results[0]["task"] == "work" and not first.errors
    assert client.state == "idle"
    second = Answer(client, "again")
    assert client.state == "busy"
    assert pump(lambda: second.done)
    assert second.results[0]["pid"] == first.results[0]["pid"] == client.pid, "it was not kept warm"
    assert client.state == "idle"


def test_requests_that_wait_for_the_start_are_all_answered_in_order(make_client):
    client = make_client("""
        while True:
            request = hear(); say(id=request["id"], event="result", task=request["task"])
    """)
    answers = [Answer(client, task) for task in ("one", "two", "three")]
    assert pump(lambda: all(answer.done for answer in answers))
    assert [answer.results[0]["task"] for answer in answers] == ["one", "two", "three"]


def test_a_crash_is_reported_with_the_last_lines_and_the_next_request_works(make_client):
    client = make_client("""
        request = hear()
        if request["task"] == "crash":
            for number in range(30): print("line", number, file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        say(id=request["id"], event="result")
        time.sleep(60)
    """)
    crashed = Answer(client, "crash")
    assert pump(lambda: crashed.done)
    error = crashed.errors[0]
    assert error["kind"] == "WorkerError" and "killed" in error["message"]
    assert error["log"][-1] == "line 29" and "worker: line 0" in client.lines
    assert len(crashed.errors) == 1 and not crashed.results and client.state == "stopped"
    again = Answer(client, "work")
    assert pump(lambda: again.done) and again.results


def test_what_is_written_just_before_the_end_is_not_lost(make_client):
    client = make_client("""
        request = hear()
        say(id=request["id"], event="result", value="x" * 300000)
        os._exit(3)
    """)
    answer = Answer(client)
    assert pump(lambda: answer.done)
    assert len(answer.results[0]["value"]) == 300000 and not answer.errors
    assert pump(lambda: client.state == "stopped")


def test_an_exit_with_a_request_open_is_an_error(make_client):
    client = make_client('hear(); print("Traceback: no torch", file=sys.stderr, flush=True); sys.exit(7)')
    answer = Answer(client)
    assert pump(lambda: answer.done)
    assert "exit code was 7" in answer.errors[0]["message"] and answer.errors[0]["log"] == ["Traceback: no torch"]


def test_a_program_that_is_not_there(make_client, tmp_path):
    client = make_client(command=[str(tmp_path / "NoPython")])
    answer = Answer(client)
    assert pump(lambda: answer.done)
    assert "cannot be started" in answer.errors[0]["message"] and client.state == "stopped"


def test_a_callback_that_fails_costs_nobody_else_a_reply(make_client):
    client = make_client("""
        first, second, last = hear(), hear(), hear()
        for request in (first, second):
            say(id=request["id"], event="progress", stage="a", fraction=0.5, message="half")
            say(id=request["id"], event="result", task=request["task"])
        os._exit(3)
    """)

    def fail(message):
        raise StopIteration

    client.request("bad", {}, fail, fail, fail)
    good = Answer(client, "good")
    client.request("left open", {}, fail, fail)
    left_open = Answer(client, "left open")
    assert pump(lambda: left_open.done)
    assert good.results[0]["task"] == "good" and len(good.progress) == 1
    assert "has ended" in left_open.errors[0]["message"]
    told = [line for line in client.lines if "StopIteration" in line]
    assert len(told) == 3 and all("Traceback" in line and "in fail" in line for line in told)


def test_cancel_of_a_worker_that_obeys_keeps_it_warm(make_client):
    client = make_client("""
        while True:
            request = hear()
            if "cancel" in request:
                say(id=request["cancel"], event="error", kind="Cancelled", exit_code=130, message="Cancelled.")
            elif request["task"] == "quick": say(id=request["id"], event="result")
            else: say(id=request["id"], event="progress", stage="a", fraction=0.1, message="")
    """)
    answer = Answer(client)
    assert pump(lambda: answer.progress)
    pid = client.pid
    client.cancel(answer.job)
    client.cancel(answer.job)
    assert pump(lambda: answer.done)
    assert answer.errors == [{"kind": "Cancelled", "exit_code": 130, "message": "Cancelled."}]
    after = Answer(client, "quick")
    assert pump(lambda: after.done) and client.pid == pid
    pump(lambda: False, 1.0)  # longer than the grace period: nothing is killed afterwards
    assert alive(pid) and client.state == "idle"


def test_cancel_of_a_worker_that_does_not_obey_ends_it(make_client):
    client = make_client("""
        request = hear()
        say(id=request["id"], event="progress", stage="a", fraction=0.1, message="")
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)
    """)
    answer = Answer(client)
    assert pump(lambda: answer.progress)
    pid, begin = client.pid, time.monotonic()
    client.cancel(answer.job)
    assert pump(lambda: answer.done, 10)
    print(f"cancelled after {time.monotonic() - begin:.2f} s")
    assert answer.errors[0]["kind"] == "Cancelled" and len(answer.errors) == 1
    assert pump(lambda: not alive(pid), 5) and client.state == "stopped"


STUBBORN = """
    request = hear()
    if request["task"] == "quick": say(id=request["id"], event="result")
    else: say(id=request["id"], event="progress", stage="a", fraction=0.1, message="")
    time.sleep(600)
"""


def test_what_waits_behind_a_cancelled_request_is_answered_by_a_new_worker(make_client):
    client = make_client(STUBBORN)
    first, second = Answer(client), Answer(client, "quick")
    assert pump(lambda: first.progress)
    client.cancel(first.job)
    assert pump(lambda: first.done and second.done, 10)
    assert first.errors[0]["kind"] == "Cancelled" and second.results and not second.errors


def test_cancelling_what_waits_disturbs_nothing(make_client):
    client = make_client(STUBBORN)
    first, second = Answer(client), Answer(client, "quick")
    assert pump(lambda: first.progress)
    pid = client.pid
    client.cancel(second.job)
    assert pump(lambda: second.done, 2) and second.errors[0]["kind"] == "Cancelled"
    pump(lambda: False, 1.0)
    assert client.pid == pid and alive(pid) and client.state == "busy" and not first.done


def test_cancel_while_starting(make_client):
    client = make_client("time.sleep(600)", preamble="import time\n")
    answer = Answer(client)
    client.cancel(answer.job)
    assert pump(lambda: answer.done, 10)
    assert answer.errors[0]["kind"] == "Cancelled" and client.state == "stopped"


def test_a_result_that_comes_after_cancelling_is_no_result(make_client):
    client = make_client("""
        request = hear()
        say(id=request["id"], event="progress", stage="a", fraction=0.1, message="")
        hear()
        say(id=request["id"], event="result")
        time.sleep(60)
    """)
    answer = Answer(client)
    assert pump(lambda: answer.progress)
    client.cancel(answer.job)
    assert pump(lambda: answer.done)
    assert answer.errors and not answer.results


def test_no_orphan_behind_a_launcher(make_client, tmp_path):
    """PythonSlicer is a launcher: the worker is its child, and must end with it."""
    launcher = tmp_path / "launcher.py"
    launcher.write_text("import subprocess, sys\nsys.exit(subprocess.call([sys.executable, *sys.argv[1:]]))\n")
    client = make_client(
        """
        request = hear()
        say(id=request["id"], event="progress", stage="a", fraction=0.1, message=str(os.getppid()))
        time.sleep(600)
        """, command=[sys.executable, str(launcher)])
    answer = Answer(client)
    assert pump(lambda: answer.progress)
    pids = [client.pid, int(answer.progress[0]["message"])]
    assert all(alive(pid) for pid in pids) and os.getpid() not in pids
    client.shutdown()
    assert pump(lambda: not any(alive(pid) for pid in pids), 5)
    assert answer.errors[0]["kind"] == "Cancelled"


def test_a_crash_behind_a_launcher_is_told_as_one(make_client, tmp_path):
    """PythonSlicer itself ends with the code 1 then, and says so on standard error."""
    launcher = tmp_path / "launcher.py"
    launcher.write_text(textwrap.dedent("""
        import subprocess, sys
        code = subprocess.call([sys.executable, *sys.argv[1:]])
        if code < 0:
            print("error: [/opt/Slicer/bin/python-real] exit abnormally - Report the problem.", file=sys.stderr)
        sys.exit(1 if code < 0 else code)
    """))
    client = make_client("""
        if hear()["task"] == "crash": os.kill(os.getpid(), signal.SIGKILL)
        sys.exit(1)
    """, command=[sys.executable, str(launcher)])
    crashed = Answer(client, "crash")
    assert pump(lambda: crashed.done)
    assert "crashed or was killed" in crashed.errors[0]["message"]
    ended = Answer(client, "end")
    assert pump(lambda: ended.done)
    assert "exit code was 1" in ended.errors[0]["message"]


@pytest.mark.parametrize("waits", [False, True])
def test_a_cancelled_request_is_let_go(make_client, waits):
    """Its callbacks hold the scan, and Slicer keeps what a timer calls until it ends."""
    told = []

    class Callback:
        def __call__(self, message):
            told.append(message)

    client, callback = make_client(STUBBORN), Callback()
    if waits:
        before = Answer(client)
        assert pump(lambda: before.progress)
    job = client.request("work", {}, callback, callback, callback)
    assert waits or pump(lambda: told)
    client.cancel(job)
    assert pump(lambda: any(message.get("kind") == "Cancelled" for message in told), 10)
    held = weakref.ref(callback)
    del job, callback
    gc.collect()
    assert held() is None


def test_the_scans_of_a_session_that_crashed_are_removed(make_client, tmp_path):
    """And those of one that lives are not."""
    code = """
import sys, time
from MedVAEPanel.temporary import TemporaryFolder
folder = TemporaryFolder(sys.argv[1])
(folder.path / "scan.npy").write_bytes(b"x")
print("made", flush=True)
time.sleep(600)
"""
    crashing = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE,
                                env={**os.environ, "PYTHONPATH": str(ROOT / "MedVAE")})
    try:
        assert crashing.stdout.readline() == b"made\n"
        (tmp_path / "medvae-of somebody").mkdir()
        there = set(tmp_path.glob("medvae-*"))
        mine = make_client().folder("job").parent
        assert set(tmp_path.glob("medvae-*")) == there | {mine} and len(list(tmp_path.glob("*/scan.npy"))) == 1
    finally:
        crashing.kill()
        crashing.wait()
    next_one = make_client().folder("job").parent
    assert set(tmp_path.glob("medvae-*")) == {mine, next_one, tmp_path / "medvae-of somebody"}


@pytest.mark.parametrize("done", [True, False])
def test_another_session_that_starts_takes_no_new_folder_for_left(tmp_path, monkeypatch, done):
    """It comes between the lock's file and the lock: and has removed the folder then, or is about to."""
    from MedVAEPanel import temporary

    real, files = temporary._locked, []

    def another_first(file) -> bool:
        monkeypatch.setattr(temporary, "_locked", real)
        if done:
            temporary._remove_if_left(Path(file.name).parent)
            assert not Path(file.name).exists()
        else:
            files.append(open(file.name, "rb+"))
            assert real(files[0])
        return real(file)

    monkeypatch.setattr(temporary, "_locked", another_first)
    folder = temporary.TemporaryFolder(tmp_path)
    for file in files:
        file.close()
    temporary._remove_if_left(folder.path)
    assert list(tmp_path.iterdir()) == [folder.path] and folder.path.is_dir(), "it is not locked"
    folder.remove()


def test_what_is_left_is_removed_while_it_is_locked(tmp_path, monkeypatch):
    """A session that locks its folder after that finds it gone."""
    from MedVAEPanel import temporary

    (tmp_path / "medvae-left").mkdir()
    (tmp_path / "medvae-left" / "in use").touch()

    def remove(folder, real=temporary.shutil.rmtree, **options) -> None:
        with (folder / "in use").open("rb+") as lock:
            assert not temporary._locked(lock)
        real(folder, **options)

    monkeypatch.setattr(temporary.shutil, "rmtree", remove)
    temporary._remove_if_left(tmp_path / "medvae-left")
    assert not list(tmp_path.iterdir())


def test_without_locks_there_is_a_folder_all_the_same(tmp_path, monkeypatch):
    """As on some network drives: but none is removed for another session."""
    from MedVAEPanel import temporary

    monkeypatch.setattr(temporary, "_locked", lambda file: False)
    folders = [temporary.TemporaryFolder(tmp_path) for _ in range(2)]
    assert set(tmp_path.iterdir()) == {folder.path for folder in folders}
    for folder in folders:
        folder.remove()


def test_shutdown_takes_the_temporary_folder_along(make_client):
    client = make_client("hear(); time.sleep(600)")
    folder = client.folder("job")
    (folder / "scan.npy").write_bytes(b"x")
    assert folder.parent.stat().st_mode & 0o077 == 0, "others could read the scan"
    Answer(client)
    assert pump(lambda: client.pid is not None)
    pid = client.pid
    client.shutdown()
    assert not folder.parent.exists() and pump(lambda: not alive(pid), 5)
    assert client.folder("next").is_dir(), "it cannot be used again"


def test_lines_that_are_no_messages_are_logged(make_client):
    client = make_client("""
        print("hello from a library"); print("[]"); print('{"id": 99, "event": "progress"}')
        sys.stdout.buffer.write(b"\\xff\\xfe\\n"); sys.stdout.flush()
        request = hear(); say(id=request["id"], event="result", message="Zürich ≈")
        time.sleep(60)
    """)
    answer = Answer(client)
    assert pump(lambda: answer.done)
    assert answer.results[0]["message"] == "Zürich ≈"
    assert "worker: hello from a library" in client.lines


def test_the_log_keeps_letters_beyond_ascii(make_client, monkeypatch):
    """Where the system's encoding has none of them, or writes them in another way, as on Windows."""
    for name, value in (("LC_ALL", "C"), ("PYTHONCOERCECLOCALE", "0"), ("PYTHONUTF8", "0")):
        monkeypatch.setenv(name, value)
    client = make_client("""
        hear()
        print("C:/Größe/×.nii", file=sys.stderr)
        os._exit(1)
    """)
    answer = Answer(client)
    assert pump(lambda: answer.done) and "C:/Größe/×.nii" in answer.errors[0]["log"]


def test_the_real_worker_answers_and_imports_nothing_heavy_for_it(make_client):
    client = make_client()
    answer = Answer(client, "bundles")
    assert pump(lambda: answer.done, 60)
    assert any(bundle["valid"] for bundle in answer.results[0]["bundles"]), answer.results
    maps = Path(f"/proc/{client.pid}/maps")
    if maps.exists():
        assert "libtorch" not in maps.read_text()
    pid = client.pid
    client.shutdown()
    assert pump(lambda: not alive(pid), 5)


def test_a_request_that_is_made_when_others_are_ended_starts_no_worker(make_client):
    """As dragging a slider makes them: the next one is sent as soon as there is an answer."""
    client = make_client("hear(); time.sleep(600)")
    errors, later = [], []

    def again(error):
        errors.append(error)
        later.append(Answer(client))

    client.request("work", {}, lambda result: None, again)
    assert pump(lambda: client.pid is not None)
    with client.closed():
        assert [error["kind"] for error in errors] == ["Cancelled"] and client.state == "stopped"
        assert pump(lambda: later[0].done) and client.state == "stopped"
    assert later[0].errors[0]["kind"] == "Cancelled"
    Answer(client)
    assert pump(lambda: client.pid is not None), "it cannot be used again"
