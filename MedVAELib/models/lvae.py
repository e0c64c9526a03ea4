"""Ladder VAE (Sønderby et al. 2016): a hierarchy of flat latents, the top one's prior standard normal.

The encoder climbs from the image to the top. The way down gives each level's prior from the levels above it, and the
posterior is the precision-weighted product of that prior with what the encoder says of the level.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..networks.autoencoder import FlatGaussian, FromFlat
from .autoencoder import ImageAutoencoder, VariationalConfig
from .gaussians import Gaussian, draw_gaussian, kl_between, precision_weighted, standard_normal
from .registry import register


@dataclass(frozen=True)
class LadderConfig(VariationalConfig):
    """latent: latents per level; rungs: levels; hidden: width of the layers between them. The KL divergence of a level
    warms up over `warmup` steps after that of the level below, so that the top is in use before it costs."""

    latent: int = 12
    rungs: int = 3
    hidden: int = 128

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rungs < 2 or self.hidden < 1:
            raise ValueError("a ladder needs at least 2 rungs, and hidden must be positive")


@register("lvae")
class LadderVAE(ImageAutoencoder):
    """The network with its objective. The latents are flattened, the top level's first."""

    Config = LadderConfig

    def __init__(self, config: LadderConfig):
        super().__init__(config)
        size, hidden, above = config.latent, config.hidden, range(1, config.rungs)
        self.latent_shape = (config.rungs * size,)
        self.climb = nn.ModuleList(_layer(i, hidden) for i in (config.bottom_features, *(hidden for _ in above)))
        self.said = nn.ModuleList(FlatGaussian(hidden, size) for _ in range(config.rungs))
        # The prior of the level below `level` levels, given all of them.
        self.prior = nn.ModuleList(
            nn.Sequential(_layer(level * size, hidden), FlatGaussian(hidden, size)) for level in above
        )
        self.from_latent = FromFlat(config.rungs * size, config.bottom, config.small)

    def encode(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance (B, rungs·latent) of the posterior, each level's given the means above it."""
        mean, log_variance, _, _ = self._descend(image, lambda posterior: posterior[0])
        return mean, log_variance

    def divergence(self, image: Tensor) -> Tensor:
        """KL divergence (B, rungs·latent) in nats of the posterior that `encode` gives."""
        return self._descend(image, lambda posterior: posterior[0])[2]

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """`count` images: the top level from N(0, 1), every lower one from its prior given those above."""
        latent = standard_normal((count, self.config.latent), generator, self.updates.device)
        for prior in self.prior:
            latent = torch.cat([latent, draw_gaussian(prior(latent), generator)], 1)
        return self.decode(latent)

    def loss(self, image: Tensor, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The negative evidence lower bound, each level's divergence weighted by its own warm-up.

        "kl1" … : divergence per level in nats per image, the top level's first.
        """
        _, _, divergence, latent = self._descend(image, lambda posterior: draw_gaussian(posterior, generator))
        levels = divergence.split(self.config.latent, 1)
        paid = sum(beta * self.paid(level) for beta, level in zip(self.level_betas(), levels, strict=True))
        terms = self.bound_terms(image, self.logits(latent), divergence)
        terms["loss"] = (terms["reconstruction"] + paid) / self.config.voxels
        return terms | {f"kl{number}": level.sum(1).mean() for number, level in enumerate(levels, 1)}

    @property
    def warm_up_steps(self) -> int:
        """The levels warm up one after the other."""
        return self.config.rungs * self.config.warmup

    def level_betas(self) -> list[Tensor]:
        """Weight of every level's divergence at the present step, the top level's first."""
        steps, rungs = max(1, self.config.warmup), self.config.rungs
        waits = [steps * (rungs - 1 - level) for level in range(rungs)]
        return [self.config.beta * ((self.updates + 1 - wait) / steps).clamp(0.0, 1.0) for wait in waits]

    def _descend(self, image: Tensor, choose) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Means, log-variances, divergences and latents (B, rungs·latent) each; choose(posterior) → its latents."""
        features, said = self.encoder(image).flatten(1), []
        for layer, head in zip(self.climb, self.said, strict=True):
            features = layer(features)
            said.append(head(features))
        top = said.pop()
        standard = torch.zeros_like(top[0]), torch.zeros_like(top[1])
        posteriors: list[Gaussian] = [top]
        divergences, latent = [kl_between(top, standard)], choose(top)
        for prior_of, seen in zip(self.prior, reversed(said), strict=True):
            prior = prior_of(latent)
            posterior = precision_weighted(seen, prior)
            posteriors.append(posterior)
            divergences.append(kl_between(posterior, prior))
            latent = torch.cat([latent, choose(posterior)], 1)
        means, log_variances = (torch.cat(parts, 1) for parts in zip(*posteriors, strict=True))
        return means, log_variances, torch.cat(divergences, 1), latent


def _layer(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, outputs), nn.LayerNorm(outputs), nn.SiLU())
