"""The outline model: where in an ultrasound plane the head lies, and how sure it is that there is one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..networks.across_processes import mean_over_processes, process_count
from ..networks.head_outline import HeadOutlineNet
from .registry import register


@dataclass(frozen=True)
class HeadOutlineConfig:
    """width: channels at half resolution; overlap, head: weights of 1 − Dice and of the head's cross-entropy."""

    width: int = 24
    overlap: float = 0.5
    head: float = 0.1

    def __post_init__(self) -> None:
        if self.width < 1 or min(self.overlap, self.head) < 0:
            raise ValueError("width must be positive, overlap and head not negative")


@register("head_outline")
class HeadOutline(HeadOutlineNet):
    """The network with its training objective."""

    Config = HeadOutlineConfig

    def __init__(self, config: HeadOutlineConfig):
        super().__init__(config.width)
        self.config = config

    def loss(
        self, image: Tensor, outline: Tensor, head: Tensor, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Cross-entropy per pixel + overlap·(1 − soft Dice) of the planes with a head + head·image-level cross-entropy.

        image: (B, 1, H, W) grey 0…1; outline: (B, 1, H, W), fraction of head; head: (B,), 1 for a head plane, 0 for
        anything else, whose outline is empty. The generator is not used.
        """
        logits = self(image)
        pixels = F.binary_cross_entropy_with_logits(logits.outline, outline)
        probability, axes = logits.outline.sigmoid(), (1, 2, 3)
        dice = (2 * (probability * outline).sum(axes) + 1) / (probability + outline).sum(axes).add(1)
        heads = mean_over_processes(head.sum()).clamp(min=1 / process_count())
        overlap = mean_over_processes(((1 - dice) * head).sum()) / heads
        sure = F.binary_cross_entropy_with_logits(logits.head, head)
        loss = pixels + self.config.overlap * overlap + self.config.head * sure
        return {"loss": loss, "pixels": pixels, "overlap": overlap, "head": sure}
