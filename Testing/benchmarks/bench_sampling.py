"""Posterior sampling with moments: the engine against the plain per-sample float32 loop, as ratios in one run.

    python -m Testing.benchmarks.bench_sampling [--samples 64] [--repeats 3] [--device auto]

Every repetition times each way once, in turn, so that whatever else the machine does falls on all of them alike;
a ratio is the median over repetitions of (a way's seconds / the engine's seconds in the same repetition). Encoding is
always included.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from MedVAELib.inference import Engine, posterior_noise
from MedVAELib.networks.healthy_anatomy import HealthyAnatomyNet, unfold

ENGINE = "engine"
OWN_DECODE = "loop over the network's own decode, stack, mean and std"
PLAIN_DECODE = "plain loop: textbook decoder, stack, mean and std"
PLAIN_FORWARD = "plain loop: encoder and textbook decoder for each sample, stack, mean and std"


@dataclass(frozen=True)
class SamplingRow:
    """One way to get the moments of `samples` posterior samples."""

    name: str
    seconds: float  # median over the repetitions
    ratio: float  # of its time to the engine's, median of the paired ratios
    samples: int


def sampling_table(
    model: HealthyAnatomyNet, x: np.ndarray, samples: int = 64, repeats: int = 3, device: str = "auto"
) -> list[SamplingRow]:
    """Time the plain loops and the engine in turn on one scan x (D, H, W); every way starts from a loaded model.

    The plain loops run in float32 on the same device, in the default memory layout, with torch's own thread count,
    BatchNorm unfused and all samples stacked. The textbook decoder upsamples, concatenates the skip and convolves;
    the network's own decode already avoids that. All results are checked to agree.
    """
    model = model.eval()
    engine = Engine(device).load(model)
    plain = PlainLoop(model, x, engine.choice.device)
    weights = np.linspace(0.0, 1.0, engine.decode_mean(engine.encode(x)).shape[0], dtype=np.float32)
    ways: dict[str, Callable[[], object]] = {
        ENGINE: lambda: engine.moments(engine.encode(x), samples, weights),
        OWN_DECODE: lambda: plain.moments(samples, weights, model.decode, whole_network=False),
        PLAIN_DECODE: lambda: plain.moments(samples, weights, plain.textbook_decode, whole_network=False),
        PLAIN_FORWARD: lambda: plain.moments(samples, weights, plain.textbook_decode, whole_network=True),
    }
    _check_agreement(engine, plain, engine.encode(x), weights)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            seconds[name].append(_seconds(way, engine.choice.device))
    return [SamplingRow(name, statistics.median(times), _paired_ratio(times, seconds[ENGINE]), samples)
            for name, times in seconds.items()]


def _paired_ratio(times: list[float], reference: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(times, reference, strict=True))


class PlainLoop:
    """What one writes without thinking about speed: one sample after the other, float32, everything kept."""

    def __init__(self, model: HealthyAnatomyNet, x: np.ndarray, device: torch.device):
        self.model = model.to(device=device, dtype=torch.float32)
        self._weights = [torch.cat([stage.coarse.weight, stage.skip.weight], 1).detach() for stage in model.up]
        self.x = torch.from_numpy(x)[None, None].to(device)

    def textbook_decode(self, z: Tensor, skips: list[Tensor]) -> Tensor:
        """The decoder as U-nets are usually written: upsample, concatenate the skip, convolve. Same logits."""
        model = self.model
        h = model.from_latent(z)
        for stage, skip, weight in zip(model.up, reversed(skips), self._weights, strict=True):
            joined = torch.cat([functional.interpolate(h, scale_factor=2, mode="nearest"), skip], 1)
            h = functional.silu(stage.norm(functional.conv3d(joined, weight, stage.skip.bias, padding=1)))
        return unfold(model.head(h))

    @torch.no_grad()
    def moments(
        self, samples: int, weights: np.ndarray, decode: Callable[[Tensor, list[Tensor]], Tensor], whole_network: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Mean probability (K, D, H, W), mean and standard deviation of the reconstruction (D, H, W)."""
        intensities = torch.from_numpy(weights).to(self.x.device)
        posterior = self.model.encode(self.x)
        probabilities, reconstructions = [], []
        for i in range(samples):
            if whole_network and i > 0:
                posterior = self.model.encode(self.x)
            noise = posterior_noise(tuple(posterior.mean.shape[1:]), 0, i).to(self.x.device)
            z = posterior.mean + (0.5 * posterior.logvar).exp() * noise
            probability = decode(z, posterior.skips).softmax(1)[0]
            probabilities.append(probability)
            reconstructions.append(torch.einsum("kzyx,k->zyx", probability, intensities))
        stack = torch.stack(reconstructions)
        return torch.stack(probabilities).mean(0), stack.mean(0), stack.std(0)


def _check_agreement(engine: Engine, plain: PlainLoop, encoded, weights: np.ndarray) -> None:
    """A benchmark of different numbers would be worthless."""
    tolerance = 1e-3 if engine.precision is torch.float32 else 0.03
    ours = engine.moments(encoded, 2, weights)
    theirs = plain.moments(2, weights, plain.textbook_decode, whole_network=False)
    for found, wanted in zip((ours.probability, ours.reconstruction, ours.std), theirs, strict=True):
        difference = float(np.abs(found - wanted.cpu().numpy()).mean())
        if difference > tolerance:
            raise AssertionError(f"the engine and the plain loop differ by {difference:.2g} on average")


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


@dataclass(frozen=True)
class PeakShare:
    """Decoding speed on a GPU beside what its matrix units were measured to reach."""

    decode_tflops: float
    peak_tflops: float

    @property
    def fraction(self) -> float:
        return self.decode_tflops / self.peak_tflops


def peak_share(model: HealthyAnatomyNet, x: np.ndarray, samples: int = 64) -> PeakShare | None:
    """On CUDA: achieved TFLOP/s of decoding (work really done, softmax and moments in the time) and of a bfloat16
    matrix product of 8192³; None elsewhere."""
    if not torch.cuda.is_available():
        return None
    engine = Engine("cuda").load(model)
    encoded = engine.encode(x)
    weights = np.linspace(0.0, 1.0, engine.decode_mean(encoded).shape[0], dtype=np.float32)
    engine.moments(encoded, samples, weights)  # captures the graph
    # The graph hides its operations from a counter: count one sample decoded on the CPU by the same code.
    counter = FlopCounterMode(display=False)
    on_cpu = Engine("cpu", "float32").load(model)
    encoded_on_cpu = on_cpu.encode(x)
    on_cpu.decode_mean(encoded_on_cpu)  # prepares the context, which is not counted
    with counter:
        on_cpu.moments(encoded_on_cpu, 1, weights)
    flops = counter.get_total_flops() * samples
    best = min(_seconds(lambda: engine.moments(encoded, samples, weights), engine.device) for _ in range(5))
    return PeakShare(flops / best / 1e12, _matmul_tflops(engine.device))


def _matmul_tflops(device: torch.device, size: int = 8192) -> float:
    a = torch.randn(size, size, device=device, dtype=torch.bfloat16)
    for _ in range(3):
        a @ a
    repeats = 20

    def work() -> None:
        for _ in range(repeats):
            a @ a

    torch.cuda.synchronize(device)
    return 2 * size**3 * repeats / min(_seconds(work, device) for _ in range(3)) / 1e12


def format_table(rows: Sequence[SamplingRow], share: PeakShare | None = None) -> str:
    """The rows as Markdown."""
    head = f"| {rows[0].samples} posterior samples with moments | seconds | × engine |"
    lines = [head, "|---|---:|---:|"]
    lines += [f"| {r.name} | {r.seconds:.2f} | {r.ratio:.2f} |" for r in rows]
    if share:
        lines.append(
            f"\nDecoding: {share.decode_tflops:.0f} TFLOP/s, {share.fraction:.0%} of the {share.peak_tflops:.0f} "
            "TFLOP/s that a bfloat16 matrix product reaches on this GPU."
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    model = HealthyAnatomyNet().eval()
    x = np.random.default_rng(0).random((80, 96, 80), dtype=np.float32)
    rows = sampling_table(model, x, arguments.samples, arguments.repeats, arguments.device)
    print(format_table(rows, peak_share(model, x, arguments.samples)))


if __name__ == "__main__":
    main()
