"""The methods of the skull's evaluation: a model's bundle, and the mean head. Both see canonical outline maps alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ..progress import CancelToken
from ..skull.biometry import measure_heads, summarise
from ..skull.predictor import SkullPredictor
from ..standard_planes import PLANES, Subset
from .mean_head import MeanHead
from .skull import Estimate, Guess, Predict
from .skull_metrics import Solid
from .skull_planes import SeenPlanes

DETERMINISTIC = ("tlnet",)
"""Models whose samples are all the same, so that one is drawn."""


def model_method(predictor: SkullPredictor, samples: int, seed: int = 0, cancel: CancelToken | None = None) -> Predict:
    """A bundle's model as `medvae skull` runs it, on outlines that are found already."""
    samples = 1 if predictor.bundle.model in DETERMINISTIC else samples

    def guess(subset: Subset, maps: torch.Tensor, present: torch.Tensor, spacing_mm: float) -> Guess:
        heads = predictor.shape.sample(maps, present, spacing_mm, samples, seed, predictor.temperature(subset),
                                       cancel=cancel)
        mean, std = (volume.cpu().numpy() * spacing_mm for volume in heads.moments.distance())
        measures = {measure.name: Estimate(measure.value, measure.std)
                    for measure in summarise(heads.measures, widening=predictor.measure_widening(subset))}
        return Guess(Solid(mean, spacing_mm), std if samples > 1 else None, measures)

    return _of_each_subset(guess)


def mean_head_method(mean_head: MeanHead) -> Predict:
    """The trivial baseline on the same outlines."""

    def guess(subset: Subset, maps: torch.Tensor, present: torch.Tensor, spacing_mm: float) -> Guess:
        field = mean_head.predict({plane: maps[PLANES.index(plane)].numpy() for plane in subset}, spacing_mm)
        measures = measure_heads(torch.from_numpy(field)[None] / spacing_mm, spacing_mm)
        return Guess(Solid(field, spacing_mm), None, {name: Estimate(float(value)) for name, value in measures.items()})

    return _of_each_subset(guess)


def _of_each_subset(guess: Callable[[Subset, torch.Tensor, torch.Tensor, float], Guess]) -> Predict:
    """guess: called with a subset, and the canonical maps, which planes are there and the spacing in mm of it."""

    def predict(seen: SeenPlanes, subsets: Sequence[Subset]) -> list[Guess]:
        return [guess(subset, *seen.canonical(subset)) for subset in subsets]

    return predict
