"""The engine gives the plain loop's numbers on every path, whatever the batch size, the layout or the fusion."""

from __future__ import annotations

import threading
from contextlib import nullcontext

import numpy as np
import pytest
import torch
import torch.nn.functional as functional
from torch import nn

from MedVAELib.errors import Cancelled
from MedVAELib.inference import Engine, posterior_noise
from MedVAELib.inference.fusion import FusedMerge, PointwiseConv3d, fuse_for_inference, upsampling_kernel
from MedVAELib.models import MODELS, build_model
from MedVAELib.models.autoencoder import ImageAutoencoder
from MedVAELib.models.gaussians import kl_to_standard_normal
from MedVAELib.networks.healthy_anatomy import Merge, UpsampleConv
from MedVAELib.progress import CancelToken

from ..fake_cuda import pretended
from .networks import randomise, small_net

GRID = (32, 48, 32)
WEIGHTS = np.array([0.0, 0.5, 0.7, 0.6, 0.1, 0.15, 0.5, 0.65, 0.3], np.float32)


@pytest.fixture(scope="module")
def scan() -> np.ndarray:
    return np.random.default_rng(0).random(GRID, dtype=np.float32)


def plain_moments(model: nn.Module, x: np.ndarray, samples: int, weights: np.ndarray, seed: int = 0):
    """One sample at a time, float32, everything stacked, then mean and standard deviation."""
    with torch.no_grad():
        posterior = model.encode(torch.from_numpy(x)[None, None])
        probabilities = []
        for i in range(samples):
            noise = posterior_noise(tuple(posterior.mean.shape[1:]), seed, i)
            z = posterior.mean + (0.5 * posterior.logvar).exp() * noise
            probabilities.append(model.decode(z, posterior.skips).softmax(1)[0])
    stack = torch.stack(probabilities).double()
    reconstructions = torch.einsum("nkzyx,k->nzyx", stack, torch.from_numpy(weights).double())
    return stack.mean(0).numpy(), reconstructions.mean(0).numpy(), reconstructions.std(0).numpy()


@pytest.mark.parametrize(("kind", "batch"), [
    ("cpu", 1), ("cpu", 3), ("cpu", 16), ("mps", 1), ("cuda", 3), ("cuda", 16),
])
def test_moments_equal_the_plain_loop(scan, kind, batch):
    """A CPU decodes in slabs, sample after sample, a GPU whole batches."""
    model = small_net()
    with nullcontext() if kind == "cpu" else pretended(kind):
        engine = Engine(kind, "float32", batch=batch).load(model)
        moments = engine.moments(engine.encode(scan), 7, WEIGHTS)
    probability, reconstruction, std = plain_moments(model, scan, 7, WEIGHTS)
    assert moments.samples == 7
    assert moments.probability.dtype == np.float32 and moments.probability.shape == (9, *GRID)
    assert std.max() > 0.05  # the samples really differ
    np.testing.assert_allclose(moments.probability, probability, atol=1e-4)
    np.testing.assert_allclose(moments.reconstruction, reconstruction, atol=1e-4)
    np.testing.assert_allclose(moments.std, std, atol=1e-4)


def test_batch_size_does_not_change_the_numbers(scan):
    model = small_net()
    results = []
    for batch in (1, 4, 5):
        engine = Engine("cpu", "float32", batch=batch).load(model)
        results.append(engine.moments(engine.encode(scan), 5, WEIGHTS, seed=3))
    for other in results[1:]:
        np.testing.assert_allclose(other.probability, results[0].probability, atol=1e-5)
        np.testing.assert_allclose(other.std, results[0].std, atol=1e-5)


def test_decode_mean_is_the_softmax_at_the_posterior_mean(scan):
    model = small_net()
    engine = Engine("cpu", "float32").load(model)
    probability = engine.decode_mean(engine.encode(scan))
    with torch.no_grad():
        posterior = model.encode(torch.from_numpy(scan)[None, None])
        wanted = model.decode(posterior.mean, posterior.skips).softmax(1)[0].numpy()
    np.testing.assert_allclose(probability, wanted, atol=1e-4)
    np.testing.assert_allclose(probability.sum(0), 1, atol=1e-5)


def test_seed_decides_the_samples_and_one_sample_has_no_spread(scan):
    engine = Engine("cpu", "float32").load(small_net())
    encoded = engine.encode(scan)
    first, again, other = (engine.moments(encoded, 2, WEIGHTS, seed=seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first.std, again.std)
    assert np.abs(first.std - other.std).max() > 1e-3
    assert engine.moments(encoded, 1, WEIGHTS).std.max() == 0


def test_noise_is_standard_normal_and_independent_between_samples_and_seeds():
    draws = torch.stack([posterior_noise((32, 5, 6, 5), seed, i).flatten() for seed in (0, 1) for i in range(4)])
    assert abs(float(draws.mean())) < 0.02 and abs(float(draws.std()) - 1) < 0.02
    correlation = torch.corrcoef(draws) - torch.eye(8)
    assert float(correlation.abs().max()) < 0.06


def test_layout_of_memory_does_not_change_the_numbers(scan):
    engine = Engine("cpu", "float32").load(small_net())
    turned = np.asfortranarray(scan)
    wanted = engine.decode_mean(engine.encode(scan))
    np.testing.assert_allclose(engine.decode_mean(engine.encode(turned)), wanted, atol=1e-6)


def test_fusion_is_exact_and_leaves_the_model_alone(scan):
    model = small_net().train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    fused = fuse_for_inference(model)
    assert not any(isinstance(module, nn.BatchNorm3d) for module in fused.modules())
    assert any(isinstance(module, PointwiseConv3d) for module in fused.modules())
    assert model.training and all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    model.eval()
    with torch.no_grad():
        x = torch.from_numpy(scan)[None, None]
        one, two = model.encode(x), fused.encode(x)
        torch.testing.assert_close(one.mean, two.mean, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(
            model.decode(one.mean, one.skips), fused.decode(two.mean, two.skips), atol=1e-3, rtol=1e-4
        )


@pytest.mark.parametrize("name", MODELS)
def test_every_models_convolutions_keep_their_numbers(name):
    model = build_model(name, {"shape": [16, 16, 16]} if issubclass(MODELS[name], ImageAutoencoder) else {}).eval()
    for conv in (module for module in model.modules() if isinstance(module, nn.Conv3d)):
        with torch.no_grad():
            x = torch.randn(1, conv.in_channels, 6, 5, 4)
            torch.testing.assert_close(fuse_for_inference(conv)(x), conv(x), atol=1e-4, rtol=1e-4)


def test_upsampling_kernel_equals_upsampling_then_convolving():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 4, 5, 6, generator=generator, dtype=torch.float64)
    weight = torch.randn(7, 3, 3, 3, 3, generator=generator, dtype=torch.float64)
    wanted = functional.conv3d(functional.interpolate(x, scale_factor=2, mode="nearest"), weight, padding=1)
    found = functional.conv_transpose3d(x, upsampling_kernel(weight), stride=2, padding=1)
    torch.testing.assert_close(found, wanted)


def test_fused_merge_equals_the_networks_own():
    merge = randomise(Merge(6, 5, 4), seed=2)
    fused = FusedMerge(merge)
    coarse, skip = torch.randn(3, 6, 3, 4, 5), torch.randn(1, 5, 6, 8, 10)
    with torch.no_grad():
        wanted = merge(coarse, merge.skip(skip))
        torch.testing.assert_close(fused(coarse, fused.skip(skip)), wanted, atol=1e-5, rtol=1e-4)


def test_kl_gradient_is_the_derivative(scan):
    engine = Engine("cpu", "float32").load(small_net())
    gradient = engine.kl_gradient(scan)
    assert gradient.shape == GRID and gradient.dtype == np.float32
    direction = np.random.default_rng(1).standard_normal(GRID).astype(np.float32)
    direction /= np.linalg.norm(direction)
    step = 0.05
    coded = (engine.encode(scan + side * step * direction) for side in (1, -1))
    ahead, behind = (float(kl_to_standard_normal((code.mean, code.logvar)).sum()) for code in coded)
    assert (gradient * direction).sum() == pytest.approx((ahead - behind) / (2 * step), rel=0.05, abs=0.02)


def test_progress_rises_to_one_and_cancel_stops_between_batches(scan):
    engine = Engine("cpu", "float32", batch=1).load(small_net())
    encoded = engine.encode(scan)
    fractions: list[float] = []
    engine.moments(encoded, 3, WEIGHTS, progress=lambda stage, fraction, message: fractions.append(fraction))
    assert fractions == sorted(fractions) and fractions[-1] == 1.0
    token = CancelToken()
    timer = threading.Timer(0.2, token.cancel)
    timer.start()
    with pytest.raises(Cancelled):  # all of them would take many minutes
        engine.moments(encoded, 100_000, WEIGHTS, cancel=token)


def test_callers_threads_come_back(scan, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    engine = Engine("cpu", "float32").load(small_net())
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        engine.encode(scan)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_without_a_model_it_says_so(scan):
    with pytest.raises(RuntimeError, match="load"):
        Engine("cpu").encode(scan)


def test_bfloat16_agrees_where_the_cpu_has_it(scan):
    from MedVAELib.inference.device import cpu_bfloat16_problem

    problem = cpu_bfloat16_problem()
    if problem:
        pytest.skip(problem)
    model = small_net()
    exact, half = (Engine("cpu", precision).load(model) for precision in ("float32", "bfloat16"))
    one = exact.moments(exact.encode(scan), 4, WEIGHTS)
    two = half.moments(half.encode(scan), 4, WEIGHTS)
    assert np.abs(one.probability - two.probability).mean() < 0.01


def test_fused_upsampling_equals_the_networks_own():
    torch.manual_seed(0)
    plain = nn.Sequential(UpsampleConv(5, 3), nn.BatchNorm3d(3), nn.SiLU()).eval()
    plain[1].running_mean.normal_()
    plain[1].running_var.uniform_(0.5, 2)
    nn.init.normal_(plain[1].weight)
    nn.init.normal_(plain[1].bias)
    x = torch.randn(2, 5, 4, 6, 5)
    torch.testing.assert_close(fuse_for_inference(plain)(x), plain(x), atol=1e-5, rtol=1e-5)
