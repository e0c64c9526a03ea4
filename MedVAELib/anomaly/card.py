"""A bundle's metadata and model card: what it was trained on, how it was measured, where it fails."""

from __future__ import annotations

from dataclasses import asdict

from ..training.card import SOURCES, card, common_metadata, training_record
from .config import HealthyAnatomyRun

TRAINING_DATA = [
    SOURCES["label-maps"], SOURCES["stroke-masks"], SOURCES["ms-masks"],
    {
        "name": "1 FLAIR scan, its lesions left out", "licence": "CC-BY-4.0", "source": "Lesjak et al. 2017, Ljubljana",
        "used_for": "calibration of the anomaly score",
    },
]  # fmt: skip
LIMITS = """\
- Made for adult brains on FLAIR and on DWI (b ≈ 1000 s/mm²). Other sequences are recognised and warned about.
- Trained on synthetic scans only: 18 heads, two more for validation. Children, large malformations and post-operative
  heads were never seen.
- The model's grid is 2 mm: lesions of a few cubic millimetres, and lesions in the cortex, are often missed.
- Bright artefacts (flow, motion, susceptibility at the skull base on DWI) and healthy bright structures (horn caps,
  choroid plexus, corticospinal tract) can be flagged.
- The standard deviation covers the model's own uncertainty of the anatomy, not noise or registration.
- Research use only. Not a medical device."""


def model_metadata(
    config: HealthyAnatomyRun, settings: dict[str, object], calibration: dict[str, object], steps: int, seconds: float
) -> dict[str, object]:
    """Everything `save_bundle` needs but the weights."""
    grid = {"shape_zyx": list(config.synthesis.shape), "spacing_mm": config.synthesis.spacing_mm}
    return common_metadata(config) | {
        "task": "Unsupervised anomaly detection on brain FLAIR and DWI",
        "description": "Variational autoencoder of healthy anatomy: tissue probabilities of the healthy brain behind "
                       "a scan; the anomaly is what the scan shows beyond them.",
        "network_data_format": {
            "inputs": {"image": {"type": "magnitude", "modality": "MR", "num_channels": 1, "dtype": "float32",
                                 "spatial_shape": list(config.synthesis.shape), "value_range": [0, 1.5]}},
            "outputs": {"pred": {"type": "probabilities", "num_channels": 9, "dtype": "float32",
                                 "spatial_shape": list(config.synthesis.shape), "value_range": [0, 1]}},
        },
        "medvae": {
            "model": config.model_name, "config": settings, "modality": ["flair", "dwi"], "grid": grid,
            "intensity": {"brain_median": 0.5, "maximum": 1.5}, "calibration": calibration,
            "training_data": TRAINING_DATA,
            "results": {"training": training_record(config, steps, seconds) | {"synthesis": asdict(config.synthesis)}},
        },
    }  # fmt: skip


def model_card(metadata: dict[str, object]) -> str:
    """The README.md of a detector's bundle, in Markdown."""
    return card(metadata, LIMITS)
