"""Introspective VAEs: the encoder tells real from generated images, the decoder tries to deceive it.

Two forms by `variant`: "soft", after Soft-IntroVAE (Daniel and Tamar 2021), and "hinge" with a margin, after IntroVAE
(Huang et al. 2018). The model warms up as a plain VAE. They differ from the published ones: the adversarial terms are
of divergences alone, without the misfit of generated images that Soft-IntroVAE's exponent has as well; and what counts
is the divergence of generated images relative to that of real ones, (KL_fake − KL_real) / KL_real, so that margin and
weights mean the same for any latent and image. With the published absolute scales and 2 nats per latent or more, both
forms were content with generated images far below real ones; with real images as a mark that cannot move, both chased
each other upwards; and with the misfit an encoder was content to reconstruct generated images badly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..networks.across_processes import batch_mean, first_row, mean_over_processes
from ..networks.batch_norm import statistics_kept
from .autoencoder import VariationalConfig
from .gaussians import draw_gaussian, kl_to_standard_normal, standard_normal
from .registry import register
from .vae import VAE

_WORSE = 0.9  # a divergence of generated images below this share of the real ones' is no chance any more


@dataclass(frozen=True)
class IntroConfig(VariationalConfig):
    """norm: with batch norm, generated images are judged and drawn through other statistics in training than later,
    and samples become bad. variant: "soft" or "hinge". adversarial: weight of the terms on generated images; it rises
    from 0 over as many steps again as the warm-up takes. margin: how far above real images the hinge form's encoder
    pushes generated ones, as a share of the real ones' divergence."""

    norm: str = "group"
    variant: str = "soft"
    adversarial: float = 0.1
    margin: float = 0.5

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
        samples, in nats per image; "encoder" and "decoder" the two terms, unweighted.
        """
        posterior = self.encode(image)
        code = draw_gaussian(posterior, generator)
        weight = self.config.adversarial * self.adversarial_share()
        divergence = kl_to_standard_normal(posterior)
        terms = self.bound_terms(image, self.logits(code), divergence)
        real = batch_mean(divergence.sum(1))
        drawn = (first_row(len(image)) + torch.arange(len(image), device=image.device)) % 2 == 0
        prior = standard_normal(code.shape, generator, image.device)
        with statistics_kept(self):
            generated = self.decode(torch.where(drawn[:, None], prior, code.detach()))
            encoder, fake = self._encoder_term(generated.detach(), real)
            judged = _fixed(self.to_latent)(_fixed(self.encoder)(generated))
        # Below real images it has nothing to gain, and would only drag the encoder along.
        decoder = _beyond(kl_to_standard_normal(judged).sum(1), real.detach()).clamp(min=0).mean()
        loss = terms["loss"] + weight * (encoder + decoder)
        of_drawn = mean_over_processes(torch.stack([(fake * drawn).sum(), drawn.sum()]))
        return terms | {"loss": loss, "kl_fake": (of_drawn[0] / of_drawn[1]).detach(), "encoder": encoder,
                        "decoder": decoder}

    @property
    def warm_up_steps(self) -> int:
        """The adversarial terms rise after the warm-up, over as many steps."""
        return 2 * self.config.warmup

    def adversarial_share(self) -> Tensor:
        """How much of the adversarial terms' rise is over at the present step, 0…1."""
        warmup = self.config.warmup
        return ((self.updates + 1 - warmup) / max(1, warmup)).clamp(0.0, 1.0)

    def _encoder_term(self, generated: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """What the encoder has to lower, and the divergences (B,) of generated images in nats.

        real: mean divergence of real images, which it may pull down as well. The soft form's exponential goes on as its
        tangent above 1, else one image that is much likelier than real ones would outweigh all others.
        """
        divergence = kl_to_standard_normal(self.encode(generated)).sum(1)
        beyond = _beyond(divergence, real)
        if self.config.variant == "hinge":
            return (self.config.margin - beyond).clamp(min=0).mean(), divergence
        likelier = -2 * beyond
        return 0.5 * (likelier.clamp(max=0).exp() + likelier.clamp(min=0)).mean(), divergence

    def health(self, terms: Mapping[str, float | Tensor]) -> str | None:
        """Also: the encoder must tell generated images from real ones, or it teaches the decoder nothing."""
        real, fake = float(terms.get("kl", -math.inf)), float(terms.get("kl_fake", math.inf))
        if self.config.adversarial > 0 and fake < _WORSE * real:
            return (f"The encoder takes generated images for real ones (KL {fake:.3g} against {real:.3g} nats): "
                    "raise adversarial or margin, or lower the learning rate.")
        return super().health(terms)


def _beyond(divergence: Tensor, real: Tensor) -> Tensor:
    """How far above real images, as a share of what these have."""
    return (divergence - real) / real.detach().clamp(min=1.0)


def _fixed(module: nn.Module) -> Callable[[Tensor], Any]:
    """The module as a function whose weights do not learn."""
    weights = {name: weight.detach() for name, weight in module.named_parameters()}
    return lambda features: functional_call(module, weights, (features,))
