"""White matter that is bright in healthy FLAIR and DWI scans: ventricular rim, horn caps, corticospinal tract.

A detector that never saw them calls them lesions. Positions in MNI space; strengths against white matter = 1, read
off healthy scans and widened.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ...tissues import BRAINSTEM, VENTRICLES, WHITE
from .random import Draw

# Centre line of the corticospinal tract (z, y, |x| in MNI mm), from the pons through the peduncle, the posterior limb
# of the internal capsule and the corona radiata to the white matter below the hand knob.
_TRACT_MM = ((-32, -22, 6), (-14, -17, 15), (6, -17, 23), (24, -20, 25), (40, -22, 24), (56, -26, 29))


def brighten(draw: Draw, image: Tensor, target: Tensor, mni_mm: Tensor, spacing_mm: float) -> Tensor:
    """image (D, H, W) with white matter near 1, brightened where healthy white matter can be bright.

    target: (K, D, H, W) tissue fractions; mni_mm: (D, H, W, zyx). Each structure is drawn or left out by itself.
    """
    gain = torch.zeros_like(image)
    if draw.chance(0.7):
        gain = gain + draw.number(0, 0.8) * _uneven(draw, image) * _around(target[VENTRICLES], draw.integer(1, 3), 3)
    if draw.chance(0.4):  # the wide, faint glow of ageing
        gain = gain + draw.number(0, 0.3) * _around(target[VENTRICLES], 2, 2 * round(5 / spacing_mm) + 1)
    if draw.chance(0.6):
        gain = gain + _caps(draw, target[VENTRICLES], mni_mm)
    if draw.chance(0.6):
        gain = gain + draw.number(0, 0.3) * _tract(draw, mni_mm)
    return image * (1 + gain * (target[WHITE] + target[BRAINSTEM]))


def _uneven(draw: Draw, image: Tensor) -> Tensor:
    return (0.6 + 0.8 * draw.field(tuple(image.shape), 6)[0]).clamp(0, 2)


def _around(fraction: Tensor, rounds: int, width: int) -> Tensor:
    rim = fraction[None, None]
    for _ in range(rounds):
        rim = F.avg_pool3d(rim, width, 1, width // 2)
    return rim[0, 0]


def _caps(draw: Draw, ventricles: Tensor, mni_mm: Tensor) -> Tensor:
    """A soft ball at the foremost and hindmost point of each lateral ventricle."""
    caps = torch.zeros_like(ventricles)
    front, back = draw.number(0, 0.6), draw.number(0, 0.6)
    z, y, x = mni_mm.unbind(-1)
    for side in (-1, 1):
        lateral = torch.nonzero((ventricles > 0.5) & (side * x > 3) & (z > -8) & (z < 32))
        if len(lateral) < 20:
            continue
        along = y[tuple(lateral.T)]
        for strength, tip in ((front, along > along.max() - 4), (back, along < along.min() + 4)):
            centre = mni_mm[tuple(lateral[tip].T)].mean(0)
            distance = (mni_mm - centre).square().sum(-1)
            caps = caps + strength * torch.exp(-distance / (2 * draw.number(3.0, 7.0) ** 2))
    return caps


def _tract(draw: Draw, mni_mm: Tensor) -> Tensor:
    """1 on the centre line of both corticospinal tracts, falling off over a few millimetres."""
    z, y, x = mni_mm.unbind(-1)
    nodes = torch.tensor(_TRACT_MM, dtype=z.dtype, device=z.device)
    heights = nodes[:, 0].contiguous()
    upper = torch.bucketize(z.contiguous(), heights).clamp(1, len(nodes) - 1)
    t = ((z - heights[upper - 1]) / (heights[upper] - heights[upper - 1])).clamp(0, 1)[..., None]
    centre = nodes[upper - 1, 1:] * (1 - t) + nodes[upper, 1:] * t + 2.0 * draw.normal(2)
    radius = draw.number(2.5, 5.0)
    distance = (y - centre[..., 0]).square() + (x.abs() - centre[..., 1]).square()
    ends = torch.sigmoid((z - heights[0]) / 4) * torch.sigmoid((heights[-1] - z) / 4)
    return torch.exp(-distance / (2 * radius**2)) * ends
