"""Variational autoencoder with a spatial latent: `latent` channels at every place of the network's bottom.

It keeps where things are, so it reconstructs more sharply than a flat latent, at the price of a prior (independent
standard normals) whose samples do not hang together over the image (Baur et al. 2021 compare both).
"""

from __future__ import annotations

from collections.abc import Iterable

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

    def settle(self, batches: Iterable[Tensor]) -> None:
        """Nothing: no single place's prior makes the places hang together."""
