"""Scores a detector on a folder of cases, the intensity baselines beside it on exactly the same voxels.

Evaluation region: the detector's own brain mask united with the expert's mask. Lesion voxels outside the brain mask
therefore count as missed for the detector (they get its lowest score), while the baselines may still rank them: the
comparison never favours us. Baselines flag as many voxels as the detector did (matched volume).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import SimpleITK as sitk

from ..anomaly.findings import find_components
from ..anomaly.result import Detection
from ..bootstrap import interval
from ..preprocessing.mask_files import read_mask
from ..progress import CancelToken, Progress, no_progress
from ..scan import Scan
from . import metrics
from .autoencoders import OtherScores
from .baselines import equalised_score, flag_brightest, intensity_score
from .cases import Case, one_by_one

Detect = Callable[[Scan, Progress], Detection]
"""Called as detect(scan, progress)."""

OURS = "medvae"
INTENSITY = "intensity"
EQUALISED = "equalised intensity"
METHODS = (OURS, INTENSITY, EQUALISED)
FIRST_FINDINGS = 5
NAN = float("nan")
_NO_INTERVAL = (NAN, NAN)


@dataclass
class MethodScores:
    """One method on one case. Intervals come from resampling 20 mm blocks of the region; NaN = not defined.

    best_dice is an upper bound (threshold chosen with the truth). false_positive_fraction: flagged share of the
    brain outside the lesions. ap_given_brain: within the given brain mask; ap_second_rater: against the other expert.
    ap_gain, dice_gain: how much higher OURS is than this method, over the same resamples. findings_right,
    first_findings_right: how many of the bright findings, and of the FIRST_FINDINGS first, lie on lesion; of the
    baselines as many of their largest components.
    """

    method: str
    ap: float = NAN
    ap_interval: tuple[float, float] = _NO_INTERVAL
    best_dice: float = NAN
    dice: float = NAN
    dice_interval: tuple[float, float] = _NO_INTERVAL
    sensitivity: float = NAN
    lesion_f1: float = NAN
    lesion_recall: float = NAN
    lesion_precision: float = NAN
    false_positive_ml: float = NAN
    false_positive_fraction: float = NAN
    findings_right: float = NAN
    first_findings_right: float = NAN
    ap_given_brain: float = NAN
    ap_second_rater: float = NAN
    ap_gain: float = NAN
    ap_gain_interval: tuple[float, float] = _NO_INTERVAL
    dice_gain: float = NAN
    dice_gain_interval: tuple[float, float] = _NO_INTERVAL


@dataclass
class CaseScores:
    """One case: what it is, how long detection took, and each method's scores (empty where it failed).

    methods: those of METHODS, then the other scores in their order.
    """

    case: Case
    methods: dict[str, MethodScores] = field(default_factory=dict)
    seconds: float = NAN
    modality: str = ""
    threshold: float = NAN
    lesion_ml: float = NAN
    flagged_ml: float = NAN
    findings: int = 0  # bright ones, where dark ones have a score of their own
    dark_ml: float = NAN  # of dark findings, which are not in flagged_ml where they have a score of their own
    brain_ml: float = NAN
    brain_dice: float = NAN
    lesion_outside_brain: float = NAN  # share of the lesion voxels that our brain mask misses
    between_raters_dice: float = NAN
    second_rater_ap: float = NAN  # of the second expert's mask, ranked as if it were a map, against the first's
    warnings: list[str] = field(default_factory=list)
    provenance: dict[str, object] = field(default_factory=dict)
    failure: str = ""


@dataclass(frozen=True)
class _Volumes:
    """What scoring needs, arrays zyx: scores and masks of the detector, the expert's masks and the region."""

    scan: np.ndarray
    score: np.ndarray
    mask: np.ndarray
    brain: np.ndarray
    components: np.ndarray
    findings: tuple[int, ...]  # their labels, in order
    truth: np.ndarray
    region: np.ndarray
    spacing_zyx_mm: tuple[float, float, float]
    second: np.ndarray | None
    given_brain: np.ndarray | None
    others: Mapping[str, np.ndarray]

    @property
    def voxel_ml(self) -> float:
        return float(np.prod(self.spacing_zyx_mm)) / 1000


Look = Callable[[Case, Detection, "np.ndarray | None"], None]
"""Called as look(case, detection, truth or None) after each case: draws the picture."""


def evaluate_cases(cases: Sequence[Case], detect: Detect, modality: str = "auto", look: Look | None = None,
                   progress: Progress = no_progress, cancel: CancelToken | None = None,
                   others: OtherScores | None = None) -> list[CaseScores]:
    """Detects on every case and scores it, and the maps of `others` (see `autoencoders`) on the same voxels.

    A case that fails says so in `failure` and does not stop the others.

    Raises Cancelled, and DeviceMemoryError (it would hit every case).
    """
    return one_by_one(
        cases, len(cases), lambda case, part: evaluate_case(case, detect, modality, look, part, others),
        lambda case, reason: CaseScores(case, failure=reason), progress, cancel)


def evaluate_case(case: Case, detect: Detect, modality: str = "auto", look: Look | None = None,
                  progress: Progress = no_progress, others: OtherScores | None = None) -> CaseScores:
    """Detects on one case and scores it. Raises InputError when one of its files cannot be used."""
    scan = Scan.read(case.scan, modality=modality)
    truth = None if case.truth is None else read_mask(case.truth, scan.image)
    second = None if case.second_rater is None else read_mask(case.second_rater, scan.image)
    given_brain = None if case.brain is None else read_mask(case.brain, scan.image)
    started = time.perf_counter()
    detection = detect(scan, progress)
    seconds = time.perf_counter() - started
    if look is not None:
        look(case, detection, truth)

    scored = case.kind == "lesions" and others is not None
    volumes = _volumes(detection, truth, second, given_brain, others(scan, detection.brain) if scored else {})
    result = CaseScores(case, seconds=seconds, modality=detection.modality, threshold=detection.threshold,
                        warnings=list(detection.warnings), provenance=dict(detection.provenance))
    result.brain_ml = int(volumes.brain.sum()) * volumes.voxel_ml
    result.flagged_ml = int(volumes.mask.sum()) * volumes.voxel_ml
    result.findings = len(volumes.findings)
    result.dark_ml = sum(finding.volume_ml for finding in detection.findings if finding.polarity == "dark")
    if given_brain is not None:
        result.brain_dice = metrics.dice(volumes.brain, given_brain)
    if truth is not None and truth.any():
        result.lesion_ml = int(truth.sum()) * volumes.voxel_ml
        result.lesion_outside_brain = float((truth & ~volumes.brain).sum() / truth.sum())
        if second is not None:
            result.between_raters_dice = metrics.dice(truth, second)
            region = volumes.region | second
            result.second_rater_ap = metrics.ranking(truth[region], second[region].astype(np.float32)).ap
    if case.kind != "no truth":
        result.methods = _score_methods(volumes)
    return result


def _volumes(detection: Detection, truth: np.ndarray | None, second: np.ndarray | None,
             given_brain: np.ndarray | None, others: Mapping[str, np.ndarray]) -> _Volumes:
    brain = sitk.GetArrayFromImage(detection.brain) > 0
    score, mask = detection.bright_side()  # as the lesions are
    components = sitk.GetArrayFromImage(detection.components)
    listed = tuple(finding.label for finding in detection.findings
                   if detection.dark_threshold is None or finding.polarity == "bright")
    truth = np.zeros(brain.shape, bool) if truth is None else truth
    # 0 outside the brain is not the lowest score where scores are signed.
    score[~brain] = min(0.0, float(score[brain].min())) if brain.any() else 0.0
    return _Volumes(
        scan=sitk.GetArrayFromImage(detection.scan.image), score=score,
        mask=mask, brain=brain, components=components, findings=listed, truth=truth, region=brain | truth,
        spacing_zyx_mm=tuple(detection.scan.image.GetSpacing()[::-1]), second=second, given_brain=given_brain,
        others=others)


def _score_methods(volumes: _Volumes) -> dict[str, MethodScores]:
    """Every method on the same region, with the same resamples, intervals only where there are lesion blocks enough."""
    region = volumes.region
    blocks = metrics.spatial_blocks(region, volumes.spacing_zyx_mm)
    spread_out = len(np.unique(blocks[volumes.truth[region]])) >= metrics.MIN_LESION_BLOCKS
    weights = metrics.block_weights(int(blocks.max()) + 1 if blocks.size else 0)
    scored, draws = {}, {}
    for method in (*METHODS, *volumes.others):
        score = _score_of(method, volumes, region)
        mask = volumes.mask if method == OURS else flag_brightest(score, region, int(volumes.mask.sum()))
        scores = scored[method] = _threshold_scores(method, volumes, mask)
        if not volumes.truth.any():
            continue
        truth = volumes.truth[region]
        ranked = metrics.ranking(truth, score[region])
        scores.ap, scores.best_dice = ranked.ap, ranked.best_dice
        _score_elsewhere(scores, method, volumes)
        other, ours = scores, scored[OURS]
        if method != OURS:
            other.ap_gain, other.dice_gain = ours.ap - other.ap, ours.dice - other.dice
        if not spread_out:
            continue
        draws[method] = (metrics.bootstrap_ap(truth, score[region], blocks, weights),
                         metrics.bootstrap_dice(truth, mask[region], blocks, weights))
        scores.ap_interval, scores.dice_interval = map(interval, draws[method])
        if method != OURS:
            other.ap_gain_interval, other.dice_gain_interval = (
                interval(mine - theirs) for mine, theirs in zip(draws[OURS], draws[method], strict=True))
    return scored


def _score_of(method: str, volumes: _Volumes, region: np.ndarray) -> np.ndarray:
    if method == OURS:
        return volumes.score
    if method in volumes.others:
        return volumes.others[method]
    return {INTENSITY: intensity_score, EQUALISED: equalised_score}[method](volumes.scan, region)


def _threshold_scores(method: str, volumes: _Volumes, mask: np.ndarray) -> MethodScores:
    """What depends on the mask alone: Dice, sensitivity, lesions, false positives."""
    truth, wrong = volumes.truth, mask & ~volumes.truth
    healthy_voxels = int((volumes.brain & ~truth).sum())
    scores = MethodScores(method, false_positive_ml=int(wrong.sum()) * volumes.voxel_ml)
    if healthy_voxels:
        scores.false_positive_fraction = int(wrong.sum()) / healthy_voxels
    if truth.any():
        agreement = metrics.lesion_agreement(truth, mask, 1000 * volumes.voxel_ml)
        scores.dice = metrics.dice(truth, mask)
        scores.sensitivity = float((truth & mask).sum() / truth.sum())
        scores.lesion_f1, scores.lesion_recall = agreement.f1, agreement.recall
        scores.lesion_precision = agreement.precision
        right = metrics.on_lesion(*_listed(method, volumes, mask), truth)
        scores.findings_right, scores.first_findings_right = sum(right), sum(right[:FIRST_FINDINGS])
    return scores


def _listed(method: str, volumes: _Volumes, mask: np.ndarray) -> tuple[np.ndarray, Sequence[int]]:
    """Components (zyx) and the labels of those in the list: our findings, or as many of a baseline's components that
    are no smaller than a finding can be, the largest first."""
    if method == OURS:
        return volumes.components, volumes.findings
    labels = find_components(mask.astype(np.float32), 0.5, 1.0, volumes.voxel_ml)
    return labels, range(1, min(len(volumes.findings), int(labels.max())) + 1)


def _score_elsewhere(scores: MethodScores, method: str, volumes: _Volumes) -> None:
    """The same score against the second rater, and within the given brain mask (united with the truth)."""
    if volumes.second is not None and volumes.second.any():
        region = volumes.brain | volumes.second
        scores.ap_second_rater = metrics.ranking(
            volumes.second[region], _score_of(method, volumes, region)[region]).ap
    if volumes.given_brain is not None:
        region = volumes.given_brain | volumes.truth
        scores.ap_given_brain = metrics.ranking(volumes.truth[region], _score_of(method, volumes, region)[region]).ap
