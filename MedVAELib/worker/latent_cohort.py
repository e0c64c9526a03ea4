"""The task `latent_cohort`: many images as points, from a table of their latents or from the scans themselves."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..outputs import PROVENANCE_FILE, plain
from ..progress import CancelToken, Progress, scaled
from ..timing import Timer
from .latent import load, provenance
from .requests import field, hand_over
from .server import Job

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..latent.cohort import EncodedCohort
    from ..latent.model import LatentModel

_SHARE_OF_ENCODING = 0.8


def latent_cohort(job: Job) -> Mapping[str, Any]:
    """Arrays "mean" (N, Z) and, per plane, "points_<i>" (N, 2) with "matrix_<i>" and "offset_<i>" where new latents can
    be put into it; beside them cases, files, labels, tags and the cases that failed.

    `source`: a table that `medvae latent encode` wrote, or images as `training.image_listing` finds them.
    """
    request, timer = job.request, Timer()
    source = Path(field(request, "source", str)).expanduser()
    report = scaled(job.progress, 0.0, _SHARE_OF_ENCODING)
    model = load(request, timer, report)
    with timer.stage("encode"):
        found = _cohort(source, model, scaled(report, 0.05, 1.0), job.cancel)
    table = found.table
    if table.latents != model.statistics.all.mean.size:
        raise InputError(f"{source} holds {table.latents} latents per image, and {model.bundle.name} has "
                         f"{model.statistics.all.mean.size}: choose the model that made the table.")
    report("planes", 1.0, "Arranging the cohort")
    from ..latent.planes import planes_of

    with timer.stage("planes"):
        planes = planes_of(table)
    job.cancel.check()
    arrays: dict[str, NDArray] = {"mean": table.mean}
    for index, plane in enumerate(planes):
        arrays[f"points_{index}"] = plane.points
        if plane.matrix is not None:
            arrays |= {f"matrix_{index}": plane.matrix, f"offset_{index}": plane.offset}
    output = Path(field(request, "output", str))
    handed = hand_over(output, arrays.items(), len(arrays), job, scaled(job.progress, 0.95, 1.0))
    return {
        "arrays": handed, "cases": list(table.cases), "labels": list(table.labels),
        "files": [file if file and Path(file).exists() else "" for file in table.files],
        "tags": {name: plain(values) for name, values in table.tags.items()},
        "planes": [{"name": plane.name, "axes": list(plane.axes), "linear": plane.matrix is not None}
                   for plane in planes],
        "failed": [{"case": case, "message": message} for case, message in found.failed.items()],
        "warnings": list(found.warnings),
        "provenance": provenance(model, timer) | {"source": str(source), "images": len(table)},
    }


def _cohort(source: Path, model: LatentModel, report: Progress, cancel: CancelToken) -> EncodedCohort:
    from ..latent.cohort import EncodedCohort, encode_records
    from ..latent.table import LatentTable, is_latent_table

    if is_latent_table(source):
        report("read", 0.0, "Reading the table")
        return EncodedCohort(LatentTable.read(source), warnings=_doubts(source, model))
    from ..training.image_listing import find_images

    return encode_records(model, find_images(source, dimensions=len(model.shape)), report, cancel)


def _doubts(source: Path, model: LatentModel) -> tuple[str, ...]:
    """A warning where it is not known which model made a table. Raises InputError where it was another one."""
    maker, bundle = _maker(source), model.bundle
    if maker is None:
        return (f"It is not known which model made {source.name}: if it was not {bundle.name}, what is decoded from it "
                "means nothing.",)
    name, sha256 = maker
    if sha256 != bundle.sha256:
        raise InputError(f"{source} was made by the model {name} ({sha256[:8]}), not by {bundle.name} "
                         f"({bundle.sha256[:8]}): choose that model, or encode the images again.")
    return ()


def _maker(source: Path) -> tuple[str, str] | None:
    """Name and SHA-256 of the bundle that made a table, as `medvae latent encode` left them beside it."""
    try:
        record = json.loads((source.parent / PROVENANCE_FILE).read_text(encoding="utf-8"))
        settings = record["settings"] if source.name in record["files"] else {}  # else it is of another command
        sha256 = settings["bundle_sha256"] if "bundle_sha256" in settings else settings["sha256"]  # once called so
        return str(settings["bundle"]), str(sha256)
    except (OSError, ValueError, KeyError, TypeError):
        return None
