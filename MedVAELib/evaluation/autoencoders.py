"""Anomaly maps of image autoencoders on a scan's own voxels, to stand beside the detector's in one table.

A model scores the scan as it was prepared for training, so the detector's brain mask goes into the preparation, and
the map comes back linearly interpolated. How bright the prepared image itself is stands beside the maps: it has lost
the same resolution and learned nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import SimpleITK as sitk
import torch
from numpy.typing import NDArray

from ..errors import UsageError
from ..latent.model import LatentModel, Prepared, stored_model
from ..models.autoencoder import ImageAutoencoder
from ..progress import CancelToken
from ..scan import Scan

OtherScores = Callable[[Scan, sitk.Image], Mapping[str, NDArray[np.float32]]]
"""Called as others(scan, brain): method → score (zyx) on the scan's voxels, higher where more anomalous."""


class AutoencoderScores:
    """All anomaly scores of several models, each named "BUNDLE SCORE"."""

    def __init__(self, models: Sequence[LatentModel], cancel: CancelToken | None = None, seed: int = 0):
        """Raises UsageError for two bundles of one name."""
        names = [model.bundle.name for model in models]
        if len(set(names)) < len(names):
            raise UsageError(f"Two of the bundles {', '.join(names)} have the same name: rename one's folder.")
        self.models, self.cancel, self.seed = models, cancel or CancelToken(), seed
        self.networks = [_differentiable(model) for model in models]

    def __call__(self, scan: Scan, brain: sitk.Image) -> dict[str, NDArray[np.float32]]:
        """brain: mask on the scan's grid. Raises InputError for a scan that cannot be prepared, Cancelled."""
        prepared: dict[tuple, Prepared] = {}
        scores = {}
        for model, network in zip(self.models, self.networks, strict=True):
            self.cancel.check()
            preparation = (model.preparation, model.form)
            if preparation not in prepared:
                made = prepared[preparation] = model.prepare(scan, cancel=self.cancel, brain=brain)
                scores[f"intensity, {model.preparation}"] = _on_scan(made, made.image[0])
            made = prepared[preparation]
            maps = network.anomaly_scores(
                torch.from_numpy(made.image[None]).to(model.device), torch.Generator().manual_seed(self.seed)
            )
            for name, values in maps.items():
                scores[f"{model.bundle.name} {name}"] = _on_scan(made, values[0, 0].float().cpu().numpy())
        return scores


def _differentiable(model: LatentModel) -> ImageAutoencoder:
    """The model anew: the copy that predicts is fused for speed, and its weights allow no gradients."""
    return stored_model(model.bundle).eval().requires_grad_(False).to(model.device)


def _on_scan(prepared: Prepared, values: NDArray[np.float32]) -> NDArray[np.float32]:
    return sitk.GetArrayFromImage(prepared.to_scan(values))
