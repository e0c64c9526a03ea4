"""U-shaped variational network that maps a brain scan to the tissue probabilities of the healthy brain behind it.

Full-resolution feature maps dominate the cost of 3D networks, so 2×2×2 voxels are folded into channels at the
stem and unfolded at the head; every convolution runs on half the grid or less. The latent sits at 1/16 of the
grid (5×6×5 for 80×96×80). All shapes are (batch, channel, z, y, x).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Posterior(NamedTuple):
    """q(z | scan): mean and log-variance (B, Z, d, h, w), and the encoder's features for the decoder's skips."""

    mean: Tensor
    logvar: Tensor
    skips: list[Tensor]


def fold(x: Tensor) -> Tensor:
    """(B, C, D, H, W) → (B, 8C, D/2, H/2, W/2)."""
    b, c, d, h, w = x.shape
    x = x.view(b, c, d // 2, 2, h // 2, 2, w // 2, 2).permute(0, 1, 3, 5, 7, 2, 4, 6)
    return x.reshape(b, 8 * c, d // 2, h // 2, w // 2)


def unfold(x: Tensor) -> Tensor:
    """(B, 8C, D, H, W) → (B, C, 2D, 2H, 2W); the inverse of `fold`."""
    b, c, d, h, w = x.shape
    x = x.view(b, c // 8, 2, 2, 2, d, h, w).permute(0, 1, 5, 2, 6, 3, 7, 4)
    return x.reshape(b, c // 8, 2 * d, 2 * h, 2 * w)


def conv_block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv3d(inputs, outputs, 3, stride, 1), nn.BatchNorm3d(outputs), nn.SiLU())


# A 3-tap kernel over a signal repeated twice sees only two different values: its taps fold into two, one pair
# for even and one for odd outputs.
_PARITY_TAPS = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]], [[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]])


class UpsampleConv(nn.Module):
    """Nearest-neighbour ×2 upsampling followed by a 3×3×3 convolution, computed at the low resolution.

    Exactly equal to the plain pair but with 64 instead of 216 multiplications per low-resolution voxel and
    channel pair: each of the eight output parities is a 2×2×2 convolution.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.weight = nn.Parameter(nn.init.kaiming_uniform_(torch.empty(outputs, inputs, 3, 3, 3), a=5**0.5))
        self.register_buffer("taps", _PARITY_TAPS.clone(), persistent=False)

    def parity_weight(self) -> Tensor:
        """(8·outputs, inputs, 2, 2, 2), parity-major."""
        t = self.taps.to(self.weight.dtype)
        w = torch.einsum("oiabc,pxa,qyb,rzc->pqroixyz", self.weight, t, t, t)
        return w.reshape(-1, w.shape[4], 2, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        b, _, d, h, w = x.shape
        y = F.conv3d(x, self.parity_weight(), padding=1)  # (B, 8·O, D+1, H+1, W+1)
        parts = y.view(b, 8, -1, d + 1, h + 1, w + 1).unbind(1)
        blocks = [
            parts[4 * p + 2 * q + r][:, :, p : p + d, q : q + h, r : r + w]
            for p in (0, 1)
            for q in (0, 1)
            for r in (0, 1)
        ]
        return unfold(torch.stack(blocks, 2).flatten(1, 2))


class Merge(nn.Module):
    """One decoder stage: a 3×3×3 convolution over [upsampled coarse features, skip features], in two halves.

    The skip half does not depend on the latent, so it is computed once per scan however many samples are drawn.
    """

    def __init__(self, coarse: int, skip: int, outputs: int):
        super().__init__()
        self.coarse = UpsampleConv(coarse, outputs)
        self.skip = nn.Conv3d(skip, outputs, 3, padding=1)
        self.norm = nn.BatchNorm3d(outputs)

    def forward(self, coarse: Tensor, context: Tensor) -> Tensor:
        return F.silu(self.norm(self.coarse(coarse) + context))


class HealthyAnatomyNet(nn.Module):
    """Encoder q(z | scan) and decoder p(tissue | z, scan features).

    Sides of the input must be multiples of 16 voxels.
    """

    def __init__(self, classes: int = 9, width: int = 32, latent: int = 32):
        super().__init__()
        c = [width, 2 * width, 3 * width, 4 * width]
        self.stem = conv_block(8, c[0])
        self.down = nn.ModuleList(
            nn.Sequential(conv_block(c[i], c[i + 1], 2), conv_block(c[i + 1], c[i + 1])) for i in range(3)
        )
        self.to_posterior = nn.Conv3d(c[3], 2 * latent, 1)
        self.from_latent = nn.Sequential(nn.Conv3d(latent, c[3], 1), conv_block(c[3], c[3]))
        self.up = nn.ModuleList([Merge(c[3], c[2], c[2]), Merge(c[2], c[1], c[1]), Merge(c[1], c[0], c[0])])
        self.head = nn.Sequential(conv_block(c[0], 2 * c[0]), nn.Conv3d(2 * c[0], 8 * classes, 1))
        self.classes = classes

    def encode(self, x: Tensor) -> Posterior:
        """x: (B, 1, D, H, W), the brain's median at 0.5."""
        h = self.stem(fold(x))
        skips = [h]
        for stage in self.down:
            h = stage(h)
            skips.append(h)
        mean, logvar = self.to_posterior(h).float().chunk(2, 1)
        return Posterior(mean, logvar.clamp(-8, 4), skips[:3])

    def prepare_context(self, skips: list[Tensor]) -> list[Tensor]:
        """The decoder's share that does not depend on z, coarsest first."""
        return [stage.skip(skip) for stage, skip in zip(self.up, reversed(skips), strict=True)]

    def decode_folded(self, z: Tensor, context: list[Tensor]) -> Tensor:
        """Logits still folded: (B, 8K, D/2, H/2, W/2), class-major; `unfold` gives (B, K, D, H, W)."""
        h = self.from_latent(z)
        for stage, skip in zip(self.up, context, strict=True):
            h = stage(h, skip)
        return self.head(h)

    def decode_with_context(self, z: Tensor, context: list[Tensor]) -> Tensor:
        """z: (B, Z, d, h, w); context may have batch 1. Returns logits (B, K, D, H, W)."""
        return unfold(self.decode_folded(z, context))

    def decode(self, z: Tensor, skips: list[Tensor]) -> Tensor:
        """Logits (B, K, D, H, W)."""
        return self.decode_with_context(z, self.prepare_context(skips))
