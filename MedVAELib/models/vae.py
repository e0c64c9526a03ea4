"""Variational autoencoder (Kingma and Welling 2014) with one flat latent; β-VAE where beta is not 1."""

from __future__ import annotations

import torch
from torch import Tensor

from ..networks.autoencoder import FlatGaussian, FromFlat
from .autoencoder import ImageAutoencoder, VariationalConfig
from .gaussians import draw_gaussian, kl_to_standard_normal
from .registry import register


@register("vae")
class VAE(ImageAutoencoder):
    """The network with its objective."""

    Config = VariationalConfig

    def __init__(self, config: VariationalConfig):
        super().__init__(config)
        self.latent_shape = (config.latent,)
        self.to_latent = FlatGaussian(config.bottom_features, config.latent)
        self.from_latent = FromFlat(config.latent, config.bottom, config.small)

    def loss(self, image: Tensor, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The negative evidence lower bound with one sample of the posterior, and its terms."""
        posterior = self.encode(image)
        logits = self.logits(draw_gaussian(posterior, generator))
        return self.bound_terms(image, logits, kl_to_standard_normal(posterior))
