"""`medvae train`: from a config to a calibrated bundle, with curves and pictures on the way."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import SimpleITK as sitk
import torch
from torch import Tensor

from ..bundle import Bundle, save_bundle
from ..errors import InputError
from ..inference import select_device
from ..models import build_model
from ..preprocessing.geometry import like
from ..preprocessing.mask_files import read_mask
from ..progress import CancelToken, Progress, no_progress, scaled
from ..scan import Scan
from ..tissues import TISSUES
from ..training.brains import FRACTION_STEPS, load_synthesiser, make_batch, stream
from ..training.config import data_path, read_config
from ..training.pictures import draw_curves, draw_reconstructions
from ..training.processes import data_processes
from ..training.run import start_trainer, tensorboard
from ..training.trainer import Batches, Trainer, Validate
from .calibrate import CalibrationData, calibrate
from .card import model_card, model_metadata
from .config import HealthyAnatomyRun
from .detector import Detector
from .scores import EMPHASIS

VALIDATION_SEED = 99


def train_from_config(
    path: Path, output: Path, resume: bool = False, device: str = "auto", progress: Progress = no_progress,
    cancel: CancelToken | None = None,
) -> Path:
    """Trains, calibrates and writes `output`/bundle. Returns the bundle's folder.

    Besides: checkpoint.pt (resumable to the step), log.jsonl, curves.png, reconstructions.png and TensorBoard
    events. Raises InputError for a bad config or missing data, Cancelled (the checkpoint stays).
    """
    config = read_config(path, HealthyAnatomyRun)
    cancel, output = cancel or CancelToken(), Path(output)
    target = select_device(device).device
    settings = config.model_settings
    _check_calibration_data(config)
    trainer = start_trainer(config, output, target, resume)
    progress("data", 0.0, "Reading label maps")
    validate = _validation(config, settings, output, target)
    trainer.run(_batches(config, target, cancel), validate, scaled(progress, 0.0, 0.9), cancel)
    if not trainer.processes.first:
        return output / "bundle" / config.bundle.name
    return write_bundle(config, settings, trainer, output, scaled(progress, 0.9, 1.0), cancel)


def write_bundle(
    config: HealthyAnatomyRun, settings: dict[str, object], trainer: Trainer, output: Path, progress: Progress,
    cancel: CancelToken,
) -> Path:
    """The averaged weights as a bundle: written aside uncalibrated, calibrated by detecting with it, then written to
    `output`/bundle, where a bundle that cannot detect never lies."""
    folder = output / "bundle" / config.bundle.name
    blank = {
        "tissue_weight": [0.0] + [1.0] * (len(TISSUES) - 2) + [0.0], "score": {},
        "emphasis": {modality: asdict(emphasis) for modality, emphasis in EMPHASIS.items()},
        "coarse_sigma_mm": config.calibration.coarse_sigma_mm, "fine_sigma_mm": config.calibration.fine_sigma_mm,
    }
    trained = trainer.step, trainer.seconds, trainer.weights_step
    metadata = model_metadata(config, settings, blank, *trained)
    with TemporaryDirectory(prefix=".uncalibrated-", dir=output, ignore_cleanup_errors=True) as aside:
        bundle = save_bundle(Path(aside) / "bundle", metadata, trainer.averaged, model_card(metadata),
                             config.bundle.weights)
        try:
            calibrated = calibrate_bundle(config, bundle, trainer.device, progress, cancel)
        except InputError as error:
            raise _unfinished(config, error) from error
    metadata = model_metadata(config, settings, calibrated, *trained)
    return save_bundle(folder, metadata, trainer.averaged, model_card(metadata), config.bundle.weights).path


def _unfinished(config: HealthyAnatomyRun, error: InputError) -> InputError:
    """What a failed calibration means: only a synthetic scan is sure to hold a brain."""
    told, real = str(error), [str(data_path(entry["scan"])) for entry in config.data.calibration_scans]
    if "no brain was found" in told and not any(path in told for path in real):
        return InputError("The network has not learned enough to be calibrated, as it finds no brain in a synthetic "
                          "scan: raise trainer.steps and go on with --resume.")
    return InputError(f"{told} The training itself is done: --resume finishes the calibration.")


def _check_calibration_data(config: HealthyAnatomyRun) -> None:
    """Reads what is needed after hours of training alone. Raises InputError where that is not there or unusable."""
    _real_scans(config)
    for folder in (config.data.flair_lesion_masks, config.data.dwi_lesion_masks):
        if folder and not data_path(folder).is_dir():
            raise InputError(f"{data_path(folder)}: this folder of lesion masks for the calibration is not there.")


def _real_scans(config: HealthyAnatomyRun) -> list[tuple[Scan, sitk.Image | None]]:
    """The config's real scans, each with the mask, on its grid, of what to leave out."""
    scans = []
    for entry in config.data.calibration_scans:
        scan, mask = Scan.read(data_path(entry["scan"]), "flair"), None
        if entry.get("without"):
            inside = read_mask(data_path(entry["without"]), scan.image)
            mask = like(inside.astype(np.uint8), scan.image)
        scans.append((scan, mask))
    return scans


def calibrate_bundle(
    config: HealthyAnatomyRun, bundle: Bundle, device: torch.device, progress: Progress, cancel: CancelToken
) -> dict[str, object]:
    """Calibration of a bundle on synthetic scans of the training label maps and the config's real healthy tissue."""
    masks = {"flair": config.data.flair_lesion_masks, "dwi": config.data.dwi_lesion_masks}
    data = CalibrationData(
        data_path(config.data.label_maps), config.data.train,
        {modality: data_path(folder) for modality, folder in masks.items() if folder},
        config.calibration.scans, config.calibration.spacing_mm, _real_scans(config), config.trainer.seed + 10_000,
    )
    return calibrate(Detector.load(bundle, str(device)), data, progress, cancel)


def _batches(config: HealthyAnatomyRun, device: torch.device, cancel: CancelToken) -> Batches:
    """Scans are synthesised on the training's device, by background processes where these can share it."""
    masks = data_path(config.data.lesion_masks) if config.data.lesion_masks else None
    load = partial(load_synthesiser, data_path(config.data.label_maps), masks, config.synthesis,
                   names=config.data.train)
    workers = data_processes(device) if device.type in ("cpu", "cuda") else 0
    return lambda start: stream(load, device, config.trainer.batch, config.trainer.seed, start, workers, cancel)


def _validation(
    config: HealthyAnatomyRun, settings: dict[str, object], output: Path, device: torch.device
) -> Validate:
    """Cross-entropy and soft Dice per tissue on held-back label maps; draws curves and reconstructions."""
    masks = data_path(config.data.lesion_masks) if config.data.lesion_masks else None
    synthesise = load_synthesiser(
        data_path(config.data.label_maps), masks, config.synthesis, "cpu", config.data.validation
    )
    batches = [make_batch(synthesise, VALIDATION_SEED, number, 1) for number in range(8)]
    model = build_model(config.model_name, settings).to(device).eval()

    @torch.inference_mode()
    def validate(state: dict[str, Tensor], step: int) -> dict[str, float]:
        model.load_state_dict(state)
        overlap, total, entropy, shown = torch.zeros(len(TISSUES)), torch.zeros(len(TISSUES)), 0.0, []
        for image, counts in batches:
            target = counts.float() / FRACTION_STEPS
            posterior = model.encode(image.float().to(device))
            logits = model.decode(posterior.mean, posterior.skips).float().cpu()
            known = target.sum(1, keepdim=True)
            probability = logits.softmax(1) * known
            entropy += float(-(target * logits.log_softmax(1)).sum() / known.sum()) / len(batches)
            overlap += 2 * torch.minimum(probability, target).sum((0, 2, 3, 4))
            total += (probability + target).sum((0, 2, 3, 4))
            shown.append((image[0, 0].float().numpy(), target[0].numpy(), probability[0].numpy()))
        draw_reconstructions(shown[:4], output / "reconstructions.png")
        dice = overlap / total.clamp(min=1)
        line = {"cross_entropy": round(entropy, 5)}
        line |= {f"dice {name}": round(float(d), 4) for name, d in zip(TISSUES, dice, strict=True)}
        tensorboard(output, step, line)
        draw_curves(output, ["cross_entropy"])
        return line

    return validate
