"""What `pip install` copies out of a clone."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from MedVAELib.resources import resource_dir

ROOT = Path(__file__).resolve().parents[1]


def installed_data() -> set[Path]:
    """The files below Resources/ that setup.py names."""
    setup = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8")).body[-1].value
    named = next(ast.literal_eval(k.value) for k in setup.keywords if k.arg == "package_data")
    return {file for glob in named["MedVAELib.bundled"] for file in resource_dir().glob(glob) if file.is_file()}


@pytest.mark.parametrize("folder", ["atlas", "bundles", "configs", "sample"])
def test_an_installed_package_has_every_resource(folder):
    listed = subprocess.run(["git", "ls-files", "-z", f"Resources/{folder}"], cwd=ROOT, capture_output=True, text=True)
    tracked = {ROOT / name for name in listed.stdout.split("\0") if name}
    if not tracked:
        pytest.skip("not a git checkout")
    assert tracked - installed_data() == set()


@pytest.mark.parametrize("started", [{}, {"TORCHELASTIC_RUN_ID": "none"}])
@pytest.mark.parametrize("code", [0, 5])
def test_a_process_of_torchrun_leaves_with_its_code_and_all_it_said(started, code):
    """Without what else runs at the end, in which PyTorch may abort."""
    program = ("import atexit; from MedVAELib.__main__ import leave; atexit.register(print, 'cleaned up'); "
               f"print('said'); leave({code})")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT,
                          env={**os.environ, **started})
    assert done.returncode == code
    assert done.stdout.split("\n") == (["said", ""] if started else ["said", "cleaned up", ""])
