"""The training run end to end at toy size: progress, exact resume, cancel, bundle out; and clear refusals."""

from __future__ import annotations

import json

import pytest
import torch

from MedVAELib.anomaly import train
from MedVAELib.anomaly.card import LIMITS, model_card, model_metadata
from MedVAELib.anomaly.config import HealthyAnatomyRun
from MedVAELib.anomaly.train import train_from_config
from MedVAELib.bundle import load_bundle, save_bundle
from MedVAELib.errors import BundleError, Cancelled, InputError, UsageError
from MedVAELib.models import build_model
from MedVAELib.progress import CancelToken, no_progress
from MedVAELib.training.config import read_config
from MedVAELib.training.run import start_trainer
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
    run.run(batches, lambda state, step: {"n": len(state)}, no_progress, CancelToken())
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < 0.8 * losses[0]
    assert lines[-1]["validation"]["n"] > 10


def test_resume_goes_on_exactly(tmp_path):
    """Stopped after 10 of 20 steps and resumed, the weights are those of an unbroken run."""
    whole = trainer(tmp_path / "whole", 20)
    whole.run(batches, lambda state, step: {}, no_progress, CancelToken())
    cancel, broken = CancelToken(), trainer(tmp_path / "broken", 20)

    def stop_half_way(stage, fraction, message=""):
        if fraction >= 0.5:
            cancel.cancel()

    with pytest.raises(Cancelled):
        broken.run(batches, lambda state, step: {}, stop_half_way, cancel)
    resumed = trainer(tmp_path / "broken", 20)
    resumed.resume()
    assert resumed.step == 10
    resumed.run(batches, lambda state, step: {}, no_progress, CancelToken())
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
        trainer(tmp_path, 5).run(broken, lambda state, step: {}, no_progress, CancelToken())


def test_from_config_to_pictures_and_checkpoint(tmp_path, monkeypatch):
    """A bundle comes out; a network this untrained may also find no brain: then it is said, and none does."""
    write_head(tmp_path / "heads", "01")
    write_head(tmp_path / "heads", "02")
    monkeypatch.setenv("MEDVAE_DATA", str(tmp_path))
    (tmp_path / "config.yaml").write_text(CONFIG.format(steps=4))
    seen = []
    try:
        train_from_config(
            tmp_path / "config.yaml", tmp_path / "out", device="cpu",
            progress=lambda stage, fraction, message="": seen.append(fraction),
        )
    except InputError as error:
        assert "has not learned enough" in str(error) and "--resume" in str(error)
        assert not (tmp_path / "out" / "bundle").exists()
    else:
        assert load_bundle(tmp_path / "out" / "bundle" / "tiny").model == "healthy_anatomy"
    assert seen == sorted(seen)
    assert {"checkpoint.pt", "curves.png", "reconstructions.png", "log.jsonl"} <= {
        file.name for file in (tmp_path / "out").iterdir()
    }
    assert not list((tmp_path / "out").glob(".uncalibrated*"))


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


def configured(folder, old="", new="", steps=4):
    text = CONFIG.format(steps=steps)
    assert old in text
    (folder / "config.yaml").write_text(text.replace(old, new))
    return read_config(folder / "config.yaml", HealthyAnatomyRun)


def start(config, folder, resume=False):
    return start_trainer(config, folder / "out", torch.device("cpu"), resume)


@pytest.mark.parametrize(("old", "new", "words"), [
    ("latent: 2", "latent: 2, beta: 0.5", r"model\.beta is 0\.5, but .* was started with 0\.001"),
    ("latent: 2", "latent: 4", r"model\.latent is 4"),
    ('train: ["01"]', 'train: ["03"]', r"data\.train is"),
    ("spacing_mm: 5.0", "spacing_mm: 4.0", r"synthesis\.spacing_mm is 4\.0"),
    ("batch: 1", "batch: 2", r"trainer\.batch is 2"),
    ("batch: 1", "batch: 1, seed: 5", r"trainer\.seed is 5"),
    ("steps: 4", "steps: 2", r"trainer\.steps is 2, but .* has done 3"),
])
def test_a_run_is_not_resumed_with_another_config(tmp_path, old, new, words):
    run = start(configured(tmp_path), tmp_path)
    run.step = 3
    run.save()
    with pytest.raises(InputError, match=words) as error:
        start(configured(tmp_path, old, new), tmp_path, resume=True)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("old", "new"), [
    ("steps: 4", "steps: 9"), ("batch: 1", "batch: 1, learning_rate: 1e-4, patience: 3"),
    ("validate_every: 2", "validate_every: 3"), ("version: 0.0.1", "version: 0.0.2"), ("scans: 1", "scans: 2"),
    ("latent: 2", "latent: 2, beta: 0.001"),
])
def test_what_does_not_falsify_a_run_may_change(tmp_path, old, new):
    run = start(configured(tmp_path), tmp_path)
    run.step = 3
    run.save()
    assert start(configured(tmp_path, old, new), tmp_path, resume=True).step == 3


def test_a_run_starts_from_the_weights_of_a_bundle(tmp_path):
    config = configured(tmp_path)
    known = {name: torch.full_like(value, 3) for name, value in start(config, tmp_path).averaged.items()}
    bundle = save_bundle(tmp_path / "known", model_metadata(config, config.model_settings, {}, 1, 1.0), known, "card")
    given = f"task: healthy-anatomy\ninitial_weights: {bundle.path}"
    run = start(configured(tmp_path, "task: healthy-anatomy", given), tmp_path / "tuned")
    assert all((value == 3).all() for value in run.model.state_dict().values())
    assert all((value == 3).all() for value in run.averaged.values()) and run.step == 0
    configured(tmp_path, "latent: 2", "latent: 4")
    text = (tmp_path / "config.yaml").read_text().replace("task: healthy-anatomy", given)
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(BundleError, match="bundle known do not fit the config's model .*: give the model the settings"):
        start(read_config(tmp_path / "config.yaml", HealthyAnatomyRun), tmp_path / "wider")


def test_a_run_is_not_overwritten(tmp_path):
    start(configured(tmp_path), tmp_path).save()
    before = (tmp_path / "out" / "checkpoint.pt").read_bytes()
    with pytest.raises(UsageError, match="holds a run already: go on with it by --resume, or name another --output"):
        start(configured(tmp_path), tmp_path)
    assert (tmp_path / "out" / "checkpoint.pt").read_bytes() == before


def test_resuming_nothing_makes_no_folder(tmp_path):
    with pytest.raises(InputError, match="nothing to resume"):
        start(configured(tmp_path), tmp_path, resume=True)
    assert not (tmp_path / "out").exists()


def test_an_output_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(UsageError, match="is a file"):
        start(configured(tmp_path), tmp_path)
    with pytest.raises(UsageError, match="--output"):
        start_trainer(configured(tmp_path), tmp_path / "out" / "below", torch.device("cpu"), False)


@pytest.mark.parametrize(("extra", "words"), [
    ("calibration_scans: [{scan: gone.nii.gz}]", "gone.nii.gz"), ("flair_lesion_masks: gone", "gone"),
    ("calibration_scans: [{without: a.nii.gz}]", "'scan'"),
])
def test_calibration_data_are_looked_at_before_training(tmp_path, monkeypatch, extra, words):
    monkeypatch.setenv("MEDVAE_DATA", str(tmp_path))
    monkeypatch.setattr(train, "start_trainer", lambda *_: pytest.fail("the training started"))
    text = CONFIG.format(steps=1).replace("label_maps: heads", f"label_maps: x, {extra}")
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(InputError, match=words):
        train_from_config(tmp_path / "config.yaml", tmp_path / "out", device="cpu")


@pytest.mark.parametrize(("raised", "told", "words"), [
    (InputError("synthetic 3: no brain was found in it."), InputError, "not learned enough.*--resume"),
    (InputError("x.nii.gz: is damaged."), InputError, "x.nii.gz: is damaged. .*--resume"),
    (Cancelled(), Cancelled, "Cancelled"),
])
def test_a_calibration_that_fails_leaves_no_bundle(tmp_path, monkeypatch, raised, told, words):
    def fail(*_):
        raise raised

    monkeypatch.setattr(train, "calibrate_bundle", fail)
    config = configured(tmp_path)
    run = start(config, tmp_path)
    with pytest.raises(told, match=words):
        train.write_bundle(config, config.model_settings, run, tmp_path / "out", no_progress, CancelToken())
    assert list((tmp_path / "out").iterdir()) == []


def test_the_card_says_what_this_run_used(tmp_path):
    config = configured(tmp_path, "label_maps: heads", f"label_maps: {tmp_path}/private/heads, lesion_masks: my/masks, "
                        "flair_lesion_masks: my/masks, calibration_scans: [{scan: own/flair.nii.gz}]")
    metadata = model_metadata(config, config.model_settings, {}, 1, 1.0)
    text = model_card(metadata)
    assert [entry["name"] for entry in metadata["medvae"]["training_data"]] == [
        "2 label maps", "lesion masks", "1 FLAIR scan"]
    assert "| heads |" in text and "| my/masks |" in text and "| flair.nii.gz |" in text and str(tmp_path) not in text
    assert "Ljubljana" not in text and "18 heads" not in text and "1 label maps, 1 more for validation" in text
    assert (metadata["authors"], metadata["copyright"]) == ("not stated", "not stated") and "{heads}" in LIMITS


def test_authors_licence_and_known_data_are_the_configs(tmp_path):
    config = configured(tmp_path, "version: 0.0.1", "authors: Ours, licence: CC0-1.0")
    metadata = model_metadata(config, config.model_settings, {}, 1, 1.0)
    assert (metadata["authors"], metadata["copyright"]) == ("Ours", "CC0-1.0")
    config = configured(tmp_path, "label_maps: heads", "label_maps: heads, made_from: [label-maps]")
    assert "SynthSeg" in model_card(model_metadata(config, config.model_settings, {}, 1, 1.0))
