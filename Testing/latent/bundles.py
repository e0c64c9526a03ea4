"""Small bundles of image autoencoders with random weights, for tests of what is built on them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from MedVAELib.bundle import Bundle, save_bundle
from MedVAELib.latent.card import images_card, images_metadata
from MedVAELib.latent.config import ImageData, ImagesRun
from MedVAELib.latent.statistics import latent_statistics
from MedVAELib.models import build_model
from MedVAELib.training.config import BundleConfig
from MedVAELib.training.image_sets import ImageSet
from MedVAELib.training.trainer import TrainerConfig


def image_bundle(
    folder: Path, model: str = "vae", shape: Sequence[int] = (16, 16), preparation: str = "plain", fit: str = "exact",
    scaling: str = "unit", labels: Sequence[str] = ("a", "b"), spacing_mm: Sequence[float] | None = None,
    modality: str = "other", **settings: object,
) -> Bundle:
    """A bundle in `folder` of a model with random weights; its statistics are those of noise."""
    settings = {"shape": list(shape), "width": 4, "bottom": 8, "latent": 3, "levels": 2, **settings}
    torch.manual_seed(0)
    made = build_model(model, settings).eval()
    count = 12 * max(1, len(labels))
    images = torch.rand(count, 1, *shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        means, kl = made.encode(images)[0].numpy(), made.kl_per_latent(images)
    names = [labels[i % len(labels)] if labels else "" for i in range(count)]
    statistics = latent_statistics(means, None if kl is None else kl.numpy(), names)
    config = ImagesRun(model={"name": model, **settings}, trainer=TrainerConfig(steps=1), bundle=BundleConfig("tiny"),
                       data=ImageData("images", preparation=preparation, fit=fit, modality=modality))
    cases = [f"case{i}" for i in range(count)]
    spacing = None if spacing_mm is None else tuple(spacing_mm)
    data = ImageSet(images.numpy(), cases, cases, names, [""] * count, {}, spacing, scaling)
    metadata = images_metadata(config, settings, data, statistics, {"mse": float(np.var(means))}, {}, 1, 1.0)
    return save_bundle(folder, metadata, made.state_dict(), images_card(config, metadata))
