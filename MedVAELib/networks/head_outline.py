"""2D U-net from an ultrasound plane to the head's filled outline, and to whether there is a head plane at all.

As in the 3D networks, 2×2 pixels are folded into channels at the stem and unfolded at the head, so that no map of
features is as large as the image. Shapes are (batch, channel, y, x).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class OutlineLogits(NamedTuple):
    """outline: (B, 1, H, W), logit of lying within the skull's outer table; head: (B,), logit of a head plane."""

    outline: Tensor
    head: Tensor


def _block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1), nn.BatchNorm2d(outputs), nn.SiLU(),
        nn.Conv2d(outputs, outputs, 3, 1, 1), nn.BatchNorm2d(outputs), nn.SiLU(),
    )


class HeadOutlineNet(nn.Module):
    """Sides of the image must be multiples of 32 pixels; five scales, the coarsest 1/32 of the image."""

    def __init__(self, width: int = 24):
        super().__init__()
        channels = [width, 2 * width, 3 * width, 4 * width, 4 * width]
        self.stem = nn.Sequential(nn.PixelUnshuffle(2), _block(4, channels[0]))
        self.down = nn.ModuleList(_block(channels[i], channels[i + 1], 2) for i in range(4))
        self.up = nn.ModuleList(_block(channels[i + 1] + channels[i], channels[i]) for i in reversed(range(4)))
        self.to_outline = nn.Sequential(nn.Conv2d(channels[0], 4, 1), nn.PixelShuffle(2))
        self.to_head = nn.Sequential(nn.Linear(2 * channels[-1], 64), nn.SiLU(), nn.Linear(64, 1))

    def forward(self, image: Tensor) -> OutlineLogits:
        """image: (B, 1, H, W), grey 0…1."""
        features = self.stem(2 * image - 1)
        skips = []
        for stage in self.down:
            skips.append(features)
            features = stage(features)
        pooled = torch.cat([features.mean((2, 3)), features.amax((2, 3))], 1)
        for stage, skip in zip(self.up, reversed(skips), strict=True):
            larger = F.interpolate(features, scale_factor=2, mode="bilinear", align_corners=False)
            features = stage(torch.cat([larger, skip], 1))
        return OutlineLogits(self.to_outline(features).float(), self.to_head(pooled).float()[:, 0])
