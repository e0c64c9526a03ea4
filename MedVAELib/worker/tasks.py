"""What the worker can be asked for. Each task takes a job and returns the fields of its result."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..progress import scaled
from ..timing import Timer
from .latent import latent_decode, latent_draw, latent_encode, latent_generate, latent_model
from .latent_cohort import latent_cohort
from .look import bundles, describe, import_one, info, verify
from .requests import field, hand_over
from .server import Job, Task
from .skull import skull
from .volumes import given_scan
from .warm import WarmDetector

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..anomaly.result import Detection

_SHARE_OF_WRITING = 0.05  # of a detection's progress
_VOLUMES = {"anomaly": "float32", "residual": "float32", "reconstruction": "float32", "std": "float32",
            "mask": "uint8", "brain": "uint8", "components": "uint16"}
_WARM = WarmDetector()


def detect(job: Job) -> Mapping[str, Any]:
    """Runs `detect_anomalies` and leaves its volumes in the folder `output`, as `.npy` on the scan's own grid (zyx)."""
    request = job.request
    output = field(request, "output", str)
    settings = {
        "samples": field(request, "samples", int, 16), "fpr": field(request, "fpr", float, 0.01),
        "score": field(request, "score", str, "zscore"), "seed": field(request, "seed", int, 0),
    }
    modality = field(request, "modality", str, "auto")
    bundle, device = field(request, "bundle", str, ""), field(request, "device", str, "auto")
    timer, report = Timer(), scaled(job.progress, 0.0, 1.0 - _SHARE_OF_WRITING)
    report("read", 0.0, "Reading the scan")
    from ..anomaly.scores import check_arguments

    check_arguments(settings["samples"], settings["fpr"], settings["score"], settings["seed"])
    with timer.stage("read"):
        scan = given_scan(field(request, "scan", dict), modality)
    job.cancel.check()
    report("load", 0.01, "Loading the model")
    from ..anomaly.detect import detect_anomalies
    from ..bundle import DEFAULT_ANOMALY_BUNDLE, load_bundle

    try:
        with timer.stage("load"):
            detector = _WARM.detector(load_bundle(bundle or DEFAULT_ANOMALY_BUNDLE), device)
        job.cancel.check()
        prepared = _WARM.prepared(detector, scan, report, job.cancel, timer)
        found = detect_anomalies(scan, prepared=prepared, progress=report, cancel=job.cancel, timer=timer, **settings)
    finally:
        _WARM.forget_if_degraded()
    report = scaled(job.progress, 1.0 - _SHARE_OF_WRITING, 1.0)
    arrays = hand_over(Path(output), _arrays(found), len(_VOLUMES), job, report)
    from ..outputs import plain

    return {
        "arrays": arrays, "findings": [plain(finding.row()) for finding in found.findings],
        "threshold": found.threshold, "fpr": found.fpr, "unit": found.unit, "modality": found.modality,
        "warnings": list(found.warnings), "provenance": plain(found.provenance),
    }


def _arrays(found: Detection) -> Iterator[tuple[str, NDArray]]:
    import SimpleITK as sitk

    for name, kind in _VOLUMES.items():
        yield name, sitk.GetArrayViewFromImage(getattr(found, name)).astype(kind, copy=False)


TASKS: dict[str, Task] = {
    "detect": detect,
    "skull": skull,
    "latent_model": latent_model, "latent_encode": latent_encode, "latent_decode": latent_decode,
    "latent_draw": latent_draw, "latent_generate": latent_generate, "latent_cohort": latent_cohort,
    "info": lambda job: info(),
    "bundles": lambda job: bundles(),
    "import_bundle": lambda job: import_one(field(job.request, "source", str)),
    "verify_bundles": lambda job: verify(field(job.request, "names", list)),
    "describe": lambda job: describe(field(job.request, "scan", dict)),
}
