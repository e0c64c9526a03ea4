"""Variational autoencoder (Kingma and Welling 2014) with one flat latent; β-VAE where beta is not 1."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from ..networks.autoencoder import FlatGaussian, FromFlat
from .autoencoder import ImageAutoencoder, VariationalConfig
from .gaussians import draw_gaussian, kl_to_standard_normal, standard_normal
from .registry import register

_MOST_CORRELATED = 1024  # latents whose covariance is kept: 4 MB


@register("vae")
class VAE(ImageAutoencoder):
    """The network with its objective."""

    Config = VariationalConfig

    def __init__(self, config: VariationalConfig):
        super().__init__(config)
        self.latent_shape = (config.latent,)
        self.to_latent = FlatGaussian(config.bottom_features, config.latent)
        self.from_latent = FromFlat(config.latent, config.bottom, config.small)
        self._draw_from_prior(config.latent)

    def loss(self, image: Tensor, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The negative evidence lower bound with one sample of the posterior, and its terms."""
        posterior = self.encode(image)
        logits = self.logits(draw_gaussian(posterior, generator))
        return self.bound_terms(image, logits, kl_to_standard_normal(posterior))

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """`count` images (count, 1, *shape) in 0…1 from the Gaussian that `settle` fitted, before that from N(0, 1)."""
        noise = standard_normal((count, self.drawn_factor.shape[0]), generator, self.drawn_mean.device)
        correlated = noise @ self.drawn_factor.T if self.drawn_factor.dim() == 2 else noise * self.drawn_factor
        return self.decode((self.drawn_mean + correlated).unflatten(1, self.latent_shape))

    @torch.no_grad()
    def settle(self, batches: Iterable[Tensor]) -> None:
        """Makes latents and samples what these images say they are; every reconstruction stays as it is.

        Each latent is shifted and scaled so that over the images it has the prior's mean 0 and variance 1, in encoder
        and decoder together: no other shift and scale has a smaller divergence from the prior. Training gets there by
        itself, but slowly, as a few nats weigh little beside the likelihood of many voxels. What then still differs
        from the prior is how latents go together: samples are drawn from the Gaussian with the images' covariance
        (aggregated posterior; density estimation ex post, Ghosh et al. 2020). For a trained model in evaluation mode.
        """
        posteriors = [self.encode(batch) for batch in batches]
        means, log_variances = (torch.cat(parts) for parts in zip(*posteriors, strict=True))
        means, variances = self._standardised(means, log_variances.exp())
        # On the CPU, as not every device has float64.
        means, variances = means.flatten(1).cpu().double(), variances.flatten(1).cpu().double()
        self.drawn_mean.copy_(means.mean(0).float())
        if self.drawn_factor.dim() == 2:
            covariance = (means - means.mean(0)).T @ (means - means.mean(0)) / len(means) + variances.mean(0).diag()
            self.drawn_factor.copy_(torch.linalg.cholesky(covariance).float())
        else:
            self.drawn_factor.copy_((means.var(0, correction=0) + variances.mean(0)).sqrt().float())

    def _draw_from_prior(self, latents: int) -> None:
        """Until `settle`. drawn_factor: lower triangle L of the covariance L·Lᵀ, of very many latents deviations alone.
        """
        self.register_buffer("drawn_mean", torch.zeros(latents))
        self.register_buffer("drawn_factor", torch.eye(latents) if latents <= _MOST_CORRELATED else torch.ones(latents))

    def _standardised(self, means: Tensor, variances: Tensor) -> tuple[Tensor, Tensor]:
        """Changes the weights as `settle` says; returns what these posteriors are then."""
        mean, std = means.mean(0), (means.var(0, correction=0) + variances.mean(0)).sqrt()
        encoder, decoder = self.to_latent.project, self.from_latent.project
        latents = len(mean)
        decoder.bias += decoder.weight @ mean
        decoder.weight *= std
        encoder.bias[:latents] = (encoder.bias[:latents] - mean) / std
        encoder.weight[:latents] /= std[:, None]
        encoder.bias[latents:] -= 2 * std.log()
        return (means - mean) / std, variances / std.square()
