"""`medvae evaluate` writes what it promises, also a second time, and says when a case failed."""

from __future__ import annotations

import ast
import csv
import json
import signal
from pathlib import Path

import pytest
import SimpleITK as sitk
from typer.testing import CliRunner

from MedVAELib.cli import evaluate
from MedVAELib.errors import Cancelled, CohortError, UsageError
from MedVAELib.scan import Scan
from MedVAELib.training.synthesis.cases import SyntheticCase

from .standin import brightness_detector
from .test_anomaly import BRAIN, oracle, write_case


@pytest.fixture
def medvae_evaluate(monkeypatch):
    monkeypatch.setattr(evaluate, "_detector", lambda *options: oracle)

    def run(*arguments):
        return CliRunner().invoke(evaluate.app, [str(a) for a in arguments])

    return run


def test_anomaly_writes_tables_and_pictures(medvae_evaluate, tmp_path):
    write_case(tmp_path / "cases" / "ms_1")
    write_case(tmp_path / "cases" / "healthy_1", truth=None, contrast=0.0)
    for _ in range(2):  # the second run replaces the files of the first
        result = medvae_evaluate("anomaly", tmp_path / "cases", "--output", tmp_path / "out", "--progress", "none")
        assert result.exit_code == 0, result.exception
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "cases.csv", "healthy_1.png", "ms_1.png", "provenance.json", "results.json", "table.md"]
    rows = list(csv.DictReader((tmp_path / "out" / "cases.csv").open()))
    assert {(row["case"], row["method"]) for row in rows} >= {("ms_1", "medvae"), ("ms_1", "intensity")}
    record = json.loads((tmp_path / "out" / "results.json").read_text())
    assert record["means"]["cases"] == ["ms_1"] and record["means"]["medvae"]["ap"][0] == pytest.approx(1)
    assert "| ms_1 |" in result.output and "healthy_1" in (tmp_path / "out" / "table.md").read_text()


def test_a_failed_case_is_exit_code_5_and_the_others_are_written(medvae_evaluate, tmp_path):
    write_case(tmp_path / "cases" / "a")
    write_case(tmp_path / "cases" / "b")
    (tmp_path / "cases" / "b" / "mask.nii.gz").write_bytes(b"damaged")
    result = medvae_evaluate("anomaly", tmp_path / "cases", "--output", tmp_path / "out", "--progress", "none")
    assert isinstance(result.exception, CohortError) and result.exception.exit_code == 5
    assert "| a |" in (tmp_path / "out" / "table.md").read_text()


@pytest.mark.parametrize("name", ["cases.csv", "a.png"])
def test_nothing_of_someone_else_is_overwritten(medvae_evaluate, monkeypatch, tmp_path, name):
    write_case(tmp_path / "cases" / "a")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("mine")
    monkeypatch.setattr("MedVAELib.evaluation.anomaly.evaluate_cases", None)  # refused before
    result = medvae_evaluate("anomaly", tmp_path / "cases", "--output", tmp_path / "out", "--progress", "none")
    assert isinstance(result.exception, UsageError)
    assert [p.name for p in (tmp_path / "out").iterdir()] == [name]


def test_an_unknown_case_to_leave_out_is_wrong_usage(medvae_evaluate, tmp_path):
    write_case(tmp_path / "cases" / "a")
    result = medvae_evaluate("anomaly", tmp_path / "cases", "--output", tmp_path / "out", "--not-in-mean", "typo")
    assert result.exit_code == 2 and not (tmp_path / "out").exists()


def test_brain_prints_the_table(monkeypatch, tmp_path):
    monkeypatch.setattr(evaluate, "_detector", lambda *options: brightness_detector(BRAIN))
    write_case(tmp_path / "cases" / "a", brainmask=BRAIN)  # stripped: listed, not scored
    result = CliRunner().invoke(evaluate.app, ["brain", str(tmp_path / "cases"), "--progress", "none"])
    assert result.exit_code == 0, result.exception
    assert "left out: a, the scan is already stripped" in result.output


def test_a_folder_holds_the_result_of_one_command(medvae_evaluate, tmp_path):
    write_case(tmp_path / "cases" / "a", brainmask=BRAIN)
    command = (tmp_path / "cases", "--output", tmp_path / "out", "--progress", "none")
    assert medvae_evaluate("anomaly", *command).exit_code == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    result = medvae_evaluate("brain", *command)
    assert isinstance(result.exception, UsageError) and "another result (evaluation: anomaly)" in str(result.exception)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_pictures_of_cases_that_are_gone_go_too(medvae_evaluate, tmp_path):
    for names in ("ab", "a"):
        for name in names:
            write_case(tmp_path / names / name)
        assert medvae_evaluate("anomaly", tmp_path / names, "-o", tmp_path / "out", "--progress", "none").exit_code == 0
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == {"a.png"}


def test_every_command_has_a_task_of_its_own():
    tasks = [ast.unparse(node.args[2]) for file in Path(evaluate.__file__).parent.glob("*.py")
             for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
             if isinstance(node, ast.Call) and ast.unparse(node.func) == "folder_task"]
    assert len(set(tasks)) == len(tasks) >= 12


def test_making_cases_can_be_cancelled(medvae_evaluate, monkeypatch, tmp_path):
    """With the whole cases so far."""
    grid = sitk.Image([20, 20, 20], sitk.sitkFloat32)
    grid.SetSpacing((9, 9, 9))

    def made(synthesise, seed, modality):
        if seed == 1:
            signal.raise_signal(signal.SIGINT)
        return SyntheticCase(Scan.from_image(sitk.AdditiveGaussianNoise(grid, 1, 50), modality), grid, grid)

    monkeypatch.setattr("MedVAELib.training.synthesis.cases.load_synthesiser", lambda *_: None)
    monkeypatch.setattr("MedVAELib.training.synthesis.cases.synthetic_case", made)
    result = medvae_evaluate("make-cases", tmp_path, "--scans", 3, "-o", tmp_path / "out", "--progress", "none")
    assert isinstance(result.exception, Cancelled)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["healthy_flair_0000"]
    assert {path.name for path in (tmp_path / "out" / "healthy_flair_0000").iterdir()} == {
        "flair.nii.gz", "brainmask.nii.gz"}
