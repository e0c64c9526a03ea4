"""A small network with the protocol the engine runs: U-shaped, folded stem, BatchNorm, a global latent, skips.

Two forms of the same weights: `StandIn` has `encode` and `decode` only; `FastStandIn` adds `prepare_context` and
`decode_with_context`, which compute the same logits with everything that does not depend on z done once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as functional
from torch import Tensor, nn


@dataclass
class Posterior:
    mean: Tensor
    logvar: Tensor
    skips: list[Tensor]


def block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv3d(inputs, outputs, 3, stride, 1), nn.BatchNorm3d(outputs), nn.SiLU())


def fold(x: Tensor) -> Tensor:
    b, c, d, h, w = x.shape
    x = x.reshape(b, c, d // 2, 2, h // 2, 2, w // 2, 2).permute(0, 1, 3, 5, 7, 2, 4, 6)
    return x.reshape(b, 8 * c, d // 2, h // 2, w // 2)


def unfold(x: Tensor) -> Tensor:
    b, c, d, h, w = x.shape
    x = x.reshape(b, c // 8, 2, 2, 2, d, h, w).permute(0, 1, 5, 2, 6, 3, 7, 4)
    return x.reshape(b, c // 8, 2 * d, 2 * h, 2 * w)


class StandIn(nn.Module):
    """x (B, 1, D, H, W), sizes divisible by 16 -> logits (B, classes, D, H, W); latent (B, latent, D/16, …)."""

    def __init__(self, width: int = 8, latent: int = 4, classes: int = 9):
        super().__init__()
        c = [width, 2 * width, 3 * width, 4 * width]
        self.stem = block(8, c[0])
        self.down = nn.ModuleList(nn.Sequential(block(c[i], c[i + 1], 2), block(c[i + 1], c[i + 1])) for i in range(3))
        self.posterior = nn.Conv3d(c[3], 2 * latent, 1)
        self.latent = nn.Conv3d(latent, c[3], 1)
        self.bottom = block(c[3], c[3])
        self.up = nn.ModuleList(block(c[3 - i] + c[2 - i], c[2 - i]) for i in range(3))
        self.head = nn.Sequential(block(c[0], 2 * c[0]), nn.Conv3d(2 * c[0], 8 * classes, 1))

    def encode(self, x: Tensor) -> Posterior:
        h = self.stem(fold(x))
        skips = [h]
        for level in self.down:
            h = level(h)
            skips.append(h)
        mean, logvar = self.posterior(h).float().chunk(2, 1)
        return Posterior(mean, logvar.clamp(-8, 4), skips[:3])

    def decode(self, z: Tensor, skips: list[Tensor]) -> Tensor:
        h = self.bottom(self.latent(z))
        for level, skip in zip(self.up, reversed(skips), strict=True):
            h = level(torch.cat([functional.interpolate(h, scale_factor=2, mode="nearest"), skip], 1))
        return unfold(self.head(h))


def upsampled_kernel(weight: Tensor) -> Tensor:
    """The 4³ kernel whose stride-2 transposed convolution equals a 3³ one after nearest-neighbour upsampling by 2."""
    for axis in (2, 3, 4):
        first, middle, last = weight.unbind(axis)
        weight = torch.stack([last, middle + last, first + middle, first], axis)
    return weight.transpose(0, 1).contiguous()


class FastStandIn(StandIn):
    """The same numbers from 64 taps instead of 216 per upsampled voxel, and the skip halves computed once."""

    def prepare_context(self, skips: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
        context = []
        for level, skip in zip(self.up, reversed(skips), strict=True):
            conv = level[0]
            own, foreign = conv.weight[:, :-skip.shape[1]], conv.weight[:, -skip.shape[1]:]
            context.append((upsampled_kernel(own), functional.conv3d(skip, foreign, conv.bias, padding=1)))
        return context

    def decode_with_context(self, z: Tensor, context: list[tuple[Tensor, Tensor]]) -> Tensor:
        h = self.bottom(self.latent(z))
        for level, (kernel, from_skip) in zip(self.up, context, strict=True):
            h = level[1:](functional.conv_transpose3d(h, kernel, stride=2, padding=1) + from_skip)
        return unfold(self.head(h))


class FoldedStandIn(FastStandIn):
    """Also hands out its logits before they are unfolded."""

    def decode_folded(self, z: Tensor, context: list[tuple[Tensor, Tensor]]) -> Tensor:
        h = self.bottom(self.latent(z))
        for level, (kernel, from_skip) in zip(self.up, context, strict=True):
            h = level[1:](functional.conv_transpose3d(h, kernel, stride=2, padding=1) + from_skip)
        return self.head(h)

    def decode_with_context(self, z: Tensor, context: list[tuple[Tensor, Tensor]]) -> Tensor:
        return unfold(self.decode_folded(z, context))


def make_standin(kind: type[StandIn] = FastStandIn, seed: int = 0, **sizes: int) -> StandIn:
    torch.manual_seed(seed)
    return randomise(kind(**sizes), seed)


def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """Weights and BatchNorm statistics as far from the identity as after training, logits that vary with z."""
    torch.manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm3d):
            nn.init.uniform_(module.weight, 0.7, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
            nn.init.normal_(module.running_mean, 0, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
        elif getattr(module, "weight", None) is not None and module.weight.ndim == 5:
            nn.init.normal_(module.weight, 0, (2.0 / module.weight[0].numel()) ** 0.5)
    return model.eval()
