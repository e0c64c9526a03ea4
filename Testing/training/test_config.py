"""Settings of a wrong type, in every section: one sentence with the file, the section and the setting."""

from __future__ import annotations

import pytest
import yaml

from MedVAELib.anomaly.config import HealthyAnatomyRun
from MedVAELib.errors import InputError
from MedVAELib.latent.config import ImagesRun
from MedVAELib.resources import resource_dir
from MedVAELib.skull.config import OutlineRun, SkullRun
from MedVAELib.training.config import read_config, read_settings, read_task

IMAGES = {"task": "images", "data": {"source": "here"}, "model": {"name": "vae", "shape": [32, 32]}}


def images(folder, section="data", **settings):
    config = IMAGES | {section: IMAGES.get(section, {}) | settings}
    (folder / "own.yaml").write_text(yaml.safe_dump(config))
    return read_config(folder / "own.yaml", ImagesRun)


@pytest.mark.parametrize(("section", "name", "value", "words"), [
    ("data", "source", 5, "a valid string"), ("data", "validation", "ten", "a valid number"),
    ("data", "made_from", "a", "a valid array"), ("data", "made_from", [1], "a valid string"),
    ("data", "labels", {"ill": 1}, "a valid array"),
    ("data", "limit", True, "a valid integer"), ("trainer", "steps", "10", "a valid integer"),
    ("trainer", "steps", 10.5, "a valid integer"), ("trainer", "learning_rate", float("nan"), "a finite number"),
    ("trainer", "learning_rate", "fast", "a valid number"), ("bundle", "changelog", "new", "an object"),
    ("model", "shape", 32, "a valid array"), ("model", "shape", [32, "x"], "a valid integer"),
    ("model", "latent", "eight", "a valid integer"), ("model", "beta", [1], "a valid number"),
])
def test_a_wrong_type_names_file_section_and_setting(tmp_path, section, name, value, words):
    with pytest.raises(InputError, match=f"section '{section}': {name} should be {words}") as error:
        images(tmp_path, section, **{name: value})
    assert "own.yaml" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(("settings", "words"), [
    ({"name": "vea"}, "no model 'vea'"), ({"name": 5}, "no model '5'"),
    ({"name": "cvae"}, "task images trains no model 'cvae': choose one of ae, cevae, introvae, lvae, svae, vae, vqvae"),
    ({"layers": 3}, "has no setting layers"), ({"shape": [31, 32]}, "section 'model'"),
])
def test_mistakes_in_the_model_are_the_configs(tmp_path, settings, words):
    with pytest.raises(InputError, match=words) as error:
        images(tmp_path, "model", **settings)
    assert "own.yaml" in str(error.value)


def test_the_detectors_engine_runs_its_own_network_alone(tmp_path):
    config = read_settings(resource_dir() / "configs" / "healthy-anatomy.yaml") | {"model": {"name": "vae"}}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(InputError, match="healthy-anatomy trains no model 'vae': choose one of healthy_anatomy"):
        read_config(tmp_path / "own.yaml", HealthyAnatomyRun)


@pytest.mark.parametrize("name", ["", ".", "..", "../thesis", "a/b", "a\\b"])
def test_a_bundles_name_is_no_path(tmp_path, name):
    with pytest.raises(InputError, match="section 'bundle': name cannot be .*: use 64 letters"):
        images(tmp_path, "bundle", name=name)


def test_numbers_as_people_write_them(tmp_path):
    (tmp_path / "own.yaml").write_text("task: images\ndata: {source: here, store: }\n"
                                       "model: {name: vae, shape: [32, 32], beta: 1e-3}\n"
                                       "trainer: {learning_rate: 1.5e3, clip: 2}\n")
    config = read_config(tmp_path / "own.yaml", ImagesRun)
    assert config.trainer.learning_rate == 1.5e3 and config.model["beta"] == 1e-3 and config.trainer.clip == 2
    assert config.data.store == "" and config.model["shape"] == [32, 32]


@pytest.mark.parametrize(("content", "words"), [
    ("# größe\ntask: images".encode("latin-1"), "UTF-8"), (b"task: [images]", "'task:' must name"),
    (b"task: images\ntrainer: {steps: 3}\ntrainer:\n  steps: 4", "line 3, column 1: .*trainer is given twice"),
    (b"task: images\ntrainer: {steps: 3, batch: 1, steps: 4}", "line 2, column 31: .*steps is given twice"),
])
def test_files_that_are_no_configs(tmp_path, content, words):
    (tmp_path / "own.yaml").write_bytes(content)
    with pytest.raises(InputError, match=words):
        read_task(tmp_path / "own.yaml", {"images": None})


def test_what_is_needed_is_named(tmp_path):
    (tmp_path / "own.yaml").write_text("task: images\nmodel: {name: vae}\n")
    with pytest.raises(InputError, match="section 'data' needs source"):
        read_config(tmp_path / "own.yaml", ImagesRun)


def test_the_shipped_configs_have_the_declared_types():
    kinds = {kind.task: kind for kind in (HealthyAnatomyRun, ImagesRun, SkullRun, OutlineRun)}
    files = sorted((resource_dir() / "configs").glob("*.yaml"))
    assert files
    for file in files:
        read_config(file, kinds[read_settings(file)["task"]])
