"""Variational autoencoder with a spatial latent: `latent` channels at every place of the network's bottom.

It keeps where things are, so it reconstructs more sharply than a flat latent (Baur et al. 2021 compare both). Samples
of its prior (independent standard normals) do not hang together over the image; those of the Gaussian that `settle`
fits do better.
"""

from __future__ import annotations

import math

from torch import Tensor

from ..networks.autoencoder import SpatialGaussian, from_spatial
from .autoencoder import VariationalConfig
from .registry import register
from .vae import VAE


@register("svae")
class SpatialVAE(VAE):
    """The network; its objective is the flat one's, summed over all places."""

    Config = VariationalConfig

    def __init__(self, config: VariationalConfig):
        super().__init__(config)
        dimensions = len(config.shape)
        self.latent_shape = (config.latent, *config.small)
        self.to_latent = SpatialGaussian(config.bottom, config.latent, dimensions)
        self.from_latent = from_spatial(config.latent, config.bottom, dimensions)
        self._draw_from_prior(math.prod(self.latent_shape))

    def _standardised(self, means: Tensor, variances: Tensor) -> tuple[Tensor, Tensor]:
        """As they are: one weight serves all places, and each would need its own."""
        return means, variances
