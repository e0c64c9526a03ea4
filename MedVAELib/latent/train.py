"""`medvae train` for image autoencoders: from a folder of images to a bundle, with curves and pictures as it goes."""

from __future__ import annotations

import csv
import io
import multiprocessing
from collections.abc import Iterator
from dataclasses import asdict
from itertools import count
from operator import attrgetter
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..bundle import save_bundle
from ..errors import InputError
from ..files.csv_files import is_table
from ..files.whole_files import replaced
from ..inference import select_device
from ..models import build_model
from ..progress import CancelToken, Progress, no_progress, scaled
from ..training.augment import Augment, augmenter
from ..training.config import read_config, source_path
from ..training.image_listing import INDEX, SCAN, SERIES
from ..training.image_sets import ImageSet, read_images
from ..training.image_split import count_in_words, likely_patient
from ..training.pictures import draw_curves
from ..training.processes import Processes, data_processes, from_background, heard_alone
from ..training.run import start_trainer
from ..training.trainer import Batches, Trainer
from .card import images_card, images_metadata
from .config import ImagesRun
from .validation import CURVES, ImageValidation

SPLIT_FILE = "split.csv"
_BASELINE = "mse of the mean training image"


def train_from_config(
    path: Path, output: Path, resume: bool = False, device: str = "auto", progress: Progress = no_progress,
    cancel: CancelToken | None = None,
) -> Path:
    """Trains and writes `output`/bundle. Returns the bundle's folder.

    Besides: checkpoint.pt (resumable to the step), log.jsonl, split.csv (which image is in which part), curves.png,
    reconstructions.png, samples.png and TensorBoard events. Raises InputError for a bad config, images that cannot be
    used, or a run that diverges or collapses, Cancelled (the checkpoint stays). What the images are, and doubts about
    them, is told as progress of the stages "parts" and "warning".
    """
    config = read_config(path, ImagesRun)
    cancel, output = cancel or CancelToken(), Path(output)
    target = select_device(device).device
    shape = build_model(config.model_name, config.model_settings).shape
    images = _read(config, shape, scaled(progress, 0.0, 0.05), cancel)
    trainer = start_trainer(config, output, target, resume, attrgetter("warm_up_steps"))
    if trainer.processes.first:
        _keep_split(images, output / SPLIT_FILE, resume)
        parts = count_in_words(images.patients, images.labels, images.splits)
        progress("parts", 0.05, f"Images: {parts}; scaling {images.scaling}")
        for warning in filter(None, (_doubt_of_patients(config, images), _doubt_of_test(config, images))):
            progress("warning", 0.05, warning)
    model = build_model(config.model_name, config.model_settings).to(target)
    validation = ImageValidation(model, images.part("validation").images, output, trainer.precision)
    _check_watched(config, validation)
    change = augmenter(config.augment, len(shape))
    stream = image_batches(images.part("train").images, config.trainer.batch, config.trainer.seed, change,
                           _changers(target, change), cancel)
    trainer.run(stream, validation, scaled(progress, 0.05, 0.95), cancel)
    folder = output / "bundle" / config.bundle.name
    if trainer.processes.first:
        progress("bundle", 0.95, "Describing the latents")
        write_bundle(config, trainer, validation, images, folder)
    return folder


def write_bundle(
    config: ImagesRun, trainer: Trainer, validation: ImageValidation, images: ImageSet, folder: Path
) -> None:
    """The averaged weights with the statistics of their latents and what was measured, as a bundle."""
    train, test = images.part("train"), images.part("test")
    validation.load(trainer.averaged)
    validation.settle(train.images)
    state = {**validation.model.state_dict(), "updates": trainer.averaged["updates"]}
    validation.draw()
    draw_curves(validation.output, *CURVES)
    mean = train.images.mean(0, dtype=np.float64)  # the baseline: it knows nothing of an image
    measured = validation.measure(validation.images).values | {_BASELINE: _mse(validation.images, mean)}
    if len(test):
        of_test = validation.measure(test.images).values | {_BASELINE: _mse(test.images, mean)}
        measured |= {f"test {name}": value for name, value in of_test.items()}
    counts = {f"{what}_{part}": len(set(values)) for part in ("train", "validation", "test")
              for what, values in (("images", images.part(part).cases), ("patients", images.part(part).patients))}
    settings = asdict(validation.model.config)
    metadata = images_metadata(config, settings, images, validation.statistics(train.images, train.labels),
                               measured, counts, trainer.step, trainer.seconds, trainer.weights_step)
    save_bundle(folder, metadata, state, images_card(config, metadata), config.bundle.weights)


def _mse(images: NDArray[np.float32], instead: NDArray[np.float64]) -> float:
    """Of one image that stands for all, image by image, as they may be mapped from a file."""
    return float(np.mean([np.square(image - instead).mean() for image in images]))


class ImageBatches:
    """Batches (B, 1, *shape) by step: every image once before any comes again, in an order of its own each time, and
    changed in its own way each time where there is an `augment`."""

    def __init__(self, images: NDArray[np.float32], batch: int, seed: int, augment: Augment | None = None):
        self.images, self.batch, self.seed, self.augment = images, batch, seed, augment
        self._orders: dict[int, NDArray[np.int64]] = {}

    def __getitem__(self, step: int) -> tuple[Tensor, ...]:
        total = len(self.images)
        places = range(step * self.batch, (step + 1) * self.batch)
        chosen = self.images[[self._order(place // total)[place % total] for place in places]]
        return (torch.from_numpy(self.augment(chosen, (self.seed, step)) if self.augment else chosen),)

    def _order(self, epoch: int) -> NDArray[np.int64]:
        if epoch not in self._orders:
            self._orders = {last: order for last, order in self._orders.items() if last == epoch - 1}
            self._orders[epoch] = np.random.default_rng((self.seed, epoch)).permutation(len(self.images))
        return self._orders[epoch]


def image_batches(
    images: NDArray[np.float32], batch: int, seed: int, augment: Augment | None = None, workers: int = 0,
    cancel: CancelToken | None = None,
) -> Batches:
    """`ImageBatches` from any step on, made by so many background processes, or here (0): the same ones. cancel: also
    ends the waiting for a batch, by Cancelled, where one process trains."""
    batches = ImageBatches(images, batch, seed, augment)

    def stream(start: int) -> Iterator[tuple[Tensor, ...]]:
        if not workers:
            yield from (batches[step] for step in count(start))
        yield from from_background(batches, workers, heard_alone(cancel).check, count(start), "fork")

    return stream


def _changers(device: torch.device, augment: Augment | None) -> int:
    """Processes that change images, where one cannot do it as fast as a GPU trains, and images need not be copied."""
    forks = "fork" in multiprocessing.get_all_start_methods()
    return data_processes(device) if augment and forks and device.type == "cuda" else 0


def _read(config: ImagesRun, shape: tuple[int, ...], progress: Progress, cancel: CancelToken) -> ImageSet:
    """Every process reads, but the first makes the store that the others map."""
    data, processes = config.data, Processes.current()
    if data.store and not processes.first:
        processes.wait()
    images = read_images(
        source_path(data.source), data.pattern, shape, data.labels, data.patient, data.fit, data.scaling,
        data.validation, data.test, data.seed, data.limit, Path(data.store) if data.store else None, progress, cancel,
    )
    if data.store and processes.first:
        processes.wait()
    return images


def _without_tags(table: str) -> list[dict[str, str]]:
    """Which image is in which part; what is known of the images besides may grow from version to version."""
    named = ("file", "case", "patient", "label", "split", SCAN, SERIES, INDEX)
    return [{name: row[name] for name in named if row.get(name)} for row in csv.DictReader(io.StringIO(table))]


def _doubt_of_patients(config: ImagesRun, images: ImageSet) -> str:
    """A warning where every file counts as a patient of its own but looks as if it did not; "" else. Tables and idx
    files say what they hold."""
    stated = config.data.patient or is_table(Path(config.data.source)) or max(images.indices) >= 0
    if stated or len(set(images.patients)) < len(images) or not (name := likely_patient(images.files, images.labels)):
        return ""
    return (f"Every image counts as a patient of its own, but {name} looks like one patient with several images, which "
            "may now lie both in the training and in the validation: set data.patient, for a folder per "
            "patient to '^([^/]+)/', unless the folders are labels.")


def _doubt_of_test(config: ImagesRun, images: ImageSet) -> str:
    """A warning where a test part was asked for and there is none; "" else."""
    if not config.data.test or "test" in images.splits:
        return ""
    return (f"data.test is {config.data.test:g}, but no patient was left for the test: the bundle's figures will be of "
            "the validation images alone.")


def _check_watched(config: ImagesRun, validation: ImageValidation) -> None:
    """Raises InputError for a trainer.watch that no validation gives: at the start, not at the first of them."""
    if not config.trainer.patience or config.trainer.watch == "loss":
        return
    known = validation.measure(validation.images[:1]).values
    if config.trainer.watch not in known:
        raise InputError(f"trainer.watch names '{config.trainer.watch}', but a validation gives {', '.join(known)}.")


def _keep_split(images: ImageSet, path: Path, resume: bool) -> None:
    """Writes which image is in which part. Raises InputError where a resumed run had other images or parts."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    places = {SCAN: images.scans, SERIES: images.series, INDEX: images.indices}
    places = {name: values for name, values in places.items() if set(values) - {"", -1}}
    table.writerow(["file", "case", "patient", "label", "split", *places, *images.tags])
    table.writerows(zip((str(Path(file).absolute()) for file in images.files), images.cases, images.patients,
                        images.labels, images.splits, *places.values(), *images.tags.values(),
                        strict=True))
    if resume and path.exists() and _without_tags(path.read_text(encoding="utf-8")) != _without_tags(text.getvalue()):
        raise InputError(f"{path} lists other images or parts than the config gives now: a run resumes with the images "
                         "it started with; start anew without --resume.")
    with replaced(path) as partial:
        partial.write_text(text.getvalue(), encoding="utf-8")
