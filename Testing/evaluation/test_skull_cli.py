"""`medvae evaluate skull` and `medvae evaluate hc18` with small untrained bundles."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from MedVAELib.cli import evaluate
from MedVAELib.errors import CohortError, InputError
from MedVAELib.skull.engine import OutlineEngine

from ..skull.bundles import bright_outline, outline_bundle, shape_bundle
from .test_hc18 import CIRCUMFERENCE_MM, ring_plane
from .test_skull_planes import write_masks


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles")
    shape_bundle(folder / "shape"), shape_bundle(folder / "other"), outline_bundle(folder / "outline")
    return folder


@pytest.fixture
def medvae_evaluate(bundles, tmp_path):
    def run(command, *arguments):
        return CliRunner().invoke(evaluate.app, [
            command, *map(str, arguments), "--output", str(tmp_path / "out"), "--bundle", str(bundles / "shape"),
            "--outline-bundle", str(bundles / "outline"), "--device", "cpu", "--samples", "2", "--progress", "none"])

    return run


def test_skull_writes_tables_and_pictures(medvae_evaluate, bundles, tmp_path):
    write_masks(tmp_path / "heads", "one")
    result = medvae_evaluate("skull", tmp_path / "heads", "--outlines", "given", "--compare", bundles / "other")
    assert result.exit_code == 0, result.exception
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "cases.csv", "one.png", "provenance.json", "results.json", "summary.png", "table.md"]
    rows = list(csv.DictReader((tmp_path / "out" / "cases.csv").open()))
    assert len(rows) == 3 * 7 and {row["kind"] for row in rows} == {"mask"}
    record = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {"mean head", "hcvae"} < set(record["agreement"]["all"]["axial"])
    assert record["settings"]["names"] == ["one"] and "hcvae" in record["uncertainty"]
    assert "Outlines are given" in result.output and "| axial | mean head | 1 |" in result.output


def test_skull_on_images_without_a_head_fails_with_the_table_written(medvae_evaluate, tmp_path, monkeypatch):
    write_masks(tmp_path / "heads", "one")
    monkeypatch.setattr(OutlineEngine, "find", lambda self, images: (images * 0, images.amax((1, 2))))
    result = medvae_evaluate("skull", tmp_path / "heads")
    assert isinstance(result.exception, CohortError) and result.exception.exit_code == 5
    assert "no outline of a head" in (tmp_path / "out" / "table.md").read_text()


def test_skull_of_a_folder_without_masks(medvae_evaluate, tmp_path):
    (tmp_path / "heads").mkdir()
    result = medvae_evaluate("skull", tmp_path / "heads")
    assert isinstance(result.exception, InputError) and not (tmp_path / "out").exists()


def write_hc18(folder, numbers):
    (folder / "images").mkdir(parents=True)
    lines = ["filename,pixel size(mm),head circumference (mm)"]
    for number in numbers:
        plane = ring_plane()
        name = f"{number:03d}_HC"
        Image.fromarray((plane.image.grey_yx * 255).astype(np.uint8)).save(folder / "images" / f"{name}.png")
        inner = np.roll(plane.drawn, 1, 0) & np.roll(plane.drawn, -1, 0) & np.roll(plane.drawn, 1, 1)
        edge = plane.drawn & ~(inner & np.roll(plane.drawn, -1, 1))
        Image.fromarray(edge.astype(np.uint8) * 255).save(folder / "images" / f"{name}_Annotation.png")
        lines.append(f"{name}.png,{plane.image.pixel_mm},{CIRCUMFERENCE_MM}")
    (folder / "pixel_size_and_HC.csv").write_text("\n".join(lines) + "\n")


def test_hc18_scores_the_test_split(medvae_evaluate, tmp_path, monkeypatch):
    write_hc18(tmp_path / "hc18", [3, 5, 10])
    monkeypatch.setattr(OutlineEngine, "find", lambda self, images: bright_outline(images))
    result = medvae_evaluate("hc18", tmp_path / "hc18")
    assert result.exit_code == 0, result.exception
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "planes.csv", "planes.png", "provenance.json", "results.json", "table.md", "worst.png"]
    rows = {row["plane"]: row for row in csv.DictReader((tmp_path / "out" / "planes.csv").open())}
    assert set(rows) == {"005_HC", "010_HC"}
    assert abs(float(rows["005_HC"]["found outline, 2D ellipse HC error mm"])) < 0.1 * CIRCUMFERENCE_MM
    assert float(rows["005_HC"]["outline_dice"]) > 0.9
    assert "van den Heuvel" in result.output


def test_hc18_of_another_folder(medvae_evaluate, tmp_path):
    (tmp_path / "other").mkdir()
    assert isinstance(medvae_evaluate("hc18", tmp_path / "other").exception, InputError)
