"""Calibration of an anomaly detector: tissue weights from synthetic lesions, score tables from healthy brains.

What a score means is learned, not set: how abnormal brightness is in each tissue comes from a logistic regression
on scans with lesions pasted in, and the share of healthy voxels above each score from scans without.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from ..progress import CancelToken, Progress, scaled
from ..scan import Scan
from ..tissues import BACKGROUND, EXTRACEREBRAL, TISSUES, WHITE
from ..training.brains import load_synthesiser
from ..training.synthesis.brains import BrainSynthesiser
from ..training.synthesis.cases import SyntheticCase, case_config, synthetic_case
from .calibration import ScoreCalibration
from .detect import Detector, score_inputs
from .scores import SCORES, zscore

MODALITIES = ("flair", "dwi")
_VOXELS_PER_SCAN = 200_000


def calibrate(
    detector: Detector, label_maps: Path, lesion_masks: dict[str, Path], names: list[str] | None, scans: int,
    spacing_mm: float, healthy_scans: list[tuple[Scan, sitk.Image | None]], seed: int, progress: Progress, cancel: CancelToken,
) -> dict[str, object]:  # fmt: skip
    """The bundle's `calibration` entry.

    lesion_masks: folder of real masks per modality; names: label maps to use (None: all); scans: synthetic scans per
    modality with lesions, and as many without, of `spacing_mm`; healthy_scans: real FLAIR scans, each with a mask of voxels to leave
    out (its lesions) or None, pooled with the synthetic ones. Changes the detector's tissue weights as it goes.
    """
    settings = detector.bundle.calibration
    weights_report = scaled(progress, 0.0, 0.4)
    rows = []
    for number, case in enumerate(_cases("flair", False, label_maps, lesion_masks, names, scans, spacing_mm, seed)):
        cancel.check()
        rows.append(_regression_rows(detector, case))
        weights_report("tissue weights", (number + 1) / scans, case.scan.name)
    settings["tissue_weight"] = tissue_weights(*(np.concatenate(column) for column in zip(*rows, strict=True)))
    tables: dict[str, dict[str, dict[str, object]]] = {name: {} for name in SCORES}
    for index, modality in enumerate(MODALITIES):
        report = scaled(progress, 0.4 + 0.3 * index, 0.7 + 0.3 * index)
        raw: dict[tuple[str, str], list[NDArray]] = {}
        healthy = [(case.scan, None) for case in _cases(modality, True, label_maps, {}, names, scans, spacing_mm, seed + 500)]
        healthy += healthy_scans if modality == "flair" else []
        for number, (scan, excluded) in enumerate(healthy):
            cancel.check()
            for key, values in _raw_scores(detector, scan, excluded).items():
                raw.setdefault(key, []).append(values)
            report("score tables", (number + 1) / len(healthy), scan.name)
        for name in SCORES:
            tables[name][modality] = {
                side: ScoreCalibration.from_healthy(raw[name, side]).as_json() for side in ("bright", "dark")
            }
    settings["score"] = tables
    return settings


def tissue_weights(z: NDArray, probability: NDArray, lesion: NDArray) -> list[float]:
    """Weight per tissue (K,), white matter 1, so that weight × z ranks voxels as a logistic regression on log z and
    tissue would: exp of the tissue's offset over the slope of log z.

    z: (N,) positive scores; probability: (N, K); lesion: (N,) bool.
    """
    if lesion.all() or not lesion.any():  # nothing to learn from
        return [0.0 if k in (BACKGROUND, EXTRACEREBRAL) else 1.0 for k in range(len(TISSUES))]
    inner = [k for k in range(len(TISSUES)) if k not in (BACKGROUND, EXTRACEREBRAL)]
    features = np.column_stack([np.log(z + 0.1), probability[:, inner]])
    model = LogisticRegression(C=1.0, max_iter=500).fit(features, lesion)
    slope, offsets = model.coef_[0][0], model.coef_[0][1:]
    relative = np.exp((offsets - offsets[inner.index(WHITE)]) / slope)
    weights = np.zeros(len(TISSUES))
    weights[inner] = np.clip(relative, 0.02, 1.5)
    return [round(float(w), 3) for w in weights]


def _cases(
    modality: str, healthy: bool, label_maps: Path, lesion_masks: dict[str, Path], names: list[str] | None, scans: int,
    spacing_mm: float, seed: int,
):  # fmt: skip
    synthesise: BrainSynthesiser = load_synthesiser(
        label_maps, lesion_masks.get(modality), case_config(modality, healthy, spacing_mm), "cpu", names
    )
    for number in range(scans):
        yield synthetic_case(synthesise, seed + number, modality)


def _regression_rows(detector: Detector, case: SyntheticCase) -> tuple[NDArray, NDArray, NDArray]:
    """Unweighted z, tissue probabilities and truth of all lesion voxels and as many of the others as are cheap."""
    maps = score_inputs(detector, case.scan)
    inputs = replace(maps.inputs("reconstruction_probability"), weight=np.ones_like(maps.expected))
    z, lesion = zscore(inputs), sitk.GetArrayFromImage(case.lesions)[maps.box] > 0
    chosen = _some(maps.brain_box, np.random.default_rng(0))
    return z[chosen], inputs.probability[(slice(None), *chosen)].T, lesion[chosen]


def _raw_scores(detector: Detector, scan: Scan, excluded: sitk.Image | None) -> dict[tuple[str, str], NDArray]:
    maps = score_inputs(detector, scan)
    inside = maps.brain_box
    if excluded is not None:
        inside = inside & (sitk.GetArrayFromImage(excluded)[maps.box] == 0)
    chosen = _some(inside, np.random.default_rng(0))
    return {
        (name, side): maps.raw(name, sign)[chosen] for name in SCORES for side, sign in (("bright", 1), ("dark", -1))
    }


def _some(inside: NDArray[np.bool_], rng: np.random.Generator) -> tuple[NDArray, ...]:
    index = np.flatnonzero(inside)
    index = rng.choice(index, min(len(index), _VOXELS_PER_SCAN), replace=False)
    return np.unravel_index(index, inside.shape)
