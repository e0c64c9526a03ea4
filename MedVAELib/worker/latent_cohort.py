"""The task `latent_cohort`: many images as points, from a table of their latents or from the scans themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import Cancelled, InputError, MedVAEError
from ..progress import CancelToken, Progress, scaled
from ..timing import Timer
from .latent import load, provenance
from .requests import field, hand_over
from .server import Job

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..latent.model import LatentModel
    from ..latent.table import LatentTable
    from ..training.image_listing import ImageRecord

_SHARE_OF_ENCODING = 0.8
_FILE_TAGS = ("file", "scan")


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
        table, files, failed = _cohort(source, model, scaled(report, 0.05, 1.0), job.cancel)
    if table.latents != model.statistics.all.mean.size:
        raise InputError(f"{source} holds {table.latents} latents per image, and {model.bundle.name} has "
                         f"{model.statistics.all.mean.size}: choose the model that made the table.")  # fmt: skip
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
    tags = {name: _plain(values) for name, values in table.tags.items() if name not in _FILE_TAGS}
    return {
        "arrays": handed, "cases": list(table.cases), "files": files, "labels": list(table.labels), "tags": tags,
        "planes": [{"name": plane.name, "axes": list(plane.axes), "linear": plane.matrix is not None}
                   for plane in planes],
        "failed": failed, "warnings": [],
        "provenance": provenance(model, timer) | {"source": str(source), "images": len(table)},
    }  # fmt: skip


def _cohort(source: Path, model: LatentModel, report: Progress, cancel: CancelToken,
            ) -> tuple[LatentTable, list[str], list[dict[str, str]]]:  # fmt: skip
    from ..latent.table import LatentTable, is_latent_table

    if is_latent_table(source):
        report("read", 0.0, "Reading the table")
        table = LatentTable.read(source)
        return table, _files_of(table, source), []
    from ..training.image_listing import find_images

    return _encoded(find_images(source, dimensions=len(model.shape)), model, report, cancel)


def _files_of(table: LatentTable, source: Path) -> list[str]:
    """Each row's image file, "" where the table does not say or it is not there."""
    names = next((table.tags[name] for name in _FILE_TAGS if name in table.tags), None)
    if names is None:
        return [""] * len(table)
    paths = [source.parent / Path(str(name)).expanduser() if str(name) else None for name in names]
    return [str(path) if path is not None and path.exists() else "" for path in paths]


def _encoded(records: Sequence[ImageRecord], model: LatentModel, report: Progress, cancel: CancelToken,
             ) -> tuple[LatentTable, list[str], list[dict[str, str]]]:  # fmt: skip
    """What cannot be encoded is told of beside the rest. Raises InputError if nothing can."""
    import numpy as np

    from ..latent.placing import encode_file
    from ..latent.table import LatentTable

    done, means, failed = [], [], []
    for index, record in enumerate(records):
        cancel.check()
        report("encode", index / len(records), f"Encoding {index + 1} of {len(records)}")
        try:
            means.append(encode_file(model, record, cancel=cancel).mean)
        except Cancelled:
            raise
        except MedVAEError as error:
            failed.append({"case": record.case, "message": str(error)})
            continue
        done.append(record)
    if not done:
        raise InputError(f"None of the {len(records)} images could be encoded; the first: {failed[0]['message']}")
    names = dict.fromkeys(name for record in done for name in record.tags)
    table = LatentTable(
        [record.case for record in done], [record.patient for record in done], np.stack(means),
        labels=[record.label for record in done], split=[record.split for record in done],
        tags={name: [record.tags.get(name, "") for record in done] for name in names})  # fmt: skip
    return table, [str(record.file) for record in done], failed


def _plain(values: NDArray) -> list[Any]:
    """Numbers with None for what is unknown, or texts."""
    import numpy as np

    if values.dtype == object:
        return [str(value) for value in values]
    return [float(value) if np.isfinite(value) else None for value in values]
