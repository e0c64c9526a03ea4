"""A trained image autoencoder, ready to use: arrays and scans in, latents and images out, on whatever the machine has.

    latents = load_latent_model("vae-8")
    prepared = latents.prepare(Scan.read("flair.nii.gz"))
    mean, log_variance = latents.encode(prepared.image[None])
    mean[0, 3] += 2.0
    moved = prepared.to_scan(latents.decode(mean)[0, 0])
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from zlib import crc32

import numpy as np
import SimpleITK as sitk
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..bundle import Bundle, load_bundle
from ..errors import BundleError, InputError, UsageError
from ..inference.ladder import PlacedModel
from ..inference.moments import seed_of
from ..models.autoencoder import ImageAutoencoder
from ..preprocessing.image_form import FormError, ImageForm, lies_in_unit, turned
from ..preprocessing.mni import mni_grid
from ..preprocessing.published import NAME as MNI_4MM
from ..preprocessing.published import SPACING_MM as MNI_SPACING_MM
from ..preprocessing.published import prepare_published
from ..progress import CancelToken, Progress, no_progress, scaled
from ..scan import MODALITIES, Scan
from .statistics import LatentStatistics

PLAIN = "plain"
"""Name of the preparation that needs nothing but the image (see `preprocessing.image_form`)."""
_DRAWN_AT_ONCE = 8  # fixed, so that the draws of a seed do not depend on the machine


@dataclass(frozen=True, eq=False)
class Prepared:
    """image: (1, *shape) float32 in 0…1, as the model takes it. to_scan: brings an array (*shape), such as `image[0]`
    or a decoded one, onto the scan's grid as a float32 SimpleITK image in the same 0…1. warnings: sentences the user
    should see, beside those of the scan."""

    image: NDArray[np.float32]
    to_scan: Callable[[NDArray[np.float32]], sitk.Image]
    warnings: tuple[str, ...] = ()


class LatentModel(PlacedModel):
    """Encoder, decoder and statistics of one bundle. Arrays are float32; latents come as the model shapes them."""

    _may_halve = False  # float32 everywhere: these images are small, and latents are compared with one another

    def __init__(self, bundle: Bundle, device: str = "auto"):
        super().__init__(device, "float32")
        model = stored_model(bundle)
        self.bundle, self.statistics = bundle, _statistics(bundle)
        medvae = bundle.metadata["medvae"]
        self.preparation = str(medvae["grid"].get("preparation", PLAIN))
        self.spacing_mm: tuple[float, ...] | None = _spacing(medvae["grid"])
        self.form = _form(bundle, model.shape)
        self.shape, self.latent_shape, self.variational = model.shape, model.latent_shape, model.variational
        self.load(model)

    @property
    def model(self) -> ImageAutoencoder:
        """The model where it computes now, in evaluation mode."""
        return self._attempt(lambda: self._model, batched=False)

    # ---- images and latents ----

    def encode(
        self, images: NDArray[np.float32], progress: Progress = no_progress, cancel: CancelToken | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """images (N, 1, *shape) in 0…1 → mean and log-variance (N, *latent_shape); None for the latter if the model
        is not variational. Raises InputError for another shape or range, Cancelled, DeviceMemoryError."""
        self._check_images(images, cancel)
        parts = self._in_batches(lambda batch: self._model.encode(batch), images, cancel, progress)
        mean = np.concatenate([part[0] for part in parts])
        return mean, np.concatenate([part[1] for part in parts]) if self.variational else None

    def decode(
        self, latents: NDArray[np.float32], progress: Progress = no_progress, cancel: CancelToken | None = None
    ) -> NDArray[np.float32]:
        """latents (N, *latent_shape), or flattened (N, Z) → images (N, 1, *shape) in 0…1."""
        latents = np.asarray(latents, np.float32).reshape(-1, *self.latent_shape)
        return np.concatenate(self._in_batches(lambda batch: (self._model.decode(batch),), latents, cancel, progress,
                                               first=True))

    def reconstruct(self, images: NDArray[np.float32], cancel: CancelToken | None = None) -> NDArray[np.float32]:
        """images (N, 1, *shape) → what their posterior's mean stands for, the same shape."""
        self._check_images(images, cancel)
        return np.concatenate(self._in_batches(lambda batch: (self._model.reconstruct(batch),), images, cancel,
                                               first=True))

    def kl_per_latent(
        self, images: NDArray[np.float32], cancel: CancelToken | None = None
    ) -> NDArray[np.float32] | None:
        """images (N, 1, *shape) → KL divergence in nats (N, *latent_shape), None if the model is not variational."""
        self._check_images(images, cancel)
        if not self.variational:
            return None
        return np.concatenate(self._in_batches(lambda batch: (self._model.kl_per_latent(batch),), images, cancel,
                                               first=True))

    def sample(
        self, count: int, seed: int = 0, label: str | None = None, progress: Progress = no_progress,
        cancel: CancelToken | None = None,
    ) -> NDArray[np.float32]:
        """`count` new images (count, 1, *shape): the model's own samples or, with a label, decoded latents drawn from
        the Gaussian of that label's training images. The first n of a seed are the same for every count ≥ n."""
        return np.concatenate(list(self.samples(count, seed, label, progress, cancel)))

    def samples(
        self, count: int, seed: int = 0, label: str | None = None, progress: Progress = no_progress,
        cancel: CancelToken | None = None,
    ) -> Iterator[NDArray[np.float32]]:
        """The images of `sample`, (n, 1, *shape) at a time, so that thousands need not be held in memory."""
        self._check_count(count)
        cancel, latents = cancel or CancelToken(), None if label is None else self.draw(count, seed, label)
        for start in range(0, count, _DRAWN_AT_ONCE):
            cancel.check()
            done = min(start + _DRAWN_AT_ONCE, count)
            if latents is not None:
                made = self.decode(latents[start:done], cancel=cancel)
            else:
                made = self._attempt(lambda start=start: self._drawn(seed_of(seed, start)), batched=False)
            yield made[: done - start]
            progress("sampling", done / count, f"{done} of {count} samples")

    def draw(self, count: int, seed: int, label: str) -> NDArray[np.float32]:
        """Latents (count, *latent_shape) from the Gaussian of a label: its images' mean and deviations, with what the
        posteriors of all training images are wide besides, and correlated as in these, if the model knows how. Raises
        UsageError for an unknown label or one of one image, or a model whose latents no Gaussian describes."""
        self._check_count(count)
        if not self.model.gaussian:
            raise UsageError(f"The latents of {self.bundle.name}, a {self.bundle.model}, cannot be drawn by label, "
                             "only by its prior of all images: leave the label out, or use another model.")
        if label not in self.statistics.labels:
            known = ", ".join(self.statistics.labels) or "none"
            raise UsageError(f"The bundle {self.bundle.name} knows no label '{label}' (it has {known}).")
        moments = self.statistics.labels[label]
        if moments.count < 2:
            raise UsageError(f"The bundle {self.bundle.name} learned '{label}' from one image and does not know how "
                             "such images differ: choose another label, or leave it out.")
        own = crc32(label.encode())  # or the first images of all labels would come from the same noise
        noise = np.array([np.random.default_rng((seed, own, i)).standard_normal(len(moments.mean))
                          for i in range(count)])
        variance, factor = moments.std.astype(np.float64) ** 2, getattr(self.model, "drawn_factor", None)
        if factor is not None:
            rows = factor.cpu().double().numpy()
            rows = rows if rows.ndim == 2 else rows[:, None]
            drawn = np.square(rows).sum(1)
            if rows.shape[1] > 1:
                noise = noise @ (rows / np.sqrt(drawn)[:, None].clip(1e-12)).T
            variance = variance + (drawn - self.statistics.all.std.astype(np.float64) ** 2).clip(min=0)
        flat = moments.mean + np.sqrt(variance) * noise
        return flat.astype(np.float32).reshape(count, *self.latent_shape)

    def first_drawn(self, seed: int, label: str | None = None) -> NDArray[np.float32]:
        """The latents (1, *latent_shape) of the first image that `sample` makes with this seed and label."""
        if label is not None:
            return self.draw(1, seed, label)

        def draw() -> NDArray[np.float32]:
            seen: list[Tensor] = []

            def first(_: torch.nn.Module, given: tuple[Tensor]) -> Tensor:
                seen.append(given[0][:1])
                return seen[0]  # the others need no decoding

            # Every kind of model draws in its own way, but all decode what they drew.
            with self._model.from_latent.register_forward_pre_hook(first):
                self._drawn(seed_of(seed, 0))
            return seen[0].float().cpu().numpy()

        return self._attempt(draw, batched=False)

    # ---- scans ----

    @property
    def plain(self) -> bool:
        """Whether it takes images of anything as they are: pictures, and volumes of no special preparation."""
        return len(self.shape) == 2 or self.preparation == PLAIN

    def prepare_image(self, image: sitk.Image, name: str) -> Prepared:
        """An image of the kind that the model takes, with no more than its form applied. Raises InputError, naming it
        as `name`, for one that does not fit."""
        with self.prescribing():
            made = self.form.apply(image, name)
        return Prepared(made[None], lambda array: self.form.restored(array, image))

    @contextmanager
    def prescribing(self) -> Iterator[None]:
        """An image that does not fit is refused with the model's own advice: its form cannot be set any more."""
        try:
            yield
        except FormError as error:
            how = ("give images like those it was trained on, or train one that takes these: with data.fit stretch or "
                   "crop those of other sizes, with data.preparation whole scans")
            if self.preparation != PLAIN:
                how = f"make them with 'medvae prepare --preparation {self.preparation}'"
            raise InputError(f"{error.found} by the model {self.bundle.name}: {how}.") from error

    def prepare(
        self, scan: Scan, progress: Progress = no_progress, cancel: CancelToken | None = None,
        brain: sitk.Image | None = None,
    ) -> Prepared:
        """A scan as the model takes it, by the preparation it was trained with, and the way back.

        A volume that has been prepared already is taken as it is. brain: a mask on the scan's grid, for preparations
        that need one; by default the shipped detector's. Raises InputError for a scan that cannot be brought into that
        form."""
        if self.plain or self.is_prepared(scan.image):
            return self.prepare_image(scan.image, scan.name)
        if self.preparation == MNI_4MM:
            warnings: tuple[str, ...] = ()
            if brain is None:
                from ..anomaly.brain import shipped_brain

                found = shipped_brain(scan, str(self.device), scaled(progress, 0.0, 0.5), cancel)
                brain, warnings = found.mask, self._doubts(scan, found.modality, found.reason)
            made = prepare_published(scan, brain, scaled(progress, 0.5, 1.0), cancel)
            return Prepared(np.asarray(made.image, np.float32)[None], made.to_scan, warnings)
        raise InputError(f"{scan.name} is a whole scan, and the bundle {self.bundle.name} works on {self.preparation}: "
                         f"make them with 'medvae prepare --preparation {self.preparation}'.")

    def is_prepared(self, image: sitk.Image) -> bool:
        """Whether a volume has the very voxels that preparing would give, where it would put them."""
        if self.spacing_mm is None or len(self.shape) != 3 or image.GetDimension() != 3:
            return False
        image = turned(image)
        if image.GetSize()[::-1] != self.shape or not np.allclose(image.GetSpacing()[::-1], self.spacing_mm, rtol=1e-3):
            return False
        place = self.mni_place
        return place is None or (np.allclose(image.GetOrigin(), place.GetOrigin(), atol=0.5)
                                 and np.allclose(image.GetDirection(), place.GetDirection(), atol=1e-3))

    def shown(self, image: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Where an image, as it takes them, shows what differences are averaged over: in the brain where it is one, as
        the black around it is most of the box and the same in all; else everywhere."""
        inside = image > 0
        return np.ones_like(inside) if self.plain or not inside.any() else inside

    @property
    def mni_place(self) -> sitk.Image | None:
        """The grid in MNI space on which its images lie, if it was trained there."""
        place = mni_grid(MNI_SPACING_MM)
        return place if self.preparation == MNI_4MM and place.GetSize() == self.shape[::-1] else None

    # ---- inside ----

    def _drawn(self, seed: int) -> NDArray[np.float32]:
        return self._model.sample(_DRAWN_AT_ONCE, torch.Generator().manual_seed(seed)).float().cpu().numpy()

    def _in_batches(self, work: Callable[[Tensor], tuple[Tensor | None, ...]], values: NDArray[np.float32],
                    cancel: CancelToken | None, progress: Progress = no_progress, first: bool = False) -> list:
        """work(batch) for every batch of (N, …), results as float32 arrays; `first`: of the first one alone."""
        cancel, results, done = cancel or CancelToken(), [], 0

        def one_batch() -> list[NDArray[np.float32] | None]:
            size = min(self._batch_limit, len(values) - done)
            self._rung = replace(self._rung, batch=size)
            part = torch.from_numpy(np.ascontiguousarray(values[done : done + size], np.float32))
            made = work(part.to(self.device))
            return [None if tensor is None else tensor.float().cpu().numpy() for tensor in made]

        while done < len(values):
            cancel.check()
            arrays = self._attempt(one_batch, batched=True)
            results.append(arrays[0] if first else arrays)
            done += len(arrays[0])
            progress("computing", done / len(values), f"{done} of {len(values)} images")
        return results

    def _doubts(self, scan: Scan, modality: str, reason: str) -> tuple[str, ...]:
        """A warning where the scan is of another kind than the model was made for, as far as the detector can tell: all
        but FLAIR and DWI is "other" to it. A model that states no kind takes any."""
        made_for = {kind.lower() for kind in self.bundle.modality}
        untold = made_for - set(MODALITIES)
        if not made_for or modality in made_for or "other" in untold or (modality == "other" and untold):
            return ()
        kind = "neither FLAIR nor DWI" if modality == "other" else modality.upper()
        wanted = " or ".join(sorted(self.bundle.modality)).upper()
        return (f"{scan.path or scan.name} looks like {kind} ({reason}), and the model {self.bundle.name} was made for "
                f"{wanted}: what it makes of it may be meaningless.",)

    def _check_count(self, count: int) -> None:
        if count < 1:
            raise UsageError(f"{count} images cannot be drawn: ask for at least 1.")

    def _check_images(self, images: NDArray[np.float32], cancel: CancelToken | None) -> None:
        if images.shape[1:] != (1, *self.shape):
            raise InputError(f"The bundle {self.bundle.name} takes images of shape {list(self.shape)}, not "
                             f"{list(images.shape[2:])}: prepare them for it.")
        for number, image in enumerate(images):  # one by one, as they may be mapped from a large file
            if cancel is not None:
                cancel.check()
            low, high = float(image.min()), float(image.max())
            if not lies_in_unit(low, high):
                raise InputError(f"The bundle {self.bundle.name} takes images in 0…1, and image {number} goes from "
                                 f"{low:g} to {high:g}: scale them to that, as 'prepare_image' does.")


def load_latent_model(bundle: str | Path | Bundle, device: str = "auto") -> LatentModel:
    """The model of a bundle, by its name or folder. Raises BundleError for one that is missing, damaged or of another
    task, UsageError for a device that is not there."""
    return LatentModel(load_bundle(bundle), device)


def stored_model(bundle: Bundle) -> ImageAutoencoder:
    """The network of a bundle with its weights, on the CPU. Raises BundleError for one that is of another task or whose
    weights do not fit."""
    model = bundle.network()
    if not isinstance(model, ImageAutoencoder):
        raise BundleError(f"The bundle {bundle.name} holds a {bundle.model}, which is no autoencoder of images: "
                          "choose a bundle that 'medvae train' made for the task images.")
    return model


def _statistics(bundle: Bundle) -> LatentStatistics:
    return LatentStatistics.of_plain(bundle.metadata["medvae"].get("latents"), f"The bundle {bundle.name}")


def _spacing(grid: dict[str, object]) -> tuple[float, ...] | None:
    spacing = grid.get("spacing_mm")
    return None if spacing is None else tuple(float(value) for value in spacing)


def _form(bundle: Bundle, shape: tuple[int, ...]) -> ImageForm:
    medvae = bundle.metadata["medvae"]
    try:
        return ImageForm(shape, medvae["grid"].get("fit", "exact"), medvae["intensity"].get("scaling", "unit"))
    except ValueError as error:
        raise BundleError(f"The metadata of {bundle.name} are damaged ({error}): get the bundle again.") from error
