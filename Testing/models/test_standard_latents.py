"""Latents brought to the prior's mean and variance: the same reconstructions, a smaller divergence, better samples."""

from __future__ import annotations

import pytest
import torch

from MedVAELib.models import build_model

from .blobs import SHAPES, SMALL, blobs


@pytest.fixture(params=["vae", "cevae"])
def model(request):
    """Not trained: its latents lie anywhere."""
    torch.manual_seed(0)
    made = build_model(request.param, SMALL | {"shape": SHAPES["3d"]}).eval()
    with torch.no_grad():
        made.to_latent.project.bias += torch.randn(8)
        made.to_latent.project.weight *= 5
    return made


def test_reconstructions_stay_and_latents_become_the_priors(model):
    images = blobs(12, model.shape)
    with torch.no_grad():
        before, kl = model.reconstruct(images), model.kl_per_latent(images).mean(0)
        model.settle(images.split(5))
        mean, log_variance = model.encode(images)
        assert torch.allclose(model.reconstruct(images), before, atol=1e-5)
        assert torch.allclose(mean.mean(0), torch.zeros(4), atol=1e-4)
        assert torch.allclose(mean.var(0, correction=0) + log_variance.exp().mean(0), torch.ones(4), atol=1e-4)
        assert (model.kl_per_latent(images).mean(0) <= kl + 1e-5).all()
        assert float(model.kl_per_latent(images).mean(0).sum()) < 0.9 * float(kl.sum())


@pytest.mark.parametrize("name", ["ae", "svae", "vqvae", "introvae", "lvae"])
def test_the_weights_of_other_models_stay_as_they_were_trained(name):
    made = build_model(name, SMALL | {"shape": SHAPES["2d"]}).eval()
    before = {key: value.clone() for key, value in made.state_dict().items()}
    made.settle(blobs(4, made.shape).split(2))
    assert all(torch.equal(value, before[key]) for key, value in made.state_dict().items())
