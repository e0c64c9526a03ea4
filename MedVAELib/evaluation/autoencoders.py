"""Anomaly maps of image autoencoders on a scan's own voxels, to stand beside the detector's in one table.

A model scores the scan as it was prepared for training, so the detector's brain mask goes into the preparation, and
the map comes back linearly interpolated; a model of pictures scores one axial plane after the other, whole or in
patches. How bright the prepared image itself is stands beside the maps: it has lost the same resolution and learned
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from numpy.typing import NDArray

from ..errors import InputError, UsageError
from ..latent.model import MNI_4MM, PLAIN, LatentModel, stored_model
from ..models.autoencoder import ImageAutoencoder
from ..preprocessing.geometry import from_grid, like
from ..preprocessing.image_form import turned
from ..preprocessing.masked import masked_scan
from ..preprocessing.slices import FIELD_MM, tiles_of
from ..progress import CancelToken
from ..scan import Scan

_AT_ONCE = 16
_TRIED = 5  # scans, of which a model must take one
_SLICES, _PATCHES = "slices", "patches"
OtherScores = Callable[[Scan, sitk.Image], Mapping[str, NDArray[np.float32]]]
"""Called as others(scan, brain): method → score (zyx) on the scan's voxels, higher where more anomalous."""


class AutoencoderScores:
    """All anomaly scores of several models, each named "BUNDLE SCORE"."""

    def __init__(self, models: Sequence[LatentModel], cancel: CancelToken | None = None):
        """Raises UsageError for two bundles of one name, or one that cannot score scans."""
        names = [model.bundle.name for model in models]
        if len(set(names)) < len(names):
            raise UsageError(f"Two of the bundles {', '.join(names)} have the same name: rename one's folder.")
        for model in models:
            known = (PLAIN, MNI_4MM) if len(model.shape) == 3 else (PLAIN, _SLICES, _PATCHES)
            if model.preparation not in known:
                raise UsageError(f"The bundle {model.bundle.name} works on {model.preparation}, which cannot be made "
                                 f"of scans here: choose one of {', '.join(known)}.")
        self.models, self.cancel = models, cancel or CancelToken()
        self.networks = [_differentiable(model) for model in models]

    def check(self, scans: Iterable[Path]) -> None:
        """Raises UsageError where a model that takes images as they are takes none of the first few of these that can
        be read: before hours of work, not after."""
        left, read = [model for model in self.models if model.preparation == PLAIN], 0
        for path in scans:
            if not left:
                return
            try:
                scan = Scan.read(path)
            except (InputError, UsageError):
                continue  # which its own case will say
            refused, read = [], read + 1
            volume = turned(scan.image)
            for model in left:
                image = volume if len(model.shape) == 3 else volume[:, :, volume.GetSize()[2] // 2]
                try:
                    model.prepare_image(image, scan.name)
                except InputError as error:
                    refused.append((model, error))
            left = [model for model, _ in refused]
            if read == _TRIED:
                break
        if left and read:
            error = refused[0][1]
            raise UsageError(f"{error} Leave this --autoencoder out.") from error

    def __call__(self, scan: Scan, brain: sitk.Image) -> dict[str, NDArray[np.float32]]:
        """brain: mask on the scan's grid. Raises InputError for a scan that cannot be prepared, Cancelled."""
        prepared: dict[tuple, _Prepared] = {}
        scores = {}
        for model, network in zip(self.models, self.networks, strict=True):
            self.cancel.check()
            preparation = (model.preparation, model.form, model.spacing_mm)
            if preparation not in prepared:
                made = prepared[preparation] = _prepared(model, scan, brain, self.cancel)
                planes = " planes" if len(model.shape) == 2 and model.preparation == PLAIN else ""
                scores[f"intensity, {model.preparation}{planes}"] = made.on_scan(made.images[:, 0])
            made = prepared[preparation]
            for name, values in self._maps(network, made.images, model.device).items():
                scores[f"{model.bundle.name} {name}"] = made.on_scan(values[:, 0])
        return scores

    def _maps(self, network: ImageAutoencoder, images: NDArray[np.float32], device: torch.device
              ) -> dict[str, NDArray[np.float32]]:
        generator, maps = torch.Generator().manual_seed(0), {}
        for start in range(0, len(images), _AT_ONCE):
            self.cancel.check()
            batch = torch.from_numpy(images[start : start + _AT_ONCE]).to(device)
            for name, values in network.anomaly_scores(batch, generator).items():
                maps.setdefault(name, []).append(values.float().cpu().numpy())
        return {name: np.concatenate(parts) for name, parts in maps.items()}


@dataclass(frozen=True, eq=False)
class _Prepared:
    """images: (N, 1, *shape) as a model takes them, the whole scan or its planes; on_scan: brings values (N, *shape)
    onto the scan's voxels (zyx)."""

    images: NDArray[np.float32]
    on_scan: Callable[[NDArray[np.float32]], NDArray[np.float32]]


def _prepared(model: LatentModel, scan: Scan, brain: sitk.Image, cancel: CancelToken) -> _Prepared:
    if len(model.shape) == 3:
        made = model.prepare(scan, cancel=cancel, brain=brain)
        return _Prepared(made.image[None], lambda values: sitk.GetArrayFromImage(made.to_scan(values[0])))
    if model.preparation == PLAIN:
        return _planes_as_they_are(model, scan, brain)
    side = model.shape[0]
    pixel_mm = model.spacing_mm[0] if model.spacing_mm else FIELD_MM / side
    tiles = tiles_of(masked_scan(scan.image, brain, scan.name, cancel), side, pixel_mm, model.preparation == _SLICES)
    return _Prepared(tiles.images[:, None], lambda values: _onto(tiles.restacked(values), scan))


def _planes_as_they_are(model: LatentModel, scan: Scan, brain: sitk.Image) -> _Prepared:
    """The axial planes with brain in them."""
    volume, inside = turned(scan.image), sitk.GetArrayFromImage(turned(brain)) > 0
    shown = np.flatnonzero(inside.any((1, 2))).tolist()
    planes = [model.prepare_image(volume[:, :, z], scan.name) for z in shown]

    def on_scan(values: NDArray[np.float32]) -> NDArray[np.float32]:
        stack = np.zeros(inside.shape, np.float32)
        for z, plane, value in zip(shown, planes, values, strict=True):
            stack[z] = sitk.GetArrayFromImage(plane.to_scan(value))
        return _onto(like(stack, volume), scan)

    return _Prepared(np.stack([plane.image for plane in planes]), on_scan)


def _onto(image: sitk.Image, scan: Scan) -> NDArray[np.float32]:
    return sitk.GetArrayFromImage(from_grid(image, scan.image))


def _differentiable(model: LatentModel) -> ImageAutoencoder:
    """The model anew: the copy that predicts is fused for speed, and its weights allow no gradients."""
    return stored_model(model.bundle).eval().requires_grad_(False).to(model.device)
