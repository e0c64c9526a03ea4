"""Conditional VAE (Sohn et al. 2015): one flat latent whose learned prior sees all planes at once."""

from __future__ import annotations

import torch
from torch import Tensor

from ..networks.skull import PLANE_COUNT, CorrelatedHead, GaussianHead, VolumeEncoder
from .gaussians import draw_gaussian
from .planes_to_skull import (
    PRESENCE,
    LatentConfig,
    PlanesToSkull,
    balanced_divergence,
    draw_correlated,
    negative_bound,
    reconstruction_terms,
    repeat_samples,
)
from .registry import register


@register("cvae")
class ConditionalVAE(PlanesToSkull):
    """The network with its objective and its samples."""

    Config = LatentConfig

    def __init__(self, config: LatentConfig):
        super().__init__(config.features, config.width, config.latent)
        self.config = config
        seen = PLANE_COUNT * (config.features + PRESENCE)
        self.volume = VolumeEncoder(2 * config.features, config.width)
        self.prior = CorrelatedHead(seen, config.latent)
        self.posterior = GaussianHead(2 * config.features + seen, config.latent)
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    def loss(
        self, planes: Tensor, present: Tensor, sdf: Tensor, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """The negative evidence lower bound as `negative_bound` scales it, and its terms.

        planes (B, 3, 96, 96), present (B, 3) bool, sdf (B, 1, 48, 48, 48) in voxels of the 96³ grid.
        """
        condition = self.encode_planes(planes, present)
        prior = self.prior(condition.flatten(1))
        seen = torch.cat([self.volume(sdf), condition.flatten(1)], 1)
        posterior = self.posterior(seen)
        of_posterior, of_prior = (kl.mean() for kl in balanced_divergence(posterior, prior))
        terms = reconstruction_terms(self.decode(draw_gaussian(posterior, generator), condition), sdf)
        loss = negative_bound(self.config, terms, of_posterior, of_prior, self.config.latent, self.updates)
        if self.training:
            self.updates += 1
        return {"loss": loss, **terms, "kl": of_posterior}

    def draw(
        self, condition: Tensor, samples: int, generator: torch.Generator | None = None, temperature: float = 1.0
    ) -> Tensor:
        """z from the prior, (B·samples, latent)."""
        prior = self.prior(repeat_samples(condition, samples).flatten(1))
        return draw_correlated(prior, samples, generator, temperature)
