"""A new model is one file in `MedVAELib/models/`: found by its name, trained, bundled, loaded; nothing else changes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

import MedVAELib.models
from MedVAELib.errors import BundleError
from MedVAELib.models import MODELS, build_model, registry
from MedVAELib.progress import CancelToken, no_progress
from MedVAELib.training.trainer import Trainer, TrainerConfig

from ..bundle.bundle_files import saved_and_loaded
from .blobs import SHAPES, SMALL, blobs

NEW_MODEL = '''
from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .autoencoder import VariationalConfig
from .registry import register
from .vae import VAE


@dataclass(frozen=True)
class DenoisingConfig(VariationalConfig):
    dirt: float = 0.2


@register("denoising_vae")
class DenoisingVAE(VAE):
    Config = DenoisingConfig

    def loss(self, image: Tensor, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        clean = super().loss(image, generator)
        dirt = torch.randn(image.shape, generator=generator) * self.config.dirt
        restored = self.logits(self.encode(image + dirt)[0])
        return clean | {"loss": clean["loss"] + self.negative_log_likelihood(image, restored).mean() / 100}
'''
NAME = "denoising_vae"


@pytest.fixture
def one_file(tmp_path, monkeypatch):
    """The file, in a folder that the package looks into, and no trace of it afterwards."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / f"{NAME}.py").write_text(NEW_MODEL)
    monkeypatch.setattr(MedVAELib.models, "__path__", [*MedVAELib.models.__path__, str(tmp_path / "models")])
    yield tmp_path
    registry._registered.pop(NAME, None)
    sys.modules.pop(f"MedVAELib.models.{NAME}", None)


def test_a_new_file_is_a_new_model(one_file: Path):
    config = {**SMALL, "shape": list(SHAPES["2d"]), "dirt": 0.1}
    model, images = build_model(NAME, config), blobs(8, SHAPES["2d"])
    schedule = TrainerConfig(steps=20, batch=8, learning_rate=5e-3)
    trainer = Trainer(model, schedule, one_file / "run", torch.device("cpu"))

    def batches(start: int):
        while True:
            yield (images,)

    before = float(model.loss(images, torch.Generator().manual_seed(0))["mse"].detach())
    trainer.run(batches, lambda weights, step: {}, no_progress, CancelToken())
    assert float(model.loss(images, torch.Generator().manual_seed(0))["mse"].detach()) < before
    again = saved_and_loaded(one_file / "bundle", NAME, config, model)
    assert again.config.dirt == 0.1 and "combined" in again.anomaly_scores(images[:1])
    assert NAME in MODELS and NAME in list(MODELS)


def test_without_the_file_there_is_no_such_model():
    with pytest.raises(BundleError, match=f"Unknown model '{NAME}'; this version knows .*vae"):
        build_model(NAME, {})


def test_all_of_the_packages_models_are_found():
    assert {"ae", "vae", "svae", "vqvae", "introvae", "cevae", "lvae", "cvae", "cgan", "healthy_anatomy"} <= set(MODELS)


def test_two_models_of_one_name_are_refused():
    with pytest.raises(ValueError, match="two models are named 'vae'"):
        assert MODELS["vae"]
        registry.register("vae")(type("Other", (torch.nn.Module,), {}))
