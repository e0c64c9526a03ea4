"""The task `skull`: planes in, surface, volumes and measures out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..bundle import SKULL_SAMPLES
from ..errors import UsageError
from ..progress import scaled
from ..timing import Timer
from .requests import field, hand_over
from .server import Job
from .volumes import given_plane, ijk_to_ras
from .warm import WarmSkull

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..skull.result import FoundPlane, SkullPrediction

_SHARE_OF_WRITING = 0.05  # of a prediction's progress
_VOLUMES = ("probability", "mask", "std")
_SURFACE = ("points", "triangles", "std_mm")
_WARM = WarmSkull()


def skull(job: Job) -> Mapping[str, Any]:
    """Runs `predict_skull` and leaves its arrays in the folder `output`: volumes (zyx), the surface's points (RAS mm),
    triangles and std_mm, and each plane's grey values (rows, columns) as they were used."""
    request = job.request
    output, given = field(request, "output", str), field(request, "planes", dict)
    settings = {"samples": field(request, "samples", int, SKULL_SAMPLES), "seed": field(request, "seed", int, 0)}
    ga_weeks = field(request, "ga_weeks", float) if request.get("ga_weeks") is not None else None
    bundle, device = field(request, "bundle", str, ""), field(request, "device", str, "auto")
    if not all(isinstance(plane, dict) for plane in given.values()):
        raise UsageError("Each of the request's planes must be an object.")
    timer, report = Timer(), scaled(job.progress, 0.0, 1.0 - _SHARE_OF_WRITING)
    report("read", 0.0, "Reading the planes")
    from ..skull.planes import check_arguments

    check_arguments(given, settings["samples"], ga_weeks, settings["seed"])
    with timer.stage("read"):
        planes = {name: given_plane(plane) for name, plane in given.items()}
    job.cancel.check()
    report("load", 0.0, "Loading the model")
    from ..outputs import plain
    from ..skull.predict import predict_skull

    try:
        with timer.stage("load"):
            predictor = _WARM.predictor(bundle, device)
        found = predict_skull(planes, predictor=predictor, ga_weeks=ga_weeks, progress=report, cancel=job.cancel,
                              timer=timer, **settings)
    finally:
        _WARM.forget_if_degraded()
    count = len(_VOLUMES) + len(_SURFACE) + len(found.planes)
    report = scaled(job.progress, 1.0 - _SHARE_OF_WRITING, 1.0)
    arrays = hand_over(Path(output), _arrays(found), count, job, report)
    return {
        "arrays": arrays, "ijk_to_ras": ijk_to_ras(found.probability),
        "planes": [plain(_place(plane)) for plane in found.planes], "planes_missing": found.planes_missing,
        "measures": [plain(_named(measure)) for measure in found.measures], "spacing_mm": found.spacing_mm,
        "ga_weeks": found.ga_weeks, "warnings": list(found.warnings), "provenance": plain(found.provenance),
    }


def _arrays(found: SkullPrediction) -> Iterator[tuple[str, NDArray]]:
    import SimpleITK as sitk

    from ..skull.surface import points_of, std_of, triangles_of

    for name in _VOLUMES:
        yield name, sitk.GetArrayViewFromImage(getattr(found, name))
    yield "points", points_of(found.surface)
    yield "triangles", triangles_of(found.surface)
    yield "std_mm", std_of(found.surface)
    for plane in found.planes:
        yield f"plane_{plane.plane}", plane.image.grey_yx


def _place(found: FoundPlane) -> dict[str, Any]:
    return {
        "plane": found.plane, "name": found.image.name, "pixel_mm": found.image.pixel_mm,
        "ijk_to_ras": found.ijk_to_ras_mm, "centre_yx_px": found.centre_yx_px, "semi_axes_mm": found.semi_axes_mm,
        "confidence": found.confidence, "doubts": found.doubts,
    }


def _named(measure: Any) -> dict[str, Any]:
    from ..skull.biometry import TITLES

    return asdict(measure) | {"title": TITLES.get(measure.name, measure.name)}
