"""Conditional VAE (Sohn et al. 2015): one flat latent whose learned prior sees all planes at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..networks.skull import PLANE_COUNT, CorrelatedHead, GaussianHead, VolumeEncoder
from .planes_to_skull import (
    PlanesToSkull,
    balanced_divergence,
    draw_correlated,
    draw_gaussian,
    kl_weight,
    reconstruction_terms,
    repeat_samples,
)


@dataclass(frozen=True)
class CVAEConfig:
    """features: per plane; width: channels of the finest feature maps; latent: latents in all; voxels, overlap, beta,
    warmup, prior: as in the hierarchical model."""

    features: int = 96
    width: int = 24
    latent: int = 48
    voxels: float = 60.0
    overlap: float = 1.0
    beta: float = 1.0
    warmup: int = 200
    prior: float = 1.0

    def __post_init__(self) -> None:
        if min(self.features, self.width, self.latent, self.voxels) < 1:
            raise ValueError("features, width, latent and voxels must be positive")
        if min(self.overlap, self.beta, self.warmup) < 0 or self.prior <= 0:
            raise ValueError("overlap, beta and warmup must not be negative, and prior positive")


class ConditionalVAE(PlanesToSkull):
    """The network with its objective and its samples."""

    Config = CVAEConfig

    def __init__(self, config: CVAEConfig):
        super().__init__(config.features, config.width, config.latent)
        self.config = config
        seen = PLANE_COUNT * config.features
        self.volume = VolumeEncoder(2 * config.features, config.width)
        self.prior = CorrelatedHead(seen, config.latent)
        self.posterior = GaussianHead(2 * config.features + seen, config.latent)
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    def loss(
        self, planes: Tensor, present: Tensor, sdf: Tensor, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """loss = nll + overlap·(1 − Dice) + β·KL(q‖p̄) / voxels + prior·KL(q̄‖p) / latents, as in the hierarchical model.

        planes (B, 3, 96, 96), present (B, 3) bool, sdf (B, 1, 48, 48, 48) in voxels of the 96³ grid.
        """
        condition = self.encode_planes(planes, present)
        prior = self.prior(condition.flatten(1))
        seen = torch.cat([self.volume(sdf), condition.flatten(1)], 1)
        posterior = self.posterior(seen)
        of_posterior, of_prior = (kl.mean() for kl in balanced_divergence(posterior, prior))
        terms = reconstruction_terms(self.decode(draw_gaussian(posterior, generator), condition), sdf)
        beta = kl_weight(self.config.beta, self.config.warmup, self.updates)
        if self.training:
            self.updates += 1
        loss = terms["nll"] + self.config.overlap * terms["overlap"] + beta * of_posterior / self.config.voxels
        return {"loss": loss + self.config.prior * of_prior / self.config.latent, **terms, "kl": of_posterior}

    def draw(
        self, condition: Tensor, samples: int, generator: torch.Generator | None = None, temperature: float = 1.0
    ) -> Tensor:
        """z from the prior, (B·samples, latent)."""
        return draw_correlated(self.prior(repeat_samples(condition, samples).flatten(1)), generator, temperature)
