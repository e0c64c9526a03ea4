"""The script for `Slicer --python-script`, run by plain Python, and with a stand-in for Slicer's exit."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from MedVAELib.detection_outputs import DETECTION_FILES
from Testing.conftest import coarse_sample
from Testing.tables import summary_rows
from Testing.warm_python import warm
from Testing.worker_process import WorkerProcess, handed_over

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "MedVAE" / "Batch" / "detect.py"
FAST = ("--samples", 2, "--device", "cpu")
REAL = ("ms_isbi_01", "tumour_brainix")
REPORT_FILES = {"report.html", "overlay.png"}


def batch(*arguments: object, before: str = "", **options: object) -> subprocess.CompletedProcess:
    """Runs the script as Slicer does: its text executed as `__main__` with `__file__` and `sys.argv` set."""
    code = (f"import sys\nsys.argv = {[str(SCRIPT), *map(str, arguments)]!r}\n{before}\n"
            f"exec(compile(open({str(SCRIPT)!r}).read(), {str(SCRIPT)!r}, 'exec'),"
            f" {{'__name__': '__main__', '__file__': {str(SCRIPT)!r}}})")
    return subprocess.run(warm([sys.executable, "-c", code]), capture_output=True, text=True, timeout=600, **options)


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """A folder with two usable scans and a broken one, the bundled sample on a coarse grid."""
    folder = tmp_path_factory.mktemp("scans")
    image = sitk.Round(coarse_sample((72, 88, 72), 2.4))
    sitk.WriteImage(image, str(folder / "one.nii.gz"))
    sitk.WriteImage(image * 2, str(folder / "two.nii.gz"))
    (folder / "broken.nii.gz").write_bytes(b"no gzip")
    return folder


def test_real_scans_one_of_them_broken(medvae_data, tmp_path):
    """Exit code 5, two results, nothing done twice, and every volume that of the panel's worker to the last bit."""
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes((medvae_data / "brain/flair/ms_isbi_01/flair.nii.gz").read_bytes()[:20_000])
    lines = [f"{name},{medvae_data / 'brain/flair' / name / 'flair.nii.gz'}" for name in REAL]
    (tmp_path / "cases.csv").write_text("\n".join(["case,scan", lines[0], "broken,broken.nii.gz", lines[1]]))
    command = (tmp_path / "cases.csv", "--output", tmp_path / "out", *FAST)

    first = batch(*command)
    assert first.returncode == 5, first.stderr
    assert "1 of 3 scans failed" in first.stderr and "broken.nii.gz" in first.stderr
    table = summary_rows(tmp_path / "out")
    assert [table[name]["status"] for name in (*REAL, "broken")] == ["done"] * 2 + ["failed"]
    assert all({file.name for file in (tmp_path / "out" / name).iterdir()} == set(DETECTION_FILES) for name in REAL)

    written = {file: file.stat().st_mtime_ns for file in tmp_path.glob("out/*/*")}
    shutil.rmtree(tmp_path / "out" / REAL[1])
    second = batch(*command, "--resume")
    assert second.returncode == 5
    kept = {file: time for file, time in written.items() if file.parent.name != REAL[1]}
    assert {file: file.stat().st_mtime_ns for file in kept} == kept
    assert (tmp_path / "out" / REAL[1] / "report.html").is_file()
    assert second.stdout.count("done before") == 1

    with WorkerProcess() as worker:
        for number, name in enumerate(REAL):
            image = sitk.ReadImage(str(medvae_data / "brain/flair" / name / "flair.nii.gz"))
            answer = worker.ask(id=number, task="detect", scan=handed_over(image, tmp_path, "flair"), samples=2,
                                device="cpu", output=str(tmp_path / "click" / name))
            assert answer["event"] == "result", answer
            for volume in ("anomaly", "residual", "reconstruction", "std", "mask", "brain"):
                saved = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "out" / name / f"{volume}.nii.gz")))
                clicked = np.load(answer["arrays"][volume])
                assert saved.dtype == clicked.dtype and saved.tobytes() == clicked.tobytes(), (name, volume)
            assert int(table[name]["findings"]) == len(answer["findings"])


def test_a_folder_after_slicers_mark(scans, tmp_path):
    done = batch("--", scans, "--match", "t*.nii.gz", "--output", tmp_path / "out", *FAST, "--progress", "json")
    assert done.returncode == 0, done.stderr
    assert list(summary_rows(tmp_path / "out")) == ["two"]
    fractions = [json.loads(line)["fraction"] for line in done.stdout.splitlines()]
    assert fractions == sorted(fractions) and fractions[-1] == 1


def test_without_the_packages_of_the_command_line_it_works_and_leaves_the_report_out(scans, tmp_path):
    absent = ("typer", "rich", "jinja2", "matplotlib", "yaml", "tensorboard")
    before = f"sys.modules.update(dict.fromkeys({absent!r}))"
    done = batch(scans / "one.nii.gz", "--output", tmp_path / "out", *FAST, before=before)
    assert done.returncode == 0, done.stderr
    assert "jinja2 and matplotlib are not installed" in done.stderr
    assert {file.name for file in (tmp_path / "out/one").iterdir()} == set(DETECTION_FILES) - REPORT_FILES
    provenance = json.loads((tmp_path / "out/one/provenance.json").read_text())
    assert "jinja2" in provenance["report"] and set(provenance["files"]) == set(DETECTION_FILES) - REPORT_FILES


SLICER = """
from types import ModuleType, SimpleNamespace
slicer = ModuleType("slicer")
def leave(code):
    print("SLICER EXIT", code)
slicer.app, slicer.util = SimpleNamespace(), SimpleNamespace(exit=leave)
i18n = ModuleType("slicer.i18n")
i18n.tr = lambda text, *context: text
sys.modules |= {"slicer": slicer, "slicer.i18n": i18n}
"""


@pytest.mark.parametrize("arguments, code", [(["absent.nii.gz", "-o", "out"], 5), (["-o", "out"], 2)])
def test_slicer_is_left_with_the_exit_code(tmp_path, arguments, code):
    done = batch("--", *arguments, before=SLICER, cwd=tmp_path)
    assert done.stdout.splitlines()[-1] == f"SLICER EXIT {code}", done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments, code, part", [
    ([], 2, "SCAN"), (["a.nii"], 2, "--output"), (["a.nii", "-o", "out", "--samples", "many"], 2, "--samples"),
    (["a.nii", "-o", "out", "--fpr", "7"], 2, "fpr"), (["a.nii", "-o", "out", "--modality", "ct"], 2, "--modality"),
    (["a.nii", "-o", "out", "--outptu", "x"], 2, "--outptu"), (["a.nii", "-o", "out", "--device", "gpu"], 2, "gpu"),
    (["cases.csv", "-o", "out"], 3, "cases.csv"), ([".", "-o", "out"], 3, "holds no scans"),
    (["a.nii", "-o", "out", "--bundle", "unknown"], 4, "unknown"), (["a.nii", "-o", "out"], 5, "a.nii"),
])
def test_failures_have_the_documented_code_and_a_sentence(tmp_path, arguments, code, part):
    done = batch(*arguments, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert part in done.stderr and "Traceback" not in done.stderr


def test_help():
    done = batch("--help")
    assert done.returncode == 0 and "--resume" in done.stdout
