"""All samples, moments and surface of a skull from three planes, against the plain loop over samples.

    python -m Testing.benchmarks.bench_skull [SAMPLES] [REPEATS]
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from MedVAELib.bundle import DEFAULT_SKULL_BUNDLE, bundle_paths, load_bundle
from MedVAELib.evaluation.tables import markdown_table
from MedVAELib.models import build_model
from MedVAELib.preprocessing.outlines import MomentEllipse, ellipse_map
from MedVAELib.skull.biometry import measure_heads
from MedVAELib.skull.engine import ShapeEngine
from MedVAELib.skull.moments import SOFTNESS
from MedVAELib.skull.predict import network_input
from MedVAELib.skull.surface import head_surface
from MedVAELib.standard_planes import PLANES

SAMPLES, REPEATS = 32, 5
_SEMI_AXES_MM = {"axial": (50.0, 39.0), "sagittal": (50.0, 40.0), "coronal": (40.0, 38.0)}


@dataclass
class Timed:
    """Seconds of each repetition by stage."""

    stages: dict[str, list[float]] = field(default_factory=dict)

    def run(self, stage: str, work: Callable):
        started = time.perf_counter()
        result = work()
        self.stages.setdefault(stage, []).append(time.perf_counter() - started)
        return result

    def totals(self) -> list[float]:
        return [sum(seconds) for seconds in zip(*self.stages.values(), strict=True)]


def shape_model() -> nn.Module:
    """The shipped model; without it, the same network untrained, which takes as long."""
    if DEFAULT_SKULL_BUNDLE not in bundle_paths():
        return build_model("hcvae", {}).eval()
    bundle = load_bundle(DEFAULT_SKULL_BUNDLE)
    model = build_model(bundle.model, bundle.config)
    model.load_state_dict(bundle.state_dict())
    return model.eval()


def three_planes() -> tuple[Tensor, Tensor, float]:
    """Elliptic outlines in all three planes, as the networks see them."""
    outlines = {}
    for plane in PLANES:
        axes = torch.tensor([_SEMI_AXES_MM[plane]]) / 0.7
        drawn = ellipse_map(MomentEllipse(torch.full((1, 2), 95.5), axes, torch.zeros(1), torch.ones(1)), 192, 192)
        outlines[plane] = (drawn[0], 0.7)
    return network_input(outlines)


def ours(engine: ShapeEngine, planes: Tensor, present: Tensor, spacing_mm: float, samples: int, timed: Timed) -> None:
    heads = timed.run("samples, moments, measures", lambda: engine.sample(planes, present, spacing_mm, samples))

    def volumes() -> tuple[np.ndarray, np.ndarray]:
        heads.moments.probability(), heads.moments.occupancy()
        distance, std = heads.moments.distance()
        return distance.cpu().numpy() * spacing_mm, std.cpu().numpy() * spacing_mm

    distance, std = timed.run("volumes", volumes)
    timed.run("surface", lambda: head_surface(distance, std, spacing_mm))


@torch.inference_mode()
def plain_loop(model: nn.Module, planes: Tensor, present: Tensor, spacing_mm: float, samples: int,
               timed: Timed) -> None:
    """As one would write it first: sample after sample in float32, brought onto 96³, measured, stacked at the end."""

    def loop() -> tuple[Tensor, Tensor]:
        distances, probabilities = [], []
        for _ in range(samples):
            sdf = model.sample(model.encode_planes(planes[None], present[None]), 1)
            fine = F.interpolate(sdf, scale_factor=2, mode="trilinear", align_corners=False)[0, 0]
            measure_heads(fine[None], spacing_mm)
            distances.append(fine)
            probabilities.append(torch.sigmoid(fine / SOFTNESS))
        return torch.stack(distances), torch.stack(probabilities)

    distances, probabilities = timed.run("samples, moments, measures", loop)

    def volumes() -> tuple[np.ndarray, np.ndarray]:
        probabilities.mean(0), probabilities.std(0)
        return distances.mean(0).numpy() * spacing_mm, distances.std(0).numpy() * spacing_mm

    distance, std = timed.run("volumes", volumes)
    timed.run("surface", lambda: head_surface(distance, std, spacing_mm))


def skull_tables(samples: int = SAMPLES, repeats: int = REPEATS, device: str = "auto") -> str:
    """Both ways in turn; the ratio is the median of the repetitions' ratios. Shares are of our own time."""
    model, (planes, present, spacing_mm) = shape_model(), three_planes()
    engine = ShapeEngine(device).load(model)
    before = torch.get_num_threads()
    torch.set_num_threads(engine.choice.threads)
    mine, plain = Timed(), Timed()
    try:
        ours(engine, planes, present, spacing_mm, samples, Timed())  # imports, memory, kernels
        plain_loop(model, planes, present, spacing_mm, 2, Timed())
        for _ in range(repeats):
            ours(engine, planes, present, spacing_mm, samples, mine)
            plain_loop(model, planes, present, spacing_mm, samples, plain)
    finally:
        torch.set_num_threads(before)
    ratio = statistics.median(p / m for p, m in zip(plain.totals(), mine.totals(), strict=True))
    total = statistics.median(mine.totals())
    rows = [["ours: batches, encoded once, streamed moments", f"{total:.2f}", "1"],
            ["plain loop in float32, sample after sample, stacked", f"{statistics.median(plain.totals()):.2f}",
             f"**{ratio:.1f}**"]]
    stages = [[name, f"{statistics.median(seconds):.3f}", f"{statistics.median(seconds) / total:.0%}",
               f"{statistics.median(plain.stages[name]):.3f}"] for name, seconds in mine.stages.items()]
    what = f"skull from three planes, {samples} samples, mean and standard deviation on 96³, measures, surface"
    return "\n".join([markdown_table([what, "seconds", "times ours"], rows),
                      markdown_table(["stage", "ours, s", "share", "plain loop, s"], stages)])


if __name__ == "__main__":
    numbers = [int(text) for text in sys.argv[1:]]
    print(skull_tables(*numbers))
