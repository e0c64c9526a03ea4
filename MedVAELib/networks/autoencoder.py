"""Convolutional encoder and decoder of images and volumes: the number of dimensions follows from the shape.

Maps of features at full resolution dominate the cost, so pixels or voxels are folded into channels before the first
convolution and unfolded after the last. Shapes are (batch, channel, y, x) and (batch, channel, z, y, x).
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from .healthy_anatomy import UpsampleConv
from .healthy_anatomy import fold as fold_voxels
from .healthy_anatomy import unfold as unfold_voxels
from .limits import within

LOG_VARIANCE = (-20.0, 6.0)
"""Log-variances are kept within this: beyond, their exponential makes the divergence a number nobody can train on."""

_CONVOLUTION = {2: nn.Conv2d, 3: nn.Conv3d}
_BATCH_NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
NORMS = ("batch", "group")
_GROUPS = 8


def fold(image: Tensor, factor: int) -> Tensor:
    """(B, C, *shape) → (B, C·factorᵈ, *shape / factor); factor is a power of two."""
    if image.dim() == 4:
        return F.pixel_unshuffle(image, factor)
    for _ in range(int(math.log2(factor))):
        image = fold_voxels(image)
    return image


def unfold(features: Tensor, factor: int) -> Tensor:
    """The inverse of `fold`."""
    if features.dim() == 4:
        return F.pixel_shuffle(features, factor)
    for _ in range(int(math.log2(factor))):
        features = unfold_voxels(features)
    return features


def conv_block(inputs: int, outputs: int, dimensions: int, norm: str, stride: int = 1) -> nn.Sequential:
    """3-wide convolution, norm, SiLU."""
    convolution = _CONVOLUTION[dimensions](inputs, outputs, 3, stride, 1, bias=False)
    return nn.Sequential(convolution, _norm(norm, outputs, dimensions), nn.SiLU())


def _up_block(inputs: int, outputs: int, dimensions: int, norm: str) -> nn.Sequential:
    if dimensions == 3:
        grow: nn.Module = UpsampleConv(inputs, outputs)
    else:
        grow = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False))
    return nn.Sequential(grow, _norm(norm, outputs, dimensions), nn.SiLU())


def _norm(name: str, channels: int, dimensions: int) -> nn.Module:
    """Batch norm is the fastest on a CPU; group norm sees every image alone, in training as later."""
    if name == "batch":
        return _BATCH_NORM[dimensions](channels)
    return nn.GroupNorm(math.gcd(_GROUPS, channels), channels)


def channels_per_level(width: int, bottom: int, levels: int, factor: int) -> list[int]:
    """Channels after the stem, which folds by `factor`, and after every halving of the rest, e.g. 32, 64, 64."""
    halvings = levels - int(math.log2(factor))
    return [min(width * 2**i, bottom) for i in range(halvings)] + [bottom]


class ConvEncoder(nn.Module):
    """Image (B, 1, *shape) in 0…1 → features (B, bottom, *shape / 2^levels)."""

    def __init__(self, dimensions: int, width: int, bottom: int, levels: int, factor: int, norm: str):
        super().__init__()
        self.factor = factor
        channels = channels_per_level(width, bottom, levels, factor)
        self.stem = conv_block(factor**dimensions, channels[0], dimensions, norm)
        self.down = nn.Sequential(*(
            nn.Sequential(conv_block(i, o, dimensions, norm, 2), conv_block(o, o, dimensions, norm))
            for i, o in zip(channels, channels[1:], strict=False)
        ))

    def forward(self, image: Tensor) -> Tensor:
        return self.down(self.stem(fold(2 * image - 1, self.factor)))


class ConvDecoder(nn.Module):
    """Features (B, bottom, *shape / 2^levels) → logits of the image (B, 1, *shape)."""

    def __init__(self, dimensions: int, width: int, bottom: int, levels: int, factor: int, norm: str):
        super().__init__()
        self.factor = factor
        channels = channels_per_level(width, bottom, levels, factor)[::-1]
        self.up = nn.Sequential(
            conv_block(channels[0], channels[0], dimensions, norm),
            *(nn.Sequential(_up_block(i, o, dimensions, norm), conv_block(o, o, dimensions, norm))
              for i, o in zip(channels, channels[1:], strict=False)),
        )
        self.head = _CONVOLUTION[dimensions](channels[-1], factor**dimensions, 3, 1, 1)

    def forward(self, features: Tensor) -> Tensor:
        return unfold(self.head(self.up(features)), self.factor).float()


class FlatGaussian(nn.Module):
    """Features (B, C, *small) → mean and log-variance (B, latent)."""

    def __init__(self, inputs: int, latent: int):
        super().__init__()
        self.project = nn.Linear(inputs, 2 * latent)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.project(features.flatten(1)).float().chunk(2, 1)
        return mean, within(log_variance, *LOG_VARIANCE)


class SpatialGaussian(nn.Module):
    """Features (B, C, *small) → mean and log-variance (B, latent, *small)."""

    def __init__(self, inputs: int, latent: int, dimensions: int):
        super().__init__()
        self.project = _CONVOLUTION[dimensions](inputs, 2 * latent, 1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.project(features).float().chunk(2, 1)
        return mean, within(log_variance, *LOG_VARIANCE)


class FromFlat(nn.Module):
    """Latent (B, latent) → features (B, C, *small)."""

    def __init__(self, latent: int, outputs: int, small: tuple[int, ...]):
        super().__init__()
        self.small = (outputs, *small)
        self.project = nn.Linear(latent, math.prod(self.small))

    def forward(self, latent: Tensor) -> Tensor:
        return self.project(latent).unflatten(1, self.small)


def from_spatial(latent: int, outputs: int, dimensions: int) -> nn.Module:
    """Latent (B, latent, *small) → features (B, outputs, *small)."""
    return _CONVOLUTION[dimensions](latent, outputs, 1)
