"""Context-encoding VAE (Zimmerer et al. 2019): it also has to fill in what was painted over."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..networks.batch_norm import statistics_kept
from .autoencoder import VariationalConfig
from .gaussians import draw_gaussian, kl_to_standard_normal, uniform
from .registry import register
from .vae import VAE


@dataclass(frozen=True)
class ContextConfig(VariationalConfig):
    """context: weight of the context branch against the reconstruction; boxes: painted over in every image; largest:
    side of the largest box as a share of the image's, the smallest is a fifth of it."""

    context: float = 1.0
    boxes: int = 3
    largest: float = 0.4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.context < 0 or self.boxes < 1 or not 0 < self.largest <= 1:
            raise ValueError("context must not be negative, boxes at least 1, largest above 0 and at most 1")


@register("cevae")
class ContextVAE(VAE):
    """The network with its objective."""

    Config = ContextConfig

    def loss(self, image: Tensor, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The bound of the clean image + context · how badly the mean code of a damaged one gives the **clean** one.

        "context": that negative log-likelihood, in nats per image.
        """
        posterior = self.encode(image)
        logits = self.logits(draw_gaussian(posterior, generator))
        with statistics_kept(self):
            repaired = self.logits(self.encode(paint_boxes(image, self.config, generator))[0])
        context = self.negative_log_likelihood(image, repaired).mean()
        terms = self.bound_terms(image, logits, kl_to_standard_normal(posterior))
        terms["loss"] = terms["loss"] + self.config.context * context / self.config.voxels
        return terms | {"context": context}


def paint_boxes(image: Tensor, config: ContextConfig, generator: torch.Generator | None = None) -> Tensor:
    """The images (B, 1, *shape) with `boxes` boxes each at random places, every box of one random grey 0…1."""
    sides, device = image.shape[2:], image.device
    painted = image
    for _ in range(config.boxes):
        inside = torch.ones_like(image, dtype=torch.bool)
        for axis, side in enumerate(sides):
            length = config.largest * (0.2 + 0.8 * uniform((len(image), 1), generator, device))
            start = uniform((len(image), 1), generator, device) * (1 - length)
            place = (torch.arange(side, device=device) + 0.5) / side
            within = (place >= start) & (place < start + length)
            inside = inside & within.view(len(image), *(side if a == axis else 1 for a in range(-1, len(sides))))
        painted = torch.where(inside, uniform((len(image), *[1] * (image.dim() - 1)), generator, device), painted)
    return painted
