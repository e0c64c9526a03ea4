from __future__ import annotations

import inspect
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from MedVAELib.cli.app import run
from MedVAELib.errors import Cancelled


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


def test_everything_reaches_the_trainer(trainer, config, capsys):
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
