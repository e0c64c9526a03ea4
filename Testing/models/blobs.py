"""Small images for the autoencoders: a bright blob whose place and size differ from image to image."""

from __future__ import annotations

import torch

SHAPES = {"2d": (16, 24), "3d": (16, 8, 16)}
SMALL = {"levels": 2, "width": 8, "bottom": 16, "latent": 4}


def blobs(count: int, shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    """(count, 1, *shape) in 0…1."""
    generator = torch.Generator().manual_seed(seed)
    distance = torch.zeros(count, *shape)
    for axis, side in enumerate(shape):
        centre = 0.3 + 0.4 * torch.rand(count, generator=generator)
        place = (torch.arange(side) + 0.5) / side
        offset = (place - centre[:, None]).view(count, *(side if a == axis else 1 for a in range(len(shape))))
        distance = distance + offset.square()
    size = 0.15 + 0.15 * torch.rand(count, generator=generator).view(-1, *[1] * len(shape))
    return torch.exp(-distance / size.square())[:, None]
