"""Metadata and model cards of the bundles for the fetal skull and for the head's outline."""

from __future__ import annotations

from dataclasses import asdict

from ..preprocessing.outlines import MARGIN, SIZE
from ..training.card import card, common_metadata, training_record
from .config import OutlineRun, SkullRun

ATLASES = [
    {
        "name": "fetal brain atlases of 14 weeks", "source": "Wu et al. 2021", "licence": "BSD-3-Clause",
        "used_for": "shapes of the heads",
    },
    {
        "name": "fetal brain atlases with spina bifida", "source": "Fidon et al. 2021", "licence": "CC0-1.0",
        "used_for": "shapes of the heads",
    },
]
SKULL_LIMITS = """\
- Trained on simulated heads alone: shapes of real brain atlases with a modelled skull, sizes from growth charts, 20 to
  36 weeks, and modelled abnormalities. It has seen no skull of a real fetus in 3D, since none is public.
- It sees the outline of the head in each plane and nothing else; a wrong outline gives a wrong skull.
- Face and neck are not part of the head here, fontanelles and sutures are closed by it.
- The planes' places are taken as standard, give or take 10° and a few millimetres.
- The standard deviation is calibrated on simulated planes of held-back heads: it allows for planes that are misplaced
  as those are, and for outlines as they are found there.
- Research use only. Not a medical device."""


def skull_metadata(
    config: SkullRun, calibration: dict[str, object], steps: int, seconds: float, kept: int | None = None
) -> dict[str, object]:
    """Everything `save_bundle` needs but the weights."""
    planes = {"type": "outline", "modality": "US", "num_channels": 3, "dtype": "float32", "spatial_shape": [96, 96],
              "value_range": [0, 1]}
    volume = {"type": "signed distance", "num_channels": 1, "dtype": "float32", "spatial_shape": [48, 48, 48],
              "value_range": [-48, 48]}
    return common_metadata(config) | {
        "task": "Prediction of the fetal skull in 3D from standard planes of ultrasound",
        "description": "From the outlines of the head in one to three standard planes (axial, sagittal, coronal) to "
                       "the signed distance of the skull's outer surface, with samples of what the planes leave open.",
        "network_data_format": {"inputs": {"planes": planes}, "outputs": {"pred": volume}},
        "medvae": {
            "model": config.model_name, "config": config.model_settings, "modality": ["ultrasound"],
            "grid": {"shape_zyx": [SIZE] * 3, "edge_over_ofd": MARGIN}, "intensity": {"outline": [0, 1]},
            "calibration": calibration, "training_data": ATLASES,
            "results": {"training": training_record(config, steps, seconds, kept) | {"cases": config.data.cases,
                                                                         "planes": asdict(config.planes)}},
        },
    }


def skull_card(metadata: dict[str, object]) -> str:
    """The README.md of a skull model's bundle, in Markdown."""
    calibration = metadata["medvae"]["calibration"]
    rows = [f"| {planes} | {temperature} | {' | '.join(f'{share:.2f}' for share in calibration['coverage'][planes])} |"
            for planes, temperature in calibration["temperatures"].items()]
    levels = calibration["levels"]
    table = [
        "## Calibration", "",
        "Temperatures, and coverage of central intervals on the held-back heads that they were chosen on:", "",
        "| planes | temperature | " + " | ".join(f"{level:.0%}" for level in levels) + " |",
        "|---" * (2 + len(levels)) + "|", *rows,
    ]
    if widening := calibration.get("measures"):
        names = list(next(iter(widening.values())))
        table += [
            "", "What the measures' standard deviations over the samples are multiplied by, from the same heads:", "",
            f"| planes | {' | '.join(names)} |", "|---" * (1 + len(names)) + "|",
            *(f"| {planes} | {' | '.join(f'{each[name]:.2f}' for name in names)} |"
              for planes, each in widening.items()),
        ]
    return card(metadata, SKULL_LIMITS, table)


OUTLINE_LIMITS = """\
- Trained on simulated planes and on real axial ones of one set. Real sagittal and coronal planes were never seen.
- Where shadow hides the skull the outline is guessed; very dark planes and heads cut off by the frame fail most.
- The confidence tells head planes from what was made up as their opposite: noise, patterns, pieces of planes.
- Research use only. Not a medical device."""
HC18_ENTRY = {
    "name": "153 axial planes", "source": "HC18, van den Heuvel et al. 2018", "licence": "CC-BY-4.0",
    "used_for": "real planes with the drawn outline, examinations whose number modulo 5 is 2, 3 or 4",
}


def outline_metadata(config: OutlineRun, steps: int, seconds: float, kept: int | None = None) -> dict[str, object]:
    """Everything `save_bundle` needs but the weights."""
    side = [192, 192]
    image = {"type": "magnitude", "modality": "US", "num_channels": 1, "dtype": "float32", "spatial_shape": side,
             "value_range": [0, 1]}
    outline = {"type": "logits", "num_channels": 1, "dtype": "float32", "spatial_shape": side,
               "value_range": [-20, 20]}
    real = [HC18_ENTRY] if config.data.hc18 and config.mix.real > 0 else []
    return common_metadata(config) | {
        "task": "Outline of the fetal head in a standard plane of ultrasound",
        "description": "From an ultrasound plane to the filled outline of the fetal head on it, and to how sure it is "
                       "that there is one.",
        "network_data_format": {"inputs": {"image": image}, "outputs": {"pred": outline}},
        "medvae": {
            "model": config.model_name, "config": config.model_settings, "modality": ["ultrasound"],
            "grid": {"shape_yx": side}, "intensity": {"grey": [0, 1]}, "calibration": {},
            "training_data": ATLASES + real,
            "results": {"training": training_record(config, steps, seconds, kept) | {"mix": asdict(config.mix)}},
        },
    }


def outline_card(metadata: dict[str, object]) -> str:
    """The README.md of an outline network's bundle, in Markdown."""
    calibration = metadata["medvae"]["calibration"]
    measured = [] if not calibration else [
        "## Calibration", "",
        f"On {calibration['planes']} real planes of HC18 (training and validation) sonographers draw "
        f"{calibration['drawn_outside_mm']:g} mm outside of the outlines that are found, in the median; diameters and "
        "circumferences are given there.",
    ]
    if errors := calibration.get("axis_error_mm"):
        measured.append(
            f"On the {calibration['validation_planes']} of them that are for validation the diameters of the found "
            f"ellipse are then off by {errors['BPD']:g} mm (BPD) and {errors['OFD']:g} mm (OFD; 1.4826 times the "
            "median); no measure is given with a smaller standard deviation.")
    return card(metadata, OUTLINE_LIMITS, measured)
