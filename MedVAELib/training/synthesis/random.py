"""Random draws from an explicit generator, so that sample number n is the same whatever was drawn before it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor


class Draw:
    """Random numbers on one device from one seed.

    Single numbers are drawn on the CPU whatever the device, as asking a GPU for one means waiting for all it has to do.
    """

    def __init__(self, seed: int, device: torch.device | str = "cpu"):
        self.device = torch.device(device)
        self.generator = Generator(self.device).manual_seed(seed)
        self._single = self.generator if self.device.type == "cpu" else Generator().manual_seed(seed)

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """Numbers low ≤ x < high of that shape."""
        return low + (high - low) * torch.rand(shape, generator=self.generator, device=self.device)

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers of that shape."""
        return torch.randn(shape, generator=self.generator, device=self.device)

    def number(self, low: float, high: float) -> float:
        """low ≤ x < high."""
        return float(low + (high - low) * torch.rand(1, generator=self._single))

    def integer(self, low: int, high: int) -> int:
        """low ≤ n < high."""
        return int(torch.randint(low, high, (1,), generator=self._single))

    def chance(self, probability: float) -> bool:
        """True in that share of the draws."""
        return self.number(0, 1) < probability

    def field(self, shape: tuple[int, int, int], control_points: int, channels: int = 1) -> Tensor:
        """Smooth unit-variance noise (channels, *shape): random control points, `control_points` along z, trilinear."""
        ratio = control_points / shape[0]
        control = [max(2, round(n * ratio)) for n in shape]
        coarse = self.normal(1, channels, *control)
        return F.interpolate(coarse, size=shape, mode="trilinear", align_corners=True)[0]
