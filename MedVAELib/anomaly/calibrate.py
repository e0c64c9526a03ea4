"""Calibration of an anomaly detector: tissue weights from synthetic lesions, score tables from healthy brains.

What a score means is learned, not set: how abnormal brightness is in each tissue comes from a logistic regression
on scans with lesions pasted in, and the share of healthy voxels above each score from scans without.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from ..progress import CancelToken, Progress, scaled
from ..scan import Scan
from ..tissues import BACKGROUND, EXTRACEREBRAL, TISSUES, WHITE
from ..training.brains import load_synthesiser
from ..training.synthesis.cases import SyntheticCase, case_config, synthetic_case
from .calibration import ScoreCalibration
from .detect import score_inputs
from .detector import Detector
from .scores import SCORES, zscore

MODALITIES = ("flair", "dwi")
_VOXELS_PER_SCAN = 200_000


@dataclass(frozen=True)
class CalibrationData:
    """label_maps: folder, names: those to use (None: all); lesion_masks: folder of real masks per modality; scans:
    synthetic scans per modality with lesions, and as many without, of voxel size `spacing_mm`; healthy_scans: real
    FLAIR scans to pool with the healthy synthetic ones, each with a mask on its grid of voxels to leave out (lesions)
    or None."""

    label_maps: Path
    names: list[str] | None
    lesion_masks: dict[str, Path]
    scans: int
    spacing_mm: float
    healthy_scans: list[tuple[Scan, sitk.Image | None]]
    seed: int = 0

    def cases(self, modality: str, healthy: bool) -> Iterator[SyntheticCase]:
        synthesise = load_synthesiser(
            self.label_maps, None if healthy else self.lesion_masks.get(modality),
            case_config(modality, healthy, self.spacing_mm), "cpu", self.names,
        )
        for number in range(self.scans):
            yield synthetic_case(synthesise, self.seed + number + (500 if healthy else 0), modality)


def calibrate(
    detector: Detector, data: CalibrationData, progress: Progress, cancel: CancelToken
) -> dict[str, object]:
    """The bundle's `calibration` entry; the detector's own calibration is brought up to date as it goes."""
    settings = detector.bundle.calibration
    weights_report = scaled(progress, 0.0, 0.4)
    rows = []
    for number, case in enumerate(data.cases("flair", healthy=False)):
        cancel.check()
        rows.append(_regression_rows(detector, case))
        weights_report("tissue weights", (number + 1) / data.scans, case.scan.name)
    settings["tissue_weight"] = tissue_weights(*(np.concatenate(column) for column in zip(*rows, strict=True)))
    settings["score"] = score_tables(detector, data, scaled(progress, 0.4, 1.0), cancel)
    return settings


def score_tables(
    detector: Detector, data: CalibrationData, progress: Progress, cancel: CancelToken
) -> dict[str, dict[str, dict[str, object]]]:
    """How rare every raw score is in healthy brains, by score, modality and side."""
    tables: dict[str, dict[str, dict[str, object]]] = {name: {} for name in SCORES}
    for index, modality in enumerate(MODALITIES):
        report = scaled(progress, 0.5 * index, 0.5 + 0.5 * index)
        raw: dict[tuple[str, str], list[NDArray]] = {}
        healthy = [(case.scan, None) for case in data.cases(modality, healthy=True)]
        healthy += data.healthy_scans if modality == "flair" else []
        for number, (scan, excluded) in enumerate(healthy):
            cancel.check()
            for key, values in _raw_scores(detector, scan, modality, excluded).items():
                raw.setdefault(key, []).append(values)
            report("score tables", (number + 1) / len(healthy), scan.name)
        for name in SCORES:
            tables[name][modality] = {
                side: ScoreCalibration.from_healthy(raw[name, side]).as_json() for side in ("bright", "dark")
            }
    return tables


def tissue_weights(z: NDArray, probability: NDArray, lesion: NDArray) -> list[float]:
    """Weight per tissue (K,), white matter 1. Weight × z ranks voxels as a logistic regression on log z and tissue
    would: exp of the tissue's offset over the slope of log z.

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
    weights[inner] = np.clip(relative, 0.05, 1.0)
    return [round(float(w), 3) for w in weights]


def _regression_rows(detector: Detector, case: SyntheticCase) -> tuple[NDArray, NDArray, NDArray]:
    """Unweighted z, tissue probabilities and truth of some of the brain's voxels, drawn at random."""
    maps = score_inputs(detector, case.scan)
    inputs = replace(maps.inputs("reconstruction_probability", "flair"), weight=np.ones_like(maps.expected))
    z, lesion = zscore(inputs), maps.boxed(case.lesions) > 0
    chosen = _some(maps.brain_box, np.random.default_rng(0))
    return z[chosen], inputs.probability[(slice(None), *chosen)].T, lesion[chosen]


def _raw_scores(
    detector: Detector, scan: Scan, modality: str, excluded: sitk.Image | None
) -> dict[tuple[str, str], NDArray]:
    maps = score_inputs(detector, scan)
    inside = maps.brain_box
    if excluded is not None:
        inside = inside & (maps.boxed(excluded) == 0)
    chosen = _some(inside, np.random.default_rng(0))
    return {
        (name, side): maps.raw(name, modality, sign)[chosen]
        for name in SCORES for side, sign in (("bright", 1), ("dark", -1))
    }


def _some(inside: NDArray[np.bool_], rng: np.random.Generator) -> tuple[NDArray, ...]:
    index = np.flatnonzero(inside)
    index = rng.choice(index, min(len(index), _VOXELS_PER_SCAN), replace=False)
    return np.unravel_index(index, inside.shape)
