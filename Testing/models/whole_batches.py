"""Losses and gradients of one batch for every model, in one process or shared by several.

    torchrun --nproc-per-node 2 -m Testing.models.whole_batches FILE    writes what the processes get together
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from torch import Tensor

from MedVAELib.__main__ import leave
from MedVAELib.models import build_model
from MedVAELib.networks.across_processes import shared_batch, with_synced_norms
from MedVAELib.training.processes import Processes, SharedNoise, joined

from .blobs import SHAPES, SMALL, blobs

_ROWS = 4


def skull_batch() -> list[Tensor]:
    """Without a coronal plane in the first half of the rows, and unequally many sagittal ones."""
    random = torch.Generator().manual_seed(1)
    present = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 1, 1], [1, 0, 1]], dtype=torch.bool)
    return [torch.rand((_ROWS, 3, 96, 96), generator=random), present,
            4 * torch.randn((_ROWS, 1, 48, 48, 48), generator=random)]


def outline_batch() -> list[Tensor]:
    """One head alone in the first half, two in the second."""
    random = torch.Generator().manual_seed(1)
    head = torch.tensor([0.0, 1.0, 1.0, 1.0])
    outline = (torch.rand((_ROWS, 1, 64, 64), generator=random) > 0.6) * head[:, None, None, None]
    return [torch.rand((_ROWS, 1, 64, 64), generator=random), outline, head]


def anatomy_batch() -> list[Tensor]:
    """Half of the voxels of the first rows do not count."""
    random = torch.Generator().manual_seed(1)
    target = torch.rand((_ROWS, 9, 32, 32, 32), generator=random).softmax(1)
    target[:2, :, :16] = 0
    return [torch.rand((_ROWS, 1, 32, 32, 32), generator=random), target]


def image_batch() -> list[Tensor]:
    """Unlike one another: means over half of the rows are others than those over all."""
    return [blobs(_ROWS, SHAPES["2d"], 1)]


_IMAGES = {**SMALL, "shape": list(SHAPES["2d"])}
_PAID = {**_IMAGES, "warmup": 0, "free_bits": 0.1, "beta": 10.0}  # some latents of a new model have less, some more

MODELS: dict[str, tuple[dict[str, object], Callable[[], list[Tensor]]]] = {
    "hcvae": ({"width": 4, "free_nats": 0.5}, skull_batch), "cvae": ({"width": 4}, skull_batch),
    "tlnet": ({"width": 4}, skull_batch), "cgan": ({"width": 4}, skull_batch),
    "head_outline": ({"width": 4}, outline_batch), "healthy_anatomy": ({"width": 4}, anatomy_batch),
    "ae": (_IMAGES, image_batch), "vae": (_PAID, image_batch), "svae": (_PAID, image_batch),
    "cevae": (_PAID, image_batch), "lvae": ({**_PAID, "hidden": 16}, image_batch),
    "introvae": ({**_PAID, "adversarial": 0.5}, image_batch),
    "vqvae": ({**_IMAGES, "codes": 16, "prior_width": 16, "prior_depth": 1}, image_batch),
}


def computed(name: str) -> dict[str, Tensor]:
    """The loss and its terms, every gradient and every buffer afterwards; the same in all processes."""
    processes = Processes.current()
    settings, make = MODELS[name]
    torch.manual_seed(0)
    model = with_synced_norms(build_model(name, settings)).train()
    noise, batch = torch.Generator().manual_seed(2), [processes.share(part) for part in make()]
    with shared_batch():
        with SharedNoise(processes, noise, len(batch[0])):
            terms = model.loss(*batch, noise)
        terms["loss"].backward()
    found = {key: value.detach() for key, value in terms.items()}
    found |= {key: value for key, value in model.named_buffers() if value.dtype.is_floating_point}
    found |= {f"gradient of {key}": value.grad for key, value in model.named_parameters() if value.grad is not None}
    processes.average(found.values())
    return found


if __name__ == "__main__":
    with joined("cpu") as (_, first):
        result = {name: computed(name) for name in MODELS}
        if first:
            torch.save(result, sys.argv[1])
    leave(0)
