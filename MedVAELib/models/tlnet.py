"""TL-embedding network (Girdhar et al. 2016): an autoencoder of volumes, and planes sent to its embedding."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..networks.across_processes import mean_over_processes
from ..networks.skull import PLANE_COUNT, PlaneSetEncoder, ShapeDecoder, VolumeEncoder
from .planes_to_skull import reconstruction_terms
from .registry import register


@dataclass(frozen=True)
class TLNetConfig:
    """features: per plane; width: channels of the finest feature maps; embedding: its size; overlap: weight of
    1 − Dice; agreement: weight of the planes' distance to the volume's embedding."""

    features: int = 96
    width: int = 24
    embedding: int = 48
    overlap: float = 1.0
    agreement: float = 1.0

    def __post_init__(self) -> None:
        if min(self.features, self.width, self.embedding) < 1 or min(self.overlap, self.agreement) < 0:
            raise ValueError("features, width and embedding must be positive, overlap and agreement not negative")


@register("tlnet")
class TLNet(nn.Module):
    """The network with its objective. It is deterministic: all samples are the same."""

    Config = TLNetConfig

    def __init__(self, config: TLNetConfig):
        super().__init__()
        self.config = config
        self.planes = PlaneSetEncoder(config.features, config.width)
        self.volume = VolumeEncoder(2 * config.features, config.width)
        self.from_volume = nn.Sequential(nn.SiLU(), nn.Linear(2 * config.features, config.embedding))
        self.from_planes = nn.Sequential(
            nn.SiLU(), nn.Linear(PLANE_COUNT * config.features, 256), nn.SiLU(), nn.Linear(256, config.embedding)
        )
        self.decoder = ShapeDecoder(config.embedding, config.width)

    def encode_planes(self, planes: Tensor, present: Tensor) -> Tensor:
        """planes: (B, 3, 96, 96) outline maps 0…1; present: (B, 3) bool. Returns features (B, 3, F)."""
        return self.planes(planes, present)

    def loss(
        self, planes: Tensor, present: Tensor, sdf: Tensor, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """loss = nll + overlap·(1 − Dice) of the autoencoder + agreement·½ log of the embeddings' mean square distance.

        planes (B, 3, 96, 96), present (B, 3) bool, sdf (B, 1, 48, 48, 48) in voxels of the 96³ grid. The volume's
        embedding is the target of the planes' one and is not drawn towards it, else both would shrink to a point;
        the logarithm makes the embedding's scale irrelevant. The generator is not used.
        """
        embedding = self.from_volume(self.volume(sdf)).float()
        guess = self.from_planes(self.encode_planes(planes, present).flatten(1)).float()
        terms = reconstruction_terms(self.decoder(embedding), sdf)
        distance = mean_over_processes((guess - embedding.detach()).square().mean())
        agreement = 0.5 * (distance + 1e-6).log()
        loss = terms["nll"] + self.config.overlap * terms["overlap"] + self.config.agreement * agreement
        return {"loss": loss, **terms, "distance": distance}

    def decode(self, code: Tensor, condition: Tensor) -> Tensor:
        """Embedding (B, Z) → signed distance (B, 1, 48, 48, 48); the planes are in the embedding."""
        return self.decoder(code)

    def draw(
        self, condition: Tensor, samples: int, generator: torch.Generator | None = None, temperature: float = 1.0
    ) -> Tensor:
        """The planes' embedding, `samples` times: (B·samples, embedding)."""
        return self.from_planes(condition.flatten(1)).repeat_interleave(samples, 0)

    def sample(
        self, condition: Tensor, samples: int, generator: torch.Generator | None = None, temperature: float = 1.0
    ) -> Tensor:
        """The one prediction, `samples` times: (B·samples, 1, 48, 48, 48), in voxels of the 96³ grid."""
        return self.decode(self.draw(condition, 1), condition).repeat_interleave(samples, 0)
