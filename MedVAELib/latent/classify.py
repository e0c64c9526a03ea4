"""Linear discriminant analysis of the latents: fitted on the training patients, judged on the test patients."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .probe import Estimate, discriminant_axes, fit_linear, mean_recall, patient_folds, share_right
from .table import TEST, TRAIN, VALIDATION, LatentTable

TEST_FOLDS = 3  # a table without a split: a third of the patients are kept for the test


@dataclass(frozen=True)
class Classification:
    """What LDA says of the test images.

    confusion: (K, K) counts, row the true class, column the predicted one. axes: (N, A) discriminant coordinates of
    all labelled images, with their labels and whether they are of the test; shares: of the variance between classes.
    majority: accuracy of always predicting the commonest training class.
    """

    target: str
    classes: tuple[str, ...]
    cases: tuple[str, ...]
    patients: NDArray
    true: NDArray
    predicted: NDArray
    axes: NDArray[np.float64]
    shares: NDArray[np.float64]
    axes_labels: NDArray
    axes_test: NDArray[np.bool_]
    train_images: int
    train_patients: int
    majority: float

    @property
    def confusion(self) -> NDArray[np.int64]:
        return np.array([[((self.true == row) & (self.predicted == column)).sum() for column in self.classes]
                         for row in self.classes])

    @property
    def precision(self) -> NDArray[np.float64]:
        """Per class; NaN for one that was never predicted."""
        return _shares(self.confusion.diagonal(), self.confusion.sum(0))

    @property
    def recall(self) -> NDArray[np.float64]:
        """Per class; NaN for one without test images."""
        return _shares(self.confusion.diagonal(), self.confusion.sum(1))

    @property
    def unjudged(self) -> tuple[str, ...]:
        """Classes without test images."""
        return tuple(name for name in self.classes if name not in set(self.true))

    @property
    def accuracy(self) -> Estimate:
        return share_right(self.true, self.predicted, self.patients)

    @property
    def balanced_accuracy(self) -> Estimate:
        return mean_recall(self.true, self.predicted, self.patients)


def classify(table: LatentTable, target: str = "label", seed: int = 0) -> Classification:
    """LDA of the column `target` on the latents' means, classes counting alike. Rows without a value are left out.

    Takes the table's own split (validation images stay out, but for a split without test images, where they are the
    test), or without one keeps a third of the patients for the test, none of a value that fewer than three have. Raises
    InputError where a patient is on both sides, or a class lacks training patients.
    """
    table, labels = table.labelled(target)
    train, test = split_by_patient(table, labels, seed)
    _check(labels, train, test, target)
    classes = tuple(sorted(set(labels[train])))
    model = fit_linear(table.mean[train], labels[train])
    shown = train | test
    axes = discriminant_axes(model)
    counts = [(labels[train] == name).sum() for name in classes]
    commonest = classes[int(np.argmax(counts))]
    return Classification(
        target, classes, tuple(np.asarray(table.cases, object)[test]), np.asarray(table.patients, object)[test],
        labels[test], model.predict(table.mean[test].astype(np.float64)),
        axes(table.mean[shown].astype(np.float64)), axes.shares, labels[shown], test[shown],
        int(train.sum()), len(set(np.asarray(table.patients, object)[train])),
        float((labels[test] == commonest).mean()))


def split_by_patient(table: LatentTable, labels: NDArray, seed: int = 0) -> tuple[NDArray, NDArray]:
    """Masks of the training and the test rows; raises InputError where a patient is in both."""
    split, patients = np.asarray(table.split, object), np.asarray(table.patients, object)
    held_back = TEST if (split == TEST).any() else VALIDATION
    if (split == TRAIN).any() and (split == held_back).any():
        train, test = split == TRAIN, split == held_back
        both = sorted(set(patients[train]) & set(patients[test]))
        if both:
            raise InputError(f"Patient '{both[0]}' is in the training and in the test part of the table: split by "
                             "patient, or empty the column split.")
        return train, test
    if len(set(patients)) < TEST_FOLDS:
        raise InputError(f"The table has {len(set(patients))} patients, too few to keep some for the test: encode "
                         "more.")
    if max(np.unique(labels.astype(str), return_counts=True)[1]) < TEST_FOLDS:
        raise InputError(f"No value has {TEST_FOLDS} images, too few to keep some for the test: encode more.")
    rare = [name for name in set(labels) if len(set(patients[labels == name])) < TEST_FOLDS]
    if len(rare) == len(set(labels)):
        raise InputError(f"Every value has fewer than {TEST_FOLDS} patients, too few to keep some for the test: encode "
                         "more.")
    test = np.zeros(len(table), bool)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of values with fewer images than folds, which are told of
        test[next(patient_folds(labels, patients, TEST_FOLDS, seed))[1]] = True
    test &= ~np.isin(patients, patients[np.isin(labels, rare)])
    return ~test, test


def _check(labels: NDArray, train: NDArray, test: NDArray, target: str) -> None:
    if len(set(labels[train])) < 2:
        raise InputError(f"The training part has {len(set(labels[train]))} values of '{target}', and two at least are "
                         "needed: encode images of every class.")
    if train.sum() <= len(set(labels[train])):
        raise InputError(f"The training part has {train.sum()} images of {len(set(labels[train]))} values of "
                         f"'{target}', one of each, so that their spread is unknown: encode more.")
    unseen = sorted(set(labels[test]) - set(labels[train]))
    if unseen:
        raise InputError(f"'{unseen[0]}' is a value of '{target}' in the test part only: give it training patients.")
    if not test.any():
        raise InputError(f"No test image has a value of '{target}': encode some, or empty the column split.")


def _shares(part: Sequence[int], whole: Sequence[int]) -> NDArray[np.float64]:
    return np.array([p / w if w else np.nan for p, w in zip(part, whole, strict=True)])
