"""What a training on images says of its data, and that the shipped config is the one that was measured."""

from __future__ import annotations

import json

import pytest

from MedVAELib.bundle import load_bundle
from MedVAELib.latent.config import ImageData, ImagesRun
from MedVAELib.training.config import read_config
from Testing.benchmarks.family import preset, training_note
from Testing.benchmarks.family_flair import SHIPPED


def test_sources_are_known_by_name():
    assert ImageData("x", made_from=["label-maps", "ms-masks"]).made_from == ["label-maps", "ms-masks"]
    with pytest.raises(ValueError, match="label-maps"):
        ImageData("x", made_from=["a scan of somebody"])


def test_the_shipped_model_is_the_preset_that_was_measured():
    shipped, measured = preset("flair-latents"), preset(SHIPPED)
    measured["data"] |= {"made_from": ["label-maps", "ms-masks"]}
    assert shipped | {"bundle": None} == measured | {"bundle": None}
    assert "test mse of the mean training image" in (load_bundle("flair-latents").path / "README.md").read_text("utf-8")


def test_one_label_may_stand_alone(tmp_path):
    assert ImageData("x", labels="ill").labels == ["ill"] and ImageData("x", labels=3).labels == ["3"]
    assert ImageData("x", labels=["ill", 2]).labels == ["ill", "2"] and ImageData("x").labels == []
    path = tmp_path / "c.yaml"
    path.write_text("task: images\ndata: {source: x, labels: ill}\nmodel: {name: vae, shape: [8, 8]}\n"
                    "trainer: {steps: 2, batch: 2}\nbundle: {}\n")
    assert read_config(path, ImagesRun).data.labels == ["ill"]


@pytest.mark.parametrize(("last", "told"), [(1.03, "+3.0% since three quarters of that: past its best."),
                                            (1.005, "+0.5% since three quarters of that."),
                                            (0.9, "−10.0% since three quarters of that.")])
def test_a_training_that_got_worse_at_its_end_is_past_its_best(tmp_path, last, told):
    lines = [{"step": step, "seconds": 60, "validation": {"mse": mse}}
             for step, mse in enumerate((3.0, 2.0, 1.0, last))]
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert training_note(tmp_path).endswith(told)
