"""Confound check: how well acquisition tags, or columns of the table, predict the label alone, without any image.

Where they do, a model that tells the labels apart may only have learned to tell the scanners apart. Tags and latents
are judged on the same patients left out, tags by a random forest, which sees any relation to the label, not only a
linear one. To both, classes count alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..files.dicom_files import SCANNER_TAGS
from ..preprocessing.slices import LESION_FRACTION, PIXEL
from ..progress import CancelToken
from ..training.image_listing import GENERATED_BY
from .probe import LEAST_PATIENTS, Estimate, by_patient, linear_probe
from .table import LatentTable

CLEAR_GAIN = 0.1
"""Share of the way from chance to perfect that tags must go, beyond their interval, to count as telling the label."""
OWN_COLUMNS = {LESION_FRACTION, GENERATED_BY}
"""What the library itself writes and the check leaves out: a patch's share of lesion is its very label, and what made
an image up is no acquisition. Where a slice lies is checked, as it can confound."""
_ACQUISITION = SCANNER_TAGS | {PIXEL}
_TREES, _LEAF = 60, 3
_LEAVES_PER_CLASS = 4
"""At least as many leaves the rarest class must fill, or trees, which see some two thirds of it, could not split."""
_MAX_KINDS = 50


@dataclass(frozen=True)
class ConfoundCheck:
    """Balanced accuracies in patients left out: of all tags together, of each tag alone (best first), of the latents.

    left_out: tags that could not be checked, texts that differ in nearly every image. verdict: "alarm", "suspect"
    (above chance, but not clearly), "too few patients" or "clear"; sentence: the same for a reader.
    """

    target: str
    classes: tuple[str, ...]
    images: int
    patients: int
    tags: Estimate
    each_tag: dict[str, Estimate]
    latents: Estimate
    left_out: tuple[str, ...] = ()

    @property
    def chance(self) -> float:
        return 1 / len(self.classes)

    @property
    def verdict(self) -> str:
        def gain(value: float) -> float:
            return (value - self.chance) / (1 - self.chance)

        if gain(self.tags.low) > 0 and gain(self.tags.value) >= CLEAR_GAIN:
            return "alarm"
        if self.patients < LEAST_PATIENTS:
            return "too few patients"
        return "suspect" if gain(self.tags.low) > 0 or gain(self.tags.value) >= CLEAR_GAIN else "clear"

    @property
    def sentence(self) -> str:
        if not self.left_out:
            return self._finding
        return f"{self._finding} Not checked, as texts that differ in nearly every image: {', '.join(self.left_out)}."

    @property
    def _finding(self) -> str:
        what, of = "acquisition tags", "the scanner"
        if not _ACQUISITION.issuperset(self.each_tag):
            what, of = "columns of the table", "these columns"
        figures = (f"{what} alone predict '{self.target}' in patients left out with a balanced accuracy of "
                   f"{self.tags} (chance {self.chance:.2f}; latents {self.latents})")
        if self.verdict == "alarm":
            best = next(iter(self.each_tag))
            share = " and do at least as well as the latents" if self.tags.value >= self.latents.value - 0.02 else ""
            return (f"CONFOUNDED: {figures}{share}, most of all '{best}': what the model's figure says of the image "
                    f"cannot be told from what it says of {of}.")
        if self.verdict == "too few patients":
            return f"Too few patients to tell whether the label is confounded: {figures}: add patients."
        if self.verdict == "suspect":
            return f"Possibly confounded: {figures}: too few patients to tell; compare with images of matched tags."
        return f"No sign of confounding: {figures}."


def confound_check(table: LatentTable, target: str = "label", tags: Sequence[str] | None = None,
                   seed: int = 0, cancel: CancelToken | None = None) -> ConfoundCheck:
    """Compares the table's tags (by default all but OWN_COLUMNS) with its latents' means as predictors of a column.

    Raises InputError without tags or with too few patients, UsageError for a tag that is not there, Cancelled.
    """
    table, labels = table.labelled(target)
    chosen = [name for name in table.tags if name not in OWN_COLUMNS] if tags is None else tags
    raw = {name: table.column(name) for name in chosen if name != target}
    columns = {name: tag_features(values) for name, values in raw.items()}
    columns = {name: values for name, values in columns.items() if values.shape[1]}
    left_out = tuple(name for name in raw if name not in columns and len({str(value) for value in raw[name]}) > 1)
    if not columns:
        raise InputError("The table has no acquisition tag that varies, so confounding cannot be checked: add columns "
                         "such as repetition_time_ms to the CSV file of the images.")

    cancel = cancel or CancelToken()

    def score(features: NDArray) -> Estimate:
        cancel.check()
        return by_patient(partial(_fit_forest, seed), features, labels, table.patients, seed).balanced_accuracy

    each = {name: score(values) for name, values in columns.items()}
    together = score(np.concatenate(list(columns.values()), 1)) if len(each) > 1 else next(iter(each.values()))
    probe = linear_probe(table.mean, labels, table.patients, seed)
    best_first = dict(sorted(each.items(), key=lambda item: -item[1].value))
    return ConfoundCheck(target, probe.classes, len(labels), len(set(table.patients)), together, best_first,
                         probe.balanced_accuracy, left_out)


def tag_features(column: NDArray) -> NDArray[np.float64]:
    """A tag as features (N, F): a number with its missing ones marked, or one column per kind; none if it is constant
    or tells nearly every image apart, as a series number does."""
    if column.dtype == np.float64:
        missing = ~np.isfinite(column)
        filled = np.where(missing, np.median(column[~missing]) if (~missing).any() else 0.0, column)
        features = np.stack([filled, missing.astype(np.float64)], 1)
    else:
        kinds = sorted(set(column))
        features = np.stack([column == kind for kind in kinds], 1).astype(np.float64)
        if len(kinds) > min(_MAX_KINDS, len(column) // 2):
            return np.zeros((len(column), 0))
    return features[:, np.ptp(features, axis=0) > 0]


def _fit_forest(seed: int, features: NDArray, labels: NDArray):
    from sklearn.ensemble import RandomForestClassifier

    rarest = int(np.unique(labels, return_counts=True)[1].min())
    leaf = max(1, min(_LEAF, rarest // _LEAVES_PER_CLASS))
    forest = RandomForestClassifier(_TREES, min_samples_leaf=leaf, class_weight="balanced", random_state=seed, n_jobs=1)
    return forest.fit(features, labels)
