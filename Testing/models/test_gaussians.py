"""The divergence of a diagonal from a correlated Gaussian, and samples of the latter."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import MultivariateNormal, kl_divergence

from MedVAELib.models import planes_to_skull
from MedVAELib.networks.skull import CorrelatedHead


def test_divergence_is_torchs_own():
    torch.manual_seed(0)
    mean, factor = CorrelatedHead(5, 4)(torch.randn(3, 5))
    mean_q, log_q = torch.randn(3, 4), torch.randn(3, 4)
    ours = planes_to_skull.kl_divergence((mean_q, log_q), (mean, factor))
    posterior = MultivariateNormal(mean_q, scale_tril=torch.diag_embed((0.5 * log_q).exp()))
    assert torch.allclose(ours, kl_divergence(posterior, MultivariateNormal(mean, scale_tril=factor)), rtol=1e-4)


def test_samples_have_the_covariance_and_the_temperature():
    factor = torch.tensor([[[1.0, 0.0], [0.9, 0.3]]]).expand(40000, -1, -1)
    drawn = planes_to_skull.draw_correlated((torch.ones(40000, 2), factor), 4, torch.Generator().manual_seed(0), 2.0)
    assert torch.allclose(drawn.mean(0), torch.ones(2), atol=0.05)
    assert torch.allclose(torch.cov(drawn.T), 4 * factor[0] @ factor[0].T, atol=0.1)


@pytest.mark.parametrize("samples", [1, 2, 5, 8])
def test_half_of_a_cases_samples_mirrors_the_other(samples):
    """Their mean is the prior's, but for one sample where the number is odd; cases are drawn independently."""
    factor = torch.eye(3).expand(2 * samples, -1, -1)
    drawn = planes_to_skull.draw_correlated((torch.zeros(2 * samples, 3), factor), samples, torch.Generator())
    first, second = drawn.view(2, samples, 3)
    pairs = samples // 2
    assert torch.equal(first[:pairs], -first[(samples + 1) // 2 :]) and not torch.equal(first, second)
    assert len(torch.unique(first.abs(), dim=0)) == (samples + 1) // 2
