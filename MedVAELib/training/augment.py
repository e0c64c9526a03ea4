"""Training images changed a little each time they are seen, so that few patients teach a model more than their own
shapes: mirrored, turned, shifted, scaled, and with another contrast."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray


@dataclass(frozen=True)
class Augmentation:
    """mirror: share of the images that are mirrored left to right (their last axis); rotate: up to so many degrees
    about each axis; shift: up to so many voxels along each; scale: up to so large a share larger or smaller, along each
    axis on its own; contrast: up to so large a gamma exponent below or above 1, as a share (0.25: from 0.8 to 1.25).
    All 0, the default: images as they are."""

    mirror: float = 0.0
    rotate: float = 0.0
    shift: float = 0.0
    scale: float = 0.0
    contrast: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.mirror <= 1 or not 0 <= self.scale < 1:
            raise ValueError("mirror must be a share from 0 to 1, scale one from 0 and below 1")
        if min(self.rotate, self.shift, self.contrast) < 0:
            raise ValueError("rotate, shift and contrast must not be negative")


Augment = Callable[[NDArray[np.float32], tuple[int, ...]], NDArray[np.float32]]
"""augment(images (B, 1, *shape), seed): as many images, changed; the same seed gives the same ones."""


def augmenter(settings: Augmentation, dimensions: int) -> Augment | None:
    """What changes images of 2 or 3 `dimensions` as the settings say, or None where they ask for nothing.

    Beyond an image's edge it goes on as at the edge; intensities stay within 0…1.
    """
    from monai.transforms import Compose, RandAdjustContrast, RandAffine, RandFlip

    steps: list = []
    if settings.mirror:
        steps.append(RandFlip(settings.mirror, spatial_axis=-1))
    if max(settings.rotate, settings.shift, settings.scale) > 0:
        angles = 3 if dimensions == 3 else 1
        steps.append(RandAffine(1.0, [np.radians(settings.rotate)] * angles, None, [settings.shift] * dimensions,
                                [settings.scale] * dimensions, mode="bilinear", padding_mode="border"))
    if settings.contrast:
        steps.append(RandAdjustContrast(1.0, (1 / (1 + settings.contrast), 1 + settings.contrast)))
    if not steps:
        return None
    change = Compose(steps)

    def augment(images: NDArray[np.float32], seed: tuple[int, ...]) -> NDArray[np.float32]:
        change.set_random_state(seed=int(np.random.SeedSequence(seed).generate_state(1)[0]))
        changed = [change(torch.from_numpy(np.array(image))) for image in images]
        return torch.stack([torch.as_tensor(image) for image in changed]).clamp(0, 1).numpy()

    return augment
