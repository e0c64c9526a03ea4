"""Training data for the healthy-anatomy model: synthetic scans by number, made in the background or on the GPU."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from ..progress import CancelToken
from .processes import from_background, heard_alone
from .synthesis.anatomy import label_map_files, lesion_mask_files, read_anatomy, read_lesion_masks
from .synthesis.brains import BrainSynthesiser, SynthesisConfig

LoadSynthesiser = Callable[..., BrainSynthesiser]
"""`load_synthesiser` with everything but its device: load(device=…), also in another process."""
FRACTION_STEPS = 4  # tissue fractions come from four points per voxel: uint8 counts lose nothing


def load_synthesiser(label_maps: Path, lesion_masks: Path | None, config: SynthesisConfig, device="cpu",
                     names: list[str] | None = None) -> BrainSynthesiser:
    """Reads label maps (all, or those named) and lesion masks. Raises InputError where there are none."""
    files = label_map_files(label_maps, names)
    masks = read_lesion_masks(lesion_mask_files(Path(lesion_masks))) if lesion_masks else []
    return BrainSynthesiser([read_anatomy(file) for file in files], masks, config, device)


class SyntheticBatches(IterableDataset):
    """Batches start, start + 1, … as (image float16 (B, 1, …), target uint8 counts (B, K, …))."""

    def __init__(self, load: LoadSynthesiser, device: torch.device, batch: int, start: int, seed: int):
        self.load, self.device, self.batch, self.start, self.seed = load, device, batch, start, seed

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        info = get_worker_info()
        first, stride = (info.id, info.num_workers) if info else (0, 1)
        synthesise = self.load(device=self.device)
        number = self.start + first
        try:
            while True:
                packed = make_batch(synthesise, self.seed, number, self.batch)
                yield tuple(tensor.cpu() for tensor in packed) if info else packed
                number += stride
        except GeneratorExit:
            if info and self.device.type == "cuda":
                os._exit(0)  # tidying up while the GPU is at work aborts the process, and says so
            raise


def make_batch(synthesise: BrainSynthesiser, seed: int, number: int, batch: int) -> tuple[Tensor, Tensor]:
    """Batch `number` of the endless stream `seed`: the same whoever makes it."""
    scans = [synthesise(seed * 1_000_003 + number * batch + i) for i in range(batch)]
    image = torch.stack([scan.image for scan in scans])
    target = torch.stack([scan.target for scan in scans])
    return image.half(), (target * FRACTION_STEPS).round().to(torch.uint8)


def stream(
    load: LoadSynthesiser, device: torch.device, batch: int, seed: int, start: int, workers: int,
    cancel: CancelToken | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """(image float32, target fractions float32) on `device`, where the scans are made, in order. workers: background
    processes, or 0. cancel: also ends the waiting for a batch, by Cancelled, where one process trains."""
    method = "spawn" if device.type == "cuda" else None  # a GPU in use cannot be taken into a forked process
    batches = SyntheticBatches(load, device, batch, start, seed)
    for image, target in from_background(batches, workers, heard_alone(cancel).check, start_method=method):
        yield image.to(device).float(), target.to(device).float() / FRACTION_STEPS
