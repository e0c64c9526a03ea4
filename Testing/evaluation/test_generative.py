"""Figures of models of images: each must tell a good model from one that blurs, collapses or copies."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from MedVAELib.errors import Cancelled, InputError
from MedVAELib.evaluation.generative import (
    blur,
    evaluate_model,
    frechet_distance,
    ms_ssim,
    ms_ssim_scales,
    nearest_images,
    nearest_neighbours,
    reference,
    sharpness,
)
from MedVAELib.evaluation.generative_baselines import MEAN_IMAGE, PrincipalComponents, baseline_scores
from MedVAELib.evaluation.generative_features import random_features
from MedVAELib.evaluation.generative_tables import definitions, generative_rows, generative_table
from MedVAELib.progress import CancelToken


def blobs(count: int, shape=(32, 32), seed: int = 0) -> np.ndarray:
    """Bright discs of varying size and place on textured ground: images of one kind, no two alike."""
    random = np.random.default_rng(seed)
    where = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"))
    images = np.empty((count, 1, *shape), np.float32)
    for image in images:
        centre = random.uniform(-0.4, 0.4, (len(shape), *(1,) * len(shape)))
        inside = ((where - centre) ** 2).sum(0) < random.uniform(0.2, 0.5) ** 2
        image[0] = 0.2 + 0.5 * inside + 0.08 * ndimage.gaussian_filter(random.normal(size=shape), 0.7)
    return images.clip(0, 1)


class Model:
    """Reconstructs by blurring, and samples what it is given."""

    def __init__(self, samples, sigma=0.0):
        self.samples, self.sigma = samples, sigma

    def encode(self, images, cancel=None):
        return images.mean((1, 2, 3))[:, None] * np.array([10.0, 0.0]), None

    def reconstruct(self, images, cancel=None):
        return blur(images, self.sigma) if self.sigma else images

    def kl_per_latent(self, images, cancel=None):
        return np.full((len(images), 2), 1.5)

    def sample(self, count, seed=0, cancel=None):
        return self.samples[:count]


def of_the_same_patients(train, held_back):
    return reference(train, held_back, patients=[*"abcde"] * (len(held_back) // 5), train_patients=[*"abcdef"])


@pytest.mark.parametrize("shape", [(32, 32), (16, 20, 16)])
def test_fid_grows_with_blur_and_is_small_between_real_images(shape):
    real, others = blobs(80, shape, 1), blobs(80, shape, 2)
    features = random_features(real)
    same, alike, soft, softer = (frechet_distance(features(x), features(real))
                                 for x in (real, others, blur(real, 1), blur(real, 2.5)))
    assert abs(same) < 1e-3 and same < alike < soft / 2 and soft < softer


@pytest.mark.parametrize("spread", [(1.0, 2.0, 0.5, 3.0), (1.0, 0.0, 0.0, 3.0)])
def test_fid_between_gaussians_whose_axes_agree_is_that_of_each_axis(capfd, recwarn, spread):
    """Then (Σ₁Σ₂)^½ = Σ₁^½ Σ₂^½, and what is left is |μ₁ − μ₂|² + Σ(σ₁ − σ₂)²; also without spread along some axes."""
    random = np.random.default_rng(0)
    axes = np.linalg.qr(random.normal(size=(4, 4)))[0]

    def having(deviations, mean, count):
        """A set of exactly these moments."""
        plain = random.normal(size=(count, 4))
        plain = np.linalg.qr(plain - plain.mean(0))[0] * math.sqrt(count - 1)
        return plain * deviations @ axes.T + mean

    one, other = having((2.0, 1.0, 1.0, 0.1), (1.0, 0, 0, 0), 30), having(spread, (0, 2.0, 0, 0), 50)
    apart = 1 + 4 + sum((a - b) ** 2 for a, b in zip((2.0, 1.0, 1.0, 0.1), spread, strict=True))
    assert frechet_distance(one, other) == pytest.approx(apart, rel=1e-9)
    assert not recwarn.list and capfd.readouterr() == ("", "")


def test_fid_sees_collapse_and_displacement():
    real, others = blobs(80, seed=1), blobs(80, seed=2)
    features = random_features(real)

    def distance(images):
        return frechet_distance(features(images), features(real))

    assert distance(np.repeat(others[:4], 20, 0)) > 2 * distance(others)
    assert distance(np.roll(others, 12, axis=-1)) > 2 * distance(others)


def test_one_image_with_something_where_the_others_have_nothing_does_not_decide_the_fid():
    real, others = blobs(80, seed=1), blobs(80, seed=2)
    odd = others.copy()
    for images in (real, others, odd):
        images[..., :18] *= 1e-4
    odd[0, ..., :18] = others[1, ..., 12:30]
    features = random_features(real)
    plain, with_odd, soft = (frechet_distance(features(x), features(real)) for x in (others, odd, blur(real, 1)))
    assert plain < with_odd < soft


def test_features_are_the_same_every_time():
    images = blobs(20)
    assert np.array_equal(random_features(images)(images), random_features(images)(images))


def test_ms_ssim_is_one_for_the_same_and_falls_with_blur():
    for images in (blobs(3), blobs(3, (24, 28, 24)), blobs(2, (192, 176))):
        assert ms_ssim(images, images) == pytest.approx(1, abs=1e-5)
        soft, softer = ms_ssim(blur(images, 1), images), ms_ssim(blur(images, 3), images)
        assert (softer < soft).all() and (soft < 1).all() and np.isfinite(softer).all()


def test_sharp_rubble_is_not_plausible_and_smooth_images_are():
    """Pieces of real images in the wrong places have their texture."""
    train, real = blobs(60, seed=1), blobs(60, seed=2)
    against = reference(train, real)
    others = blobs(60, seed=3)
    rubble = np.concatenate([np.roll(np.rot90(others, 1, (2, 3)), 16, -1)[..., :16], others[::-1, ..., 16:]], -1)
    samples = {"real": others, "smooth": blur(others, 1.5), "rubble": rubble}
    plausible = {name: evaluate_model(name, Model(images), against)[0].plausible[0] for name, images in samples.items()}
    assert plausible["real"] > 0.8 and plausible["smooth"] > 0.9 and plausible["rubble"] < 0.6


@pytest.mark.parametrize("shape, expected", [
    ((224, 224), (5, 11)), ((40, 48, 40), (3, 9)), ((28, 28), (3, 7)), ((20, 20), (3, 5)), ((16, 16), (1, 7)),
])
def test_ms_ssim_scales_fit_the_image(shape, expected):
    assert ms_ssim_scales(shape) == expected
    images = np.random.default_rng(0).random((1, 1, *shape), np.float32)
    assert ms_ssim(images, images) == pytest.approx(1, abs=1e-5)


def test_copies_are_nearer_to_the_training_images():
    train, held_back, new = blobs(60, seed=1), blobs(60, seed=2), blobs(60, seed=3)
    copied, other, _ = nearest_neighbours(blur(train, 0.7), train, held_back)
    assert (copied < other).mean() == 1
    fresh, other, _ = nearest_neighbours(blur(new, 1.5), train, held_back)
    assert 0.3 < (fresh < other).mean() < 0.7  # half of the images are training images
    assert np.array_equal(nearest_images(train[5:6], train), train[5:6])


def test_scores_and_table():
    train, held_back = blobs(60, seed=1), blobs(40, seed=2)
    against = of_the_same_patients(train, held_back)
    assert against.floor < against.blurred
    good, made = evaluate_model("good", Model(blobs(40, seed=3)), against)
    bad, _ = evaluate_model("bad", Model(blur(train[:40], 1.5), 1.5), against)
    assert good.fid_reconstructions < 1e-3 < against.floor
    assert any("reconstructions" in line and "reach 0" in line for line in definitions(against))
    assert good.mse[0] == 0 and good.ms_ssim[0] == pytest.approx(1, abs=1e-5) and good.sharpness_samples > 0.9
    assert bad.mse[0] > 0 and bad.ms_ssim[0] < 1 and bad.sharpness_reconstructions < 0.9
    assert bad.fid_samples > good.fid_samples and bad.nearer[0] == 1 and good.nearer[0] < 0.8
    assert against.chance == 0.6
    assert (good.active, good.latents, good.kl) == (1, 2, 3.0) and made.samples.shape == held_back.shape
    text = generative_table([good, bad])
    assert "| good |" in text and "1 of 2" in text
    assert any("random convolutions" in line for line in definitions(against))
    assert generative_rows([good])[0]["mse_low"] == 0


@pytest.mark.parametrize("patients", [None, ["b"] * 40, ["a"] * 39 + ["b"]])
def test_copies_are_told_only_where_training_and_held_back_images_are_of_the_same_patients(patients):
    """New images of the training patients are nearest to their others, so that none need be a copy."""
    theirs, others = 0.5 * blobs(120, seed=1), 0.5 + 0.5 * blobs(40, seed=2)
    new, train = theirs[:60], theirs[60:]
    to_train, to_others, _ = nearest_neighbours(new, train, others)
    assert (to_train < to_others).all()
    against = reference(train, others, patients=patients, train_patients=["a"] * 60)
    score, _ = evaluate_model("new", Model(new), against)
    assert math.isnan(against.chance) and all(map(math.isnan, score.nearer))
    assert generative_table([score]).endswith("| – |\n") and "other patients" in definitions(against)[-1]
    same = of_the_same_patients(train, new[:40])
    assert evaluate_model("new", Model(new), same)[0].nearer[0] < 0.8 and "0.60" in definitions(same)[-1]


def test_more_samples_do_not_lower_their_distance():
    against = of_the_same_patients(blobs(60, seed=1), blobs(40, seed=2))
    few, many = (evaluate_model("good", Model(blobs(200, seed=3)), against, samples)[0] for samples in (None, 200))
    assert many.fid_samples == few.fid_samples and many.nearer != few.nearer


@pytest.mark.parametrize("step", ["reconstruct", "sample", "kl_per_latent", "encode"])
def test_cancelling_is_heard_while_the_model_computes(step):
    """Thousands of images take minutes."""
    real, token, model = blobs(40, seed=2), CancelToken(), Model(blobs(40, seed=3))

    def between_two_batches(*given, cancel):
        token.cancel()
        cancel.check()
        pytest.fail("it went on")

    setattr(model, step, between_two_batches)
    with pytest.raises(Cancelled):
        evaluate_model("any", model, reference(blobs(60, seed=1), real), cancel=token)


def test_the_mean_and_principal_components_are_measured_like_models():
    train, held_back = blobs(60, seed=1), blobs(40, seed=2)
    against = reference(train, held_back)
    score, _ = evaluate_model("any", Model(held_back), against)
    told = []
    mean, some, all_ = baseline_scores(against, [replace(score, latents=count) for count in (10, 500)],
                                       progress=lambda stage, share, message="": told.append(share))
    assert told == sorted(told) and told[-1] == 1
    assert [s.name for s in (mean, some, all_)] == [MEAN_IMAGE, "10 principal components", "59 principal components"]
    assert mean.mse[0] == pytest.approx(float(((train.mean(0) - held_back) ** 2).mean()), rel=1e-4)
    assert mean.mse[0] > some.mse[0] > all_.mse[0] and (mean.latents, some.latents) == (0, 10)
    model = PrincipalComponents.of(train, 500)
    np.testing.assert_allclose(model.reconstruct(train), train, atol=1e-4)
    drawn = model.sample(400)
    np.testing.assert_allclose(drawn.mean(0), train.mean(0), atol=0.06)
    assert drawn.std() == pytest.approx(train.std(), rel=0.2) and (model.sample(2, 1) == model.sample(2, 1)).all()


def test_more_images_than_voxels_have_a_baseline():
    against = reference(blobs(300, (16, 16), 1), blobs(40, (16, 16), 2))
    score, _ = evaluate_model("any", Model(against.held_back), against)
    found = baseline_scores(against, [replace(score, latents=1000)])
    assert [s.name for s in found] == [MEAN_IMAGE, "256 principal components"] and found[1].mse[0] < 1e-6


def test_principal_components_can_be_cancelled():
    cancel = CancelToken()
    cancel.cancel()
    with pytest.raises(Cancelled):
        PrincipalComponents.of(blobs(20), 3, cancel)


def test_too_few_images_are_refused():
    with pytest.raises(InputError, match="at least 20"):
        reference(blobs(60), blobs(5))


def test_sharpness_of_a_ramp():
    ramp = np.tile(np.arange(4, dtype=np.float32), (2, 1, 4, 1))
    assert sharpness(ramp) == 0.5
