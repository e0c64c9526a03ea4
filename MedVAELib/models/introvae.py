"""Introspective VAEs: the encoder tells real from generated images, the decoder tries to deceive it.

Two forms by `variant`: "soft" (Soft-IntroVAE, Daniel and Tamar 2021), and "hinge" with a margin (IntroVAE, Huang et
al. 2018). Divergences are per latent in the adversarial terms, so that margin and weights mean the same for 32 latents
and for 256, and those of generated images count from what real ones have at the time: counted from 0, both forms are
content with generated images far below the real ones wherever real images take more than 2 nats per latent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..networks.across_processes import batch_mean
from ..networks.batch_norm import statistics_kept
from .autoencoder import VariationalConfig
from .gaussians import draw_gaussian, kl_to_standard_normal, standard_normal
from .registry import register
from .vae import VAE

_WORSE = 0.9  # a divergence of generated images below this share of the real ones' is no chance any more


@dataclass(frozen=True)
class IntroConfig(VariationalConfig):
    """variant: "soft" or "hinge"; adversarial: weight of the terms on generated images; it rises with the warm-up;
    margin: nats per latent above real images that the hinge form's encoder pushes generated ones to."""

    variant: str = "soft"
    adversarial: float = 0.1
    margin: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.variant not in ("soft", "hinge"):
            raise ValueError("variant must be soft or hinge")
        if self.adversarial < 0 or self.margin <= 0:
            raise ValueError("adversarial must not be negative and margin must be positive")


@register("introvae")
class IntroVAE(VAE):
    """The network with both its objectives."""

    Config = IntroConfig

    def loss(self, image: Tensor, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """loss = the bound of real images + adversarial · (encoder's + decoder's term on generated ones).

        One optimiser may step the sum, and yet every weight follows its own objective: the encoder judges images cut
        off from the decoder, and the decoder is judged by an encoder that does not learn. Every other generated image
        is a sample of the prior, the rest are reconstructions. "kl" is that of real images, "kl_fake" that of the
        samples, in nats per image; "encoder" and "decoder" the two terms, in nats per latent and unweighted.
        """
        posterior = self.encode(image)
        code = draw_gaussian(posterior, generator)
        weight = self.config.adversarial * self.warmed()
        terms = self.bound_terms(image, self.logits(code), kl_to_standard_normal(posterior))
        drawn = torch.arange(len(image), device=image.device) % 2 == 0  # holds for any part of a batch, too
        prior = standard_normal(code.shape, generator, image.device)
        with statistics_kept(self):
            generated = self.decode(torch.where(drawn[:, None], prior, code.detach()))
            encoder, divergence = self._encoder_term(generated.detach(), terms, generator)
            judged = _fixed(self.to_latent)(_fixed(self.encoder)(generated))
        decoder = kl_to_standard_normal(judged).mean()
        loss = terms["loss"] + weight * (encoder + decoder)
        return terms | {"loss": loss, "kl_fake": divergence[drawn].mean().detach(), "encoder": encoder,
                        "decoder": decoder}  # fmt: skip

    def _encoder_term(
        self, generated: Tensor, real: Mapping[str, Tensor], generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """What the encoder has to lower on generated images, and their divergences (B,) in nats.

        real: terms of the real images. The soft form's exponential goes on as its tangent above 1, else one image that
        is much likelier than real ones would outweigh all others.
        """
        posterior = self.encode(generated)
        divergence = kl_to_standard_normal(posterior).sum(1)
        beyond = (divergence - batch_mean(real["kl"].detach()[None])) / self.config.latent
        if self.config.variant == "hinge":
            return (self.config.margin - beyond).clamp(min=0).mean(), divergence
        code = draw_gaussian(posterior, generator)
        logits = _fixed(self.decoder)(_fixed(self.from_latent)(code))
        misfit = self.negative_log_likelihood(generated, logits) - batch_mean(real["reconstruction"].detach()[None])
        likelier = -2 * (misfit / self.config.voxels + beyond)
        return 0.5 * (likelier.clamp(max=0).exp() + likelier.clamp(min=0)).mean(), divergence

    def health(self, terms: Mapping[str, float | Tensor]) -> str | None:
        """Also: the encoder must tell generated images from real ones, or it teaches the decoder nothing."""
        real, fake = float(terms.get("kl", -math.inf)), float(terms.get("kl_fake", math.inf))
        if int(self.updates) > self.config.warmup and self.config.adversarial > 0 and fake < _WORSE * real:
            return (f"The encoder takes generated images for real ones (KL {fake:.3g} against {real:.3g} nats): "
                    "raise adversarial or margin, or lower the learning rate.")  # fmt: skip
        return super().health(terms)


def _fixed(module: nn.Module) -> Callable[[Tensor], Any]:
    """The module as a function whose weights do not learn."""
    weights = {name: weight.detach() for name, weight in module.named_parameters()}
    return lambda features: functional_call(module, weights, (features,))
