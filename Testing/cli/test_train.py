from __future__ import annotations

import inspect
import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest

from MedVAELib.cli.app import run
from MedVAELib.errors import Cancelled
from MedVAELib.models.registry import ModelConfigError


@pytest.fixture
def trainer(monkeypatch):
    from MedVAELib.anomaly import train

    made, signature = SimpleNamespace(calls=[], error=None), inspect.signature(train.train_from_config)

    def train_from_config(config, *, output, resume, device, progress, cancel):
        signature.bind(config, output=output, resume=resume, device=device, progress=progress, cancel=cancel)
        made.calls.append((config.name, output, resume, device))
        progress("train", 0.25, "step 5 of 20")
        if made.error is not None:
            raise made.error
        return output / "bundle"

    monkeypatch.setattr(train, "train_from_config", train_from_config)
    return made


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "brains.yaml"
    path.write_text("task: healthy-anatomy\n")
    return str(path)


def test_everything_reaches_the_trainer(trainer, config, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("runs/a").mkdir(parents=True)
    Path("runs/a/checkpoint.pt").touch()
    assert run(["train", config, "--resume", "--output", "runs/a", "--device", "cuda:1", "--progress", "json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert run(["train", config]) == 0
    assert capsys.readouterr().out == f"Bundle: {Path('runs') / 'brains' / 'bundle'}\n"
    assert trainer.calls == [("brains.yaml", Path("runs/a"), True, "cuda:1"),
                             ("brains.yaml", Path("runs/brains"), False, "auto")]
    assert lines[-1] == {"stage": "train", "fraction": 0.25, "message": "step 5 of 20"}


def test_cancelling_is_130_and_says_how_to_go_on(trainer, config, capsys):
    trainer.error = Cancelled()
    assert run(["train", config]) == 130
    err = capsys.readouterr().err
    assert "--resume" in err and str(Path("runs") / "brains") in err and len(err.splitlines()) == 1


@pytest.mark.parametrize(("prepare", "options", "code", "words"), [
    (lambda out: out.touch(), [], 2, "is a file"),
    (lambda out: (out.mkdir(), (out / "checkpoint.pt").touch()), [], 2, "--resume"),
    (lambda out: None, ["--resume"], 3, "nothing to resume"),
])
def test_an_output_that_cannot_be_used_is_said_first(trainer, config, tmp_path, capsys, prepare, options, code, words):
    prepare(tmp_path / "out")
    before = (tmp_path / "out").exists()
    assert run(["train", config, "--output", str(tmp_path / "out"), *options]) == code
    err = capsys.readouterr().err
    assert words in err and len(err.splitlines()) == 1 and not trainer.calls
    assert (tmp_path / "out").exists() == before


def test_a_model_that_cannot_be_built_is_the_configs_mistake(trainer, config, tmp_path, capsys):
    trainer.error = ModelConfigError("Model 'vae' cannot be built from its config: too deep.")
    assert run(["train", config, "--output", str(tmp_path / "out")]) == 3
    assert "brains.yaml: section 'model'" in capsys.readouterr().err


@pytest.mark.parametrize(("rank", "signalled", "sentences"), [("0", False, 1), ("1", True, 0), ("1", False, 1)])
def test_of_several_processes_the_first_says_what_is_wrong(
    trainer, config, tmp_path, monkeypatch, capsys, rank, signalled, sentences
):
    """The others speak only if the first has nothing to say, so that torchrun does not end them."""
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setattr("MedVAELib.cli.train._SECONDS_TO_SPEAK", 0.2)
    monkeypatch.setattr("MedVAELib.cli.train.time.sleep",
                        lambda seconds: os.kill(os.getpid(), signal.SIGTERM) if signalled else None)
    assert run(["train", config, "--resume", "--output", str(tmp_path / "out")]) == 3
    assert len(capsys.readouterr().err.splitlines()) == sentences
