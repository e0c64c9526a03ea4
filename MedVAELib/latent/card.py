"""Metadata and model cards of the bundles that the task images makes."""

from __future__ import annotations

from dataclasses import asdict

from ..training.card import SOURCES, card, common_metadata, training_record, without_folders
from ..training.image_sets import ImageSet
from .config import ImagesRun
from .statistics import LatentStatistics

LIMITS = """\
- It knows the images it was trained on; what it makes of others means little.
- Latents have no meaning of their own: what one shows, and what labels seem to be separable by, may come from scanner,
  protocol or preparation. `medvae latent classify` checks that.
- What it draws is no patient's image. Few training images may be remembered: compare samples with their nearest ones.
- Research use only. Not a medical device."""
SYNTHETIC = """\
- Trained on synthetic images alone, made from label maps of real heads and masks of real lesions: figures on held-back
  synthetic images say little about real scans.
"""
CONVENTION = {
    "unit": "0 to 1 as prepared", "byte": "divided by 255",
    "percentile": "each image clipped to 0 … its 99.5th percentile and divided by that",
    "range": "each image clipped to its 0.5th … 99.5th percentile and brought to 0 to 1",
}


def images_metadata(
    config: ImagesRun, settings: dict[str, object], images: ImageSet, statistics: LatentStatistics,
    measured: dict[str, float], counts: dict[str, int], steps: int, seconds: float,
    kept: int | None = None,
) -> dict[str, object]:
    """Everything `save_bundle` needs but the weights. settings: all of the model's; measured: on the validation images
    and, named so, the test images; counts: images and patients by part; kept: see `training_record`."""
    shape, spacing, data = list(images.shape), images.spacing_mm, config.data
    image = {"type": "image", "modality": data.modality, "num_channels": 1, "dtype": "float32",
             "spatial_shape": shape, "value_range": [0, 1]}
    return common_metadata(config) | {
        "task": "Autoencoder of images: reconstructions, latents, samples",
        "description": f"A {config.model_name} of images of {' × '.join(map(str, shape))} voxels.",
        "network_data_format": {"inputs": {"image": image}, "outputs": {"pred": image}},
        "medvae": {
            "model": config.model_name, "config": {**settings, "shape": shape},
            "modality": [data.modality], "calibration": {},
            "grid": {"shape": shape, "spacing_mm": None if spacing is None else list(spacing),
                     "fit": data.fit, "preparation": data.preparation},
            "intensity": {"range": [0, 1], "scaling": images.scaling, "convention": CONVENTION[images.scaling]},
            "latents": statistics.plain(),
            "training_data": [SOURCES[name] for name in data.made_from] or [
                {"name": data.name or without_folders(data.source), "licence": data.licence, "used_for": "weights",
                 "source": data.citation or without_folders(data.source)}],
            "results": {"training": training_record(config, steps, seconds, kept) | counts | _augmented(config),
                        "Held-back images": _table(measured)},
        },
    }


def images_card(config: ImagesRun, metadata: dict[str, object]) -> str:
    """The README.md of a bundle, in Markdown."""
    latents = metadata["medvae"]["latents"]
    lines = ["## Latents", "", f"{len(latents['mean'])} latents, over {latents['count']} training images."]
    if latents["labels"]:
        lines += ["", "| label | training images |", "|---|---|"]
        lines += [f"| {label} | {part['count']} |" for label, part in latents["labels"].items()]
    return card(metadata, SYNTHETIC + LIMITS if config.data.made_from else LIMITS, lines)


def _augmented(config: ImagesRun) -> dict[str, object]:
    asked = {name: value for name, value in asdict(config.augment).items() if value}
    if not asked:
        return {}
    words = ", ".join(f"{name} {value:g}" for name, value in asked.items())
    return {"augment": asked, "note": f"Images were changed anew each time they were seen: {words}."}


def _table(measured: dict[str, float]) -> str:
    rows = [f"| {name} | {value:.5g} |" for name, value in measured.items()]
    return "\n".join(["| measure | value |", "|---|---|", *rows])
