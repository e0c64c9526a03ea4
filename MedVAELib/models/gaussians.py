"""Diagonal Gaussians as the models use them: samples, divergences, and the product of two."""

from __future__ import annotations

import torch
from torch import Tensor

Gaussian = tuple[Tensor, Tensor]
"""Mean and log-variance of independent latents, of the same shape."""


def standard_normal(shape: tuple[int, ...], generator: torch.Generator | None, device: torch.device) -> Tensor:
    """Noise on `device`, drawn where the generator lives: one on the CPU gives the same noise on every device."""
    return torch.randn(shape, generator=generator, device=generator.device if generator else device).to(device)


def uniform(shape: tuple[int, ...], generator: torch.Generator | None, device: torch.device) -> Tensor:
    """Numbers in 0…1, drawn as `standard_normal` draws."""
    return torch.rand(shape, generator=generator, device=generator.device if generator else device).to(device)


def draw_gaussian(gaussian: Gaussian, generator: torch.Generator | None) -> Tensor:
    """A sample of independent latents."""
    mean, log_variance = gaussian
    return mean + standard_normal(mean.shape, generator, mean.device) * (0.5 * log_variance).exp()


def kl_to_standard_normal(posterior: Gaussian) -> Tensor:
    """KL(q‖N(0, 1)) in nats of every latent, of the latents' shape."""
    mean, log_variance = posterior
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)


def kl_between(posterior: Gaussian, prior: Gaussian) -> Tensor:
    """KL(q‖p) in nats of every latent, of the latents' shape."""
    (mean_q, log_q), (mean_p, log_p) = posterior, prior
    return 0.5 * (log_p - log_q + ((mean_q - mean_p).square() + log_q.exp()) * (-log_p).exp() - 1)


def precision_weighted(one: Gaussian, other: Gaussian) -> Gaussian:
    """The normalised product of two Gaussians (Sønderby et al. 2016): precisions 1/σ² add, means weigh by them."""
    (mean_1, log_1), (mean_2, log_2) = one, other
    log_variance = -torch.logaddexp(-log_1, -log_2)
    mean = mean_1 * (log_variance - log_1).exp() + mean_2 * (log_variance - log_2).exp()
    return mean, log_variance
