"""Autoencoder with one flat latent, the deterministic baseline; samples come from a Gaussian fitted to its latents."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..networks.across_processes import batch_mean
from ..networks.autoencoder import FromFlat
from .autoencoder import AutoencoderConfig, ImageAutoencoder
from .gaussians import standard_normal
from .registry import register

_MEMORY = 0.02  # how much a batch changes the latents' mean and covariance


@register("ae")
class Autoencoder(ImageAutoencoder):
    """The network with its objective."""

    Config = AutoencoderConfig
    variational = False

    def __init__(self, config: AutoencoderConfig):
        super().__init__(config)
        self.latent_shape = (config.latent,)
        self.to_latent = nn.Linear(config.bottom_features, config.latent)
        self.from_latent = FromFlat(config.latent, config.bottom, config.small)
        self.register_buffer("latent_mean", torch.zeros(config.latent))
        self.register_buffer("latent_covariance", torch.eye(config.latent))

    def encode(self, image: Tensor) -> tuple[Tensor, None]:
        """The latent (B, latent), and None: there is no variance."""
        return self.to_latent(self.encoder(image).flatten(1)).float(), None

    def loss(self, image: Tensor, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The negative log-likelihood per voxel. The generator is not used."""
        latent, _ = self.encode(image)
        logits = self.logits(latent)
        reconstruction = self.negative_log_likelihood(image, logits).mean()
        if self.training:
            self._follow(latent.detach())
            self.updates += 1
        return {"loss": reconstruction / self.config.voxels, "reconstruction": reconstruction,
                "mse": F.mse_loss(torch.sigmoid(logits), image)}

    @torch.no_grad()
    def _follow(self, latent: Tensor) -> None:
        """Moving mean and covariance; the first batches count more, so that the start is soon forgotten."""
        share = (1 / (self.updates + 1)).clamp(min=_MEMORY)
        self.latent_mean.lerp_(batch_mean(latent), share)
        centred = latent - self.latent_mean
        outer = centred[:, :, None] * centred[:, None, :]  # not a matrix product, which autocast would round
        self.latent_covariance.lerp_(batch_mean(outer), share)

    @torch.no_grad()
    def settle(self, batches: Iterable[Tensor]) -> None:
        """Fits the Gaussian to the latents of these images. What training followed are latents of earlier weights and
        of batches' own statistics. For a trained model in evaluation mode."""
        latents = torch.cat([self.encode(batch)[0] for batch in batches]).cpu().double()  # not every device has float64
        centred = latents - latents.mean(0)
        self.latent_mean.copy_(latents.mean(0).float())
        self.latent_covariance.copy_((centred.T @ centred / len(latents)).float())

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """`count` images whose latents are drawn from the Gaussian fitted to those of the training images."""
        noise = standard_normal((count, *self.latent_shape), generator, self.updates.device)
        return self.decode(self.latent_mean + noise @ self.drawn_factor)

    @property
    def drawn_factor(self) -> Tensor:
        """The symmetric root of the covariance."""
        values, vectors = torch.linalg.eigh(self.latent_covariance.float())
        return (vectors * values.clamp(min=0).sqrt()) @ vectors.T
