"""What the worker can be asked for. Each task takes a job and returns the fields of its result."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from ..progress import scaled
from ..timing import Timer
from .look import bundles, describe, info
from .server import Job, Task
from .volumes import given_scan, write_array

if TYPE_CHECKING:
    from ..anomaly.result import Detection
    from .warm import WarmDetector

_SHARE_OF_WRITING = 0.05  # of a detection's progress
_VOLUMES = {"anomaly": "float32", "residual": "float32", "reconstruction": "float32", "std": "float32",
            "mask": "uint8", "brain": "uint8", "components": "uint16"}  # fmt: skip
_warm: WarmDetector | None = None


def detect(job: Job) -> Mapping[str, Any]:
    """Runs `detect_anomalies` and leaves its volumes in the folder `output`, as `.npy` on the scan's own grid (zyx)."""
    request = job.request
    output = _field(request, "output", str)
    settings = {
        "samples": _field(request, "samples", int, 16), "fpr": _field(request, "fpr", float, 0.01),
        "score": _field(request, "score", str, "zscore"), "seed": _field(request, "seed", int, 0),
    }  # fmt: skip
    modality = _field(request, "modality", str, "auto")
    bundle, device = _field(request, "bundle", str, ""), _field(request, "device", str, "auto")
    timer, report = Timer(), scaled(job.progress, 0.0, 1.0 - _SHARE_OF_WRITING)
    report("read", 0.0, "Reading the scan")
    with timer.stage("read"):
        scan = given_scan(_field(request, "scan", dict), modality)
    job.cancel.check()
    report("load", 0.01, "Loading the model")
    warm = _warm_detector()
    from ..anomaly.detect import check_arguments, detect_anomalies
    from ..bundle import DEFAULT_ANOMALY_BUNDLE, load_bundle

    check_arguments(settings["samples"], settings["fpr"], settings["score"])
    try:
        with timer.stage("load"):
            detector = warm.detector(load_bundle(bundle or DEFAULT_ANOMALY_BUNDLE), device)
        job.cancel.check()
        prepared = warm.prepared(detector, scan, report, job.cancel, timer)
        found = detect_anomalies(scan, prepared=prepared, progress=report, cancel=job.cancel, timer=timer, **settings)
    finally:
        warm.forget_if_degraded()
    arrays = _write(found, Path(output), job)
    from ..outputs import plain

    return {
        "arrays": arrays, "findings": [plain(finding.row()) for finding in found.findings],
        "threshold": found.threshold, "fpr": found.fpr, "unit": found.unit, "modality": found.modality,
        "warnings": list(found.warnings), "provenance": plain(found.provenance),
    }  # fmt: skip


def _write(found: Detection, output: Path, job: Job) -> dict[str, str]:
    """All volumes or none: they are moved into `output` together."""
    import SimpleITK as sitk

    from ..outputs import atomic_output

    report = scaled(job.progress, 1.0 - _SHARE_OF_WRITING, 1.0)
    try:
        with atomic_output(output) as partial:
            job.partial = partial
            for done, (name, kind) in enumerate(_VOLUMES.items()):
                report("write", done / len(_VOLUMES), "Handing over the result")
                job.cancel.check()
                array_zyx = sitk.GetArrayViewFromImage(getattr(found, name))
                write_array(partial / f"{name}.npy", array_zyx.astype(kind, copy=False))
    except UsageError as error:
        reason = error.__cause__
        if not isinstance(reason, OSError):
            raise
        raise UsageError(f"The result cannot be written to {output} ({reason.strerror or reason}): make room there, "
                         "or choose another folder for temporary files.") from reason  # fmt: skip
    finally:
        job.partial = None
    return {name: os.path.join(output, f"{name}.npy") for name in _VOLUMES}


def _field(request: Mapping[str, Any], name: str, kind: type, default: Any = None) -> Any:
    """A field of the request. Raises UsageError when it is missing or of another type."""
    value = request.get(name, default)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or isinstance(value, bool):
        what = {str: "a text", int: "a whole number", float: "a number", dict: "an object"}[kind]
        raise UsageError(f"The request's field '{name}' must be {what}.")
    return value


def _warm_detector() -> WarmDetector:
    """Made at the first detection: it needs torch, which the other tasks can do without."""
    global _warm
    if _warm is None:
        from .warm import WarmDetector

        _warm = WarmDetector()
    return _warm


TASKS: dict[str, Task] = {
    "detect": detect,
    "info": lambda job: info(),
    "bundles": lambda job: bundles(),
    "describe": lambda job: describe(_field(job.request, "scan", dict)),
}
