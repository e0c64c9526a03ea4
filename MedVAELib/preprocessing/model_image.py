"""Brain, mean over blocks of voxels, brightness between 0 and 1: the last steps before a model of whole brains.

One function for scans and for synthetic images, so that both look alike to the model.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CLIP_QUANTILE = 0.995


def model_image(values_zyx: NDArray[np.float32], brain_zyx: NDArray[np.bool_], factor: int) -> NDArray[np.float32]:
    """(D, H, W) in any unit of brightness, 0 being black → (D/f, H/f, W/f) in 0…1.

    Outside the brain 0; mean over factor³ voxels; clipped at the 99.5th percentile of what is brain then; scaled to
    0…1. An image without anything bright stays 0. Raises ValueError where the sides are no multiples of the factor.
    """
    if any(n % factor for n in values_zyx.shape):
        raise ValueError(f"the sides of {values_zyx.shape} are no multiples of {factor}")
    inside = block_means(brain_zyx.astype(np.float32), factor)
    masked = block_means(np.where(brain_zyx, np.maximum(values_zyx, 0), 0).astype(np.float32), factor)
    within = masked[inside > 0.5]
    top = float(np.quantile(within, CLIP_QUANTILE)) if within.size else 0.0
    if not top > 0:
        return np.zeros_like(masked)
    return np.minimum(masked / np.float32(top), 1)


def block_means(values_zyx: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    """The mean of each cube of factor³ voxels."""
    d, h, w = (n // factor for n in values_zyx.shape)
    return values_zyx.reshape(d, factor, h, factor, w, factor).mean((1, 3, 5), dtype=np.float32)
