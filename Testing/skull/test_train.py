"""Training a skull model from a config: a calibrated bundle, pictures, an exact resume, and clear refusals."""

from __future__ import annotations

import json
import pickle
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from MedVAELib.bundle import load_bundle
from MedVAELib.errors import Cancelled, InputError
from MedVAELib.progress import CancelToken
from MedVAELib.resources import resource_dir
from MedVAELib.skull import held_back, train
from MedVAELib.skull.config import OutlineRun, SkullRun
from MedVAELib.skull.held_back import HeldBack
from MedVAELib.skull.outline_cases import OutlineBatches
from MedVAELib.skull.train_outline import case_maker
from MedVAELib.standard_planes import SUBSETS, named
from MedVAELib.training.config import read_config
from MedVAELib.training.skull_cases import CaseBatches, CaseStore, case_stream
from MedVAELib.training.synthesis.planes import PlaneCases, PlaneConfig
from MedVAELib.training.trainer import Trainer

from ..models.ellipsoids import ellipsoids

CONFIG = """
task: fetal-skull
data: {{head_masks: heads, train: [a], validation: [b], test: [c], cases: 256}}
planes: {{misplacement: 0.5}}
model: {{name: {model}, features: 8, width: 4}}
trainer: {{steps: 6, batch: 4, validate_every: 6, checkpoint_every: 3}}
calibration: {{heads: 4, samples: 3}}
bundle: {{name: tiny, version: 0.0.1}}
"""


def cases(seeds) -> PlaneCases:
    """Ellipsoids in place of heads."""
    planes, present, sdf = ellipsoids(len(seeds), seeds[0] % 1000)
    return PlaneCases(planes * present[:, :, None, None], present, sdf, torch.ones(len(seeds)), [])


@pytest.fixture
def without_atlases(monkeypatch, tmp_path):
    """The run on ellipsoids: no head masks are read."""
    planes, _, sdf = ellipsoids(4, 7)
    heads = HeldBack(planes, sdf, torch.ones(4), ["typical"] * 4)

    def store(config, output, device):
        return CaseStore(tmp_path / "cases", lambda watch: cases, {"seed": 0}, chunks=1)

    monkeypatch.setattr(train, "held_back_heads", lambda *_: heads)
    monkeypatch.setattr(train, "case_store", store)


def run(tmp_path: Path, name: str, model: str = "hcvae", **options) -> Path:
    (tmp_path / "config.yaml").write_text(CONFIG.format(model=model))
    return train.train_from_config(tmp_path / "config.yaml", tmp_path / name, device="cpu", **options)


@pytest.mark.parametrize("model", ["hcvae", "tlnet"])
def test_from_config_to_a_calibrated_bundle(tmp_path, without_atlases, model):
    seen = []
    bundle = load_bundle(run(tmp_path, "out", model, progress=lambda s, f, m="": seen.append(f)))
    assert seen == sorted(seen) and bundle.model == model
    assert {"checkpoint.pt", "curves.png", "predictions.png", "log.jsonl"} <= {
        file.name for file in (tmp_path / "out").iterdir()
    }
    line = json.loads((tmp_path / "out" / "log.jsonl").read_text().splitlines()[-1])["validation"]
    assert {f"{name} {count}" for name in ("dice", "surface", "hausdorff", "std") for count in (1, 2, 3)} == set(line)
    assert (bundle.path / "README.md").read_text().startswith("# tiny 0.0.1\n")
    calibration = bundle.calibration
    assert set(calibration["temperatures"]) == set(calibration["coverage"]) == set(map(named, SUBSETS))
    assert all(temperature > 0 for temperature in calibration["temperatures"].values())
    assert "## Calibration" in (bundle.path / "README.md").read_text()
    if model == "tlnet":
        assert calibration["temperatures"]["axial"] == 1.0 and calibration["coverage"]["axial"] == [0.0, 0.0, 0.0]


def test_resume_goes_on_exactly(tmp_path, without_atlases, monkeypatch):
    """Cancelled after three of six steps and resumed, the weights are those of an unbroken run."""
    monkeypatch.setattr(train, "_validation", lambda *_: lambda state, step: {})
    run(tmp_path, "whole")
    cancel, save = CancelToken(), Trainer.save

    def save_and_cancel(trainer):
        save(trainer)
        if trainer.step == 3:
            cancel.cancel()

    with monkeypatch.context() as patch, pytest.raises(Cancelled):
        patch.setattr(Trainer, "save", save_and_cancel)
        run(tmp_path, "broken", cancel=cancel)
    run(tmp_path, "broken", resume=True)
    whole, broken = (torch.load(tmp_path / name / "checkpoint.pt", weights_only=True) for name in ("whole", "broken"))
    assert broken["step"] == 6 and int(broken["model"]["updates"]) == 6
    for name, value in whole["model"].items():
        assert torch.allclose(value.float(), broken["model"][name].float(), atol=1e-6), name


@pytest.mark.parametrize(("text", "words"), [
    (CONFIG.format(model="hcvae").replace("[c]", "[a]"), "only one of"),
    (CONFIG.format(model="hcvae").replace("cases: 256", "cases: 100"), "multiple of 256"),
    (CONFIG.format(model="hcvae").replace("misplacement: 0.5", "misplaced: 1"), "misplaced"),
    (CONFIG.format(model="hcvae").replace("heads: 4", "heads: 0"), "positive"),
    ("task: healthy-anatomy", "fetal-skull"),
])
def test_bad_configs_are_one_sentence(tmp_path, text, words):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(InputError, match=words) as error:
        read_config(tmp_path / "config.yaml", SkullRun)
    assert "\n" not in str(error.value) and "config.yaml" in str(error.value)


def test_the_shipped_configs_can_be_read_and_compare_like_with_like():
    folder = resource_dir() / "configs"
    runs = [read_config(folder / f"fetal-skull{suffix}.yaml", SkullRun) for suffix in ("", "-cvae", "-tlnet", "-gan")]
    assert [one.model_name for one in runs] == ["hcvae", "cvae", "tlnet", "cgan"]
    assert all((one.data, one.planes, one.trainer) == (runs[0].data, runs[0].planes, runs[0].trainer) for one in runs)
    outline = read_config(folder / "head-outline.yaml", OutlineRun)
    assert outline.data.train == runs[0].data.train and not set(outline.data.validation) & set(runs[0].data.test)


def test_what_loaders_are_given_goes_to_a_process_that_is_not_forked(tmp_path):
    """As on Windows and macOS, and on Linux from Python 3.14 on."""
    folder, cpu = resource_dir() / "configs", torch.device("cpu")
    skulls, outlines = (read_config(folder / name, kind) for name, kind in (("fetal-skull.yaml", SkullRun),
                                                                            ("head-outline.yaml", OutlineRun)))
    store = train.case_store(skulls, tmp_path, cpu)
    for batches in (CaseBatches(store, 4, 0, 0), OutlineBatches(partial(case_maker, outlines, "train"), 4, 0)):
        assert type(pickle.loads(pickle.dumps(batches))) is type(batches)


class SlowMaker:
    """Cases of heads that take a while."""

    def __init__(self, watch):
        self.watch = watch

    def __call__(self, seeds):
        for number in range(len(seeds)):
            self.watch(number)
            time.sleep(0.05)
        return cases(seeds)


@pytest.mark.parametrize("workers", [0, 1])
def test_making_cases_is_told_and_can_be_cancelled(tmp_path, workers):
    store = CaseStore(tmp_path / "cases", SlowMaker, {"seed": 0}, chunks=1)
    cancel, told = CancelToken(), []

    def tell(words):
        told.append(words)
        if int(words.split()[-3]) >= 5:
            cancel.cancel()

    stream = case_stream(store, 64, 0, 0, workers, tell, cancel)
    with pytest.raises(Cancelled):
        next(stream)
    assert all(words.startswith("making training cases") for words in told)
    assert int(told[-1].split()[-3]) < 64, "of 256"


def test_making_held_back_heads_can_be_cancelled(tmp_path, monkeypatch):
    cancel, told = CancelToken(), []
    monkeypatch.setattr(held_back, "mask_files", lambda folder: {"a": tmp_path})
    monkeypatch.setattr(held_back, "read_head_shapes", lambda folder, names: list(names))
    monkeypatch.setattr(held_back, "_atlas_head", lambda *_: None)
    monkeypatch.setattr(held_back, "HeadPopulation", lambda shapes, size: SimpleNamespace(device=torch.device("cpu")))

    def progress(stage, fraction, message=""):
        told.append(message)
        if message.startswith("Making"):
            cancel.cancel()

    with pytest.raises(Cancelled):
        held_back.held_back_heads(tmp_path, ["a"], 6, PlaneConfig(), 48, None, progress, cancel)
    assert told[:2] == ["Reading head mask a", "Making held-back heads, 0 of 6"]


def test_a_store_of_a_version_with_a_choice_of_flips_is_gone_on_with(tmp_path):
    config = read_config(resource_dir() / "configs" / "fetal-skull.yaml", SkullRun)
    config = replace(config, data=replace(config.data, store=str(tmp_path)))
    train.case_store(config, tmp_path, torch.device("cpu"))
    stated = json.loads((tmp_path / "settings.json").read_text())
    assert stated["planes"] == {"misplacement": 1.0, "imaged": 0.75, "traced": 0.8, "sagittal": 0.7, "coronal": 0.6,
                                "without_axial": 0.35, "repeated": 0.03, "flipped": True}
