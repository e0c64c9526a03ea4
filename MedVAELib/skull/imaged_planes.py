"""Planes for training as `medvae skull` will see them: simulated images with the outlines that the network finds there.

Traced outlines err as a hand does; the network errs in its own ways, over shadows and at the skull's base. A shape
model trained on what the network finds can allow for that.
"""

from __future__ import annotations

import torch

from ..errors import InputError
from ..standard_planes import PLANES
from ..training.synthesis.heads import Head
from ..training.synthesis.planes import MAP_PX, Found, draw_image_pose
from ..training.synthesis.random import Draw
from ..training.synthesis.ultrasound import simulate_bmode
from .engine import OutlineEngine
from .outline import clean, letterbox

FILLED = (0.5, 0.8)
"""Occipitofrontal diameter over the width of an image, from wide to close."""
_PICTURE_PX = (MAP_PX * 3 // 4, MAP_PX)


class OutlineImager:
    """An `Imager` for PlaneCaseMaker."""

    def __init__(self, engine: OutlineEngine):
        self.engine = engine

    def __call__(self, draw: Draw, head: Head, misplacement: float) -> Found | None:
        images, pixels = [], []
        for plane in PLANES:
            pixel_mm = head.ofd_mm / (MAP_PX * draw.number(*FILLED))
            pose = draw_image_pose(draw, plane, head, misplacement)
            image, _ = simulate_bmode(draw, head, pose, _PICTURE_PX, pixel_mm)
            images.append(letterbox(image.cpu().numpy()))
            pixels.append(pixel_mm)
        probability, _ = self.engine.find(torch.stack(images))
        try:
            maps = torch.stack([clean(found, plane) for found, plane in zip(probability, PLANES, strict=True)])
        except InputError:
            return None
        device = head.sdf.device
        return maps.to(device), torch.tensor(pixels, device=device)
