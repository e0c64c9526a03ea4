"""The task images end to end at toy size: pictures, split, bundle, errors of one sentence, nothing half-written."""

from __future__ import annotations

import json
import re
from operator import attrgetter

import numpy as np
import pytest
import SimpleITK as sitk
import torch
import yaml

from MedVAELib.cli.app import run
from MedVAELib.errors import Cancelled, InputError
from MedVAELib.latent.config import ImagesRun
from MedVAELib.latent.model import load_latent_model
from MedVAELib.latent.train import image_batches, train_from_config
from MedVAELib.progress import CancelToken
from MedVAELib.training.config import read_config, read_settings, source_path
from MedVAELib.training.image_sets import read_images
from MedVAELib.training.run import start_trainer
from Testing.training.image_files import write_pictures

CONFIG = {
    "task": "images",
    "data": {"source": "in", "validation": 0.2, "test": 0.2, "modality": "radiograph"},
    "model": {"name": "vae", "shape": [12, 16], "latent": 3, "width": 4, "bottom": 8, "levels": 2, "warmup": 2},
    "trainer": {"steps": 6, "batch": 4, "validate_every": 3, "checkpoint_every": 3, "precision": "float32"},
    "bundle": {"name": "tiny", "version": "0.0.1"},
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Twenty labelled pictures in the present folder."""
    write_pictures(tmp_path / "in", {"a": 10, "b": 10})
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MEDVAE_DATA", raising=False)
    return tmp_path


def written(folder, **sections):
    """config.yaml with settings changed by section."""
    changed = {name: {**part, **sections.pop(name, {})} if isinstance(part, dict) else part
               for name, part in CONFIG.items()}
    (folder / "config.yaml").write_text(yaml.safe_dump(changed | sections))
    return folder / "config.yaml"


def test_from_pictures_to_a_latent_model(folder):
    seen = []
    bundle = train_from_config(written(folder), folder / "out", device="cpu",
                               progress=lambda stage, fraction, message="": seen.append(fraction))
    assert seen == sorted(seen) and seen[-1] <= 1
    names = {file.name for file in (folder / "out").iterdir()}
    assert {"checkpoint.pt", "curves.png", "reconstructions.png", "samples.png", "log.jsonl", "split.csv"} <= names
    assert not [name for name in names if "partial" in name]
    assert any((folder / "out" / "tensorboard").iterdir())
    latents = load_latent_model(bundle, "cpu")
    assert set(latents.statistics.labels) == {"a", "b"} and latents.statistics.all.count == 12
    assert latents.form.scaling == "byte" and latents.bundle.modality == ["radiograph"]
    card = (bundle / "README.md").read_text()
    images = read_images(folder / "out" / "split.csv")
    constant = np.square(images.part("test").images - images.part("train").images.mean(0)).mean()
    assert "test mse |" in card and f"| test mse of the mean training image | {constant:.5g} |" in card
    last = json.loads((folder / "out" / "log.jsonl").read_text().splitlines()[-1])["validation"]
    assert {"loss", "mse", "kl", "active_units", "kl[0]", "kl[2]"} <= set(last)


def test_the_start_says_what_there_is_and_doubts_patients_that_nobody_named(tmp_path, monkeypatch, capsys):
    """Volumes of two patients with values below 0, which the bundle says how it brought to 0…1."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MEDVAE_DATA", raising=False)
    (tmp_path / "in").mkdir()
    for i in range(8):
        values = np.random.default_rng(i).normal(size=(12, 16)).astype(np.float32)
        sitk.WriteImage(sitk.GetImageFromArray(values), str(tmp_path / "in" / f"p{i // 2:02d}_{i % 2}.mha"))
    config = written(tmp_path, trainer={"steps": 2})
    assert run(["train", str(config), "-o", str(tmp_path / "out"), "--device", "cpu", "--progress", "none"]) == 0
    told, warned = capsys.readouterr()
    said = []
    bundle = train_from_config(config, tmp_path / "called", device="cpu",
                               progress=lambda stage, fraction, message="": said.append(message))
    line = ("Images: train: 4 images of 4 patients, validation: 2 images of 2 patients, test: 2 images of 2 patients; "
            "scaling range")
    assert line in told.splitlines() and line in said
    assert re.fullmatch(r"medvae: warning: Every image .*p0\d looks like one patient.*: set data.patient, .*\.",
                        warned.strip())
    assert load_latent_model(bundle, "cpu").form.scaling == "range"
    assert "0.5th" in (bundle / "metadata.json").read_text(encoding="utf-8")
    named = written(tmp_path, data={"patient": r"(p\d+)"}, trainer={"steps": 2})
    assert capsys.readouterr().out == ""  # the library itself prints nothing
    assert run(["train", str(named), "-o", str(tmp_path / "named"), "--device", "cpu", "--progress", "none"]) == 0
    told, warned = capsys.readouterr()
    assert "train: 4 images of 2 patients" in told and "warning" not in warned


def test_augmented_images_teach_other_weights_and_the_card_says_so(folder):
    """That such a run resumes exactly is tested with the shipped configs."""
    plain = train_from_config(written(folder), folder / "plain", device="cpu")
    bundle = train_from_config(written(folder, augment={"mirror": 0.5, "shift": 2}), folder / "out", device="cpu")
    assert "mirror 0.5, shift 2." in (bundle / "README.md").read_text()
    assert "changed anew" not in (plain / "README.md").read_text()
    assert (bundle / "model.safetensors").read_bytes() != (plain / "model.safetensors").read_bytes()


def test_after_an_early_stop_the_card_names_the_step_of_its_weights(folder):
    config = written(folder, trainer={"steps": 40, "patience": 1, "gain": 0.9})
    bundle = train_from_config(config, folder / "out", device="cpu")
    training = json.loads((bundle / "metadata.json").read_text())["medvae"]["results"]["training"]
    assert (training["steps"], training["weights_of_step"]) == (6, 3)
    assert "6 steps of 4" in (bundle / "README.md").read_text()
    assert "Weights of step 3, the best." in (bundle / "README.md").read_text()
    plain = train_from_config(written(folder), folder / "plain", device="cpu")
    assert "eights of step" not in (plain / "README.md").read_text()


def test_the_split_can_be_read_again_and_is_kept_by_a_resume(folder):
    """More images than the run started with are refused: some would change their part."""
    config = written(folder)
    train_from_config(config, folder / "out", device="cpu")
    again = read_images(folder / "out" / "split.csv")
    assert [len(again.part(name)) for name in ("train", "validation", "test")] == [12, 4, 4]
    train_from_config(written(folder, trainer={"steps": 8}), folder / "out", True, "cpu")
    write_pictures(folder / "in", {"a": 11})
    with pytest.raises(InputError, match="split.csv lists other images"):
        train_from_config(config, folder / "out", True, "cpu")


def test_cancelling_keeps_the_checkpoint(folder):
    token = CancelToken()

    def stop(stage, fraction, message=""):
        if stage == "training":
            token.cancel()

    config = written(folder, trainer={"steps": 20})
    with pytest.raises(Cancelled):
        train_from_config(config, folder / "out", device="cpu", progress=stop, cancel=token)
    assert (folder / "out" / "checkpoint.pt").exists() and not (folder / "out" / "bundle").exists()
    train_from_config(config, folder / "out", True, "cpu")


@pytest.mark.parametrize(("sections", "words"), [
    ({"data": {"source": "missing"}}, "missing does not exist"),
    ({"data": {"labels": ["c"]}}, "no images labelled c"),
    ({"data": {"validation": 0}}, "validation must be a share"),
    ({"data": {"fit": "squeeze"}}, "fit must be one of"),
    ({"model": {"shape": [16, 16]}}, "12 × 16 voxels where 16 × 16"),
    ({"model": {"name": "cvae"}}, "no model 'cvae': choose"),
    ({"trainer": {"patience": -1}}, "patience"),
    ({"augment": {"mirror": 2}}, "'augment': mirror must"),
    ({"base": "other.yaml"}, "other.yaml"),
    ({"task": "pictures"}, "task"),
])
def test_what_cannot_be_trained_is_one_sentence_and_leaves_nothing(folder, capsys, sections, words):
    code = run(["train", str(written(folder, **sections)), "--output", str(folder / "out"), "--device", "cpu"])
    error = capsys.readouterr().err.strip().splitlines()
    assert code in (3, 4) and not (folder / "out").exists()
    assert len(error) == 1 and re.search(words, error[0]), error


def test_a_watched_figure_that_there_is_not_ends_the_run_before_it_starts(folder):
    settings, said = {"steps": 3, "patience": 5}, []
    with pytest.raises(InputError, match="'fid', but .* mse"):
        train_from_config(written(folder, trainer={**settings, "watch": "fid"}), folder / "out", device="cpu",
                          progress=lambda stage, *told: said.append(stage))
    assert "images" in said and "training" not in said
    train_from_config(written(folder, trainer={**settings, "watch": "kl[0]"}), folder / "other", device="cpu")


@pytest.mark.parametrize(("test", "count", "told"), [(0.2, 2, 1), (0.2, 10, 0), (0.0, 2, 0)])
def test_a_test_part_that_nobody_is_left_for_is_told_of(tmp_path, monkeypatch, test, count, told):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MEDVAE_DATA", raising=False)
    write_pictures(tmp_path / "in", {"": count})
    said = []
    train_from_config(written(tmp_path, data={"test": test}, trainer={"steps": 2}), tmp_path / "out", device="cpu",
                      progress=lambda *told: said.append(told))
    assert [message[:16] for stage, _, message in said if stage == "warning"] == ["data.test is 0.2"] * told


def test_a_mistake_in_the_yaml_is_named_by_its_place(tmp_path):
    (tmp_path / "a.yaml").write_text("task: images\ndata: {source: in\nmodel: {name: vae}\n")
    with pytest.raises(InputError, match="a.yaml, line 3, column 6: is not valid YAML .*'}'"):
        read_settings(tmp_path / "a.yaml")


def test_every_image_comes_once_before_any_comes_again():
    images = np.arange(10, dtype=np.float32).reshape(10, 1, 1, 1)
    stream = image_batches(images, 4, seed=1)(0)
    drawn = np.concatenate([next(stream)[0].numpy().ravel() for _ in range(10)])
    for epoch in range(4):
        assert sorted(drawn[10 * epoch : 10 * epoch + 10]) == list(range(10))
    assert list(drawn[:10]) != list(drawn[10:20])
    later = image_batches(images, 4, seed=1)(7)
    assert np.array_equal(next(later)[0].numpy().ravel(), drawn[28:32])


def test_a_base_is_what_a_config_does_not_say(tmp_path):
    (tmp_path / "base.yaml").write_text("task: images\nmodel: {width: 8, levels: 3}\ntrainer: {steps: 5, batch: 2}\n")
    (tmp_path / "c.yaml").write_text("base: base.yaml\nmodel: {name: vae, width: 4}\n")
    assert read_settings(tmp_path / "c.yaml") == {
        "task": "images", "model": {"name": "vae", "width": 4, "levels": 3}, "trainer": {"steps": 5, "batch": 2},
    }
    (tmp_path / "d.yaml").write_text("base: c.yaml\n")
    with pytest.raises(InputError, match="only one level"):
        read_settings(tmp_path / "d.yaml")


def test_a_source_is_looked_for_in_the_data_first(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("MEDVAE_DATA", str(tmp_path))
    assert source_path("here/*.png") == tmp_path / "here" / "*.png"
    assert str(source_path("elsewhere")) == "elsewhere"


def test_a_run_is_judged_once_its_warm_up_is_over_and_it_has_settled(folder):
    """A model's own `health` does not know the step."""
    config = read_config(written(folder, model={"name": "introvae", "warmup": 40}), ImagesRun)
    trainer = start_trainer(config, folder / "out", torch.device("cpu"), False, attrgetter("warm_up_steps"))
    assert trainer.health.grace > 2 * 40 == trainer.model.warm_up_steps
    trainer.health.training(trainer.health.grace, {"loss": 1.0, "kl": 0.0})
    assert trainer.health.bad["training"] == 0
    trainer.health.training(trainer.health.grace + 1, {"loss": 1.0, "kl": 0.0})
    assert trainer.health.bad["training"] == 1
