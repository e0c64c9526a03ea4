"""Networks between standard planes of a fetal head and the signed distance of its skull.

Full-resolution maps dominate the cost on a CPU, so pixels and voxels are folded into channels before the first
convolution and unfolded after the last. The signed distance of a smooth shape needs no fine grid: its error by
trilinear interpolation is h²/8R, 0.1 mm for voxels of 5 mm and a head of 40 mm radius.
Shapes are (batch, channel, y, x) and (batch, channel, z, y, x).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .across_processes import process_count
from .healthy_anatomy import UpsampleConv, conv_block, fold, unfold
from .limits import within

PLANE_COUNT = 3
PLANE_SIZE = 96
VOLUME_SIZE = 48
SDF_RANGE = 8.0
"""Signed distances matter up to this many voxels of the 96³ grid from the surface; beyond they are clipped."""

# Semi-axes (z, y, x) of the ellipsoid that the decoder starts from, in voxels of the 96³ grid: the occipitofrontal
# diameter spans 96 / 1.30 voxels, the others have a head's usual proportion to it.
_START_AXES = (31.0, 37.0, 30.0)
_HIDDEN = 128  # features between those of the planes and a Gaussian


def _start_shape() -> Tensor:
    """(1, 1, 48, 48, 48): approximate signed distance of the starting ellipsoid, positive inside."""
    step = PLANE_SIZE / VOLUME_SIZE
    centre = (torch.arange(VOLUME_SIZE) - (VOLUME_SIZE - 1) / 2) * step
    axes = [centre.view([-1 if i == k else 1 for i in range(3)]) / _START_AXES[k] for k in range(3)]
    radius = (axes[0] ** 2 + axes[1] ** 2 + axes[2] ** 2).sqrt()
    return ((1 - radius) * min(_START_AXES))[None, None].clamp(-SDF_RANGE, SDF_RANGE)


class PlaneEncoder(nn.Module):
    """Outline map (B, 1, 96, 96), fraction of head 0…1 → features (B, F)."""

    def __init__(self, features: int, width: int):
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.PixelUnshuffle(4), _conv_2d(16, width), _conv_2d(width, 2 * width, 2), _conv_2d(2 * width, 2 * width, 2)
        )
        self.project = nn.Linear(2 * width * 36, features)

    def forward(self, plane: Tensor) -> Tensor:
        unshuffle, *convolutions = self.convolutions
        # Torch hands on empty batches as they are, with their own shape.
        features = unshuffle(2 * plane - 1) if len(plane) else plane.new_zeros((0, 16, 24, 24))
        for convolution in convolutions:
            features = convolution(features)
        return self.project(features.flatten(1))


def _conv_2d(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), nn.BatchNorm2d(outputs), nn.SiLU())


class PlaneSetEncoder(nn.Module):
    """One encoder per plane; a plane that is absent is a learned token, whatever its pixels hold."""

    def __init__(self, features: int, width: int):
        super().__init__()
        self.encoders = nn.ModuleList(PlaneEncoder(features, width) for _ in range(PLANE_COUNT))
        self.absent = nn.Parameter(0.1 * torch.randn(PLANE_COUNT, features))

    def forward(self, planes: Tensor, present: Tensor) -> Tensor:
        """planes (B, 3, 96, 96), present (B, 3) bool → (B, 3, F). Absent planes do not even enter the batch norm.

        An encoder without rows is left out, unless other processes have some for theirs and wait in its batch norm."""
        columns = []
        for index, encoder in enumerate(self.encoders):
            there = present[:, index].nonzero()[:, 0]
            column = self.absent[index].float().expand(len(planes), -1)
            if len(there) or process_count() > 1:
                column = column.index_copy(0, there, encoder(planes[there, index : index + 1]).float())
            columns.append(column)
        return torch.stack(columns, 1)


class VolumeEncoder(nn.Module):
    """Signed distance (B, 1, 48, 48, 48) in voxels of the 96³ grid → features (B, F)."""

    def __init__(self, features: int, width: int):
        super().__init__()
        self.convolutions = nn.Sequential(
            conv_block(64, width), conv_block(width, 2 * width, 2), conv_block(2 * width, 2 * width, 2)
        )
        self.project = nn.Linear(2 * width * 27, features)

    def forward(self, sdf: Tensor) -> Tensor:
        folded = fold(fold(sdf.clamp(-SDF_RANGE, SDF_RANGE) / SDF_RANGE))  # (B, 64, 12, 12, 12)
        return self.project(self.convolutions(folded).flatten(1))


class ShapeDecoder(nn.Module):
    """Vector (B, I) → signed distance (B, 1, 48, 48, 48) in voxels of the 96³ grid, > 0 inside.

    The last layer adds to a learned mean shape, which starts as an ellipsoid.
    """

    def __init__(self, inputs: int, width: int):
        super().__init__()
        self.coarse = width
        self.expand = nn.Sequential(nn.Linear(inputs, 256), nn.SiLU(), nn.Linear(256, width * 216))
        self.grow = nn.Sequential(
            conv_block(width, 3 * width),
            UpsampleConv(3 * width, 2 * width), nn.BatchNorm3d(2 * width), nn.SiLU(),
            UpsampleConv(2 * width, width), nn.BatchNorm3d(width), nn.SiLU(),
            nn.Conv3d(width, 8, 1),
        )
        nn.init.normal_(self.grow[-1].weight, std=0.01)
        self.mean_shape = nn.Parameter(_start_shape())

    def forward(self, code: Tensor) -> Tensor:
        coarse = self.expand(code).view(-1, self.coarse, 6, 6, 6)
        return self.mean_shape + unfold(self.grow(coarse)).float() * SDF_RANGE


class GaussianHead(nn.Module):
    """Features (B, I) → mean and log-variance (B, Z) of a diagonal Gaussian, the latter clamped."""

    LOG_VARIANCE = (-10.0, 6.0)

    def __init__(self, inputs: int, latent: int):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(inputs, _HIDDEN), nn.SiLU(), nn.Linear(_HIDDEN, 2 * latent))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.layers(features).float().chunk(2, -1)
        return mean, within(log_variance, *self.LOG_VARIANCE)


class CorrelatedHead(nn.Module):
    """Features (B, I) → mean (B, Z) and lower-triangular factor L (B, Z, Z) of a Gaussian with covariance L·Lᵀ.

    What planes leave open is one thing, such as the head's height, that many latents tell of at once: independent ones
    would understate it.
    """

    LOG_SCALE = (-5.0, 3.0)

    def __init__(self, inputs: int, latent: int):
        super().__init__()
        self.latent = latent
        below = latent * (latent - 1) // 2
        self.layers = nn.Sequential(nn.Linear(inputs, _HIDDEN), nn.SiLU(), nn.Linear(_HIDDEN, 2 * latent + below))
        self.register_buffer("below", torch.tril_indices(latent, latent, -1), persistent=False)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_scale, below = self.layers(features).float().tensor_split([self.latent, 2 * self.latent], -1)
        factor = torch.diag_embed(log_scale.clamp(*self.LOG_SCALE).exp())
        factor[:, self.below[0], self.below[1]] = below
        return mean, factor


class ShapeCritic(nn.Module):
    """Signed distance (B, 1, 48, 48, 48) and condition (B, C) → realism logit (B, 1); no batch norm, as real and
    predicted shapes come in separate batches."""

    def __init__(self, condition: int, width: int):
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv3d(64, width, 3, 1, 1), nn.LeakyReLU(0.2), nn.Conv3d(width, 2 * width, 3, 2, 1), nn.LeakyReLU(0.2),
            nn.Conv3d(2 * width, 2 * width, 3, 2, 1), nn.LeakyReLU(0.2),
        )
        self.judge = nn.Sequential(nn.Linear(2 * width * 27 + condition, 128), nn.LeakyReLU(0.2), nn.Linear(128, 1))

    def forward(self, sdf: Tensor, condition: Tensor) -> Tensor:
        folded = fold(fold(sdf.clamp(-SDF_RANGE, SDF_RANGE) / SDF_RANGE))
        return self.judge(torch.cat([self.convolutions(folded).flatten(1), condition], 1))
