"""Heads that training never saw, with their planes: what a model makes of them with one, two and three planes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..files.whole_files import replaced
from ..progress import CancelToken, Progress, no_progress
from ..standard_planes import BY_COUNT, PLANES, Subset
from ..training.synthesis.head_masks import mask_files, read_mask, skull_thickness_mm
from ..training.synthesis.heads import KINDS, Head, HeadPopulation, read_head_shapes
from ..training.synthesis.planes import Imager, PlaneCaseMaker, PlaneConfig

SEED = 990_000_000
"""Of the held-back heads; training's seeds lie elsewhere."""
_SURFACE = 0.5  # voxels of the 96³ grid: what lies closer than this is called the surface
_BATCH = 8


@dataclass(frozen=True)
class HeldBack:
    """N heads with all three planes: planes (N, 3, 96, 96), sdf (N, 1, 48, 48, 48) in voxels of the 96³ grid, and
    spacing_mm (N,) of that grid; kinds: of head, one for each."""

    planes: Tensor
    sdf: Tensor
    spacing_mm: Tensor
    kinds: list[str]


class _Mixed:
    """Real atlas heads in turn with heads of the population of their shapes, by seed."""

    def __init__(self, atlases: Sequence[Head], population: HeadPopulation):
        self.atlases, self.population, self.device = atlases, population, population.device

    def __call__(self, seed: int) -> Head:
        third, number = divmod(seed - SEED, 3)
        if number == 0:
            return self.atlases[third % len(self.atlases)]
        return self.population(seed, KINDS[(2 * third + number - 1) % len(KINDS)])


def held_back_heads(
    folder: Path, names: Sequence[str], count: int, planes: PlaneConfig, size: int, imager: Imager | None = None,
    progress: Progress = no_progress, cancel: CancelToken | None = None,
) -> HeldBack:
    """A third real atlas heads, the others drawn from their shapes, all kinds in turn; planes misplaced, and their
    outlines found on images if there is an `imager`, else traced, as in training. The same for every run. Raises
    InputError for masks that are not there."""
    cancel, files = cancel or CancelToken(), mask_files(folder)

    def tell(words: str) -> None:
        progress("data", 0.0, words)
        cancel.check()

    shapes, atlases = [], []
    for name in names:
        tell(f"Reading head mask {name}")
        shapes += read_head_shapes(folder, [name])
        cancel.check()
        atlases.append(_atlas_head(name, files[name], size))
    mixed = _Mixed(atlases, HeadPopulation(shapes, size=size))
    whole = replace(planes, sagittal=1.0, coronal=1.0, without_axial=0.0, repeated=0.0, imaged=float(bool(imager)))
    make = PlaneCaseMaker(mixed, whole, imager, lambda made: tell(f"Making held-back heads, {made} of {count}"))
    cases = make(range(SEED, SEED + count))
    return HeldBack(cases.planes, cases.sdf, cases.spacing_mm, [head.kind for head in cases.heads])


def _atlas_head(name: str, path: Path, size: int) -> Head:
    mask = read_mask(name, path)
    step = mask.sdf.shape[0] // size
    sdf = F.avg_pool3d(mask.sdf[None, None], step)[0, 0]
    thickness = skull_thickness_mm(mask.ga_weeks)
    return Head(sdf, sdf - thickness, mask.spacing_mm * step, mask.ga_weeks, "atlas", name)


def predict(model: nn.Module, held_back: HeldBack, seen: Subset, samples: int, temperature: float = 1.0,
            heads: slice = slice(None)) -> Tensor:
    """Samples of every head from some of its planes: (N, S, 48, 48, 48), on the CPU."""
    device = next(model.parameters()).device
    present = torch.tensor([plane in seen for plane in PLANES], device=device)
    drawn = []
    for start, planes in enumerate(held_back.planes[heads].split(_BATCH)):
        generator = torch.Generator(device).manual_seed(SEED + start)
        condition = model.encode_planes(planes.to(device), present.expand(len(planes), -1))
        sdf = model.sample(condition, samples, generator, temperature).float().cpu()
        drawn.append(sdf.view(len(planes), samples, *sdf.shape[2:]))
    return torch.cat(drawn)


def measure(model: nn.Module, held_back: HeldBack, samples: int) -> dict[str, float]:
    """Of the mean of the samples, by number of planes and on average over the heads: "dice 3"; "surface 3" and
    "hausdorff 3" in mm, mean and greatest distance between the surfaces as the distance fields tell; and "std 3", the
    samples' standard deviation at the surface, mm."""
    line = {}
    for seen in BY_COUNT:
        drawn = predict(model, held_back, seen, samples)
        mean, std = drawn.mean(1), drawn.std(1, correction=0)
        scale = held_back.spacing_mm
        dice, average, greatest = agreement(mean, held_back.sdf[:, 0])
        near = mean.abs() < 2 * _SURFACE
        spread = (std * near).sum((1, 2, 3)) / near.sum((1, 2, 3)).clamp(min=1)
        values = {"dice": dice, "surface": average * scale, "hausdorff": greatest * scale, "std": spread * scale}
        line |= {f"{name} {len(seen)}": round(float(value.mean()), 4) for name, value in values.items()}
    return line


def agreement(predicted: Tensor, truth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Dice, and the mean and greatest distance in voxels of the 96³ grid between the surfaces of signed distances
    (N, 48, 48, 48): on each surface the other's distance is read."""
    fine = [F.interpolate(field[:, None], scale_factor=2, mode="trilinear")[:, 0] for field in (predicted, truth)]
    inside = [field > 0 for field in fine]
    dice = 2 * (inside[0] & inside[1]).sum((1, 2, 3)) / (inside[0].sum((1, 2, 3)) + inside[1].sum((1, 2, 3)))
    on = [field.abs() < _SURFACE for field in fine]
    apart = (fine[0] - fine[1]).abs()
    average = sum((apart * s).sum((1, 2, 3)) / s.sum((1, 2, 3)).clamp(min=1) for s in on) / 2
    greatest = torch.maximum(*((apart * s).amax((1, 2, 3)) for s in on))
    return dice, average, greatest


def draw_predictions(model: nn.Module, held_back: HeldBack, output: Path) -> None:
    """Per head: its planes with the outline seen, and three slices of the mean prediction from one and from three
    planes, red, on the truth, green."""
    from matplotlib.figure import Figure

    rows = min(4, len(held_back.kinds))
    means = {count: predict(model, held_back, PLANES[:count], 4, heads=slice(rows)).mean(1) for count in (1, 3)}
    figure = Figure(figsize=(12, 1.5 * rows))
    axes = figure.subplots(rows, 9, squeeze=False)
    for row in range(rows):
        for index, plane in enumerate(PLANES):
            axes[row][index].imshow(held_back.planes[row, index], cmap="gray", origin="lower", vmin=0, vmax=1)
            truth = held_back.sdf[row, 0].select(index, 24)
            for offset, count in ((3, 1), (6, 3)):
                panel = axes[row][offset + index]
                panel.imshow(truth > 0, cmap="gray", origin="lower", vmin=0, vmax=4)
                panel.contour(truth, [0.0], colors="lime", linewidths=0.8)
                panel.contour(means[count][row].select(index, 24), [0.0], colors="red", linewidths=0.8)
                panel.set_title(f"{held_back.kinds[row]}, {count} plane{'s' * (count > 1)}", fontsize=6)
            axes[row][index].set_title(plane, fontsize=6)
    for panel in axes.flat:
        panel.axis("off")
    with replaced(output) as temporary:
        figure.savefig(temporary, dpi=100, format="png")
