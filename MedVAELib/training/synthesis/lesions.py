"""Lesions for the input of a synthetic scan: real masks, blobs and tumours. The target never sees them."""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from .anatomy import LESION_SPACING_MM, LesionMask
from .random import Draw

# Centre (zyx, RAS mm) and size (mm) of the brain's bounding box in MNI space, measured on the mean of the
# label maps; maps a head's own brain box onto the space in which the lesion masks were drawn.
MNI_BRAIN_CENTRE = (5.0, -17.0, 0.0)
MNI_BRAIN_SIZE = (148.0, 178.0, 140.0)


class LesionConfig(Protocol):
    """What `add_lesions` reads of a synthesis config: shares of bright lesions, of scans with a real mask, of scans
    with blobs, and the voxel size."""

    bright: float
    real_masks: float
    blobs: float
    spacing_mm: float


def real_lesion(mask: LesionMask, mni_mm: Tensor) -> Tensor:
    """Fraction (D, H, W) of a real lesion at the MNI positions (D, H, W, zyx mm) of the voxels."""
    fraction = mask.fraction.to(mni_mm.device, torch.float32)[None, None] / 255
    size = torch.tensor(fraction.shape[2:], device=mni_mm.device)
    index = (mni_mm - torch.tensor(mask.origin_mm, device=mni_mm.device)) / LESION_SPACING_MM
    grid = (2 * index / (size - 1) - 1).flip(-1)[None]
    return F.grid_sample(fraction, grid, align_corners=True)[0, 0]


def blob(draw: Draw, centre: Tensor, radius: float, shape: tuple[int, int, int]) -> Tensor:
    """Fraction (D, H, W) of an irregular ellipsoid; centre and radius in voxels."""
    axes = [torch.arange(n, device=draw.device, dtype=torch.float32) for n in shape]
    stretch = draw.uniform(0.6, 1.6, 3)
    z, y, x = [((axis - centre[i]) * stretch[i]) ** 2 for i, axis in enumerate(axes)]
    distance = (z[:, None, None] + y[None, :, None] + x[None, None, :]).sqrt()
    if radius > 3:
        distance = distance * (1 + 0.25 * draw.field(shape, 12)[0])
    return torch.sigmoid((radius - distance) * draw.number(1.0, 4.0))


def add_lesions(
    draw: Draw, image: Tensor, brain: Tensor, mni_mm: Tensor, masks: list[LesionMask], brightness: tuple[float, float],
    tumour: tuple[Tensor, float] | None, config: LesionConfig,
) -> tuple[Tensor, Tensor]:
    """Pastes lesions into an image (D, H, W) with white matter at 1.

    brain: fraction of brain tissue (no CSF); brightness: range of bright lesions against white matter;
    tumour: centre and radius (voxels) at which the anatomy was already pushed aside. Returns the image with
    lesions and the lesions' fraction.
    """
    shape = tuple(image.shape)
    total = torch.zeros_like(image)
    where = torch.nonzero(brain > 0.5)

    def paste(image: Tensor, alpha: Tensor) -> Tensor:
        bright = draw.chance(config.bright)
        value = draw.number(*brightness) if bright else draw.number(0.05, 0.85)
        texture = value * (1 + draw.number(0, 0.2) * draw.field(shape, draw.integer(8, 24))[0])
        total.copy_(torch.maximum(total, alpha))
        return image * (1 - alpha) + alpha * texture

    if masks and draw.chance(config.real_masks):
        mask = masks[draw.integer(0, len(masks))]
        image = paste(image, real_lesion(mask, mni_mm) * brain * draw.number(0.6, 1.0))
    if tumour is not None:
        centre, radius = tumour
        image = paste(image, blob(draw, centre, radius, shape) * brain)
        if draw.chance(0.5):
            image = paste(image, blob(draw, centre, radius * draw.number(0.3, 0.6), shape) * brain)
    if len(where) and draw.chance(config.blobs):
        for _ in range(draw.integer(1, 9)):
            centre = where[draw.integer(0, len(where))].float()
            radius = (1.2 + 12.0 * draw.number(0, 1) ** 3) / config.spacing_mm
            image = paste(image, blob(draw, centre, radius, shape) * brain * draw.number(0.6, 1.0))
    return image, total
