"""A bundle's metadata and model card: what it was trained on, how it was measured, where it fails."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from ..bundle import Bundle, load_bundle, save_bundle
from .config import HealthyAnatomyRun

TRAINING_DATA = [
    {
        "name": "20 label maps of heads", "licence": "Apache-2.0", "used_for": "anatomy of the synthetic scans",
        "source": "SynthSeg repository (Billot et al. 2023)",
    },
    {
        "name": "362 acute stroke masks", "licence": "BSD-2-Clause", "source": "SOOP repository",
        "used_for": "shapes of lesions pasted into the synthetic scans",
    },
    {
        "name": "28 multiple sclerosis masks", "licence": "CC-BY-4.0", "source": "Lesjak et al. 2017, Ljubljana",
        "used_for": "shapes of lesions pasted into the synthetic scans",
    },
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
    return {
        "version": config.bundle.version,
        "changelog": {config.bundle.version: "first release"},
        "required_packages_version": {},
        "task": "Unsupervised anomaly detection on brain FLAIR and DWI",
        "description": "Variational autoencoder of healthy anatomy: tissue probabilities of the healthy brain behind "
                       "a scan; the anomaly is what the scan shows beyond them.",
        "authors": "MedVAE contributors", "copyright": "Apache-2.0", "intended_use": "Research use only.",
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
            "results": {"training": {"steps": steps, "batch": config.trainer.batch, "hours": round(seconds / 3600, 2),
                                     "synthesis": asdict(config.synthesis)}},
        },
    }  # fmt: skip


def model_card(metadata: dict[str, object]) -> str:
    """The README.md of a bundle, in Markdown."""
    medvae = metadata["medvae"]
    training = medvae["results"]["training"]
    lines = [
        f"# healthy-anatomy {metadata['version']}", "", str(metadata["description"]), "", "## Training", "",
        f"{training['steps']} steps of {training['batch']} synthetic scans, {training['hours']} hours. "
        f"{training.get('note', '')}".strip(), "", "| data | source | licence | used for |", "|---|---|---|---|",
    ]  # fmt: skip
    lines += [f"| {d['name']} | {d['source']} | {d['licence']} | {d['used_for']} |" for d in medvae["training_data"]]
    lines += ["", "## Measured", ""]
    tables = {name: text for name, text in medvae["results"].items() if isinstance(text, str)}
    if not tables:
        lines.append("Not measured yet: run `medvae evaluate anomaly`.")
    for name, text in tables.items():
        lines += [f"### {name}", "", text, ""]
    return "\n".join([*lines, "", "## Limits", "", LIMITS, ""])


def attach_results(bundle: str | Path | Bundle, tables: dict[str, str], note: str = "") -> Bundle:
    """Writes measured tables (Markdown, by title) and a note on training into a bundle's metadata and card."""
    bundle = load_bundle(bundle)
    metadata = {key: value for key, value in bundle.metadata.items() if not key.endswith("_version")}
    results = {**metadata["medvae"]["results"], **tables}
    results["training"] = {**results["training"], **({"note": note} if note else {})}
    metadata["medvae"] = {**metadata["medvae"], "results": results}
    metadata["required_packages_version"] = bundle.metadata["required_packages_version"]
    return save_bundle(bundle.path, metadata, bundle.state_dict(), model_card(metadata))
