"""What to do when memory runs out: the ladder of ever more modest ways to compute the same."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

MAX_BATCH = 16
"""Posterior samples decoded at once at most: beyond that, devices gain nothing."""


@dataclass(frozen=True)
class Rung:
    """One way to compute: device, number format, and how many posterior samples are decoded at once (0: not yet
    decided)."""

    device: torch.device
    precision: torch.dtype
    batch: int

    def __str__(self) -> str:
        precision = str(self.precision).removeprefix("torch.")
        samples = f", {self.batch} sample{'s' if self.batch > 1 else ''} at once" if self.batch else ""
        return f"{self.device} in {precision}{samples}"


LAST_RUNG = Rung(torch.device("cpu"), torch.float32, 0)


def next_rung(rung: Rung, half_precision: torch.dtype | None, batched: bool = True) -> Rung | None:
    """The next more modest way, or None at the end: half the batch (down to 1), half precision, then the CPU.

    half_precision: the device's fast half format, or None. batched: whether a smaller batch would help (it does
    not while encoding). Tiles are not a step: the network's global latent, and zero padding at each tile's border,
    would make a tiled scan give other numbers than a whole one.
    """
    if batched and rung.batch > 1:
        return replace(rung, batch=rung.batch // 2)
    if rung.device.type != "cpu":
        if rung.precision is torch.float32 and half_precision is not None:
            return replace(rung, precision=half_precision)
        return LAST_RUNG
    return None


def samples_at_once(device: torch.device, classes: int, voxels: int, threads: int = 1) -> int:
    """How many posterior samples to decode together: what keeps the device busy without needing much memory.

    On the CPU the feature maps of one 80×96×80 sample already exceed the caches, and two on each of torch's threads,
    which share what is done at the deepest levels, are fastest (they also let a cancellation through within a second);
    smaller grids gain from a few more. On a GPU up to 16, within a quarter of the memory that is free; on CUDA a power
    of two, so that a little more or less of it leaves the batches, and a graph captured for them, as they are.
    """
    if device.type == "cpu":
        return min(MAX_BATCH, threads * max(2, 600_000 // max(voxels, 1)))
    per_sample = 12 * classes * voxels * 4  # logits, probabilities and feature maps, rounded up
    if device.type != "cuda":
        return max(1, min(MAX_BATCH, (4 << 30) // 4 // max(per_sample, 1)))
    # What torch holds without using it is free for us, too.
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    fit = (torch.cuda.mem_get_info(device)[0] + cached) // 4 // max(per_sample, 1)
    return 1 << (max(1, min(MAX_BATCH, fit)).bit_length() - 1)
