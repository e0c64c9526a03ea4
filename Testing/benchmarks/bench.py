"""`make bench`: how fast, as ratios measured in one run on this machine, and how much memory.

    python -m Testing.benchmarks [--scan FILE] [--repeats 2] [--samples 64] [--device auto] [--output runs/bench.md]

Prints a Markdown table and writes it to the output file. What is compared with what: Testing/benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from MedVAELib.anomaly.result import Detection
from MedVAELib.detection_outputs import write_detection
from MedVAELib.errors import InputError
from MedVAELib.evaluation.tables import markdown_table
from MedVAELib.resources import resource_dir
from MedVAELib.scan import Scan

from .bench_classical import classical_recipe
from .bench_skull import skull_tables
from .bench_worker import clicks_table, measure_clicks

ROOT = Path(__file__).resolve().parents[2]
SIZE = 256
WRITING = ("write_volumes", "write_report")
_REAL_SCAN = "brain/flair/ms_isbi_01/flair.nii.gz"


@dataclass(frozen=True)
class WholeDetection:
    """Seconds of each repetition of both ways, in turn, and the last detection with its files written."""

    ours: list[float]
    classical: list[dict[str, float]]
    detection: Detection
    writing: float

    @property
    def ratio(self) -> float:
        """How many times faster than the classical recipe: median over the repetitions of the paired ratio."""
        return statistics.median(sum(theirs.values()) / ours
                                 for theirs, ours in zip(self.classical, self.ours, strict=True))


def bench_scan(path: Path | None = None) -> tuple[sitk.Image, str]:
    """The scan on 256³ voxels of 1 mm along R, A, S, and its source: `path`, else our sample, else a real scan.

    Raises InputError when there is none.
    """
    data = Path(os.environ.get("MEDVAE_DATA") or ROOT.parent / "shared" / "data")
    candidates = [path] if path else [resource_dir() / "sample" / "flair.nii.gz", data / _REAL_SCAN]
    for candidate in candidates:
        if candidate.is_file():
            return resample_to_1mm(Scan.read(candidate).image), candidate.name
    raise InputError(f"There is no scan to measure with ({', '.join(map(str, candidates))}): give one with --scan.")


def resample_to_1mm(image: sitk.Image) -> sitk.Image:
    """The image on 256³ voxels of 1 mm, axes R, A, S, about the middle of its field of view."""
    middle = image.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in image.GetSize()])
    grid = sitk.Image([SIZE] * 3, sitk.sitkFloat32)
    grid.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
    half = (SIZE - 1) / 2
    grid.SetOrigin((middle[0] + half, middle[1] + half, middle[2] - half))
    return sitk.Resample(image, grid, sitk.Transform(), sitk.sitkLinear, 0.0)


def measure_whole(image: sitk.Image, device: str, repeats: int) -> WholeDetection:
    """Both ways in turn, so that whatever else the machine does falls on both; models are loaded before."""
    from MedVAELib.anomaly.detect import detect_anomalies
    from MedVAELib.anomaly.detector import Detector

    detector = Detector.load(device=device)
    scan = Scan.from_image(image, modality="flair", name="bench")
    detect_anomalies(scan, detector=detector)  # imports and warm-up; the recipe's VAE has its own
    ours, classical, detection = [], [], None
    for _ in range(repeats):
        started = time.perf_counter()
        detection = detect_anomalies(scan, detector=detector)
        ours.append(time.perf_counter() - started)
        classical.append(classical_recipe(image))
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        write_detection(detection, Path(folder) / "out")
        writing = time.perf_counter() - started
    return WholeDetection(ours, classical, detection, writing)


def peak_memory_gib(image: sitk.Image, device: str) -> float:
    """Largest resident size of a process that reads the scan, detects and writes every file, in GiB.

    Raises RuntimeError with the process's last words when it fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scan.nii.gz"
        sitk.WriteImage(image, str(path))
        command = [sys.executable, "-m", "Testing.benchmarks.peak_memory", str(path), str(Path(folder) / "out"), device]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"the detection for the memory measurement failed: {done.stderr.strip()[-500:]}")
        return int(done.stdout.split()[-1]) / 2**30


def whole_table(whole: WholeDetection) -> str:
    """The detection against the classical recipe, whose brain extraction is not counted."""
    ours = statistics.median(whole.ours)
    theirs = statistics.median(sum(times.values()) for times in whole.classical)
    rows = [["whole detection, brain extraction included", f"{ours:.2f}", "1"],
            ["classical recipe, without its brain extraction", f"{theirs:.2f}", f"**{whole.ratio:.1f}**"]]
    for stage in whole.classical[0]:
        seconds = statistics.median(times[stage] for times in whole.classical)
        rows.append([f"· {stage}", f"{seconds:.2f}", f"{seconds / ours:.2f}"])
    return markdown_table([f"one scan of {SIZE}³ at 1 mm, no files read or written", "seconds", "times ours"], rows)


def stage_table(timings_s: Mapping[str, float], writing: float) -> str:
    """Share of each stage of one run, file writing (compression and report) included."""
    stages = {name: float(seconds) for name, seconds in timings_s.items()
              if name not in WRITING and name != "total" and isinstance(seconds, (int, float))}
    stages |= {name: float(timings_s[name]) for name in WRITING if name in timings_s} or {"write": writing}
    total = sum(stages.values())
    rows = [[name, f"{seconds:.2f}", f"{seconds / total:.0%}"] for name, seconds in stages.items()]
    return markdown_table(["stage", "seconds", "share"], [*rows, ["**sum**", f"{total:.2f}", "100%"]])


def sampling_part(samples: int, device: str) -> str:
    """Posterior samples with moments against the plain loop, with the shipped bundle's network."""
    from MedVAELib.bundle import DEFAULT_ANOMALY_BUNDLE, load_bundle
    from MedVAELib.models.registry import build_model

    from .bench_sampling import format_table, peak_share, sampling_table

    bundle = load_bundle(DEFAULT_ANOMALY_BUNDLE)
    model = build_model(bundle.model, bundle.config)
    model.load_state_dict(bundle.state_dict())
    model.eval()
    x = np.random.default_rng(0).random((80, 96, 80), dtype=np.float32)
    return format_table(sampling_table(model, x, samples, device=device), peak_share(model, x, samples)) + "\n"


def machine() -> str:
    """What it ran on: without this, seconds mean nothing."""
    import torch

    from MedVAELib.inference.device import select_device

    return (f"{select_device().name}, {os.cpu_count()} CPU cores, torch {torch.__version__}, "
            f"SimpleITK {sitk.Version.VersionString()}, Python {platform.python_version()}")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__.splitlines()[0])
    parser.add_argument("--scan", type=Path, help="scan to measure with; by default the bundled sample")
    parser.add_argument("--repeats", type=int, default=2, help="repetitions of the whole detection and the recipe")
    parser.add_argument("--samples", type=int, default=64, help="posterior samples of the sampling table")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--output", type=Path, default=ROOT / "runs" / "bench.md")
    options = parser.parse_args(arguments)
    if options.repeats < 1 or options.samples < 1:
        parser.error("--repeats and --samples are at least 1")

    image, source = bench_scan(options.scan)
    parts = ["# Speed and memory, one run\n", f"{machine()}. Scan: {source}, resampled to {SIZE}³ at 1 mm.\n"]

    def add(text: str) -> None:
        parts.append(text)
        print(text, flush=True)

    print("\n".join(parts), flush=True)
    whole = measure_whole(image, options.device, options.repeats)
    add(whole_table(whole))
    add(stage_table(whole.detection.provenance["timings_s"], whole.writing))
    del whole
    gc.collect()
    add(clicks_table(measure_clicks(image, options.device, options.repeats)))
    add(sampling_part(options.samples, options.device))
    add(skull_tables(device=options.device))
    add(f"Peak memory of reading, detecting and writing this scan: {peak_memory_gib(image, options.device):.2f} GiB.\n")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text("\n".join(parts), encoding="utf-8")
    print(f"Written to {options.output}")


if __name__ == "__main__":
    main()
