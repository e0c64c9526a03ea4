"""What `pip install` copies out of a clone."""

from __future__ import annotations

import ast
import subprocess
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
