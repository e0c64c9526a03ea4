"""Codebook of a VQ-VAE and an autoregressive prior over its codes.

MONAI's quantiser learns the codebook by moving averages but never revives a code that fell out of use, and starts
with averages that do not belong to its codes. Its transformer needs one more package, so torch's own layers are used.
"""

from __future__ import annotations

import torch
from monai.networks.layers.vector_quantizer import EMAQuantizer
from torch import Tensor, nn

from .across_processes import gathered


class RevivingQuantizer(EMAQuantizer):
    """`codes` vectors of `size` channels. A code is dead when fewer than `dead` places per batch use it on average."""

    def __init__(self, dimensions: int, codes: int, size: int, decay: float, commitment: float, dead: float):
        super().__init__(dimensions, codes, size, commitment_cost=commitment, decay=decay)
        self.dead = dead
        self.ema_cluster_size.fill_(1.0)  # what `ema_w` holds is then the sum over as many vectors as this says

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Vectors (B, C, *small) → nearest codes (straight-through), commitment loss (mean square), indices."""
        # Distances between codes vanish in bf16, and MONAI switches autocast off on CUDA alone.
        with torch.autocast(inputs.device.type, enabled=False):
            return super().forward(inputs.float())

    @torch.no_grad()
    def revive(self, inputs: Tensor, generator: torch.Generator | None = None, everything: bool = False) -> Tensor:
        """Puts dead codes (or all) where vectors of this batch are, chosen at random. Returns how many were dead."""
        dead = self.ema_cluster_size < self.dead
        if everything:
            dead = torch.ones_like(dead)
        vectors = gathered(inputs.detach().float()).movedim(1, -1).reshape(-1, self.embedding_dim)
        where = generator.device if generator else vectors.device
        chosen = torch.randint(len(vectors), (self.num_embeddings,), generator=generator, device=where)
        replaced = torch.where(dead[:, None], vectors[chosen.to(vectors.device)], self.embedding.weight)
        self.embedding.weight.copy_(replaced)
        # A full share of the batch, so that a revived code does not count as dead again at once.
        share = max(2 * self.dead, len(vectors) / self.num_embeddings)
        self.ema_cluster_size.copy_(torch.where(dead, share, self.ema_cluster_size))
        self.ema_w.copy_(torch.where(dead[:, None], replaced * share, self.ema_w))
        return dead.sum()


class CodePrior(nn.Module):
    """p(codes) = Π p(codeᵢ | codes before it), a small transformer over the places of the bottom in C order."""

    def __init__(self, codes: int, places: int, width: int, depth: int):
        super().__init__()
        self.start = codes  # the token before the first place
        self.code = nn.Embedding(codes + 1, width)
        self.place = nn.Parameter(0.02 * torch.randn(places, width))
        layer = nn.TransformerEncoderLayer(
            width, max(1, width // 32), 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, depth, nn.LayerNorm(width), enable_nested_tensor=False)
        self.to_logits = nn.Linear(width, codes)

    def forward(self, indices: Tensor) -> Tensor:
        """Codes (B, n) → logits (B, n, codes) of each given those before it."""
        count = indices.shape[1]
        before = torch.cat([torch.full_like(indices[:, :1], self.start), indices[:, :-1]], 1)
        future = torch.ones(count, count, dtype=torch.bool, device=indices.device).triu(1)
        features = self.layers(self.code(before) + self.place[:count], mask=future, is_causal=True)
        return self.to_logits(features).float()
