"""The task `latent_cohort`: many images as points, from a table of their latents or from the scans themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import Cancelled, InputError, MedVAEError
from ..progress import CancelToken, Progress, scaled
from ..timing import Timer
from .latent import load, provenance
from .requests import field as request_field
from .requests import hand_over
from .server import Job

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..latent.model import LatentModel
    from ..latent.table import LatentTable

_SHARE_OF_ENCODING = 0.8
_OWN_COLUMNS = ("case", "patient", "label", "split", "file", "scan")
_FILE_TAGS = ("file", "scan")


@dataclass(frozen=True)
class Entry:
    """An image of the cohort, by its line in a table or its file in a folder."""

    case: str
    file: Path
    patient: str = ""
    label: str = ""
    split: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)


def latent_cohort(job: Job) -> Mapping[str, Any]:
    """Arrays "mean" (N, Z) and, per plane, "points_<i>" (N, 2) with "matrix_<i>" and "offset_<i>" where new latents can
    be put into it; beside them cases, files, labels, tags and the cases that failed.

    `source`: a table that `medvae latent encode` wrote, a CSV with the columns case and file (or scan), or a folder.
    """
    request, timer = job.request, Timer()
    source = Path(request_field(request, "source", str)).expanduser()
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
    output = Path(request_field(request, "output", str))
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
    from ..latent.table import LatentTable

    if source.is_file() and _is_latent_table(source):
        report("read", 0.0, "Reading the table")
        table = LatentTable.read(source)
        return table, _files_of(table, source), []
    return _encoded(_entries(source), model, report, cancel)


def _is_latent_table(source: Path) -> bool:
    if source.suffix.lower() in (".parquet", ".pq"):
        return True
    with source.open(encoding="utf-8", errors="replace") as file:
        return "mu_0" in file.readline()


def _files_of(table: LatentTable, source: Path) -> list[str]:
    """Each row's image file, "" where the table does not say or it is not there."""
    names = next((table.tags[name] for name in _FILE_TAGS if name in table.tags), None)
    if names is None:
        return [""] * len(table)
    paths = [source.parent / Path(str(name)).expanduser() if str(name) else None for name in names]
    return [str(path) if path is not None and path.exists() else "" for path in paths]


def _entries(source: Path) -> list[Entry]:
    from ..cohort.cases import case_names, scans_in
    from ..cohort.table import read_table

    if source.is_dir():
        files = scans_in(source)
        folders = [file.relative_to(source).parts[0] if len(file.relative_to(source).parts) > 1 else ""
                   for file in files]  # fmt: skip
        labels = folders if len(set(folders)) < len(files) else [""] * len(files)
        return [Entry(case, file, label=label)
                for case, file, label in zip(case_names(files), files, labels, strict=True)]
    found = []
    for line in read_table(source, ("case",), _OWN_COLUMNS, "image"):
        name = line.value("file") or line.value("scan")
        if not name:
            raise line.error("there is no file; give the image's file in the column 'file'.")
        tags = {key: (value or "").strip() for key, value in line.values.items() if key and key not in _OWN_COLUMNS}
        found.append(Entry(line.required("case"), line.path(name), line.value("patient"), line.value("label"),
                           line.value("split"), tags))  # fmt: skip
    return found


def _encoded(entries: Sequence[Entry], model: LatentModel, report: Progress, cancel: CancelToken,
             ) -> tuple[LatentTable, list[str], list[dict[str, str]]]:  # fmt: skip
    """What cannot be encoded is told of beside the rest. Raises InputError if nothing can."""
    import numpy as np

    from ..latent.table import LatentTable

    done: list[Entry] = []
    means, variances, failed = [], [], []
    for index, entry in enumerate(entries):
        cancel.check()
        report("encode", index / len(entries), f"Encoding {index + 1} of {len(entries)}")
        try:
            mean, variance = model.encode(_image(entry.file, model, cancel)[None], cancel=cancel)
        except Cancelled:
            raise
        except MedVAEError as error:
            failed.append({"case": entry.case, "message": str(error)})
            continue
        done.append(entry)
        means.append(mean.reshape(-1))
        variances.append(None if variance is None else variance.reshape(-1))
    if not done:
        raise InputError(f"None of the {len(entries)} images could be encoded; the first: {failed[0]['message']}")
    names = dict.fromkeys(name for entry in done for name in entry.tags)
    table = LatentTable(
        [entry.case for entry in done], [entry.patient or entry.case for entry in done], np.stack(means),
        None if variances[0] is None else np.stack(variances), [entry.label for entry in done],
        [entry.split for entry in done], {name: [entry.tags.get(name, "") for entry in done] for name in names})
    return table, [str(entry.file) for entry in done], failed


def _image(file: Path, model: LatentModel, cancel: CancelToken) -> NDArray:
    """(1, *shape): an image that has the model's very form already as it is, any other scan prepared for it."""
    from ..scan import Scan

    scan = Scan.read(file)
    if scan.image.GetSize() == model.shape[::-1] and _values_are_prepared(scan):
        return scan.array_zyx()[None]
    return model.prepare(scan, cancel=cancel).image


def _values_are_prepared(scan: Any) -> bool:
    import numpy as np

    values = scan.array_zyx()
    return bool(values.min() >= 0 and 0.5 < values.max() <= 1.0 and np.isfinite(values).all())


def _plain(values: NDArray) -> list[Any]:
    """Numbers with None for what is unknown, or texts."""
    import numpy as np

    if values.dtype == object:
        return [str(value) for value in values]
    return [float(value) if np.isfinite(value) else None for value in values]
