"""Every shipped config of image autoencoders trains to a bundle; one of every model resumes exactly after a kill, and
two processes do what one does."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from MedVAELib.bundle import load_bundle
from MedVAELib.latent.config import ImagesRun
from MedVAELib.models import MODELS, build_model
from MedVAELib.models.autoencoder import ImageAutoencoder
from MedVAELib.training.config import read_config, read_settings

from .presets import (
    Killed,
    checkpoint,
    kill,
    killed_at,
    preset_files,
    share_that_differs,
    small_config,
    train,
    without_pictures,
)

STEPS = 4
PAGE = Path(__file__).resolve().parent.parent / "benchmarks" / "resume.md"


def _smallest() -> dict[str, str]:
    """By model, the preset whose images have the fewest voxels."""
    found: dict[str, list[tuple[int, str]]] = {}
    for name, file in preset_files().items():
        model = read_settings(file)["model"]
        found.setdefault(model["name"], []).append((math.prod(model["shape"]), name))
    return {model: min(presets)[1] for model, presets in found.items()}


SMALLEST = _smallest()
OTHERS = sorted(set(preset_files()) - set(SMALLEST.values()))


@pytest.fixture(scope="module", autouse=True)
def no_pictures():
    with without_pictures():
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """config and checkpoint of an unbroken run of each preset, by name."""
    folder, done = tmp_path_factory.mktemp("presets"), {}

    def of(name):
        if name not in done:
            config = small_config(name, folder, STEPS)
            done[name] = config, train(config, folder / name)
        return done[name]

    return of


def test_there_is_a_preset_of_every_model():
    assert set(SMALLEST) == {name for name, model in MODELS.items() if issubclass(model, ImageAutoencoder)}


def test_the_page_of_resumed_runs_is_of_the_models_that_are_shipped():
    """Where this fails, `python -m Testing.benchmarks.family resume` makes the page anew."""
    page = dict(re.findall(r"^\| ([\w-]+) \| ([\d,]+) \|", PAGE.read_text(encoding="utf-8"), re.M))
    assert page == {name: f"{_weights(file):,}" for name, file in preset_files().items()}


def _weights(file: Path) -> int:
    config = read_config(file, ImagesRun)
    with torch.device("meta"):  # shapes alone
        values = build_model(config.model_name, config.model_settings).state_dict().values()
    return sum(value.numel() for value in values if value.is_floating_point())


@pytest.mark.parametrize("name", OTHERS)
def test_trains_to_a_bundle(name, tmp_path):
    assert train(small_config(name, tmp_path, 1), tmp_path)["step"] == 1
    load_bundle(tmp_path / "bundle" / name).verify()


@pytest.mark.parametrize("name", sorted(SMALLEST.values()))
def test_resumes_exactly_after_a_kill(name, whole, tmp_path):
    """Killed after step 3 with a checkpoint of step 2."""
    config, unbroken = whole(name)
    with pytest.raises(Killed), killed_at(3, kill):
        train(config, tmp_path)
    assert checkpoint(tmp_path)["step"] == 2
    resumed = train(config, tmp_path, resume=True)
    assert resumed["step"] == STEPS
    for part in ("model", "averaged"):
        for weight, value in unbroken[part].items():
            assert torch.equal(value, resumed[part][weight]), f"{part} {weight}"
    assert resumed["early"]["best"] == unbroken["early"]["best"]
    steps = [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)
    load_bundle(tmp_path / "bundle" / name).verify()


@pytest.mark.timeout(900)  # the processes wait for one another hundreds of times, long ones where others compute
def test_two_processes_give_what_one_does(whole, tmp_path):
    """In one start of torchrun; only rounding in float32 may differ. `models/test_whole_batches.py` holds the losses of
    all models to it."""
    names = [SMALLEST["vae"], SMALLEST["vqvae"]]
    pairs = [f"{whole(name)[0]}={tmp_path / name}" for name in names]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m",
               "Testing.latent.presets", *pairs]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-3000:]
    differs = {}
    for name in names:
        (config, unbroken), together = whole(name), checkpoint(tmp_path / name)
        assert together["step"] == STEPS and (tmp_path / name / "bundle" / name / "metadata.json").is_file()
        differs[name] = share_that_differs(config, unbroken["model"], together["model"])
    assert max(differs.values()) < 0.02, differs
