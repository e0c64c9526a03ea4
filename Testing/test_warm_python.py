"""A warm Python does what a new one does: arguments, environment, folder, exit codes, signals."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from Testing import warm_python
from Testing.warm_python import WarmProcess, warm

TELL = "import os, sys; print(sys.argv, os.getcwd(), os.environ.get('TOLD'), sys.stdin.read(), __name__)"


def run(arguments: list[str], **options) -> subprocess.CompletedProcess:
    return subprocess.run(warm([sys.executable, *arguments]), capture_output=True, text=True, **options)


@pytest.mark.parametrize("way", ["-c", "file", "-m"])
def test_it_is_told_what_a_new_one_is_told(tmp_path, way):
    (tmp_path / "tell.py").write_text(TELL)
    arguments = {"-c": ["-c", TELL, "a", "b"], "file": ["tell.py", "a", "b"], "-m": ["-m", "tell", "a", "b"]}[way]
    options = {"cwd": tmp_path, "env": {**os.environ, "TOLD": "yes"}, "input": "words"}
    real = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, **options)
    done = run(arguments, **options)
    assert (done.stdout, done.stderr, done.returncode) == (real.stdout, real.stderr, 0)


@pytest.mark.parametrize("code, wanted", [("import sys; sys.exit(7)", 7), ("import sys; sys.exit()", 0),
                                          ("import sys; sys.exit('a word')", 1), ("1 / 0", 1),
                                          ("import os; os._exit(3)", 3)])
def test_it_ends_as_a_new_one(code, wanted):
    done = run(["-c", code])
    assert done.returncode == wanted
    assert ("a word" in done.stderr) == ("word" in code) and ("ZeroDivisionError" in done.stderr) == ("/" in code)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGKILL"])
def test_signals_reach_it(name):
    number = getattr(signal, name)
    if signal.getsignal(number) == signal.SIG_IGN:
        pytest.skip("the shell that started the tests in the background has it ignored")
    waiting = "import sys, time; print('ready', flush=True); time.sleep(60)"
    stand_in = subprocess.Popen(warm([sys.executable, "-c", waiting]), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process = WarmProcess(["-c", waiting], os.environ, Path.cwd())
    for started in (stand_in, process):
        assert started.stdout.readline() == b"ready\n" and started.poll() is None
        started.send_signal(number)
    assert process.wait(20) == stand_in.wait(20) == -number
    assert (b"KeyboardInterrupt" in process.stderr.read()) == (number == signal.SIGINT)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it is the process itself")
def test_it_does_not_outlive_its_stand_in():
    tell = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    stand_in = subprocess.Popen(warm([sys.executable, "-c", tell]), stdout=subprocess.PIPE)
    pid = int(stand_in.stdout.readline())
    assert pid != stand_in.pid
    stand_in.kill()
    assert stand_in.stdout.read() == b"" and stand_in.wait() == -signal.SIGKILL  # the pipe's last writer has gone


def test_one_that_is_killed_while_it_asks_does_not_end_the_server(monkeypatch):
    monkeypatch.setattr(warm_python, "_server", functools.cache(warm_python._server.__wrapped__))
    command = warm([sys.executable, "-c", "import time; time.sleep(60)"])  # a new server, which is still importing
    for stand_in in [subprocess.Popen(command) for _ in range(4)]:
        time.sleep(0.1)
        stand_in.kill()
        stand_in.wait()
    done = subprocess.run(warm([sys.executable, "-c", "print('here')"]), capture_output=True, text=True)
    assert (done.stdout, done.stderr, done.returncode) == ("here\n", "", 0)
