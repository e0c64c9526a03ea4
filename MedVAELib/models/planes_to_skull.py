"""What the four models from standard planes to a skull have in common: encoding the planes, and the likelihood."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..networks.across_processes import mean_over_processes
from ..networks.skull import PLANE_COUNT, SDF_RANGE, PlaneSetEncoder, ShapeDecoder
from .gaussians import Gaussian, standard_normal

Correlated = tuple[Tensor, Tensor]
"""Mean (B, Z) and lower-triangular factor (B, Z, Z) of the covariance."""

_SURFACE_SCALE = 3.0  # voxels of the 96³ grid: the weight of a voxel falls by e over this distance from the surface
_BACKGROUND = 0.05  # what a voxel far from the surface still weighs


@dataclass(frozen=True)
class LatentConfig:
    """What the variational models are told. features: per plane; width: channels of the finest feature maps; latent:
    latents (per level, where there are several); voxels: how many independent voxels a volume counts for against the
    KL divergence; overlap: weight of 1 − Dice, in nats per voxel; beta: weight of the KL divergence for the posterior
    after `warmup` steps; prior: weight of the KL divergence for the prior, in nats per latent."""

    features: int = 96
    width: int = 24
    latent: int = 48
    voxels: float = 60.0
    overlap: float = 1.0
    beta: float = 1.0
    warmup: int = 200
    prior: float = 1.0

    def __post_init__(self) -> None:
        if min(self.features, self.width, self.latent, self.voxels) < 1:
            raise ValueError("features, width, latent and voxels must be positive")
        if min(self.overlap, self.beta, self.warmup) < 0 or self.prior <= 0:
            raise ValueError("overlap, beta and warmup must not be negative, and prior positive")


PRESENCE = 1
"""The last value of a plane's condition: 1 if it is there, else 0."""


class PlanesToSkull(nn.Module):
    """Plane encoders and decoder. The condition is every plane's features and whether it is there, (B, 3, F + 1)."""

    def __init__(self, features: int, width: int, code: int):
        super().__init__()
        self.planes = PlaneSetEncoder(features, width)
        self.decoder = ShapeDecoder(code + PLANE_COUNT * (features + PRESENCE), width)

    def encode_planes(self, planes: Tensor, present: Tensor) -> Tensor:
        """planes: (B, 3, 96, 96) outline maps 0…1; present: (B, 3) bool. Absent planes' pixels are never read."""
        return torch.cat([self.planes(planes, present), present[:, :, None].float()], 2)

    def decode(self, code: Tensor, condition: Tensor) -> Tensor:
        """code (B, Z), condition (B, 3, F + 1) → signed distance (B, 1, 48, 48, 48), voxels of the 96³ grid, > 0
        inside."""
        return self.decoder(torch.cat([code, condition.flatten(1)], 1))

    def draw(
        self, condition: Tensor, samples: int, generator: torch.Generator | None = None, temperature: float = 1.0
    ) -> Tensor:
        """Codes (B·samples, Z) to decode, a case's samples next to one another."""
        raise NotImplementedError

    def sample(
        self, condition: Tensor, samples: int, generator: torch.Generator | None = None, temperature: float = 1.0
    ) -> Tensor:
        """Signed distances (B·samples, 1, 48, 48, 48), in voxels of the 96³ grid, of heads that fit the planes.

        condition: from `encode_planes`; temperature multiplies the standard deviations of what is drawn.
        """
        code = self.draw(condition, samples, generator, temperature)
        return self.decode(code, repeat_samples(condition, samples))


def reconstruction_terms(predicted: Tensor, sdf: Tensor) -> dict[str, Tensor]:
    """How well signed distances (B, 1, 48, 48, 48), in voxels of the 96³ grid, are predicted.

    "nll": negative log-likelihood in nats per voxel of a Gaussian on the distance clipped to ±8 voxels, with the
    standard deviation that is best for the batch (σ-VAE, Rybkin et al. 2021: ½ log of the weighted mean square error).
    Voxels near the surface weigh most. "overlap": 1 − soft Dice. "rms": the standard deviation, in voxels.
    """
    target = sdf.clamp(-SDF_RANGE, SDF_RANGE)
    weight = torch.exp(-target.abs() / _SURFACE_SCALE) + _BACKGROUND
    misfit = mean_over_processes((weight * (predicted.float() - target).square()).sum())
    square_error = misfit / mean_over_processes(weight.sum())
    inside, truth = torch.sigmoid(predicted.float()), torch.sigmoid(target)
    axes = (1, 2, 3, 4)
    dice = 2 * (inside * truth).sum(axes) / (inside.square().sum(axes) + truth.square().sum(axes)).clamp(min=1e-6)
    return {"nll": 0.5 * (square_error + 1e-4).log(), "overlap": 1 - dice.mean(), "rms": square_error.sqrt()}


def draw_correlated(
    prior: Correlated, samples: int, generator: torch.Generator | None, temperature: float = 1.0
) -> Tensor:
    """Correlated latents of B cases, (B·samples, Z), a case's samples next to one another, as they lie in `prior`.

    The second half of a case's draws mirrors the first (antithetic variates, Hammersley & Morton 1956): whatever a
    prediction does linearly cancels in the mean, which then needs far fewer samples. `temperature` multiplies the
    standard deviations.
    """
    mean, factor = prior
    half = (samples + 1) // 2
    noise = standard_normal((len(mean) // samples, half, mean.shape[1]), generator, mean.device)
    noise = torch.cat([noise, -noise[:, : samples - half]], 1).flatten(0, 1)
    return mean + temperature * torch.einsum("bij,bj->bi", factor, noise)


def kl_divergence(posterior: Gaussian, prior: Correlated) -> Tensor:
    """KL(q‖p) in nats of a diagonal against a correlated Gaussian, (B,)."""
    (mean_q, log_q), (mean_p, factor) = posterior, prior
    columns = torch.cat([torch.diag_embed((0.5 * log_q).exp()), (mean_q - mean_p)[:, :, None]], 2)
    whitened = torch.linalg.solve_triangular(factor, columns, upper=False).square().sum((1, 2))
    volume = 2 * factor.diagonal(dim1=1, dim2=2).log().sum(1) - log_q.sum(1)
    return 0.5 * (whitened + volume - mean_q.shape[1])


def balanced_divergence(posterior: Gaussian, prior: Correlated) -> tuple[Tensor, Tensor]:
    """KL(q‖p) in nats, (B,) twice: for the posterior alone to learn from, and for the prior alone.

    KL balancing (Hafner et al. 2021): a prior has to follow its posterior at full strength, however weakly the
    posterior is drawn to the prior; otherwise what planes say of the latents is never learned.
    """
    fixed_prior = prior[0].detach(), prior[1].detach()
    fixed_posterior = posterior[0].detach(), posterior[1].detach()
    return kl_divergence(posterior, fixed_prior), kl_divergence(fixed_posterior, prior)


def negative_bound(
    config: LatentConfig, terms: dict[str, Tensor], of_posterior: Tensor, of_prior: Tensor, latents: int,
    updates: Tensor,
) -> Tensor:
    """nll + overlap·(1 − Dice) + β·KL(q‖p̄) / voxels + prior·KL(q̄‖p) / latents, where a bar means that no gradient
    reaches it (see balanced_divergence). β rises over `warmup` of the training steps, `updates` of which are done.

    Neighbouring voxels of a smooth shape are not independent: summing the likelihood over all 110,592 would make the KL
    divergence vanish beside it, so a volume counts for `voxels` independent ones.
    """
    beta = config.beta * ((updates + 1) / max(1, config.warmup)).clamp(max=1.0)
    fit = terms["nll"] + config.overlap * terms["overlap"]
    return fit + beta * of_posterior / config.voxels + config.prior * of_prior / latents


def repeat_samples(condition: Tensor, samples: int) -> Tensor:
    """(B, 3, C) → (B·samples, 3, C), a case's samples next to one another."""
    return condition.repeat_interleave(samples, 0)
