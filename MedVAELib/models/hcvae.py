"""Hierarchical conditional VAE: a fetal skull from one to three standard planes, with what they leave open.

Latents are nested by the planes' clinical relevance, each with a learned prior (after Cerrolaza et al. 2018):
p(z₁ | axial) p(z₂ | z₁, axial, sagittal) p(z₃ | z₁, z₂, axial, sagittal, coronal), and one decoder
p(x | z₁, z₂, z₃, planes). A level also sees the planes of those above it: without them, what the sagittal plane tells
of z₃ would have to pass through samples of z₁ and z₂, and predictions from two planes were worse for it. Where the
axial plane is missing, the most relevant of those that are there takes its place, and so on: else the first level would
see nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..networks.across_processes import mean_over_processes
from ..networks.skull import PLANE_COUNT, CorrelatedHead, GaussianHead, VolumeEncoder
from .gaussians import draw_gaussian
from .planes_to_skull import (
    PRESENCE,
    Correlated,
    LatentConfig,
    PlanesToSkull,
    balanced_divergence,
    draw_correlated,
    negative_bound,
    reconstruction_terms,
    repeat_samples,
)
from .registry import register


@dataclass(frozen=True)
class HCVAEConfig(LatentConfig):
    """latent: latents per level; free_nats: KL per level that costs nothing."""

    latent: int = 16
    free_nats: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.free_nats < 0:
            raise ValueError("free_nats must not be negative")


def by_relevance(condition: Tensor) -> Tensor:
    """The planes' condition (B, 3, C), those that are there first, each part in clinical order."""
    order = (condition[:, :, -1] < 0.5).to(torch.uint8).argsort(dim=1, stable=True)
    return condition.gather(1, order[:, :, None].expand_as(condition))


@register("hcvae")
class HierarchicalCVAE(PlanesToSkull):
    """The network with its objective and its samples."""

    Config = HCVAEConfig

    def __init__(self, config: HCVAEConfig):
        super().__init__(config.features, config.width, PLANE_COUNT * config.latent)
        self.config = config
        known = config.features + PRESENCE
        seen = PLANE_COUNT * known
        self.volume = VolumeEncoder(2 * config.features, config.width)
        before = [level * config.latent for level in range(PLANE_COUNT)]
        self.prior = nn.ModuleList(
            CorrelatedHead((level + 1) * known + n, config.latent) for level, n in enumerate(before)
        )
        self.posterior = nn.ModuleList(GaussianHead(2 * config.features + seen + n, config.latent) for n in before)
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    def loss(
        self, planes: Tensor, present: Tensor, sdf: Tensor, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """The negative evidence lower bound as `negative_bound` scales it, and its terms.

        planes (B, 3, 96, 96), present (B, 3) bool, sdf (B, 1, 48, 48, 48) in voxels of the 96³ grid. "kl1" … "kl3":
        divergence per level in nats per case.
        """
        condition = self.encode_planes(planes, present)
        seen, relevant = torch.cat([self.volume(sdf), condition.flatten(1)], 1), by_relevance(condition)
        code, divergences = seen[:, :0], []
        for level in range(PLANE_COUNT):
            prior = self._prior(level, code.detach(), relevant)
            posterior = self.posterior[level](torch.cat([seen, code], 1))
            divergences.append(mean_over_processes(torch.stack(balanced_divergence(posterior, prior)).mean(1)))
            code = torch.cat([code, draw_gaussian(posterior, generator)], 1)
        terms = reconstruction_terms(self.decode(code, condition), sdf)
        of_posterior, of_prior = torch.stack(divergences, 1)
        paid = of_posterior.clamp(min=self.config.free_nats).sum()
        loss = negative_bound(self.config, terms, paid, of_prior.sum(), code.shape[1], self.updates)
        if self.training:
            self.updates += 1
        return {"loss": loss, **terms} | {f"kl{level + 1}": kl for level, kl in enumerate(of_posterior)}

    def draw(
        self, condition: Tensor, samples: int, generator: torch.Generator | None = None, temperature: float = 1.0
    ) -> Tensor:
        """[z₁, z₂, z₃] from the priors, (B·samples, 3·latent)."""
        relevant = by_relevance(repeat_samples(condition, samples))
        code = relevant[:, 0, :0]
        for level in range(PLANE_COUNT):
            drawn = draw_correlated(self._prior(level, code, relevant), samples, generator, temperature)
            code = torch.cat([code, drawn], 1)
        return code

    def _prior(self, level: int, code: Tensor, relevant: Tensor) -> Correlated:
        return self.prior[level](torch.cat([code, relevant[:, : level + 1].flatten(1)], 1))
