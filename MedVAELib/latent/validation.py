"""What a run on images is measured by: losses of held-back images, how many latents are in use, pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..models.autoencoder import ImageAutoencoder
from ..training.image_pictures import grid, sample_rows, save_grey
from ..training.pictures import draw_curves
from ..training.run import tensorboard
from .statistics import LatentMoments, LatentStatistics, latent_statistics

CURVES = (("loss",), ("mse",), ("kl",), ("active_units",), ("kl_fake",), ("perplexity",))
"""Panels of curves.png, with the names in each."""
_AT_ONCE = 16
_MOST = 512  # validation images that are looked at every time
_SHOWN, _DRAWN = 8, 16
_SEED = 99
_LISTED = 32  # latents whose divergence is logged one by one
_WARM = 2**40


@dataclass(frozen=True, eq=False)
class Measured:
    """values: see `ImageValidation.measure`; kl: mean per latent in nats, (Z,), or None."""

    values: dict[str, float]
    kl: NDArray[np.float32] | None


class ImageValidation:
    """Measures a model of its own on held-back images (N, 1, *shape) in 0…1, and draws what it makes of them into the
    folder `output`.

    precision: the number format to compute in, as a context: the training's. Raises OSError where that folder cannot
    be written.
    """

    def __init__(self, model: ImageAutoencoder, images: NDArray[np.float32], output: Path,
                 precision: Callable[[], AbstractContextManager]):
        self.model, self.output, self.precision = model.eval(), output, precision
        self.images = images[evenly_chosen(len(images), _MOST)]
        self.device = next(model.parameters()).device

    def __call__(self, state: dict[str, Tensor], step: int) -> dict[str, float]:
        """The validation of the trainer: measures, and writes curves, pictures and TensorBoard events."""
        self.load(state)
        measured = self.measure(self.images)
        self.settle(self.images)  # the bundle's samples are drawn so, too
        pictures = self.draw()
        distributions = {} if measured.kl is None else {"kl per latent": measured.kl}
        tensorboard(self.output, step, measured.values, pictures, distributions)
        draw_curves(self.output, *CURVES)
        return measured.values

    def load(self, state: dict[str, Tensor]) -> None:
        """Takes the weights over, by name, as they are judged."""
        self.model.load_state_dict(state)
        # Judged as after the warm-up at every step: a bound that is weighted ever more rises without getting worse.
        self.model.updates.fill_(_WARM)

    @torch.inference_mode()
    def measure(self, images: NDArray[np.float32]) -> Measured:
        """The loss's terms, the mean over the images; "mse" of reconstructions from the posterior's mean; of
        variational models "active_units" and "kl[i]" of the first latents, in nats."""
        generator = torch.Generator(self.device).manual_seed(_SEED)
        sums: dict[str, float] = {}
        for batch in self._batches(images):
            with self.precision():
                terms = self.model.loss(batch, generator)
                terms["mse"] = (self.model.reconstruct(batch).float() - batch).square().mean()
            for name, value in terms.items():
                sums[name] = sums.get(name, 0.0) + float(value) * len(batch) / len(images)
        means, kl = self.encode(images)
        if kl is None:
            return Measured(sums, None)
        per_latent = kl.reshape(len(kl), -1).mean(0)
        active = LatentMoments.of(means.reshape(len(means), -1)).active
        listed = {f"kl[{i}]": float(value) for i, value in enumerate(per_latent[:_LISTED])}
        return Measured(sums | {"active_units": float(active.sum())} | listed, per_latent)

    @torch.inference_mode()
    def encode(self, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Posterior means (N, *latent_shape), and divergences of that shape in nats or None."""
        means, kl = [], []
        for batch in self._batches(images):
            with self.precision():
                means.append(self.model.encode(batch)[0].float().cpu().numpy())
                divergence = self.model.kl_per_latent(batch)
            if divergence is not None:
                kl.append(divergence.float().cpu().numpy())
        return np.concatenate(means), np.concatenate(kl) if kl else None

    def settle(self, images: NDArray[np.float32]) -> None:
        """See `ImageAutoencoder.settle`."""
        self.model.settle(self._batches(images))

    def statistics(self, images: NDArray[np.float32], labels: Sequence[str]) -> LatentStatistics:
        """Of the latents of images (N, 1, *shape); labels: N of them, "" for none."""
        return latent_statistics(*self.encode(images), labels)

    @torch.inference_mode()
    def draw(self) -> dict[str, NDArray[np.float32]]:
        """Writes reconstructions.png and samples.png; returns them, (H, W) in 0…1."""
        shown = self.images[evenly_chosen(len(self.images), _SHOWN)]
        with self.precision():
            made = self.model.reconstruct(torch.from_numpy(shown).to(self.device)).float().cpu().numpy()
            drawn = self.model.sample(_DRAWN, torch.Generator().manual_seed(_SEED)).float().cpu().numpy()
        pictures = {"reconstructions": grid([shown, made]), "samples": grid(sample_rows(drawn))}
        for name, picture in pictures.items():
            save_grey(picture, self.output / f"{name}.png")
        return pictures

    def _batches(self, images: NDArray[np.float32]):
        for start in range(0, len(images), _AT_ONCE):
            yield torch.from_numpy(np.array(images[start : start + _AT_ONCE])).to(self.device)


def evenly_chosen(count: int, most: int) -> NDArray[np.int64]:
    """Indices of `most` of `count` rows, evenly spread over them, or of all where there are no more, (n,)."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))
