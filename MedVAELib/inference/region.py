"""Decoding only where the moments are wanted, in slabs that stay in the CPU's caches. The numbers do not change.

The last stage and the head of the network, at half the grid, take nine tenths of a decoding. Their receptive field
is a few voxels, so any box of the logits can be computed from a slightly larger box of features; the coarser stages,
where the latent reaches everything, are always computed whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor

from ..networks.healthy_anatomy import HealthyAnatomyNet
from .fusion import convolve

_SLAB_PLANES = 4
"""Thickness of a slab on the half grid: its 64-channel features then take 1 to 2 MB."""


@dataclass(frozen=True)
class Box:
    """A box on the half grid (z, y, x): start included, stop not."""

    start: tuple[int, int, int]
    stop: tuple[int, int, int]

    def slices(self, grow: int = 0, origin: tuple[int, int, int] = (0, 0, 0), scale: int = 1) -> tuple[slice, ...]:
        """Index of the box, grown on all sides, in an array whose first element is at `origin`."""
        return tuple(
            slice((a - grow - o) * scale, (b + grow - o) * scale)
            for a, b, o in zip(self.start, self.stop, origin, strict=True)
        )


def slabs_of(region: np.ndarray, planes: int = _SLAB_PLANES) -> list[Box]:
    """Boxes on the half grid that together cover a region (D, H, W), each tight in y and x; even sizes only."""
    d, h, w = region.shape
    half = region.reshape(d // 2, 2, h // 2, 2, w // 2, 2).any((1, 3, 5))
    used = np.flatnonzero(half.any((1, 2)))
    boxes = []
    for z in range(used[0], used[-1] + 1, planes) if used.size else ():
        stop = min(z + planes, used[-1] + 1)
        slab = half[z:stop].any(0)
        ys, xs = np.flatnonzero(slab.any(1)), np.flatnonzero(slab.any(0))
        if ys.size:
            boxes.append(Box((int(z), int(ys[0]), int(xs[0])), (int(stop), int(ys[-1]) + 1, int(xs[-1]) + 1)))
    return boxes


class SlabDecoder:
    """`net.decode_folded`, box by box. net: fused for inference; boxes: on the half grid."""

    def __init__(self, net: HealthyAnatomyNet, boxes: list[Box]):
        self.net, self.boxes = net, boxes
        self._first = tuple(min(box.start[axis] for box in boxes) for axis in range(3))
        self._last = tuple(max(box.stop[axis] for box in boxes) for axis in range(3))

    def __call__(self, z: Tensor, context: list[Tensor]) -> Iterator[Tensor]:
        """Folded logits (B, 8K, d, h, w) of each box in turn."""
        features, origin = self._features(z, context)
        convolution = self.net.head[0][0]  # its norm is folded into it
        for box in self.boxes:
            part = features[(..., *box.slices(grow=1, origin=origin))]
            hidden = convolve(part, convolution.weight, convolution.bias)
            yield self.net.head[1](functional.silu(hidden, inplace=True))

    def _features(self, z: Tensor, context: list[Tensor]) -> tuple[Tensor, tuple[int, int, int]]:
        """The head's input around all boxes, with one voxel of margin (zeros beyond the grid, as the head's padding
        would put there), and where on the half grid its first voxel lies."""
        h = self.net.from_latent(z)
        for stage, skip in zip(self.net.up[:-1], context[:-1], strict=True):
            h = stage(h, skip)
        size = context[-1].shape[2:]
        low = [max(a - 1, 0) for a in self._first]
        high = [min(b + 1, n) for b, n in zip(self._last, size, strict=True)]
        # Output i of the last stage reads the coarse voxels (i - 1) // 2 to (i + 1) // 2.
        start = [max((a - 1) // 2, 0) for a in low]
        stop = [min(b // 2 + 1, n // 2) for b, n in zip(high, size, strict=True)]
        coarse = h[(..., *(slice(a, b) for a, b in zip(start, stop, strict=True)))]
        skip = context[-1][(..., *(slice(2 * a, 2 * b) for a, b in zip(start, stop, strict=True)))]
        fine = self.net.up[-1](coarse, skip)
        cut = (slice(a - 2 * s, b - 2 * s) for a, b, s in zip(low, high, start, strict=True))
        margins = [(int(a == 0), int(b == n)) for a, b, n in zip(self._first, self._last, size, strict=True)]
        padded = functional.pad(fine[(..., *cut)], [side for pair in reversed(margins) for side in pair])
        return padded.contiguous(memory_format=torch.channels_last_3d), tuple(a - 1 for a in self._first)
