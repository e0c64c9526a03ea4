from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from MedVAELib import __version__
from MedVAELib.cli import options
from MedVAELib.cli.app import explain, run
from MedVAELib.errors import UsageError
from MedVAELib.failures import Failure

ROOT = Path(__file__).resolve().parents[2]


def medvae(*arguments, code="", **environment):
    """The command in a process of its own, with `code` run before it."""
    program = f"{code}\nimport sys; from MedVAELib.__main__ import main; sys.argv[1:] = {list(arguments)!r}; main()"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=240,
                          env={**os.environ, "PYTHONPATH": str(ROOT), **environment})


def test_version_as_a_module():
    done = subprocess.run([sys.executable, "-m", "MedVAELib", "--version"], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"medvae {__version__}\n", "")


def test_help_imports_nothing_heavy():
    watch = ("import atexit, sys\n"
             "atexit.register(lambda: print('HEAVY', sorted({'torch', 'monai', 'SimpleITK', 'vtk', 'sklearn', 'scipy',"
             " 'matplotlib', 'numpy'} & set(sys.modules))))")
    done = medvae("--help", code=watch)
    assert done.returncode == 0 and "Usage" in done.stdout
    assert "HEAVY []" in done.stdout


SKULL_PLANE = str(ROOT / "Resources" / "sample" / "skull" / "axial.png")


@pytest.mark.parametrize("arguments, code", [
    (["detect", "none.nii.gz"], 3), (["detect", "--sample", "--fpr", "7"], 2), (["skull", "--axial", "none.png"], 3),
    (["detect", "--sample", "--samples", "10001"], 2), (["detect", "--sample", "--score", "nonsense"], 2),
    (["skull", "--sample", "--samples", "10001"], 2),
    (["skull", "--sample", "--ga", "90"], 2), (["skull", "--axial", SKULL_PLANE], 2),
    (["skull", "--cohort", "none.csv"], 3), (["latent", "classify", "none.csv"], 3),
])
def test_what_is_wrong_is_said_before_the_slow_libraries_are_loaded(arguments, code, tmp_path):
    watch = ("import atexit, sys\n"
             "atexit.register(lambda: print('SLOW', sorted({'torch', 'monai', 'vtkmodules.vtkCommonCore', 'sklearn'}"
             " & set(sys.modules))))")
    done = medvae(*arguments, "--output", str(tmp_path / "out"), code=watch)
    assert done.returncode == code and "SLOW []" in done.stdout, done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("arguments", [["detect", "--help"], ["train", "-h"], ["bundles", "--help"],
                                       ["bundles", "import", "--help"]])
def test_every_command_has_help(arguments, capsys):
    assert run(arguments) == 0
    assert "Usage" in capsys.readouterr().out


def test_no_arguments_show_the_help_and_count_as_wrong_usage(capsys):
    assert run([]) == 2
    assert "Usage" in capsys.readouterr().out


def test_without_the_extra_packages_the_command_says_what_to_install():
    done = medvae("--help", code="import sys; sys.modules['typer'] = None")
    assert done.returncode == 1 and done.stdout == ""
    assert "pip install \".[cli]\"" in done.stderr and len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("command", ["evaluate", "latent", "bundles", "synthesise"])
def test_a_group_shows_its_commands_and_refuses_others_in_one_sentence(capsys, command):
    assert run([command]) == 2
    told = capsys.readouterr()
    assert "Commands" in told.out and not told.err
    assert run([command, "--help"]) == run([command, "-h"]) == 0
    assert run([command, "nonsense"]) == 2
    assert capsys.readouterr().err == "medvae: No such command 'nonsense'. (See 'medvae --help'.)\n"


def test_a_failure_without_words_still_makes_a_sentence():
    code, sentence = explain(KeyError())
    assert code == 1 and "KeyError" in sentence and sentence.endswith(".")


@pytest.mark.parametrize("command", ["detect", "prepare"])
@pytest.mark.parametrize("shell_expands", [True, False])
def test_wildcards_that_a_shell_of_windows_leaves(tmp_path, monkeypatch, command, shell_expands):
    asked = []

    def cases_of_paths(paths):
        asked.extend(path.name for path in paths)
        raise UsageError("enough")

    for name in ("b.nii", "a.nii", "[c].nii"):
        (tmp_path / name).touch()
    monkeypatch.setattr("MedVAELib.cohort.cases_of_paths", cases_of_paths)
    monkeypatch.setattr(options, "_SHELL_EXPANDS", shell_expands)
    given = [str(tmp_path / name) for name in ("?.nii", "[c].nii", "none*.nii")]
    assert run([command, *given, "--output", str(tmp_path / "out")]) == 2
    assert asked == (["?.nii"] if shell_expands else ["a.nii", "b.nii"]) + ["[c].nii", "none*.nii"]


def windows_error(number: int) -> OSError:
    error = OSError(22, "a DLL initialization routine failed")
    error.winerror = number  # which other systems do not set
    return error


class Broken(io.StringIO):
    def write(self, text):
        raise BrokenPipeError


@pytest.mark.parametrize("arguments", [["bundles", "list"], ["bundles", "verify"], ["bundles", "info", "fetal-skull"],
                                       ["--version"], ["--help"]])
def test_work_that_nobody_hears_of_is_done_all_the_same(monkeypatch, arguments):
    monkeypatch.setattr(sys, "stdout", Broken())
    assert run(arguments) == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is full")
def test_the_exit_code_is_that_of_the_work():
    """What is still buffered when the interpreter ends counts, too."""
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "MedVAELib", "--version"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="needs a signal to stand for it")
def test_ctrl_break_cancels_and_reaches_us_alone():
    """On Windows, where the Fortran libraries would end the process at once."""
    code = ("import signal, os, atexit; signal.SIGBREAK = signal.SIGUSR1\n"
            "from MedVAELib.listening import cancelled_by_signals\n"
            "with cancelled_by_signals() as cancel:\n"
            "    signal.raise_signal(signal.SIGBREAK); print(cancel.cancelled)\n"
            "atexit.register(lambda: print(os.environ['FOR_DISABLE_CONSOLE_CTRL_HANDLER']))")
    done = medvae("--version", code=code)
    assert done.stdout.split()[0] == "True" and done.stdout.split()[-1] == "1", done.stderr


def test_a_program_without_a_window_has_no_standard_error(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    monkeypatch.setattr(sys, "stdout", None)
    assert run(["detect", str(tmp_path / "none.nii.gz"), "--output", str(tmp_path / "out")]) == 3


@pytest.mark.parametrize(("error", "kind", "code", "words"), [
    (ImportError("libGL.so.1: cannot open shared object file: No such file or directory", name="vtkRenderingOpenGL2"),
     "MissingPackage", 2, "libgl1"),
    (OSError("libgomp.so.1: cannot open shared object file"), "MissingPackage", 2, "libgomp"),
    (windows_error(126), "MissingPackage", 2, "Visual C"), (windows_error(1114), "MissingPackage", 2, "Visual C"),
    (windows_error(1455), "DeviceMemoryError", 6, "enough memory"),
    (RuntimeError("It is possible that dataloader's workers are out of shared memory."), "DeviceMemoryError", 6,
     "enough memory"),
    (ImportError("cannot import name 'a'", name="MedVAELib.scan"), "InternalError", 1, "unexpected"),
    (ImportError("cannot import name 'new' from 'torch'", name="torch"), "InternalError", 1, "unexpected"),
    (OSError("something else"), "InternalError", 1, "unexpected"),
])
def test_what_the_machine_lacks_is_no_mistake_of_ours(error, kind, code, words):
    failure = Failure.of(error)
    assert (failure.kind, failure.exit_code) == (kind, code) and words in failure.message


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:1", "mps"])
def test_every_device_of_the_library_can_be_asked_for(device):
    from MedVAELib.cli.options import _checked_device

    assert _checked_device(device) == device
    with pytest.raises(typer.BadParameter, match="mps"):
        _checked_device(f"{device}x")
