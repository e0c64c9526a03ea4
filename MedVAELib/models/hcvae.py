"""Hierarchical conditional VAE: a fetal skull from one to three standard planes, with what they leave open.

Latents are nested by the planes' clinical relevance, each with a learned prior (after Cerrolaza et al. 2018):
p(z₁ | axial) p(z₂ | z₁, axial, sagittal) p(z₃ | z₁, z₂, axial, sagittal, coronal), and one decoder
p(x | z₁, z₂, z₃, planes). A level also sees the planes of those above it: without them, what the sagittal plane tells
of z₃ would have to pass through samples of z₁ and z₂, and predictions from two planes were worse for it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..networks.skull import PLANE_COUNT, CorrelatedHead, GaussianHead, VolumeEncoder
from .planes_to_skull import (
    Correlated,
    PlanesToSkull,
    balanced_divergence,
    draw_correlated,
    draw_gaussian,
    kl_weight,
    reconstruction_terms,
    repeat_samples,
)


@dataclass(frozen=True)
class HCVAEConfig:
    """features: per plane; width: channels of the finest feature maps; latent: latents per level; voxels: how many
    independent voxels a volume counts for against the KL divergence; overlap: weight of 1 − Dice, in nats per voxel;
    beta: weight of the KL divergence for the posterior after `warmup` steps; free_nats: KL per level that costs
    nothing; prior: weight of the KL divergence for the prior, in nats per latent."""

    features: int = 96
    width: int = 24
    latent: int = 16
    voxels: float = 60.0
    overlap: float = 1.0
    beta: float = 1.0
    warmup: int = 200
    free_nats: float = 0.0
    prior: float = 1.0

    def __post_init__(self) -> None:
        if min(self.features, self.width, self.latent, self.voxels) < 1:
            raise ValueError("features, width, latent and voxels must be positive")
        if min(self.overlap, self.beta, self.warmup, self.free_nats) < 0 or self.prior <= 0:
            raise ValueError("overlap, beta, warmup and free_nats must not be negative, and prior positive")


class HierarchicalCVAE(PlanesToSkull):
    """The network with its objective and its samples."""

    Config = HCVAEConfig

    def __init__(self, config: HCVAEConfig):
        super().__init__(config.features, config.width, PLANE_COUNT * config.latent)
        self.config = config
        seen = PLANE_COUNT * config.features
        self.volume = VolumeEncoder(2 * config.features, config.width)
        before = [level * config.latent for level in range(PLANE_COUNT)]
        self.prior = nn.ModuleList(
            CorrelatedHead((level + 1) * config.features + n, config.latent) for level, n in enumerate(before)
        )
        self.posterior = nn.ModuleList(GaussianHead(2 * config.features + seen + n, config.latent) for n in before)
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    def loss(
        self, planes: Tensor, present: Tensor, sdf: Tensor, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Negative evidence lower bound per voxel, with the KL divergence divided by `voxels`.

        planes (B, 3, 96, 96), present (B, 3) bool, sdf (B, 1, 48, 48, 48) in voxels of the 96³ grid. Neighbouring
        voxels of a smooth shape are not independent: summing the likelihood over all 110,592 would make the KL
        divergence vanish beside it, so a volume counts for `voxels` independent ones:
        loss = nll + overlap·(1 − Dice) + β·Σ KL(q‖p̄) / voxels + prior·Σ KL(q̄‖p) / latents, where a bar means that
        no gradient reaches it (see balanced_divergence). Returns also "kl1" … "kl3" in nats per case.
        """
        condition = self.encode_planes(planes, present)
        seen = torch.cat([self.volume(sdf), condition.flatten(1)], 1)
        code, divergences = seen[:, :0], []
        for level in range(PLANE_COUNT):
            prior = self._prior(level, code.detach(), condition)
            posterior = self.posterior[level](torch.cat([seen, code], 1))
            divergences.append(torch.stack(balanced_divergence(posterior, prior)).mean(1))
            code = torch.cat([code, draw_gaussian(posterior, generator)], 1)
        terms = reconstruction_terms(self.decode(code, condition), sdf)
        of_posterior, of_prior = torch.stack(divergences, 1)
        beta = kl_weight(self.config.beta, self.config.warmup, self.updates)
        divergence = beta * of_posterior.clamp(min=self.config.free_nats).sum() / self.config.voxels
        divergence = divergence + self.config.prior * of_prior.sum() / code.shape[1]
        loss = terms["nll"] + self.config.overlap * terms["overlap"] + divergence
        if self.training:
            self.updates += 1
        return {"loss": loss, **terms} | {f"kl{level + 1}": kl for level, kl in enumerate(of_posterior)}

    def draw(
        self, condition: Tensor, samples: int, generator: torch.Generator | None = None, temperature: float = 1.0
    ) -> Tensor:
        """[z₁, z₂, z₃] from the priors, (B·samples, 3·latent)."""
        condition = repeat_samples(condition, samples)
        code = condition[:, 0, :0]
        for level in range(PLANE_COUNT):
            drawn = draw_correlated(self._prior(level, code, condition), generator, temperature)
            code = torch.cat([code, drawn], 1)
        return code

    def _prior(self, level: int, code: Tensor, condition: Tensor) -> Correlated:
        return self.prior[level](torch.cat([code, condition[:, : level + 1].flatten(1)], 1))
