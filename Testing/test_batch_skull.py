"""The script for heads, run as Slicer runs it, on the small bundles."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from MedVAELib.bundle import SKULL_SAMPLES
from MedVAELib.skull_outputs import SKULL_FILES
from Testing.panel.skull_scenes import make_resources, picture
from Testing.tables import summary_rows
from Testing.warm_python import warm

SCRIPT = Path(__file__).resolve().parents[1] / "MedVAE" / "Batch" / "skull.py"


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    """A folder with a table of three heads, one of them unusable, and what the small bundles need."""
    folder = tmp_path_factory.mktemp("heads")
    make_resources(folder / "resources")
    for plane in ("axial", "coronal"):
        Image.fromarray(picture(plane)).save(folder / f"{plane}.png")
    (folder / "heads.csv").write_text("case,axial,sagittal,coronal,spacing,ga\none,axial.png,,,0.5,28\n"
                                      "two,axial.png,,coronal.png,0.5,\nthree,missing.png,,,0.5,\n")
    (folder / "bare.csv").write_text("case,axial\nbare,axial.png\n")
    return folder


def batch(heads: Path, *arguments: object) -> subprocess.CompletedProcess:
    import os

    return subprocess.run(warm([sys.executable, str(SCRIPT), *map(str, arguments)]), capture_output=True, text=True,
                          timeout=300, cwd=heads, env={**os.environ, "MEDVAE_RESOURCES": str(heads / "resources")},
                          )


def test_one_of_three_heads_is_unusable(heads, tmp_path):
    done = batch(heads, "--", "heads.csv", "--output", tmp_path, "--samples", 4, "--device", "cpu")
    assert done.returncode == 5, done.stderr
    assert "1 of 3 heads failed" in done.stderr and "missing.png" in done.stderr and "Traceback" not in done.stderr
    rows = summary_rows(tmp_path)
    assert [rows[name]["status"] for name in ("one", "two", "three")] == ["done", "done", "failed"]
    assert rows["one"]["hc_percentile"] and not rows["two"]["hc_percentile"]
    assert {file.name for file in (tmp_path / "two").iterdir()} >= set(SKULL_FILES) - {"report.html"}
    biometry = json.loads((tmp_path / "two" / "biometry.json").read_text())
    assert biometry["planes_used"] == ["axial", "coronal"] and biometry["planes_missing"] == ["sagittal"]
    again = batch(heads, "heads.csv", "-o", tmp_path, "--samples", 4, "--device", "cpu", "--resume")
    assert again.returncode == 5 and again.stdout.count("done before") == 2


def test_without_a_pixel_size_nothing_is_guessed(heads, tmp_path):
    done = batch(heads, "bare.csv", "-o", tmp_path, "--device", "cpu")
    assert done.returncode == 5 and "how large its pixels are" in done.stderr


@pytest.mark.parametrize("arguments, code, part", [
    ([], 2, "HEADS.csv"), (["heads.csv"], 2, "--output"), (["none.csv", "-o", "out"], 3, "none.csv"),
    (["heads.csv", "-o", "out", "--bundle", "unknown"], 4, "unknown"),
    (["heads.csv", "-o", "out", "--ga", "90"], 2, "gestational age"),
])
def test_failures_have_the_documented_code_and_a_sentence(heads, arguments, code, part):
    done = batch(heads, *arguments)
    assert done.returncode == code, done.stderr
    assert part in done.stderr and "Traceback" not in done.stderr


def test_a_pixel_size_of_a_plane_that_no_head_has(heads, tmp_path):
    """As the command has it, before anything is computed."""
    done = batch(heads, "bare.csv", "-o", tmp_path / "out", "--device", "cpu", "--spacing", "axial=0.5,sagittal=0.3")
    assert done.returncode == 2 and "sagittal" in done.stderr and not (tmp_path / "out").exists(), done.stderr


def test_as_many_samples_as_the_command_draws(heads):
    assert f"samples to draw ({SKULL_SAMPLES})" in " ".join(batch(heads, "--help").stdout.split())
