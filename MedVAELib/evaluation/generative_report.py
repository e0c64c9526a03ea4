"""One model or several on one set of images: figures, pictures and, where there are labels, what the latents know."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..latent.classify import Classification, classify
from ..latent.cohort import encode_images, images_for
from ..latent.confound import ConfoundCheck, confound_check
from ..latent.model import LatentModel
from ..latent.table import TEST, TRAIN, VALIDATION
from ..progress import CancelToken, Progress, no_progress, scaled
from ..reporting.latent_pictures import write_strips
from ..training.image_sets import ImageSet
from .generative import GenerativeScores, Made, Reference, evaluate_model, nearest_images, reference
from .generative_baselines import baseline_scores
from .generative_tables import definitions, generative_table
from .tables import markdown_table

_SHOWN = 8
TEST_SHARE = 0.3
"""Of the patients, where images come without a split."""


@dataclass
class Comparison:
    """What was measured of each model, and of the trivial ones; then by model, where there are labels (and tags), what
    the latents tell of them, or why that cannot be told. doubts: sentences on whether "held back" is true."""

    against: Reference
    scores: list[GenerativeScores] = field(default_factory=list)
    baselines: list[GenerativeScores] = field(default_factory=list)
    classes: dict[str, Classification] = field(default_factory=dict)
    checks: dict[str, ConfoundCheck] = field(default_factory=dict)
    unchecked: dict[str, str] = field(default_factory=dict)
    doubts: list[str] = field(default_factory=list)


def parts(images: ImageSet) -> tuple[ImageSet, ImageSet]:
    """Training and held-back images: those of the test, or without one of the validation. Raises InputError where one
    of them is empty."""
    train, held_back = images.part(TRAIN), images.part(TEST)
    held_back = held_back if len(held_back) else images.part(VALIDATION)
    if not len(train) or not len(held_back):
        raise InputError("The images' split names no training or no test images: name some of both, or none.")
    return train, held_back


def doubts_of_split(images: ImageSet) -> list[str]:
    """Why the held-back images may not be new to a model, in sentences for a reader."""
    if not set(images.splits) - {""}:
        return ["The images came without a split, so one was drawn now: models may have been trained on those that are "
                "called held back here. Give split.csv, which the training wrote, as --images."]
    if not len(images.part(TEST)):
        return ["There is no test part: held back are the validation images, by which the training was watched and may "
                "have chosen its weights, so that figures may be a little too good."]
    return []


def compare_models(
    models: Mapping[str, Callable[[], LatentModel]], source: str, folder: Path, latents: bool,
    samples: int | None = None, seed: int = 0, pattern: str = "", patient: str = "",
    progress: Progress = no_progress, cancel: CancelToken | None = None,
) -> Comparison:
    """Measures models, each loaded by its function, on the images of one source, and writes pictures into `folder`.

    latents: whether to classify by the latents as well. Raises InputError for images a model cannot take.
    """
    if len(models) > 1:
        _refuse_other_forms(models)
    found: Comparison | None = None
    shown: dict[str, Made] = {}
    real = np.zeros(0)
    for done, (name, load) in enumerate(models.items()):
        told = scaled(progress, 0.8 * done / len(models), 0.8 * (done + 1) / len(models))
        model = load()
        images = images_for(model, source, pattern, patient, scaled(told, 0.0, 0.2), cancel)
        doubts = doubts_of_split(images)
        images = images if set(images.splits) - {""} else images.with_split(0.0, TEST_SHARE, seed)
        train, held_back = parts(images)
        if found is None:
            real = held_back.images
            found = Comparison(reference(train.images, real, seed, cancel, held_back.patients, train.patients),
                               doubts=doubts)
        scores, made = evaluate_model(name, model, found.against, samples, seed, scaled(told, 0.2, 0.8), cancel)
        found.scores.append(scores)
        shown[name] = Made(made.reconstructions[:_SHOWN], made.samples[:_SHOWN])
        write_pictures(name, made, train.images, real, folder)
        if latents:
            _classify(name, model, images, found, cancel, seed)
    assert found is not None
    found.baselines = baseline_scores(found.against, found.scores, samples, seed, scaled(progress, 0.8, 1.0), cancel)
    if len(models) > 1:
        write_strips({"held-back images": real[:_SHOWN]} | {k: v.reconstructions for k, v in shown.items()},
                     folder / "reconstructions.png")
        write_strips({k: v.samples for k, v in shown.items()}, folder / "samples.png")
    return found


def _refuse_other_forms(models: Mapping[str, Callable[[], LatentModel]]) -> None:
    """All are measured on the very same arrays, so they have to take the same."""
    first: tuple[str, tuple] | None = None
    for name, load in models.items():
        model = load()
        form = model.preparation, model.shape, model.form.fit, model.form.scaling
        first = first or (name, form)
        if form != first[1]:
            raise InputError(f"{name} takes images in another form ({_told(form)}) than {first[0]} "
                             f"({_told(first[1])}): compare models that were trained on images of one form.")


def _told(form: tuple) -> str:
    preparation, shape, fit, scaling = form
    return f"{preparation}, {' × '.join(map(str, shape))}, fit {fit}, scaling {scaling}"


def write_pictures(name: str, made: Made, train: np.ndarray, held_back: np.ndarray, folder: Path) -> None:
    """Reconstructions below their originals; samples, each above the training image most like it."""
    write_strips({"image": held_back[:_SHOWN], "reconstruction": made.reconstructions[:_SHOWN]},
                 folder / f"{name}_reconstructions.png")
    samples = made.samples[:_SHOWN]
    write_strips({"sample": samples, "nearest\ntraining image": nearest_images(samples, train)},
                 folder / f"{name}_samples.png")


def comparison_markdown(title: str, found: Comparison, notes: Sequence[str] = ()) -> str:
    """The whole result."""
    text = [f"# {title}\n", *(f"{note}  " for note in (*notes, *found.doubts)), "",
            generative_table([*found.scores, *found.baselines])]
    if found.classes:
        rows = [[name, str(c.accuracy), str(c.balanced_accuracy), f"{c.majority:.2f}"]
                for name, c in found.classes.items()]
        text += ["## What the latents know of the label\n",
                 markdown_table(["model", "LDA accuracy", "balanced accuracy", "commonest class"], rows)]
        text += [f"- {name}: {check.sentence}" for name, check in found.checks.items()]
    text += [f"- {name}: {why}" for name, why in found.unchecked.items()]
    return "\n".join([*text, "", "## Definitions\n", *(f"- {line}" for line in definitions(found.against)), ""])


def _classify(name: str, model: LatentModel, images: ImageSet, found: Comparison, cancel: CancelToken | None,
              seed: int) -> None:
    """What labels and tags allow: images without them are compared by the other figures alone."""
    table = encode_images(model, images, cancel=cancel)
    if len(set(table.labels) - {""}) < 2:
        return
    try:
        found.classes[name] = classify(table, seed=seed)
        if table.tags:
            found.checks[name] = confound_check(table, seed=seed)
    except InputError as error:
        found.unchecked[name] = str(error)
