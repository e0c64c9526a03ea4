"""Agreement between an anomaly score or mask and an expert's mask, with bootstrap intervals.

Arrays are zyx or flat lists of voxels; `truth` is bool. A figure that is not defined (no lesion, nothing flagged)
is NaN, never 0 by convention.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from sklearn.metrics import precision_recall_curve

from ..bootstrap import RESAMPLES, interval

BLOCK_MM = 20.0
MIN_LESION_BLOCKS = 5
"""A lesion in fewer blocks is hardly ever drawn otherwise than it is: an interval would be far too narrow."""
MIN_RESAMPLED = 5
"""Of fewer cases, what should hold in 95 % of the trials holds in half (two, normally distributed) to .79 (four)."""
MIN_LESION_MM3 = 10.0
MIN_OVERLAP = 0.1
_BINS = 512


@dataclass(frozen=True)
class Ranking:
    """Quality of a score over all thresholds. best_dice is an upper bound: its threshold was chosen with the truth."""

    ap: float
    best_dice: float


@dataclass(frozen=True)
class LesionAgreement:
    """Agreement per connected component (26 neighbours).

    Components under `MIN_LESION_MM3` are left out. A lesion counts as found when at least `MIN_OVERLAP` of it is
    flagged; a flagged component counts as right when at least `MIN_OVERLAP` of it lies on lesion of any size.
    """

    lesions: int
    found: int
    flagged: int
    right: int

    @property
    def recall(self) -> float:
        return self.found / self.lesions if self.lesions else float("nan")

    @property
    def precision(self) -> float:
        return self.right / self.flagged if self.flagged else float("nan")

    @property
    def f1(self) -> float:
        if not self.lesions:
            return float("nan")
        if not self.found or not self.right:
            return 0.0
        return 2 * self.precision * self.recall / (self.precision + self.recall)


def ranking(truth: np.ndarray, score: np.ndarray) -> Ranking:
    """Average precision (area under the precision-recall steps, no interpolation) and best possible Dice.

    truth, score: (n,) voxels of the evaluation region. All NaN where there is no lesion voxel.
    """
    if not truth.any():
        return Ranking(float("nan"), float("nan"))
    precision, recall, _ = precision_recall_curve(truth, score)
    dice = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    return Ranking(float(-np.sum(np.diff(recall) * precision[:-1])), float(dice[:-1].max()))


def dice(first: np.ndarray, second: np.ndarray) -> float:
    """2|A∩B| / (|A|+|B|) of two bool arrays; NaN when both are empty."""
    total = int(first.sum()) + int(second.sum())
    return 2 * int((first & second).sum()) / total if total else float("nan")


def lesion_agreement(truth: np.ndarray, mask: np.ndarray, voxel_mm3: float) -> LesionAgreement:
    """Counts components of `mask` against those of `truth` (bool, zyx); see LesionAgreement for the rules."""
    lesions, found = _overlapping_components(truth, mask, voxel_mm3)
    flagged, right = _overlapping_components(mask, truth, voxel_mm3)
    return LesionAgreement(lesions, found, flagged, right)


def _overlapping_components(components_of: np.ndarray, other: np.ndarray, voxel_mm3: float) -> tuple[int, int]:
    """How many components are large enough, and how many of these the other mask overlaps."""
    labels, count = ndimage.label(components_of, np.ones((3, 3, 3)))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    shared = np.bincount(labels[other], minlength=count + 1)[1:]
    counted = sizes * voxel_mm3 >= MIN_LESION_MM3
    return int(counted.sum()), int((counted & (shared >= MIN_OVERLAP * sizes)).sum())


def on_lesion(labels: np.ndarray, listed: Sequence[int], truth: np.ndarray) -> list[bool]:
    """Of the components of `labels` (zyx) that are listed, in their order: whether at least `MIN_OVERLAP` of each lies
    on lesion."""
    sizes = np.bincount(labels.ravel())
    shared = np.bincount(labels[truth], minlength=len(sizes))
    return [bool(shared[label] >= MIN_OVERLAP * sizes[label]) for label in listed]


def spatial_blocks(region: np.ndarray, spacing_zyx_mm: tuple[float, float, float]) -> np.ndarray:
    """For each voxel of `region` (bool, zyx), the number of the cube of side BLOCK_MM it lies in: (n,) from 0 up.

    Neighbouring voxels are far from independent; resampling whole blocks keeps a lesion and its surroundings together.
    """
    cubes = [(index * step // BLOCK_MM).astype(np.int64)
             for index, step in zip(np.nonzero(region), spacing_zyx_mm, strict=True)]
    size = [int(cube.max()) + 1 if cube.size else 1 for cube in cubes]
    return np.unique(np.ravel_multi_index(cubes, size), return_inverse=True)[1]


def block_weights(blocks: int, resamples: int = RESAMPLES) -> np.ndarray:
    """How often each block is drawn in each resample: (resamples, blocks). The same weights pair two methods."""
    return np.random.default_rng(0).multinomial(blocks, np.full(blocks, 1 / max(blocks, 1)), resamples)


def bootstrap_ap(truth: np.ndarray, score: np.ndarray, blocks: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Average precision in each resample of the blocks: (resamples,), NaN where a resample drew no lesion.

    Scores are binned at the quantiles of lesion and other voxels, because sorting all voxels again for each resample
    would take minutes; the small difference at the original weights is taken off again.
    """
    levels = np.linspace(0, 1, _BINS)
    edges = np.unique(np.concatenate([np.quantile(score[truth], levels), np.quantile(score[~truth], levels)]))
    bins = len(edges) - np.searchsorted(edges, score, side="right")  # 0 holds the highest scores
    cells, shape = blocks * (len(edges) + 1) + bins, (weights.shape[1], len(edges) + 1)
    hits, misses = (np.bincount(cells[voxels], minlength=shape[0] * shape[1]).reshape(shape).astype(np.float64)
                    for voxels in (truth, ~truth))

    def ap_of(weight: np.ndarray) -> np.ndarray:
        gained = weight @ hits
        right = gained.cumsum(1)
        flagged = right + (weight @ misses).cumsum(1)
        with np.errstate(invalid="ignore"):
            return (gained * right / np.maximum(flagged, 1)).sum(1) / right[:, -1]

    offset = ranking(truth, score).ap - ap_of(np.ones((1, weights.shape[1])))[0]
    return np.clip(ap_of(weights.astype(np.float64)) + offset, 0, 1)


def bootstrap_dice(truth: np.ndarray, mask: np.ndarray, blocks: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Dice in each resample of the blocks: (resamples,), NaN where a resample drew neither lesion nor flag."""
    count = weights.shape[1]
    both = np.bincount(blocks[truth & mask], minlength=count)
    total = np.bincount(blocks[truth], minlength=count) + np.bincount(blocks[mask], minlength=count)
    with np.errstate(invalid="ignore"):
        return 2 * (weights @ both) / (weights @ total)


def mean_with_interval(values: np.ndarray, groups: Sequence[str] | None = None) -> tuple[float, float, float]:
    """Mean over cases and its interval from resampling the cases, or with `groups`, one for each case, whole groups
    (several images of a patient are far from independent); undefined values are left out.

    With fewer than MIN_RESAMPLED to resample the interval is NaN: a few cases say too little about the next.
    """
    values = np.asarray(values, np.float64)
    known = np.isfinite(values)
    group = np.arange(values.size) if groups is None else np.unique(groups, return_inverse=True)[1]
    sums, sizes = (np.bincount(group[known], weight) for weight in (values[known], None))
    sums, sizes = sums[sizes > 0], sizes[sizes > 0]
    mean = float(values[known].mean()) if known.any() else float("nan")
    if sizes.size < MIN_RESAMPLED:
        return mean, float("nan"), float("nan")
    drawn = np.random.default_rng(0).integers(sizes.size, size=(RESAMPLES, sizes.size))
    return mean, *interval(sums[drawn].sum(1) / sizes[drawn].sum(1))
