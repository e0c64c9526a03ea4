"""Conditional GAN: a generator from planes and noise, and a critic of volume and planes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from ..networks.skull import PLANE_COUNT, ShapeCritic
from .gaussians import standard_normal
from .planes_to_skull import PRESENCE, PlanesToSkull, reconstruction_terms
from .registry import register


@dataclass(frozen=True)
class CGANConfig:
    """features: per plane; width: channels of the finest feature maps; noise: its size; overlap: weight of 1 − Dice;
    adversarial: weight of the generator's adversarial loss against the reconstruction in nats per voxel."""

    features: int = 96
    width: int = 24
    noise: int = 48
    overlap: float = 1.0
    adversarial: float = 0.02

    def __post_init__(self) -> None:
        if min(self.features, self.width, self.noise) < 1 or min(self.overlap, self.adversarial) < 0:
            raise ValueError("features, width and noise must be positive, overlap and adversarial not negative")


@register("cgan")
class ConditionalGAN(PlanesToSkull):
    """The generator and its critic, with both objectives in one loss."""

    Config = CGANConfig

    def __init__(self, config: CGANConfig):
        super().__init__(config.features, config.width, config.noise)
        self.config = config
        self.critic = ShapeCritic(PLANE_COUNT * (config.features + PRESENCE), config.width)

    def loss(
        self, planes: Tensor, present: Tensor, sdf: Tensor, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """loss = nll + overlap·(1 − Dice) + adversarial·generator's loss + critic's loss (non-saturating GAN).

        planes (B, 3, 96, 96), present (B, 3) bool, sdf (B, 1, 48, 48, 48) in voxels of the 96³ grid. The sum is
        stepped by one optimiser and yet every weight follows its own objective only: the critic judges a copy of the
        prediction cut off from the generator, and the generator is judged by a copy of the critic that does not learn.
        """
        condition = self.encode_planes(planes, present)
        noise = standard_normal((len(planes), self.config.noise), generator, planes.device)
        predicted = self.decode(noise, condition)
        terms = reconstruction_terms(predicted, sdf)
        given = condition.detach().flatten(1)
        real, fake = self.critic(sdf, given).float(), self.critic(predicted.detach(), given).float()
        critic = 0.5 * (F.softplus(-real) + F.softplus(fake)).mean()
        fixed = {name: weight.detach() for name, weight in self.critic.named_parameters()}
        fooled = F.softplus(-functional_call(self.critic, fixed, (predicted, given)).float()).mean()
        loss = terms["nll"] + self.config.overlap * terms["overlap"] + self.config.adversarial * fooled + critic
        return {"loss": loss, **terms, "critic": critic, "fooled": fooled}

    def draw(
        self, condition: Tensor, samples: int, generator: torch.Generator | None = None, temperature: float = 1.0
    ) -> Tensor:
        """The generator's noise, (B·samples, noise)."""
        shape = (len(condition) * samples, self.config.noise)
        return temperature * standard_normal(shape, generator, condition.device)
