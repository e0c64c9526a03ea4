"""Values kept within limits: as `clamp` forwards, and with a way back."""

from __future__ import annotations

import torch

from MedVAELib.models import build_model
from MedVAELib.networks.limits import within
from Testing.models.blobs import SHAPES, SMALL, blobs

VALUES = [-3.0, -1.0, 0.0, 2.0, 5.0]


def gradient_of(sign: float) -> list[float]:
    """Of sign · values kept within −1 … 2."""
    values = torch.tensor(VALUES, requires_grad=True)
    (sign * within(values, -1.0, 2.0)).sum().backward()
    return values.grad.tolist()


def test_values_are_clamped():
    assert torch.equal(within(torch.tensor(VALUES), -1.0, 2.0), torch.tensor(VALUES).clamp(-1.0, 2.0))


def test_a_gradient_that_leads_further_out_is_none_and_one_that_leads_back_is_whole():
    """A step goes against the gradient: down where it is positive."""
    assert gradient_of(1.0) == [0, 1, 1, 1, 1]
    assert gradient_of(-1.0) == [-1, -1, -1, -1, 0]


def test_a_log_variance_that_fell_too_low_finds_back():
    low = torch.tensor([-25.0], requires_grad=True)
    optimiser = torch.optim.SGD([low], lr=1.0)
    for _ in range(20):
        optimiser.zero_grad()
        kept = within(low, -20.0, 10.0)
        (0.5 * (kept.exp() - 1 - kept)).sum().backward()  # a divergence from N(0, 1)
        optimiser.step()
    assert low.item() > -20


def test_narrow_posteriors_stay_what_they_are_when_latents_are_standardised():
    """`settle` shifts log-variances by as much as it scales the latents; a limit in the way would cut them."""
    torch.manual_seed(0)
    model, images = build_model("vae", SMALL | {"shape": SHAPES["2d"]}).eval(), blobs(12, SHAPES["2d"])
    with torch.no_grad():
        model.to_latent.project.weight[:4] *= 20
        model.to_latent.project.bias[4:] -= 12
        before, (mean, log_variance) = model.reconstruct(images), model.encode(images)
        std = (mean.var(0, correction=0) + log_variance.exp().mean(0)).sqrt()
        model.settle(images.split(5))
        settled_mean, settled = model.encode(images)
        assert log_variance.max() < -10
        assert torch.allclose(settled, log_variance - 2 * std.log(), atol=1e-3)
        assert torch.allclose(settled_mean, (mean - mean.mean(0)) / std, atol=1e-3)
        assert torch.allclose(model.reconstruct(images), before, atol=1e-5)
