"""VAE of healthy anatomy: from a scan, lesions and all, to the tissue probabilities of the healthy brain behind it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..networks.across_processes import mean_over_processes
from ..networks.healthy_anatomy import HealthyAnatomyNet
from .gaussians import draw_gaussian, kl_to_standard_normal
from .registry import register


@dataclass(frozen=True)
class HealthyAnatomyConfig:
    """classes: tissue classes of the decoder; width: channels at half resolution; latent: channels of z;
    beta: weight of the KL divergence, per latent, against the cross-entropy per voxel."""

    classes: int = 9
    width: int = 32
    latent: int = 32
    beta: float = 1e-3

    def __post_init__(self) -> None:
        if min(self.classes, self.width, self.latent) < 1 or self.beta < 0:
            raise ValueError("classes, width and latent must be positive and beta not negative")


@register("healthy_anatomy")
class HealthyAnatomyVAE(HealthyAnatomyNet):
    """The network with its training objective."""

    Config = HealthyAnatomyConfig
    # Rare classes count more, background less: without this the ventricles of young brains vanish.
    CLASS_WEIGHTS = (0.5, 1.0, 1.2, 1.2, 1.5, 1.0, 1.0, 1.0, 0.5)

    def __init__(self, config: HealthyAnatomyConfig):
        super().__init__(config.classes, config.width, config.latent)
        self.config = config

    def loss(self, image: Tensor, target: Tensor, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Cross-entropy of the tissues, class-weighted, per voxel + beta · KL divergence per latent.

        A negative evidence lower bound (Kingma and Welling 2014) but for these weights and means.

        image: (B, 1, D, H, W); target: (B, K, D, H, W) tissue fractions; voxels whose fractions are all zero do
        not count. Returns "loss", "cross_entropy" (nats per voxel) and "kl" (nats per latent).
        """
        posterior = self.encode(image)
        z = draw_gaussian((posterior.mean, posterior.logvar), generator)
        logits = self.decode(z.to(image.dtype), posterior.skips).float()
        weight = torch.tensor(self.CLASS_WEIGHTS[: self.config.classes], device=image.device).view(1, -1, 1, 1, 1)
        weighted = target * weight
        nats = -mean_over_processes((weighted * F.log_softmax(logits, 1)).sum())
        cross_entropy = nats / mean_over_processes(weighted.sum()).clamp(min=1.0)
        kl = kl_to_standard_normal((posterior.mean, posterior.logvar)).mean()
        return {"loss": cross_entropy + self.config.beta * kl, "cross_entropy": cross_entropy, "kl": kl}
