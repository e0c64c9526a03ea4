"""What all image autoencoders promise: shapes, learning, samples, scores, bundles; in 2D and in 3D."""

from __future__ import annotations

import pytest
import torch

from MedVAELib.errors import BundleError
from MedVAELib.models import build_model

from ..bundle.bundle_files import saved_and_loaded
from .blobs import SHAPES, SMALL, blobs

NAMES = ("ae", "vae", "svae", "vqvae", "introvae", "cevae", "lvae")
EXTRA = {"vqvae": {"codes": 16, "prior_width": 16, "prior_depth": 1}, "lvae": {"hidden": 16}}
VARIATIONAL = ("vae", "svae", "introvae", "cevae", "lvae")


def settings(name: str, shape: str = "2d", **more) -> dict:
    return {**SMALL, "shape": list(SHAPES[shape]), **EXTRA.get(name, {}), **more}


def small(name: str, shape: str = "2d", **more):
    torch.manual_seed(0)
    return build_model(name, settings(name, shape, **more))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", NAMES)
def test_shapes_and_ranges(name, shape):
    model, images = small(name, shape).eval(), blobs(3, SHAPES[shape])
    with torch.inference_mode():
        mean, log_variance = model.encode(images)
        outputs = [model.decode(mean), model.reconstruct(images), model.sample(3, seeded())]
        divergence = model.kl_per_latent(images)
    assert model.shape == SHAPES[shape] and mean.shape == (3, *model.latent_shape)
    assert (log_variance is not None) == model.variational == (name in VARIATIONAL)
    assert all(out.shape == images.shape and 0 <= out.min() and out.max() <= 1 for out in outputs)
    assert torch.equal(outputs[0], outputs[1])
    if model.variational:
        assert log_variance.shape == divergence.shape == mean.shape and divergence.min() >= 0
    else:
        assert divergence is None


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", NAMES)
def test_the_loss_falls_on_one_batch(name, shape):
    model = small(name, shape, **({"warmup": 1} if name in VARIATIONAL else {})).train()
    images = blobs(8, SHAPES[shape])
    optimiser = torch.optim.Adam(model.parameters(), 5e-3)
    terms = []
    for step in range(40):
        terms.append({key: float(value.detach()) for key, value in _step(model, optimiser, images, step).items()})
    last = {key: sum(line[key] for line in terms[-10:]) / 10 for key in terms[0]}  # as a training is judged
    assert last["mse"] < 0.4 * terms[0]["mse"] and last["loss"] < terms[0]["loss"] and model.health(last) is None
    if name == "introvae":  # the encoder has learned to tell generated images from real ones
        assert terms[0]["kl_fake"] < terms[0]["kl"] and last["kl_fake"] > last["kl"]


def _step(model, optimiser, images, step):
    terms = model.loss(images, seeded(step))
    optimiser.zero_grad()
    terms["loss"].backward()
    optimiser.step()
    return terms


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_samples(name):
    model = small(name).eval()
    with torch.inference_mode():
        one, again, other = model.sample(2, seeded()), model.sample(2, seeded()), model.sample(2, seeded(1))
    assert torch.equal(one, again) and not torch.equal(one, other) and not torch.equal(one[0], one[1])


@pytest.mark.parametrize("inference", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_an_images_scores_do_not_depend_on_its_neighbours(name, inference):
    model, images = small(name).eval(), blobs(3, SHAPES["2d"])
    with torch.inference_mode(inference):
        together, alone = model.anomaly_scores(images, seeded()), model.anomaly_scores(images[:1], seeded())
    assert {"residual", "excess"} <= together.keys()
    assert ("combined" in together) == (name in VARIATIONAL) and ("restoration" in together) == (name == "vqvae")
    for key, score in together.items():
        assert score.shape == images.shape and score.min() >= 0
        if not key.startswith("restoration"):  # which draws, and a batch draws in another order
            assert torch.allclose(score[:1], alone[key], atol=1e-5)
    if "combined" in together:
        assert torch.allclose(together["combined"], together["residual"] * together["kl_gradient"])


def test_the_gradient_score_is_the_divergences_own():
    """Against a difference at the pixel with the steepest divergence, where rounding does not show."""
    model, images = small("vae").eval(), blobs(1, SHAPES["2d"])
    gradient = model.anomaly_scores(images)["kl_gradient"]
    place, step = int(gradient.argmax()), torch.zeros_like(images)
    step.view(-1)[place] = 0.05
    with torch.no_grad():
        change = model.divergence(images + step).sum() - model.divergence(images - step).sum()
    assert float(gradient.max()) == pytest.approx(abs(float(change)) / 0.1, rel=0.02)


@pytest.mark.parametrize("name", VARIATIONAL)
def test_the_divergence_warms_up_and_free_bits_cost_nothing(name):
    images = blobs(4, SHAPES["2d"])

    def loss(model):
        return float(model.loss(images, seeded())["loss"].detach())

    def of(**more):
        return loss(small(name, **{"warmup": 1000, **({"adversarial": 0.0} if name == "introvae" else {}), **more}))

    assert of(beta=0.0) < of(beta=1000.0) < of(beta=1000.0, warmup=1)
    flat = of(beta=0.0, warmup=1)
    paid = of(beta=1.0, warmup=1, free_bits=50.0) - flat
    latents = small(name).encode(images)[0][0].numel()
    paid_latents = latents if name != "lvae" else SMALL["latent"]  # the others' warm-up has not begun
    assert paid == pytest.approx(50.0 * paid_latents / (16 * 24), rel=1e-3)


def test_the_loss_is_scaled_as_stated():
    model, images = small("vae", warmup=1, beta=2.0).eval(), blobs(4, SHAPES["2d"])
    terms = model.loss(images, seeded())
    assert torch.allclose(terms["reconstruction"], terms["mse"] * 16 * 24 / (2 * 0.1**2))
    assert torch.allclose(terms["loss"], (terms["reconstruction"] + 2 * terms["kl"]) / (16 * 24))


@pytest.mark.parametrize("name", NAMES)
def test_a_bundle_keeps_the_model(name, tmp_path):
    model, images = small(name).train(), blobs(4, SHAPES["2d"])
    model.loss(images, seeded())["loss"].backward()
    model.eval()
    again = saved_and_loaded(tmp_path / "b", name, settings(name), model)
    with torch.inference_mode():
        assert torch.allclose(model.reconstruct(images), again.reconstruct(images), atol=0.02)
        assert again.sample(2, seeded()).isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_bad_settings_are_refused(name):
    for wrong, words in (({"shape": [15, 24]}, "multiple of 4"), ({"shape": [16]}, "2 or 3 sides"),
                         ({"latent": 0}, "positive"), ({"noise": 0}, "positive"), ({"fold": 3}, "fold must be")):
        with pytest.raises(BundleError, match=words):
            build_model(name, settings(name) | wrong)


def test_the_fitted_gaussian_of_an_autoencoder_is_that_of_its_latents():
    model, images = small("ae"), blobs(32, SHAPES["2d"])
    model.loss(images)
    latent = model.encode(images)[0]  # the batch's own statistics, as in the loss
    assert torch.allclose(model.latent_mean, latent.mean(0), atol=1e-5)
    assert torch.allclose(model.latent_covariance, torch.cov(latent.T, correction=0), atol=1e-4)


def test_the_gaussian_that_an_autoencoder_keeps_is_that_of_the_training_images_under_its_last_weights():
    model, images = small("ae"), blobs(30, SHAPES["2d"])
    model.loss(images)
    model.eval().settle(images.split(8))
    latent = model.encode(images)[0]
    assert torch.allclose(model.latent_mean, latent.mean(0), atol=1e-5)
    assert torch.allclose(model.latent_covariance, torch.cov(latent.T, correction=0), atol=1e-5)


def test_a_collapsed_posterior_is_named():
    model = small("vae")
    assert "collapsed" in model.health({"kl": 0.001}) and model.health({"kl": 3.0}) is None
