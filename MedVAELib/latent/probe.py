"""How well something predicts a label in patients it was not fitted on: folds by patient, intervals over patients."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from ..bootstrap import RESAMPLES, interval
from ..errors import InputError

FOLDS = 5
MAX_COMPONENTS = 200
"""Latents beyond as many are first brought to their principal components, of the fitted images alone."""
LEAST_PATIENTS = 5
"""From as many patients on an interval over them is told: of fewer, who are alike by chance, it would look certain."""


@dataclass(frozen=True)
class Estimate:
    """A figure with its percentile-bootstrap interval over so many patients."""

    value: float
    low: float
    high: float
    patients: int

    def __str__(self) -> str:
        if self.patients < LEAST_PATIENTS:
            return f"{self.value:.2f} [too few patients]"
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"

    def record(self) -> dict[str, float]:
        """For a file of figures; without an interval (NaN) where `str` tells none."""
        few = self.patients < LEAST_PATIENTS
        return asdict(self) | ({"low": math.nan, "high": math.nan} if few else {})


@dataclass(frozen=True)
class Probe:
    """Predictions for every image by models that saw none of its patient's images. probability: (N, K) of classes."""

    classes: tuple[str, ...]
    true: NDArray
    probability: NDArray[np.float64]
    patients: NDArray

    @property
    def predicted(self) -> NDArray:
        return np.asarray(self.classes, object)[self.probability.argmax(1)]

    @property
    def balanced_accuracy(self) -> Estimate:
        """Mean recall over the classes: 1/K by chance, however unequal they are."""
        return mean_recall(self.true, self.predicted, self.patients)

    @property
    def auc(self) -> Estimate:
        """Area under the ROC curve, with more than two classes the mean over each against the rest."""
        chosen = range(1, 2) if len(self.classes) == 2 else range(len(self.classes))

        def figure(weights: NDArray) -> NDArray:
            return np.nanmean([_auc(self.true == self.classes[i], self.probability[:, i], weights) for i in chosen], 0)

        return estimate(figure, self.patients)


def fit_linear(features: NDArray, labels: NDArray):
    """Linear discriminant analysis of features (N, F) and their labels (N,), as a fitted scikit-learn pipeline.

    The covariance within the classes is shrunk (Ledoit and Wolf 2004) on the features' own scales: a latent that
    carries nothing hardly varies, and standardising, as scikit-learn's own shrinkage does first, would make it as loud
    as the others. Classes count alike in what it predicts, however many images each has. No more features are used than
    directions in which images differ from their class's mean: with two images a class the shrinkage is none, and the
    covariance could not be inverted.
    """
    from sklearn.covariance import LedoitWolf
    from sklearn.decomposition import PCA
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.pipeline import make_pipeline

    most = max(1, min(MAX_COMPONENTS, len(features) - len(set(labels))))
    steps = [PCA(most, svd_solver="full")] if features.shape[1] > most else []
    lda = LinearDiscriminantAnalysis(solver="eigen", covariance_estimator=LedoitWolf(store_precision=False))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Only one sample", UserWarning)  # a class of one image has no covariance
        try:
            model = make_pipeline(*steps, lda).fit(features.astype(np.float64), labels)
        except np.linalg.LinAlgError:
            raise InputError("The images of every label have the same latents, so how they vary is not known: "
                             "the model tells none of them apart, or each image is there several times.") from None
    # Not by `priors`, by which the covariance would be weighted, too: that of a class of few images as much as any.
    frequency = np.log(lda.priors_)
    lda.intercept_ = lda.intercept_ - (frequency if len(frequency) > 2 else np.diff(frequency))
    return model


@dataclass(frozen=True)
class Axes:
    """Discriminant coordinates x @ matrix.T + offset of latents x (N, Z): matrix (A, Z), offset (A,); shares: of the
    variance between the classes, by axis."""

    matrix: NDArray[np.float64]
    offset: NDArray[np.float64]
    shares: NDArray[np.float64]

    def __call__(self, latents: NDArray) -> NDArray[np.float64]:
        return latents @ self.matrix.T + self.offset


def discriminant_axes(model) -> Axes:
    """The axes along which the classes of a `fit_linear` lie furthest apart, as seen in units of their spread.

    scikit-learn's own `transform` takes the scatter between classes to be the shrunk total covariance less the shrunk
    one within classes; as both are shrunk differently, with many latents its first axes have nothing to do with the
    classes. The classes' means, whitened by the covariance within them, have.
    """
    lda = model[-1]
    centre = lda.priors_ @ lda.means_
    between = np.sqrt(lda.priors_)[:, None] * ((lda.means_ - centre) @ lda.scalings_)
    _, spread, directions = np.linalg.svd(between, full_matrices=False)
    count = min(len(lda.classes_) - 1, lda.means_.shape[1])
    matrix = (lda.scalings_ @ directions[:count].T).T
    offset, shares = -matrix @ centre, spread[:count] ** 2 / max(float((spread**2).sum()), 1e-300)
    if len(model) > 1:
        components = model[0]
        offset = offset - matrix @ (components.components_ @ components.mean_)
        matrix = matrix @ components.components_
    return Axes(matrix, offset, shares)


def linear_probe(features: NDArray, labels: Sequence[str], patients: Sequence[str], seed: int = 0) -> Probe:
    """`fit_linear` on features (N, F), each patient predicted from the others. Rows without a label are left out.

    Raises InputError with fewer than two labels, or a label of a single patient.
    """
    return by_patient(fit_linear, np.asarray(features, np.float64), labels, patients, seed)


def by_patient(fit: Callable[[NDArray, NDArray], object], features: NDArray, labels: Sequence[str],
               patients: Sequence[str], seed: int = 0) -> Probe:
    """Predictions in folds that keep each patient together. fit(features, labels): a fitted scikit-learn classifier to
    which classes count alike, as the balanced accuracy has them."""
    labels, patients = np.asarray(labels, object), np.asarray(patients, object)
    known = labels != ""
    features, labels, patients = features[known], labels[known], patients[known]
    classes = tuple(sorted(set(labels)))
    if len(classes) < 2:
        raise InputError(f"Predicting a label needs two labels at least, and there is {len(classes)}: give a label "
                         "to the images of each class.")
    of_class = {name: len(set(patients[labels == name])) for name in classes}
    folds = min(FOLDS, *of_class.values())
    if folds < 2:
        lone = min(of_class, key=of_class.__getitem__)
        raise InputError(f"The label '{lone}' has images of a single patient, so it cannot be predicted in patients "
                         "left out: add patients.")
    probability = np.zeros((len(labels), len(classes)))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning)  # small folds lack rare classes; they count as missed
        for used, held in patient_folds(labels, patients, folds, seed):
            if not 1 < len(set(labels[used])) < len(used):
                raise InputError("Too few images of each label to predict it in patients left out: add patients.")
            # By number, as scikit-learn makes numbers of names that are digits, and then misses the names.
            model = fit(features[used], np.array([classes.index(name) for name in labels[used]]))
            probability[np.ix_(held, model.classes_)] = model.predict_proba(features[held])
    return Probe(classes, labels, probability, patients)


def patient_folds(labels: NDArray, patients: NDArray, folds: int, seed: int) -> Iterator[tuple[NDArray, NDArray]]:
    """(training, held-back) rows of each fold: patients whole, in an order drawn by seed, classes spread evenly.

    The order is drawn here: before version 1.8, scikit-learn's own mixes up patients and their labels.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    names, of_row = np.unique(patients, return_inverse=True)
    order = np.arange(len(names))
    np.random.RandomState(seed).shuffle(order)
    return StratifiedGroupKFold(folds).split(labels, labels, np.argsort(order)[of_row])


def estimate(figure: Callable[[NDArray], NDArray], patients: NDArray) -> Estimate:
    """figure(weights (R, N) of the images) → (R,), of all images once, and its interval over resampled patients."""
    names, place = np.unique(np.asarray(patients, str), return_inverse=True)
    drawn = np.random.default_rng(0).multinomial(len(names), np.full(len(names), 1 / len(names)), RESAMPLES)
    with np.errstate(invalid="ignore", divide="ignore"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice", RuntimeWarning)  # a resample without any class's image
        value = figure(np.ones((1, len(place))))[0]
        draws = figure(drawn[:, place].astype(np.float64))
    return Estimate(float(value), *interval(draws), len(names))


def mean_recall(true: NDArray, predicted: NDArray, patients: NDArray) -> Estimate:
    """Recall, averaged over the classes that are there."""
    right, of_class = true == predicted, [true == name for name in sorted(set(true))]
    return estimate(lambda weights: np.nanmean(
        [(weights[:, rows] @ right[rows]) / weights[:, rows].sum(1) for rows in of_class], 0), patients)


def share_right(true: NDArray, predicted: NDArray, patients: NDArray) -> Estimate:
    """Accuracy."""
    right = true == predicted
    return estimate(lambda weights: (weights @ right) / weights.sum(1), patients)


def _auc(truth: NDArray[np.bool_], score: NDArray, weights: NDArray) -> NDArray:
    """Share of pairs of one image of the class and one other that the score orders rightly, per row of weights."""
    higher, lower = score[truth], np.sort(score[~truth])
    order, inside = np.argsort(score[~truth], kind="stable"), weights[:, truth]
    outside = np.concatenate([np.zeros((len(weights), 1)), weights[:, ~truth][:, order].cumsum(1)], 1)
    below, up_to = (outside[:, np.searchsorted(lower, higher, side=side)] for side in ("left", "right"))
    return (inside * (below + up_to)).sum(1) / (2 * inside.sum(1) * outside[:, -1])
