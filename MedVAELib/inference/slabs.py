"""Decoding in slabs that stay in the CPU's caches. The numbers do not change.

The head of the network, at half the grid, takes most of a decoding. It reads one voxel around, so any slab of the
logits can be computed from a slightly thicker slab of features.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as functional
from torch import Tensor

from ..networks.healthy_anatomy import HealthyAnatomyNet
from .fusion import convolve

_PLANES = 4
"""Thickness of a slab on the half grid: its 64-channel features then take 1 to 2 MB."""


def decode_in_slabs(net: HealthyAnatomyNet, z: Tensor, context: list[Tensor]) -> Iterator[Tensor]:
    """`net.decode_folded`, slab by slab along the first axis: folded logits (B, 8K, d, h, w). net: fused for
    inference."""
    h = net.from_latent(z)
    for stage, skip in zip(net.up, context, strict=True):
        h = stage(h, skip)
    depth = h.shape[2]
    features = functional.pad(h, (1,) * 6).contiguous(memory_format=torch.channels_last_3d)  # the head's own padding
    convolution = net.head[0][0]  # its norm is folded into it
    for start in range(0, depth, _PLANES):
        part = features[:, :, start : min(start + _PLANES, depth) + 2]
        hidden = convolve(part, convolution.weight, convolution.bias)
        yield net.head[1](functional.silu(hidden, inplace=True))
