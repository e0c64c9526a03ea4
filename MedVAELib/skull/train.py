"""`medvae train` for the models from planes to a skull: from a config to a calibrated bundle, with curves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ..bundle import OUTLINE_BUNDLE, load_bundle, save_bundle
from ..inference import select_device
from ..models import build_model
from ..networks.skull import VOLUME_SIZE
from ..progress import CancelToken, Progress, no_progress, scaled
from ..training.config import data_path, read_config
from ..training.pictures import draw_curves
from ..training.run import start_trainer, tensorboard
from ..training.skull_cases import CHUNK, CaseStore, case_stream
from ..training.synthesis.heads import HeadPopulation, read_head_shapes
from ..training.synthesis.planes import PlaneCaseMaker, PlaneConfig, Watch
from ..training.trainer import Batches, Trainer, Validate
from .calibrate import calibrate
from .card import skull_card, skull_metadata
from .config import SkullRun
from .held_back import HeldBack, draw_predictions, held_back_heads, measure
from .imaged_planes import OutlineImager
from .predictor import load_outline_engine


def train_from_config(
    path: Path, output: Path, resume: bool = False, device: str = "auto", progress: Progress = no_progress,
    cancel: CancelToken | None = None,
) -> Path:
    """Trains, calibrates and writes `output`/bundle. Returns the bundle's folder.

    Besides: checkpoint.pt (resumable to the step), log.jsonl, curves.png, predictions.png and TensorBoard events.
    Raises InputError for a bad config or missing data, Cancelled (the checkpoint stays).
    """
    config = read_config(path, SkullRun)
    cancel, output = cancel or CancelToken(), Path(output)
    target = select_device(device).device
    trainer = start_trainer(config, output, target, resume)
    progress("data", 0.0, "Reading head masks")
    imager = _imager(config.planes, torch.device("cpu"))
    held_back = held_back_heads(data_path(config.data.head_masks), config.data.validation, config.calibration.heads,
                                config.planes, VOLUME_SIZE, imager, progress, cancel)
    report = scaled(progress, 0.0, 0.98)

    def tell(words: str) -> None:
        report("training", trainer.step / config.trainer.steps, words)

    trainer.run(_batches(config, output, target, tell, cancel), _validation(config, output, trainer, held_back),
                report, cancel)
    if not trainer.processes.first:
        return output / "bundle" / config.bundle.name
    return write_bundle(config, trainer, output, held_back, cancel)


def write_bundle(config: SkullRun, trainer: Trainer, output: Path, held_back: HeldBack, cancel: CancelToken) -> Path:
    """The averaged weights, calibrated on the held-back heads, as a bundle."""
    model = build_model(config.model_name, config.model_settings).to(trainer.device).eval()
    model.load_state_dict(trainer.averaged, assign=True)  # which keeps the layout that convolutions are fast in
    with trainer.precision():
        calibration = calibrate(model, held_back, config.calibration.samples, cancel)
    metadata = skull_metadata(config, calibration, trainer.step, trainer.seconds, trainer.weights_step)
    folder = output / "bundle" / config.bundle.name
    return save_bundle(folder, metadata, trainer.averaged, skull_card(metadata), config.bundle.weights).path


def case_store(config: SkullRun, output: Path, device: torch.device) -> CaseStore:
    """The cases that a run trains on, where the config keeps them."""
    folder = Path(config.data.store) if config.data.store else output / "cases"
    masks, names = data_path(config.data.head_masks), config.data.train
    planes = asdict(config.planes) | {"flipped": True}  # which once could be chosen, and stores of then state
    settings = {"seed": config.trainer.seed, "heads": sorted(names), "planes": planes, "size": VOLUME_SIZE}
    if config.planes.imaged:
        settings["outlines"] = load_bundle(OUTLINE_BUNDLE).sha256
    make = partial(_case_maker, masks, names, config.planes, device)
    return CaseStore(folder, make, settings, config.data.cases // CHUNK)


def _case_maker(
    masks: Path, names: list[str], planes: PlaneConfig, device: torch.device, watch: Watch
) -> PlaneCaseMaker:
    shapes = [] if names else read_head_shapes(masks)
    for name in names:
        watch(0)
        shapes += read_head_shapes(masks, [name])
    population = HeadPopulation(shapes, device, VOLUME_SIZE)
    return PlaneCaseMaker(population, planes, _imager(planes, device), watch)


def _imager(planes: PlaneConfig, device: torch.device) -> OutlineImager | None:
    """What finds outlines on images, where the config asks for such cases."""
    if not planes.imaged:
        return None
    return OutlineImager(load_outline_engine(load_bundle(OUTLINE_BUNDLE), str(device)))


def _batches(
    config: SkullRun, output: Path, device: torch.device, tell: Callable[[str], None], cancel: CancelToken
) -> Batches:
    """On a GPU cases are made there; on a CPU one background process makes and reads them."""
    store, seed, batch = case_store(config, output, device), config.trainer.seed, config.trainer.batch
    workers = 1 if device.type == "cpu" else 0
    return lambda start: case_stream(store, batch, seed, start, workers, tell, cancel)


def _validation(
    config: SkullRun, output: Path, trainer: Trainer, held_back: HeldBack
) -> Validate:
    """Agreement with held-back heads for one, two and three planes; draws curves and predictions."""
    model = build_model(config.model_name, config.model_settings).to(trainer.device).eval()

    @torch.inference_mode()
    def validate(state: dict[str, Tensor], step: int) -> dict[str, float]:
        model.load_state_dict(state, assign=True)
        with trainer.precision():
            line = measure(model, held_back, samples=8)
            draw_predictions(model, held_back, output / "predictions.png")
        tensorboard(output, step, line)
        draw_curves(output, ["rms"], [name for name in line if name.startswith("surface")])
        return line

    return validate
