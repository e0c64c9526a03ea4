"""`medvae train` for the outline network: from a config to a bundle, measured on real planes as it goes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from ..bundle import save_bundle
from ..errors import InputError
from ..files.whole_files import replaced
from ..inference import select_device
from ..models import build_model
from ..networks.skull import VOLUME_SIZE
from ..preprocessing.outlines import moment_ellipse
from ..progress import CancelToken, Progress, no_progress
from ..training.config import data_path, read_config
from ..training.hc18 import plane_names, read_plane
from ..training.pictures import draw_curves
from ..training.processes import data_processes
from ..training.run import start_trainer, tensorboard
from ..training.synthesis.heads import Head, HeadPopulation, read_head_shapes
from ..training.synthesis.ultrasound import PictureMaker
from ..training.trainer import Batches, Validate
from .biometry import ellipse_circumference
from .card import outline_card, outline_metadata
from .config import OutlineRun
from .engine import OutlineEngine
from .outline import NETWORK_SIZE, find_outlines, letterbox
from .outline_cases import MixConfig, OutlineCaseMaker, outline_batch, outline_stream, read_real
from .planes import PlaneImage

VALIDATION_SEED = 99
_NORMAL = 1.4826  # standard deviation of a normal distribution over its median absolute deviation


def train_from_config(
    path: Path, output: Path, resume: bool = False, device: str = "auto", progress: Progress = no_progress,
    cancel: CancelToken | None = None,
) -> Path:
    """Trains and writes `output`/bundle. Returns the bundle's folder.

    Besides: checkpoint.pt (resumable to the step), log.jsonl, curves.png, outlines.png and TensorBoard events.
    Raises InputError for a bad config or missing data, Cancelled (the checkpoint stays).
    """
    config = read_config(path, OutlineRun)
    cancel, output = cancel or CancelToken(), Path(output)
    target = select_device(device).device
    trainer = start_trainer(config, output, target, resume)
    progress("data", 0.0, "Reading planes and head masks")
    validate = _validation(config, output, target)
    trainer.run(_batches(config, target, cancel), validate, progress, cancel)
    folder = output / "bundle" / config.bundle.name
    if trainer.processes.first:
        metadata = outline_metadata(config, trainer.step, trainer.seconds, trainer.weights_step)
        if config.data.hc18:
            model = build_model(config.model_name, config.model_settings)
            model.load_state_dict(trainer.averaged)
            progress("calibration", 1.0, "Measuring where sonographers draw")
            metadata["medvae"]["calibration"] = calibration(OutlineEngine(device).load(model),
                                                            data_path(config.data.hc18), cancel)
        save_bundle(folder, metadata, trainer.averaged, outline_card(metadata), config.bundle.weights)
    return folder


class HeadPool:
    """The first `count` heads of a population, each made once: pictures differ by much more than their head."""

    def __init__(self, population: HeadPopulation, count: int):
        self.population, self.device, self._heads = population, population.device, {}
        self.count = count

    def __call__(self, seed: int) -> Head:
        number = seed % self.count
        if number not in self._heads:
            self._heads[number] = self.population(number)
        return self._heads[number]


def case_maker(config: OutlineRun, part: str) -> OutlineCaseMaker:
    """Makes the cases of a part, "train" or "validation"."""
    names = config.data.train if part == "train" else config.data.validation
    population = HeadPopulation(read_head_shapes(data_path(config.data.head_masks), names), size=VOLUME_SIZE)
    real = read_real(data_path(config.data.hc18), part) if config.data.hc18 and config.mix.real > 0 else []
    return OutlineCaseMaker(PictureMaker(HeadPool(population, config.data.heads), NETWORK_SIZE), real, config.mix)


def _batches(config: OutlineRun, device: torch.device, cancel: CancelToken) -> Batches:
    """Pictures are made by one background process, or four beside a GPU."""
    make, seed, batch = partial(case_maker, config, "train"), config.trainer.seed, config.trainer.batch
    return lambda start: outline_stream(make, batch, seed, start, data_processes(device), cancel)


@dataclass(frozen=True)
class RealPlanes:
    """Whole planes as prediction sees them: images and outlines (N, 1, 192, 192); pixel_mm and the head's
    circumference in mm, (N,)."""

    images: Tensor
    outlines: Tensor
    pixel_mm: Tensor
    circumference_mm: Tensor


def read_whole(folder: Path, part: str) -> RealPlanes:
    """The HC18 planes of a part, as prediction sees them."""
    planes = [read_plane(folder, name) for name in plane_names(folder, part)]
    pixel_mm = [plane.pixel_mm * max(plane.grey_yx.shape) / NETWORK_SIZE for plane in planes]
    return RealPlanes(torch.stack([letterbox(plane.grey_yx) for plane in planes])[:, None],
                      torch.stack([letterbox(plane.outline_yx) for plane in planes])[:, None],
                      torch.tensor(pixel_mm), torch.tensor([plane.circumference_mm for plane in planes]))


def _validation(
    config: OutlineRun, output: Path, device: torch.device
) -> Validate:
    """Dice on held-back simulated and real planes, the circumference's error on the real ones, and how well planes
    without a head are told apart; draws curves and outlines."""
    model = build_model(config.model_name, config.model_settings).to(device).eval()
    simulated = OutlineCaseMaker(case_maker(config, "validation").pictures, [], MixConfig(real=0.0, empty=0.25))
    made = outline_batch(simulated, VALIDATION_SEED, 0, 64)
    real = read_whole(data_path(config.data.hc18), "validation") if config.data.hc18 else None

    @torch.inference_mode()
    def validate(state: dict[str, Tensor], step: int) -> dict[str, float]:
        model.load_state_dict(state)
        found, sure = _find(model, made[0], device)
        heads = made[2] > 0.5
        line = {"dice simulated": float(dice(found, made[1])[heads].mean()),
                "head told apart": float(((sure > 0.5) == heads).float().mean())}
        shown = [(made[0][heads], made[1][heads], found[heads])]
        if real is not None:
            found, sure = _find(model, real.images, device)
            error = (circumference_mm(found, real.pixel_mm) - real.circumference_mm).abs()
            line |= {"dice real": float(dice(found, real.outlines).mean()), "hc error mm": float(error.mean()),
                     "hc error median mm": float(error.median()),
                     "hc error %": float((100 * error / real.circumference_mm).mean()),
                     "real heads seen": float((sure > 0.5).float().mean())}
            shown.append((real.images, real.outlines, found))
        draw_outlines(shown, output / "outlines.png")
        tensorboard(output, step, line)
        draw_curves(output, ["loss"], [name for name in line if name.startswith("dice")])
        return {name: round(value, 4) for name, value in line.items()}

    return validate


def calibration(engine: OutlineEngine, hc18: Path, cancel: CancelToken) -> dict[str, object]:
    """How sonographers draw on the real planes that are for training and validation, against the outlines found there.

    "drawn_outside_mm": how far outside of them, the median of the circumferences' difference over 2π; the network draws
    simulated heads, too, in which the echo of the bone lies otherwise, and what it learns is between the two.
    "axis_error_mm": by BPD and OFD, how far the ellipse's axes are off then, 1.4826 times the median over the planes
    for validation, which the network has not learned. "planes", "validation_planes": how many they are.
    """
    outside, axes = [], []
    for part in ("train", "validation"):
        for name in plane_names(hc18, part):
            cancel.check()
            plane = read_plane(hc18, name)
            image = PlaneImage.read(hc18 / "images" / f"{name}.png", plane.pixel_mm)
            try:
                found_mm = torch.tensor(find_outlines([("axial", image)], engine)[0].semi_axes_mm)
            except InputError:  # nothing like a head was found
                continue
            outside.append((plane.circumference_mm - float(ellipse_circumference(*found_mm))) / (2 * math.pi))
            if part == "validation":
                axes.append(2 * (found_mm - plane.pixel_mm * torch.tensor(plane.ellipse.semi_axes_px)))
    if not outside:
        return {}
    by = median(outside)
    found = {"drawn_outside_mm": round(by, 2), "planes": len(outside)}
    if axes:
        ofd, bpd = (_NORMAL * (torch.stack(axes) + 2 * by).abs().quantile(0.5, 0)).tolist()
        found |= {"axis_error_mm": {"BPD": round(bpd, 2), "OFD": round(ofd, 2)}, "validation_planes": len(axes)}
    return found


def _find(model: torch.nn.Module, images: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """Probability of head per pixel, and of a head plane."""
    parts = [model(part.to(device)) for part in images.split(16)]
    outline, head = (torch.cat(list(logits)).sigmoid().cpu() for logits in zip(*parts, strict=True))
    return outline, head


def dice(probability: Tensor, outline: Tensor) -> Tensor:
    """Of outlines (N, 1, H, W) at one half, (N,)."""
    found, truth = probability > 0.5, outline > 0.5
    both = (found & truth).sum((1, 2, 3))
    return 2 * both / (found.sum((1, 2, 3)) + truth.sum((1, 2, 3))).clamp(min=1)


def circumference_mm(probability: Tensor, pixel_mm: Tensor) -> Tensor:
    """Of the ellipse with the moments of what was found (N, 1, H, W), (N,)."""
    semi_axes = moment_ellipse((probability[:, 0] > 0.5).float()).semi_axes * pixel_mm[:, None]
    return ellipse_circumference(*semi_axes.unbind(1))


def draw_outlines(groups: list[tuple[Tensor, Tensor, Tensor]], output: Path) -> None:
    """Two rows per group of (images, true, found): the drawn outline green, the found one red."""
    from matplotlib.figure import Figure

    columns = 10
    figure = Figure(figsize=(1.7 * columns, 3.4 * len(groups)), layout="constrained")
    axes = figure.subplots(2 * len(groups), columns, squeeze=False)
    for number, (images, truth, found) in enumerate(groups):
        for index, panel in enumerate(axes[2 * number : 2 * number + 2].flat):
            panel.axis("off")
            if index < len(images):
                panel.imshow(images[index, 0], cmap="gray", vmin=0, vmax=1)
                panel.contour(truth[index, 0], [0.5], colors="lime", linewidths=0.7)
                panel.contour(found[index, 0], [0.5], colors="red", linewidths=0.7)
    with replaced(output) as temporary:
        figure.savefig(temporary, dpi=90, format="png")
