"""Latents brought to the prior's mean and variance: the same reconstructions, a smaller divergence, better samples."""

from __future__ import annotations

import pytest
import torch

from MedVAELib.models import build_model

from .blobs import SHAPES, SMALL, blobs


@pytest.fixture(params=["vae", "cevae", "introvae"])
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


def test_samples_have_the_covariance_of_the_images_latents(model):
    """Two latents that go together in the images do so in samples, too."""
    with torch.no_grad():
        model.to_latent.project.weight[1] = model.to_latent.project.weight[0]
        model.to_latent.project.bias[1] = model.to_latent.project.bias[0]
        model.to_latent.project.weight[:4] *= 10  # so that means vary by far more than posteriors are wide
        model.to_latent.project.bias[4:] -= 7
        model.settle(blobs(12, model.shape).split(5))
        drawn = []
        model.decode = lambda latent: drawn.append(latent) or latent
        model.sample(4000, torch.Generator().manual_seed(0))
        mean, log_variance = model.encode(blobs(12, model.shape))
    expected = torch.cov(mean.T, correction=0) + log_variance.exp().mean(0).diag()
    assert torch.allclose(torch.cov(drawn[0].T), expected, atol=0.1) and expected[0, 1] > 0.9
    assert drawn[0].mean(0).abs().max() < 0.1


def test_a_spatial_latent_keeps_its_weights_and_samples_around_its_own_mean():
    torch.manual_seed(0)
    made = build_model("svae", SMALL | {"shape": SHAPES["2d"]}).eval()
    with torch.no_grad():
        made.to_latent.project.bias += 3.0
    before, images = {key: value.clone() for key, value in made.state_dict().items()}, blobs(6, made.shape)
    made.settle(images.split(2))
    changed = {key for key, value in made.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {"drawn_mean", "drawn_factor"}
    with torch.no_grad():
        assert torch.allclose(made.drawn_mean, made.encode(images)[0].flatten(1).mean(0), atol=1e-4)


@pytest.mark.parametrize("name", ["ae", "vqvae", "lvae"])
def test_the_weights_of_other_models_stay_as_they_were_trained(name):
    made = build_model(name, SMALL | {"shape": SHAPES["2d"]}).eval()
    before, images = {key: value.clone() for key, value in made.named_parameters()}, blobs(4, made.shape)
    shown = made.reconstruct(images)
    made.settle(images.split(2))
    assert all(torch.equal(value, before[key]) for key, value in made.named_parameters())
    assert torch.equal(made.reconstruct(images), shown)
