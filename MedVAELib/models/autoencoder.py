"""What the image autoencoders have in common: config, likelihood, scaling of the divergence, sampling, anomaly scores.

Scaling, the same in all of them: the reconstruction is a negative log-likelihood summed over voxels, the KL divergence
is summed over latents, both in nats per image and averaged over the batch; the loss is (reconstruction + β·KL) divided
by the number of voxels, which leaves β = 1 the evidence lower bound. A published β holds for its own scaling only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..networks.across_processes import batch_mean
from ..networks.autoencoder import NORMS, ConvDecoder, ConvEncoder
from .gaussians import Gaussian, kl_to_standard_normal, standard_normal

COLLAPSED_NATS = 0.05
"""A KL divergence below this, over all latents of an image, says that the latents tell nothing of it."""


@dataclass(frozen=True)
class AutoencoderConfig:
    """shape: (y, x) or (z, y, x) in voxels, multiples of 2^levels; latent: size of a flat latent, channels of a spatial
    one; width: channels after the stem, doubled per level up to `bottom`; levels: halvings down to the bottom, the
    first log₂(fold) of them by folding fold² or fold³ voxels into channels; likelihood: "gaussian" with the standard
    deviation `noise` in units of the image, or "bernoulli"; norm: "batch", the fastest, or "group"."""

    shape: tuple[int, ...] = (40, 48, 40)
    latent: int = 32
    width: int = 16
    bottom: int = 64
    levels: int = 3
    fold: int = 2
    likelihood: str = "gaussian"
    noise: float = 0.1
    norm: str = "batch"

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(int(side) for side in self.shape))
        if len(self.shape) not in (2, 3):
            raise ValueError(f"shape must have 2 or 3 sides, not {len(self.shape)}")
        if min(self.latent, self.width, self.bottom) < 1 or not self.noise > 0:
            raise ValueError("latent, width, bottom and noise must be positive")
        if self.fold not in (1, 2, 4, 8) or self.levels < int(math.log2(self.fold)):
            raise ValueError("fold must be 1, 2, 4 or 8, and 2^levels at least fold")
        if min(self.shape) < 1 or any(side % 2**self.levels for side in self.shape):
            raise ValueError(f"every side of shape must be a multiple of {2**self.levels} (2^levels)")
        if self.likelihood not in ("gaussian", "bernoulli"):
            raise ValueError("likelihood must be gaussian or bernoulli")
        if self.norm not in NORMS:
            raise ValueError(f"norm must be one of {', '.join(NORMS)}")

    @property
    def voxels(self) -> int:
        return math.prod(self.shape)

    @property
    def small(self) -> tuple[int, ...]:
        """Sides of the bottom of the network."""
        return tuple(side // 2**self.levels for side in self.shape)

    @property
    def bottom_features(self) -> int:
        return self.bottom * math.prod(self.small)


@dataclass(frozen=True)
class VariationalConfig(AutoencoderConfig):
    """beta: weight of the KL divergence after `warmup` steps, over which it rises from 0; free_bits: nats per latent,
    as a mean over the batch, that cost nothing (Kingma et al. 2016)."""

    beta: float = 1.0
    warmup: int = 500
    free_bits: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.beta, self.warmup, self.free_bits) < 0:
            raise ValueError("beta, warmup and free_bits must not be negative")


class ImageAutoencoder(nn.Module):
    """Encoder, decoder and what follows from them. Images are (B, 1, *shape), float, in 0…1.

    A model sets `latent_shape`, the modules `to_latent` (features → mean, log-variance) and `from_latent` (latent →
    features), and has a `loss`. What is done to data (encode, decode, anomaly scores …) supposes `eval()`: batch
    statistics would make an image's result depend on its neighbours.
    """

    Config: type[AutoencoderConfig] = AutoencoderConfig
    variational = True
    gaussian = True
    """Whether the latents of images are like draws from a Gaussian."""
    latent_shape: tuple[int, ...]
    to_latent: nn.Module
    from_latent: nn.Module

    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        self.config = config
        self.shape = config.shape
        sizes = (len(config.shape), config.width, config.bottom, config.levels, config.fold, config.norm)
        self.encoder = ConvEncoder(*sizes)
        self.decoder = ConvDecoder(*sizes)
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    # ---- images and latents ----

    def encode(self, image: Tensor) -> tuple[Tensor, Tensor | None]:
        """Mean and log-variance (B, *latent_shape) of the posterior; None instead of the latter if not variational."""
        return self.to_latent(self.encoder(image))

    def decode(self, latent: Tensor) -> Tensor:
        """Latent (B, *latent_shape) → image (B, 1, *shape) in 0…1."""
        return torch.sigmoid(self.logits(latent))

    def logits(self, latent: Tensor) -> Tensor:
        """Latent (B, *latent_shape) → logits of the image (B, 1, *shape)."""
        return self.decoder(self.from_latent(latent))

    def reconstruct(self, image: Tensor) -> Tensor:
        """The image that the posterior's mean stands for, (B, 1, *shape) in 0…1."""
        return self.decode(self.encode(image)[0])

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """`count` images from the prior, (count, 1, *shape) in 0…1; the same generator gives the same ones."""
        return self.decode(standard_normal((count, *self.latent_shape), generator, self.updates.device))

    # ---- training ----

    def loss(self, image: Tensor, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """"loss" is to be minimised; the other terms say what it is made of, in nats per image unless said."""
        raise NotImplementedError

    def negative_log_likelihood(self, image: Tensor, logits: Tensor) -> Tensor:
        """Nats per image, (B,), summed over voxels, without the Gaussian's constant."""
        if self.config.likelihood == "bernoulli":
            each = F.binary_cross_entropy_with_logits(logits, image, reduction="none")
        else:
            each = 0.5 * ((image - torch.sigmoid(logits)) / self.config.noise).square()
        return each.flatten(1).sum(1)

    @property
    def warm_up_steps(self) -> int:
        """Steps until all of the loss counts in full: before, its values say little of the weights."""
        return getattr(self.config, "warmup", 0)

    def warmed(self) -> Tensor:
        """How much of the warm-up is over at the present step, 0…1."""
        return ((self.updates + 1) / max(1, self.config.warmup)).clamp(max=1.0)

    def paid(self, divergence: Tensor) -> Tensor:
        """Divergences (B, *latents) in nats → what of them counts in the loss, a number: beyond the free bits."""
        return batch_mean(divergence.flatten(1)).clamp(min=self.config.free_bits).sum()

    def bound_terms(self, image: Tensor, logits: Tensor, divergence: Tensor) -> dict[str, Tensor]:
        """The negative evidence lower bound, scaled as stated above, and its terms. divergence: (B, *latents) nats.

        "mse": mean square error per voxel. Counts the step while training.
        """
        reconstruction = self.negative_log_likelihood(image, logits).mean()
        loss = (reconstruction + self.config.beta * self.warmed() * self.paid(divergence)) / self.config.voxels
        if self.training:
            self.updates += 1
        return {"loss": loss, "reconstruction": reconstruction, "kl": divergence.flatten(1).sum(1).mean(),
                "mse": F.mse_loss(torch.sigmoid(logits), image)}

    def health(self, terms: Mapping[str, float | Tensor]) -> str | None:
        """Why the training is not worth going on with, in a sentence, or None. terms: of a loss after the warm-up."""
        if self.variational and float(terms.get("kl", math.inf)) < COLLAPSED_NATS:
            return (f"The posterior collapsed: all latents together carry {float(terms['kl']):.2g} nats. "
                    "Lower beta, or raise warmup or free_bits.")
        return None

    def settle(self, batches: Iterable[Tensor]) -> None:
        """What is done once to trained weights before they are stored, given all training images; here nothing."""

    # ---- looking into it ----

    def divergence(self, image: Tensor) -> Tensor:
        """KL divergence of the posterior from the prior, (B, *latent_shape) in nats; has a gradient."""
        return kl_to_standard_normal(self._posterior(image))

    def _posterior(self, image: Tensor) -> Gaussian:
        mean, log_variance = self.encode(image)
        if log_variance is None:
            raise TypeError(f"{type(self).__name__} has no posterior")
        return mean, log_variance

    @torch.no_grad()
    def kl_per_latent(self, image: Tensor) -> Tensor | None:
        """KL divergence (B, *latent_shape) in nats, or None for a model without a posterior."""
        return self.divergence(image) if self.variational else None

    def anomaly_scores(self, image: Tensor, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Maps (B, 1, *shape), ≥ 0, higher where an image is less like those trained on; of each image alone.

        "residual": |x − x̂|; "excess": the part of it where the image is brighter. Of variational models also
        "kl_gradient": |∂KL/∂x|, and "combined": residual × that (Zimmerer et al. 2019). Nothing is divided by a
        maximum or mean over images, so an image's map does not depend on what it is scored with.
        """
        with torch.no_grad():
            difference = image - self.reconstruct(image)
        scores = {"residual": difference.abs(), "excess": difference.clamp(min=0)}
        if self.variational:
            scores["kl_gradient"] = self._divergence_gradient(image)
            scores["combined"] = scores["residual"] * scores["kl_gradient"]
        return scores

    def _divergence_gradient(self, image: Tensor) -> Tensor:
        """|∂KL/∂x| (B, 1, *shape) in nats per unit of intensity, whatever gradient mode it is called in."""
        with torch.inference_mode(False), torch.enable_grad():
            image = image.detach().clone().requires_grad_()
            (gradient,) = torch.autograd.grad(self.divergence(image).sum(), image)
        return gradient.abs()
