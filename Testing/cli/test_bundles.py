from __future__ import annotations

import json

import pytest

from MedVAELib.bundle import save_bundle
from MedVAELib.cli.app import run
from Testing.bundle.bundle_files import metadata, weights, zipped


@pytest.fixture(autouse=True)
def shipped(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDVAE_RESOURCES", str(tmp_path / "Resources"))
    monkeypatch.setenv("MEDVAE_BUNDLES", str(tmp_path / "user"))
    monkeypatch.setenv("COLUMNS", "300")
    return save_bundle(tmp_path / "Resources" / "bundles" / "first", metadata(), weights(), "card")


def test_list(shipped, capsys):
    assert run(["bundles", "list"]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if "first" in line)
    assert "1.0.0" in row and "flair, dwi" in row


def test_list_shows_damaged_ones_and_goes_on(shipped, capsys):
    broken = shipped.path.parent / "broken"
    broken.mkdir()
    (broken / "metadata.json").write_text("{")
    assert run(["bundles", "list"]) == 0
    out = capsys.readouterr().out
    assert "damaged" in next(line for line in out.splitlines() if "broken" in line) and "first" in out


def test_verify(shipped, capsys):
    assert run(["bundles", "verify"]) == 0
    assert "first: intact" in capsys.readouterr().out
    shipped.weights_path.write_bytes(shipped.weights_path.read_bytes()[:-1])
    assert run(["bundles", "verify", "first"]) == 4
    captured = capsys.readouterr()
    assert "SHA-256" in captured.err and len(captured.err.strip().splitlines()) == 1


def test_verify_all_names_every_damaged_one(shipped, capsys):
    save_bundle(shipped.path.parent / "second", metadata(), weights(), "card").weights_path.unlink()
    shipped.weights_path.unlink()
    save_bundle(shipped.path.parent / "third", metadata(), weights(), "card")
    assert run(["bundles", "verify"]) == 4
    captured = capsys.readouterr()
    assert "third: intact" in captured.out and "2 bundles are damaged" in captured.err


def test_import_then_info(shipped, tmp_path, capsys):
    archive = zipped(shipped.path, tmp_path / "theirs.zip")
    assert run(["bundles", "import", str(archive), "--name", "theirs"]) == 0
    assert "Imported theirs 1.0.0" in capsys.readouterr().out
    assert run(["bundles", "info", "theirs"]) == 0
    out = capsys.readouterr().out
    assert shipped.sha256 in out and "CC0" in out and "baseline" in out
    assert run(["bundles", "info", "theirs", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["medvae"]["model"] == "healthy_anatomy"


@pytest.mark.parametrize("arguments", [["import", "absent.zip"], ["info", "absent"], ["verify", "absent"]])
def test_failures_are_4_with_one_sentence(arguments, capsys):
    assert run(["bundles", *arguments]) == 4
    captured = capsys.readouterr()
    assert "absent" in captured.err and len(captured.err.strip().splitlines()) == 1
