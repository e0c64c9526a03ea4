"""A bundle's metadata and model card: what it was trained on, how it was measured, where it fails."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from ..training.card import SOURCES, card, common_metadata, training_record, without_folders
from .config import DataConfig, HealthyAnatomyRun

LIMITS = """\
- Made for adult brains on FLAIR and on DWI (b ≈ 1000 s/mm²). Other sequences are recognised and warned about.
- Trained on synthetic scans only: {heads}. Children, large malformations and post-operative
  heads were never seen.
- The model's grid is 2 mm: lesions of a few cubic millimetres, and lesions in the cortex, are often missed.
- Bright artefacts (flow, motion, susceptibility at the skull base on DWI) and healthy bright structures (horn caps,
  choroid plexus, corticospinal tract) can be flagged.
- Fold-over onto the brain ruins the map, mostly without a warning: with the head once more, .3 and .6 times as bright,
  over itself, ms_isbi_02 has an AP of .60 and .25 instead of .85, ms_isbi_01 .29 and .15 instead of .61.
- The lowest slices are dimmed where they are too bright as a whole: a lesion that fills most of both sides there, as of
  both cerebellar hemispheres, is dimmed with them.
- On DWI, what both sides show alike near the brain's surface scores up to ten times less, as artefacts lie there:
  strokes that are mirror images of each other do, too.
- What affects all of the white matter passes for the scan's own brightness: made 1.4 times as bright in three real
  FLAIR scans, 4 to 20 % of it were flagged. Around the ventricles it is told from the rest, with a warning: made 1.4
  times as bright within 16 mm of them (140 to 210 ml), 61 to 93 % were flagged in five scans; 1.2 times, 35 to 69 %.
  Of a faint lesion of 150 ml on one side, 2 to 49 % were, where 69 to 77 % of one of 30 ml were.
- The standard deviation covers the model's own uncertainty of the anatomy, not noise or registration.
- Research use only. Not a medical device."""


def training_data(data: DataConfig) -> list[dict[str, str]]:
    """What a run used, as its config says."""
    entries = [SOURCES[name] for name in data.made_from]
    if not entries:
        anatomy = "anatomy of the synthetic scans"
        entries = [_entry(f"{len(data.train) + len(data.validation)} label maps", data.label_maps, anatomy)]
        folders: dict[str, list[str]] = {}
        for folder, use in ((data.lesion_masks, "shapes of lesions pasted into the synthetic scans"),
                            (data.flair_lesion_masks, "calibration on FLAIR"),
                            (data.dwi_lesion_masks, "calibration on DWI")):
            folders.setdefault(folder, []).append(use)
        entries += [_entry("lesion masks", folder, ", ".join(uses)) for folder, uses in folders.items() if folder]
    for scan in data.calibration_scans:
        name = "1 FLAIR scan, its lesions left out" if scan.get("without") else "1 FLAIR scan"
        entries.append(_entry(name, scan.get("source") or Path(scan["scan"]).name, "calibration of the anomaly score",
                              scan.get("licence", "not stated")))
    return entries


def _entry(name: str, source: str, used_for: str, licence: str = "not stated") -> dict[str, str]:
    return {"name": name, "source": without_folders(source), "licence": licence, "used_for": used_for}


def model_metadata(
    config: HealthyAnatomyRun, settings: dict[str, object], calibration: dict[str, object], steps: int, seconds: float,
    kept: int | None = None,
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
            "training_data": training_data(config.data),
            "results": {"training": training_record(config, steps, seconds, kept) | {
                "synthesis": asdict(config.synthesis),
                "label_maps": {"train": len(config.data.train), "validation": len(config.data.validation)},
            }},
        },
    }


def model_card(metadata: dict[str, object]) -> str:
    """The README.md of a detector's bundle, in Markdown."""
    counts = metadata["medvae"]["results"]["training"]["label_maps"]
    heads = f"{counts['train']} label maps, {counts['validation']} more for validation"
    return card(metadata, LIMITS.replace("{heads}", heads))
