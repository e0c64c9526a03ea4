"""The training run end to end at toy size: progress, exact resume, cancel, bundle out; and clear refusals."""

from __future__ import annotations

import json

import pytest
import torch

from MedVAELib.anomaly import train
from MedVAELib.anomaly.config import HealthyAnatomyRun
from MedVAELib.anomaly.train import train_from_config
from MedVAELib.bundle import load_bundle
from MedVAELib.errors import Cancelled, InputError
from MedVAELib.models import build_model
from MedVAELib.progress import CancelToken, no_progress
from MedVAELib.training.config import read_config
from MedVAELib.training.trainer import Trainer, TrainerConfig

from .heads import write_head

CONFIG = """
task: healthy-anatomy
data: {{label_maps: heads, train: ["01"], validation: ["02"]}}
model: {{name: healthy_anatomy, width: 4, latent: 2}}
synthesis: {{spacing_mm: 5.0, shape: [48, 48, 48]}}
trainer: {{steps: {steps}, batch: 1, validate_every: 2, checkpoint_every: 2}}
calibration: {{scans: 1, spacing_mm: 4.0}}
bundle: {{name: tiny, version: 0.0.1}}
"""


def batches(start: int):
    """Noise whose target is its own sign: learnable in a few steps.

    48 voxels are three at the coarsest scale. At two, torch's bf16 weight gradient of a 3×3×3 convolution on the CPU
    reads memory that nobody wrote (2.13).
    """
    step = start
    while True:
        generator = torch.Generator().manual_seed(step)
        image = torch.rand(1, 1, 48, 48, 48, generator=generator)
        bright = (image > 0.5).float()
        yield image, torch.cat([1 - bright, bright, torch.zeros(1, 7, 48, 48, 48)], 1)
        step += 1


def trainer(folder, steps):
    torch.manual_seed(0)
    model = build_model("healthy_anatomy", {"width": 4, "latent": 2})
    config = TrainerConfig(steps=steps, batch=1, learning_rate=1e-2, checkpoint_every=5)
    return Trainer(model, config, folder, torch.device("cpu"))


def test_it_learns_and_logs(tmp_path):
    run = trainer(tmp_path, 60)
    run.run(batches, lambda state: {"n": len(state)}, no_progress, CancelToken())
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < 0.8 * losses[0]
    assert lines[-1]["validation"]["n"] > 10


def test_resume_goes_on_exactly(tmp_path):
    """Stopped after 10 of 20 steps and resumed, the weights are those of an unbroken run."""
    whole = trainer(tmp_path / "whole", 20)
    whole.run(batches, lambda state: {}, no_progress, CancelToken())
    cancel, broken = CancelToken(), trainer(tmp_path / "broken", 20)

    def stop_half_way(stage, fraction, message=""):
        if fraction >= 0.5:
            cancel.cancel()

    with pytest.raises(Cancelled):
        broken.run(batches, lambda state: {}, stop_half_way, cancel)
    resumed = trainer(tmp_path / "broken", 20)
    resumed.resume()
    assert resumed.step == 10
    resumed.run(batches, lambda state: {}, no_progress, CancelToken())
    for name, value in whole.model.state_dict().items():
        assert torch.allclose(value.float(), resumed.model.state_dict()[name].float(), atol=1e-6), name


def test_calibrating_takes_the_trainings_device(tmp_path, monkeypatch):
    class Asked(Exception):
        pass

    def load(bundle, device):
        raise Asked(device)

    monkeypatch.setattr(train.Detector, "load", load)
    monkeypatch.setenv("MEDVAE_DATA", str(tmp_path))
    (tmp_path / "config.yaml").write_text(CONFIG.format(steps=1))
    config = read_config(tmp_path / "config.yaml", HealthyAnatomyRun)
    with pytest.raises(Asked, match="cuda:1"):
        train.calibrate_bundle(config, None, torch.device("cuda", 1), no_progress, CancelToken())


def test_divergence_is_one_sentence(tmp_path):
    def broken(start):
        for image, target in batches(start):
            yield image * float("nan"), target

    with pytest.raises(InputError, match="diverged at step 0"):
        trainer(tmp_path, 5).run(broken, lambda state: {}, no_progress, CancelToken())


def test_from_config_to_pictures_and_checkpoint(tmp_path, monkeypatch):
    """A bundle comes out; a network this untrained may also find no brain, which the calibration then says."""
    write_head(tmp_path / "heads", "01")
    write_head(tmp_path / "heads", "02")
    monkeypatch.setenv("MEDVAE_DATA", str(tmp_path))
    (tmp_path / "config.yaml").write_text(CONFIG.format(steps=4))
    seen = []
    try:
        train_from_config(
            tmp_path / "config.yaml", tmp_path / "out", device="cpu",
            progress=lambda stage, fraction, message="": seen.append(fraction),
        )  # fmt: skip
    except InputError as error:
        assert "no brain was found" in str(error)
    assert seen == sorted(seen)
    assert {"checkpoint.pt", "curves.png", "reconstructions.png", "log.jsonl"} <= {
        file.name for file in (tmp_path / "out").iterdir()
    }
    assert load_bundle(tmp_path / "out" / "bundle" / "tiny").model == "healthy_anatomy"


@pytest.mark.parametrize(("text", "words"), [
    ("task: other", "task: healthy-anatomy"),
    ("task: healthy-anatomy\ndata: {label_maps: x, train: ['1'], validation: ['1']}\nmodel: {name: a}", "both"),
    ("task: healthy-anatomy\ndata: {label_map: x}\nmodel: {name: a}", "label_map"),
    ("task: [", "YAML"),
    (CONFIG.format(steps=0).replace("{{", "{").replace("}}", "}"), "positive"),
    (CONFIG.format(steps=1) + "\nextra: {}", "extra"),
])
def test_bad_configs_are_one_sentence(tmp_path, text, words):
    file = tmp_path / "config.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=words) as error:
        read_config(file, HealthyAnatomyRun)
    assert "\n" not in str(error.value) and "config.yaml" in str(error.value)
