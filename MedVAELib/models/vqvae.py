"""Vector-quantised autoencoder (van den Oord et al. 2017) with a codebook of moving averages and a prior over codes.

The prior is a small transformer that learns from the codes along with the rest, without a gradient to it. It draws
samples, and restores images for the anomaly score (after Marimont and Tarroni 2021): codes that it finds less likely
than nearly all of the training images' are drawn anew, each after those before it. With `prior_depth: 0` how often a
code was used at a place stands in for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..networks.across_processes import mean_over_processes
from ..networks.autoencoder import from_spatial
from ..networks.codebook import CodePrior, RevivingQuantizer
from .autoencoder import AutoencoderConfig, ImageAutoencoder
from .gaussians import uniform
from .registry import register

_MEMORY = 0.02  # how much a batch changes the frequencies of codes
_COLLAPSED_PERPLEXITY = 1.5
_SHARPNESS = 10.0
"""How much more a restoration nearer to the image counts: by a factor e for one nearer by a tenth of the mean."""


@dataclass(frozen=True)
class VQConfig(AutoencoderConfig):
    """latent: channels of a code; codes: their number; decay: of the moving averages; commitment: weight of the
    encoder's mean square distance to its codes; dead: uses per batch below which a code is put elsewhere;
    prior_depth, prior_width: layers and width of the transformer, 0 layers for none; rare: share of the training
    images' codes that are less likely than what a restoration keeps; unlikely: nats above which a code is drawn anew
    until that is known; restorations: drawn per image."""

    latent: int = 32
    codes: int = 256
    decay: float = 0.99
    commitment: float = 0.25
    dead: float = 0.1
    prior_depth: int = 3
    prior_width: int = 64
    rare: float = 0.02
    unlikely: float = 5.0
    restorations: int = 15

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.codes < 2 or not 0 < self.decay < 1 or min(self.commitment, self.dead, self.prior_depth) < 0:
            raise ValueError("codes must be at least 2, decay within 0…1, commitment, dead and prior_depth not below 0")
        if self.prior_width < 1 or self.restorations < 1 or self.unlikely <= 0 or not 0 < self.rare < 1:
            raise ValueError("prior_width, restorations and unlikely must be positive, rare within 0…1")


@register("vqvae")
class VQVAE(ImageAutoencoder):
    """The network with its objective, its samples and its restorations."""

    Config = VQConfig
    variational = False
    gaussian = False

    def __init__(self, config: VQConfig):
        super().__init__(config)
        dimensions, places = len(config.shape), math.prod(config.small)
        self.latent_shape = (config.latent, *config.small)
        self.to_latent = from_spatial(config.bottom, config.latent, dimensions)
        self.from_latent = from_spatial(config.latent, config.bottom, dimensions)
        self.quantizer = RevivingQuantizer(
            dimensions, config.codes, config.latent, config.decay, config.commitment, config.dead
        )
        self.prior = None
        if config.prior_depth:
            self.prior = CodePrior(config.codes, places, config.prior_width, config.prior_depth)
        self.register_buffer("frequency", torch.full((places, config.codes), 1 / config.codes))
        self.register_buffer("unlikely", torch.tensor(config.unlikely))

    # ---- images, latents and codes ----

    def encode(self, image: Tensor) -> tuple[Tensor, None]:
        """The vectors before quantisation (B, latent, *small), and None: there is no variance."""
        return self.to_latent(self.encoder(image)).float(), None

    def logits(self, latent: Tensor) -> Tensor:
        """Vectors (B, latent, *small), quantised first → logits of the image (B, 1, *shape)."""
        return self.decoder(self.from_latent(self._nearest(latent)))

    def codes(self, image: Tensor) -> Tensor:
        """Indices of the image's codes, (B, places), in C order."""
        return self._indices(self.encode(image)[0])

    def decode_codes(self, indices: Tensor) -> Tensor:
        """Indices (B, places) → image (B, 1, *shape) in 0…1."""
        quantised = self.quantizer.embed(indices.unflatten(1, self.config.small))
        return torch.sigmoid(self.decoder(self.from_latent(quantised)))

    def _indices(self, latent: Tensor) -> Tensor:
        with torch.autocast(latent.device.type, enabled=False):
            return self.quantizer.quantize(latent)[2].flatten(1)

    def _nearest(self, latent: Tensor) -> Tensor:
        return self.quantizer.embed(self._indices(latent).unflatten(1, self.config.small))

    # ---- training ----

    def loss(self, image: Tensor, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """loss = nll per voxel + commitment, in training + prior's nll per place, which rises as more codes come into
        use: judged by it, the first weights would be the best.

        "perplexity": how many codes the batch uses, evenly counted; "dead": codes put elsewhere in this step;
        "prior": nats per place of the transformer; the generator draws where dead codes go.
        """
        latent, _ = self.encode(image)
        dead = latent.new_zeros(())
        if self.training:
            dead = self.quantizer.revive(latent, generator, everything=int(self.updates) == 0)
        quantised, commitment, indices = self.quantizer(latent)
        logits = self.decoder(self.from_latent(quantised))
        reconstruction = self.negative_log_likelihood(image, logits).mean()
        indices = indices.flatten(1)
        if self.training:
            self._count(indices)
            self.updates += 1
        terms = {"reconstruction": reconstruction, "commitment": commitment, "perplexity": self._perplexity(indices),
                 "dead": dead.float(), "mse": F.mse_loss(torch.sigmoid(logits), image)}
        loss = reconstruction / self.config.voxels + commitment
        if self.prior is not None:
            terms["prior"] = F.cross_entropy(self.prior(indices).flatten(0, 1), indices.flatten())
            if self.training:
                loss = loss + terms["prior"]
        return {"loss": loss, **terms}

    @torch.no_grad()
    def _count(self, indices: Tensor) -> None:
        used = F.one_hot(indices, self.config.codes).float().mean(0)
        self.frequency.lerp_(used, (1 / (self.updates + 1)).clamp(min=_MEMORY))

    def _perplexity(self, indices: Tensor) -> Tensor:
        share = torch.bincount(indices.flatten(), minlength=self.config.codes) / indices.numel()
        return torch.special.entr(mean_over_processes(share)).sum().exp()

    def health(self, terms: Mapping[str, float | Tensor]) -> str | None:
        """The codebook must be in use."""
        perplexity = float(terms.get("perplexity", math.inf))
        if perplexity < _COLLAPSED_PERPLEXITY:
            return (f"The codebook collapsed: {perplexity:.2g} of {self.config.codes} codes are in use. "
                    "Raise dead or commitment, or lower the learning rate.")
        return None

    # ---- the prior ----

    def code_logits(self, indices: Tensor) -> Tensor:
        """Log-probabilities (B, places, codes) of each code given those before it."""
        if self.prior is not None:
            return self.prior(indices).log_softmax(-1)
        counted = (self.frequency + 1e-4).log().log_softmax(-1)
        return counted.expand(len(indices), -1, -1)

    @torch.no_grad()
    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """`count` images from codes that the prior draws one after the other."""
        indices = torch.zeros(count, self.frequency.shape[0], dtype=torch.int64, device=self.updates.device)
        for place in range(indices.shape[1]):
            indices[:, place] = _choose(self.code_logits(indices[:, : place + 1])[:, place].exp(), generator)
        return self.decode_codes(indices)

    def code_nats(self, indices: Tensor) -> Tensor:
        """Negative log-likelihoods (B, places) of codes, each given those before it."""
        return -self.code_logits(indices).gather(2, indices[:, :, None])[:, :, 0]

    @torch.no_grad()
    def settle(self, batches: Iterable[Tensor]) -> None:
        """Finds the nats that a share `rare` of these images' codes exceeds. For a trained model in evaluation mode."""
        nats = torch.cat([self.code_nats(self.codes(batch)).flatten().cpu() for batch in batches])
        kept = max(1, round((1 - self.config.rare) * len(nats)))
        self.unlikely.copy_(nats.sort().values[kept - 1])

    def _restored(self, indices: Tensor, generator: torch.Generator | None) -> Tensor:
        """Codes (B, places) with those drawn anew, in order, that are unlikely after what then stands before them."""
        indices, places = indices.clone(), torch.arange(indices.shape[1], device=indices.device)
        rows, start = torch.arange(len(indices), device=indices.device), torch.zeros_like(indices[:, 0])
        while len(rows):
            likely = self.code_logits(indices[rows])
            nats = -likely.gather(2, indices[rows][:, :, None])[:, :, 0]
            unlikely = (nats > self.unlikely) & (places >= start[:, None])
            left = unlikely.any(1)
            rows, first = rows[left], unlikely[left].int().argmax(1)
            indices[rows, first] = _choose(likely[left, first].exp(), generator)
            start = first + 1
        return indices

    # ---- anomaly scores ----

    def anomaly_scores(self, image: Tensor, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Also "restoration": mean |x − restored| over `restorations` drawn, weighted by how near each is to the image;
        "restoration_excess" where the image is brighter than those; and "code_nll": nats of the codes, spread over the
        voxels they stand for."""
        scores = super().anomaly_scores(image, generator)
        with torch.no_grad():
            indices = self.codes(image)
            count = self.config.restorations
            restored = self.decode_codes(self._restored(indices.repeat_interleave(count, 0), generator))
            difference = image[:, None] - restored.unflatten(0, (len(image), count))
            weights = _nearness(difference)
            scores["restoration"] = (weights * difference.abs()).sum(1)
            scores["restoration_excess"] = (weights * difference.clamp(min=0)).sum(1)
            nats = self.code_nats(indices).unflatten(1, self.config.small)
            mode = "trilinear" if image.dim() == 5 else "bilinear"
            scores["code_nll"] = F.interpolate(nats[:, None], self.shape, mode=mode, align_corners=False)
        return scores


def _nearness(difference: Tensor) -> Tensor:
    """Weights of restorations that differ so from their image, (B, N, 1, *shape): of sum 1 over N, by a softmax."""
    distance = difference.abs().flatten(2).mean(2)
    near = distance.mean(1, keepdim=True) / distance.clamp(min=1e-12)
    return (_SHARPNESS * near).softmax(1).view(*distance.shape, *[1] * (difference.dim() - 2))


def _choose(probability: Tensor, generator: torch.Generator | None) -> Tensor:
    """One index per row of (B, n), by inverting the cumulative distribution: the same on every device."""
    level = uniform((len(probability), 1), generator, probability.device)
    cumulative = probability.cumsum(1)
    return torch.searchsorted(cumulative, level * cumulative[:, -1:]).clamp(max=probability.shape[1] - 1)[:, 0]
