"""Streamed moments against all samples kept, whatever the size of the logits."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from MedVAELib.inference.moments import LogitLayout, RunningMoments

GRID = (2, 3, 4)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31), st.floats(0.1, 1000.0), st.floats(-200.0, 200.0), st.sampled_from([1, 8]),
       st.integers(2, 9), st.integers(1, 3), st.integers(1, 3))
def test_they_are_those_of_a_softmax_of_all_samples(seed, scale, offset, fold, classes, rows, batch):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(6, int(np.prod(GRID)), classes, fold, generator=generator) * scale + offset
    weights = torch.rand(rows, classes, generator=generator)
    running = RunningMoments(logits.shape[1], weights, fold, torch.device("cpu"))
    for samples in logits.split(batch):
        running.update(samples.split(7, 1))
    found = running.result(LogitLayout(fold == 8), GRID)

    p = torch.softmax(logits.double(), 2)
    mixed = torch.einsum("rk,snkf->snrf", weights.double(), p)
    wanted = (p.mean(0), mixed.mean(0), mixed.std(0))
    for got, values in zip((found.probability, found.reconstruction, found.std), wanted, strict=True):
        np.testing.assert_allclose(got, LogitLayout(fold == 8).volume(values, GRID).numpy(), rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("size", [0.0, 1e3, -1e3, 3e38])
def test_logits_beyond_what_an_exponential_holds_are_no_nan(size):
    logits = torch.full((1, 24, 3, 1), size)
    running = RunningMoments(24, torch.ones(1, 3), 1, torch.device("cpu"))
    running.update([logits])
    np.testing.assert_allclose(running.result(LogitLayout(False), GRID).probability, 1 / 3, rtol=1e-6)


def test_a_nan_stays_one():
    running = RunningMoments(24, torch.ones(1, 3), 1, torch.device("cpu"))
    running.update([torch.full((1, 24, 3, 1), float("nan"))])
    assert np.isnan(running.result(LogitLayout(False), GRID).probability).all()
