"""Decoding in slabs that stay in the CPU's caches. The numbers change by float32's rounding only.

The head of the network, at half the grid, takes most of a decoding. It reads one voxel around, so any slab of the
logits can be computed from a slightly thicker slab of features.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from ..networks.healthy_anatomy import HealthyAnatomyNet
from .fusion import convolve

_PLANES = 4
"""Thickness of a slab on the half grid: its 64-channel features then take 1 to 2 MB."""

# Winograd's F(4, 3): four outputs of a 3-tap filter from six inputs by six multiplications instead of twelve (Lavin
# and Gray, Fast algorithms for convolutional neural networks, 2016). The outputs' transform stands in `WinogradSlab`.
_INPUTS = torch.tensor(
    [[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0],
     [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1]], dtype=torch.float32,
)
_TAPS = torch.tensor(
    [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]], dtype=torch.float32
) / 24


class SlabDecoder:
    """`net.decode_folded`, sample by sample and plane by plane along the first axis: for each sample an iterator of
    folded logits (1, 8K, 1, h, w), each valid until the next is asked for. net: fused for inference."""

    def __init__(self, net: HealthyAnatomyNet, context: list[Tensor]):
        self._net, self._context = net, context
        convolution = net.head[0][0]  # its norm is folded into it
        if convolution.weight.dtype is torch.float32:
            self._convolution = WinogradSlab(convolution)
        else:  # half precision is too coarse for Winograd's sums
            self._convolution = partial(convolve, weight=convolution.weight, bias=convolution.bias)
        # With the head's own padding of one voxel.
        _, channels, *sides = context[-1].shape
        padded = context[-1].new_zeros(1, channels, *(side + 2 for side in sides))
        self._features = padded.contiguous(memory_format=torch.channels_last_3d)

    def __call__(self, z: Tensor) -> Iterator[Iterator[Tensor]]:
        h = self._net.from_latent(z)
        for stage, skip in zip(self._net.up[:-1], self._context[:-1], strict=True):
            h = stage(h, skip)
        for sample in h.split(1):
            yield self._planes(sample)

    def _planes(self, coarse: Tensor) -> Iterator[Tensor]:
        context, inside = self._context[-1], self._features[:, :, 1:-1, 1:-1, 1:-1]
        upsampled, depth, ready = self._net.up[-1].upsampled(coarse), context.shape[2], 0
        for start in range(0, depth, _PLANES):
            new = slice(ready, min(start + _PLANES + 1, depth))
            functional.silu(torch.add(upsampled[:, :, new], context[:, :, new], out=inside[:, :, new]), inplace=True)
            ready = new.stop
            slab = self._features[:, :, start : start + _PLANES + 2]
            hidden = functional.silu(self._convolution(slab), inplace=True)
            for plane in hidden.split(1, 2):  # its logits fit the caches of one core
                yield self._net.head[1](plane)


class WinogradSlab:
    """A 3×3×3 convolution of a padded slab of six planes into four, by Winograd's F(4, 3) along the first axis: six
    convolutions of planes instead of twelve. Differs from the direct one by float32's rounding."""

    def __init__(self, convolution: nn.Conv3d):
        weights = torch.einsum("ti,ocizy->toczy", _TAPS, convolution.weight)
        self._weights = [weight.contiguous(memory_format=torch.channels_last) for weight in weights]
        self._bias = convolution.bias

    def __call__(self, slab: Tensor) -> Tensor:
        """(1, C, 6, h + 2, w + 2), channels last -> (1, O, 4, h, w), channels last."""
        planes = slab[0].permute(1, 2, 3, 0)
        mixed = torch.mm(_INPUTS, planes.reshape(6, -1)).view(planes.shape).permute(0, 3, 1, 2)
        # The second of the six enters all four outputs once, and so brings the bias.
        biases = [None, self._bias, None, None, None, None]
        parts = [convolve(plane[None], *filters) for plane, *filters in zip(mixed, self._weights, biases, strict=True)]
        first, a, b, c, d, last = (part[0].permute(1, 2, 0) for part in parts)
        out = first.new_empty(_PLANES, *first.shape)
        near, near_slope, far, far_slope = a + b, a.sub_(b), c + d, c.sub_(d)
        torch.add(near, far, out=out[0]).add_(first)
        torch.add(near_slope, far_slope, alpha=2, out=out[1])
        torch.add(near, far, alpha=4, out=out[2])
        torch.add(near_slope, far_slope, alpha=8, out=out[3]).add_(last)
        return out.permute(3, 0, 1, 2)[None]
