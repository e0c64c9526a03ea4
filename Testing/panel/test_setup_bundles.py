"""Importing and verifying bundles as the panel does, in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from Testing.warm_python import warm

from .conftest import SHIPPED
from .detections import ROOT


@pytest.fixture
def command(tmp_path):
    """Runs the command on a user's bundle folder of its own; the answer, which must be all that is printed."""
    def run(*arguments: str | Path) -> dict:
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "MedVAE"), "MEDVAE_BUNDLES": str(tmp_path / "bundles")}
        command = warm([sys.executable, "-m", "MedVAEPanel.bundle_command", *map(str, arguments)])
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        answer = json.loads(done.stdout)
        assert done.returncode == int("error" in answer), done.stderr
        return answer
    return run


def test_a_bundle_is_imported_verified_and_known_by_its_name(command, archive, tmp_path):
    answer = command("import", archive)
    assert answer == {"name": "other", "path": str(tmp_path / "bundles" / "other")}
    assert command("verify", "other", "healthy-anatomy") == {"problems": {"other": "", "healthy-anatomy": ""}}
    weights = tmp_path / "bundles" / "other" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    problems = command("verify", "other", "healthy-anatomy")["problems"]
    assert "SHA-256" in problems["other"] and problems["healthy-anatomy"] == ""


def test_a_name_that_is_taken_is_explained_for_the_panel(command):
    error = command("import", SHIPPED)["error"]
    assert error.startswith("There is already a bundle healthy-anatomy")
    assert "--name" not in error and "another name" in error


@pytest.mark.parametrize("damage", ["missing", "cut short", "pickled", "not a bundle"])
def test_what_is_no_sound_bundle_is_refused_in_one_sentence(command, archive, tmp_path, damage):
    source = archive
    if damage == "missing":
        source = tmp_path / "nothing.zip"
    elif damage == "cut short":
        archive.write_bytes(archive.read_bytes()[:100_000])
    elif damage == "pickled":
        source = tmp_path / "foreign"
        shutil.copytree(SHIPPED, source)
        (source / "model.pt").write_bytes(b"\x80\x04")
    else:
        source = tmp_path / "empty"
        source.mkdir()
    answer = command("import", source)
    assert list(answer) == ["error"] and "\n" not in answer["error"] and "Traceback" not in answer["error"]
    assert not (tmp_path / "bundles").exists() or not list((tmp_path / "bundles").iterdir())
