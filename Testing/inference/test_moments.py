"""Streamed moments against all samples kept, whatever the size of the logits."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from MedVAELib.inference.moments import RunningMoments
from MedVAELib.networks.healthy_anatomy import unfold

GRID = (2, 3, 4)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31), st.floats(0.1, 1000.0), st.floats(-200.0, 200.0), st.integers(2, 9), st.integers(1, 3))
def test_they_are_those_of_a_softmax_of_all_samples(seed, scale, offset, classes, batch):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(6, 8 * classes, *GRID, generator=generator) * scale + offset
    weights = torch.rand(classes, generator=generator)
    running = RunningMoments(int(np.prod(GRID)), weights, torch.device("cpu"))
    for samples in logits.split(batch):
        running.update(samples.split(1, 2))
    found = running.result(GRID)

    p = torch.softmax(unfold(logits.double()), 1)
    mixed = torch.einsum("k,skzyx->szyx", weights.double(), p)
    wanted = (p.mean(0), mixed.mean(0), mixed.std(0))
    for got, values in zip((found.probability, found.reconstruction, found.std), wanted, strict=True):
        np.testing.assert_allclose(got, values.numpy(), rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("size", [0.0, 1e3, -1e3, 3e38])
def test_logits_beyond_what_an_exponential_holds_are_no_nan(size):
    running = RunningMoments(24, torch.ones(3), torch.device("cpu"))
    running.update([torch.full((1, 24, *GRID), size)])
    np.testing.assert_allclose(running.result(GRID).probability, 1 / 3, rtol=1e-6)


def test_a_nan_stays_one():
    running = RunningMoments(24, torch.ones(3), torch.device("cpu"))
    running.update([torch.full((1, 24, *GRID), float("nan"))])
    assert np.isnan(running.result(GRID).probability).all()
