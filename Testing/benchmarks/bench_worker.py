"""First and second click on a scan, through the panel's worker: what keeping model and scan warm saves."""

from __future__ import annotations

import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import SimpleITK as sitk

from MedVAELib.evaluation.tables import markdown_table
from Testing.worker_process import WorkerProcess, handed_over


@dataclass
class Clicks:
    """Seconds from request to result, volumes in files included. cold: in a process just started; first: a scan it
    has not seen; threshold: the same scan with another threshold; seed: the same scan with other posterior samples;
    cancel: from the request to cancel to the answer, half a second into a detection."""

    cold: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    threshold: list[float] = field(default_factory=list)
    seed: list[float] = field(default_factory=list)
    cancel: list[float] = field(default_factory=list)


def measure_clicks(image: sitk.Image, device: str, repeats: int) -> Clicks:
    """The clicks in turn, `repeats` times; a brighter copy of the scan is another scan with the same work."""
    clicks, number = Clicks(), 0
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)

        def click(worker: WorkerProcess, scan: dict, **settings: object) -> float:
            nonlocal number
            number += 1
            started = time.perf_counter()
            answer = worker.ask(id=number, task="detect", scan=scan, output=str(folder / str(number)), device=device,
                                **settings)
            if answer["event"] != "result":
                raise RuntimeError(f"the worker failed: {answer['message']}")
            return time.perf_counter() - started

        for repeat in range(repeats):
            with WorkerProcess(cold=True) as worker:
                clicks.cold.append(click(worker, handed_over(image * (1 + repeat), folder, "cold")))
                scan = handed_over(image * (1.5 + repeat), folder, "scan")
                clicks.first.append(click(worker, scan))
                clicks.threshold.append(click(worker, scan, fpr=0.005))
                clicks.seed.append(click(worker, scan, seed=1))
                clicks.cancel.append(_cancelling(worker, handed_over(image * (1.7 + repeat), folder, "other"), folder))
    return clicks


def _cancelling(worker: WorkerProcess, scan: dict, folder: Path) -> float:
    worker.send({"id": "cancelled", "task": "detect", "scan": scan, "output": str(folder / "cancelled")})
    time.sleep(0.5)
    started = time.perf_counter()
    worker.send({"cancel": "cancelled"})
    worker.answer("cancelled")
    return time.perf_counter() - started


def clicks_table(clicks: Clicks) -> str:
    """Each kind of click, and how many times faster than the first on a scan it is: median of the paired ratios."""

    def row(name: str, seconds: list[float]) -> list[str]:
        ratio = statistics.median(first / other for first, other in zip(clicks.first, seconds, strict=True))
        return [name, f"{statistics.median(seconds):.2f}", f"{ratio:.1f}"]

    rows = [
        row("in a process just started (imports, model)", clicks.cold), row("first click on a scan", clicks.first),
        row("second click, other threshold", clicks.threshold),
        row("second click, other posterior samples", clicks.seed),
    ]
    table = markdown_table(["click, through the worker", "seconds", "times faster than the first"], rows)
    return f"{table}\nCancelling in mid-run took {max(clicks.cancel):.2f} s at most.\n"
