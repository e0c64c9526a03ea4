"""Variational autoencoder (Kingma and Welling 2014) with one flat latent; β-VAE where beta is not 1."""

from __future__ import annotations

from collections.abc import Iterable

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

    @torch.no_grad()
    def settle(self, batches: Iterable[Tensor]) -> None:
        """Shifts and scales each latent so that over these images it has the prior's mean 0 and variance 1.

        Encoder and decoder change together, so every reconstruction stays as it is, and no other shift and scale has a
        smaller divergence from the prior. Training gets there by itself, but slowly: a few nats of divergence weigh
        little beside the likelihood of many voxels. For a trained model in evaluation mode.
        """
        posteriors = [self.encode(batch) for batch in batches]
        means, log_variances = (torch.cat(parts) for parts in zip(*posteriors, strict=True))
        mean = means.mean(0)
        std = (means.var(0, correction=0) + log_variances.exp().mean(0)).sqrt()
        encoder, decoder = self.to_latent.project, self.from_latent.project
        latents = len(mean)
        decoder.bias += decoder.weight @ mean
        decoder.weight *= std
        encoder.bias[:latents] = (encoder.bias[:latents] - mean) / std
        encoder.weight[:latents] /= std[:, None]
        encoder.bias[latents:] -= 2 * std.log()
