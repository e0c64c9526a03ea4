"""Writing results so that nothing is ever half-written and nothing of anyone else's is lost.

Everything goes into a private folder inside the output folder (so on the same disk) and is moved into place, file
by file, only when all of it is there; an earlier result stays untouched until then.
"""

from __future__ import annotations

import csv
import errno
import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from .anomaly.result import FINDING_COLUMNS, Detection
from .errors import UsageError
from .gzip_blocks import gzip_file
from .progress import CancelToken, Progress, no_progress

PARTIAL_PREFIX = ".medvae-partial-"
PROVENANCE_FILE = "provenance.json"
DETECTION_TASK = "detection"
DETECTION_FILES = ("anomaly.nii.gz", "brain.nii.gz", "findings.csv", "mask.nii.gz", "overlay.png", PROVENANCE_FILE,
                   "reconstruction.nii.gz", "report.html", "residual.nii.gz", "std.nii.gz")
_REPORT_PACKAGES = ("jinja2", "matplotlib")
_ABANDONED_AFTER_S = 24 * 3600  # a partial folder that old belongs to a run that was killed
_NIFTI_DESCRIPTION_BYTES = 79
_NIFTI_HEADER_BYTES = 352


def write_detection(
    result: Detection,
    directory: str | Path,
    progress: Progress = no_progress,
    cancel: CancelToken | None = None,
) -> dict[str, Path]:
    """Writes every file of the contract into `directory` (made if need be) and returns their paths by file name.

    Without the packages that draw it there is no report, and the provenance says so.
    Volumes lie on the scan's grid: anomaly, residual, reconstruction, std as float32, mask and brain as uint8.
    Raises UsageError when the folder cannot be written or holds files of these names that MedVAE did not write,
    Cancelled when `cancel` is set; in both cases the folder is as it was before.
    """
    cancel = cancel or CancelToken()
    with atomic_output(directory) as partial:
        started = time.perf_counter()
        _write_volumes(result, partial, progress, cancel)
        _write_findings(result, partial / "findings.csv")
        cancel.check()
        _record_time(result, "write_volumes", started)

        problem = report_problem()
        if problem:
            result.provenance["report"] = problem
        else:
            _write_report(result, partial, progress)
        cancel.check()

        names = sorted(file.name for file in partial.iterdir()) + [PROVENANCE_FILE]
        (partial / PROVENANCE_FILE).write_text(provenance_json(result, names), encoding="utf-8")
        cancel.check()
    progress("write", 1.0, f"Results are in {directory}")
    return {name: Path(directory) / name for name in names}


def report_problem() -> str:
    """Why no report can be written here, or an empty string: predicting does without the packages that draw it."""
    missing = [name for name in _REPORT_PACKAGES if find_spec(name) is None]
    return f"not written: the Python packages {' and '.join(missing)} are not installed" if missing else ""


def _write_report(result: Detection, partial: Path, progress: Progress) -> None:
    started = time.perf_counter()
    progress("write", 0.8, "Writing the report")
    from .report import write_report  # matplotlib and jinja2: only where a report is written

    write_report(result, partial)
    _record_time(result, "write_report", started)


def provenance_json(result: Detection, files: list[str]) -> str:
    """What `provenance.json` holds: the detection's own provenance, its unit, threshold and warnings, the files."""
    record = {
        **result.provenance, "task": DETECTION_TASK, "modality": result.modality, "unit": result.unit,
        "threshold": result.threshold, "fpr": result.fpr, "warnings": list(result.warnings), "files": sorted(files),
    }
    return json.dumps(plain(record), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def check_writable(
    directory: str | Path, names: Iterable[str] = DETECTION_FILES, task: str = DETECTION_TASK
) -> None:
    """Raises UsageError unless files of these names, results of this task, could be written to `directory` now; leaves
    nothing behind."""
    with atomic_output(directory):
        _refuse_foreign_files(Path(directory), names, task)


@contextmanager
def atomic_output(directory: str | Path) -> Iterator[Path]:
    """A private folder whose files are moved into `directory` when the block ends without an exception.

    On an exception, or when moving fails, `directory` is as it was before (absent, if it was absent). An OSError
    (no permission, disk full, a file where the folder should be) becomes a UsageError of one sentence, also when
    it is about a file being written inside the block.
    """
    directory = Path(directory)
    made: list[Path] = []
    partial: Path | None = None
    try:
        made = _make_folders(directory)
        _remove_abandoned(directory)
        partial = Path(tempfile.mkdtemp(prefix=PARTIAL_PREFIX, dir=directory))
        yield partial
        _move_into_place(partial, directory)
    except OSError as error:
        if not _concerns(error, directory):
            raise
        reason = error.strerror or str(error)
        raise UsageError(f"Results cannot be written to {directory} ({reason}): "
                         "choose another --output or make room there.") from error
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)
        for folder in reversed(made):
            try:
                folder.rmdir()  # stays when there are results in it
            except OSError:
                break


def _concerns(error: OSError, directory: Path) -> bool:
    """Whether the failure is about the output: its path is there, or it has none (a write on an open file)."""
    if error.filename is None:
        return True
    return str(error.filename).startswith(str(directory)) or str(directory).startswith(str(error.filename))


def _make_folders(directory: Path) -> list[Path]:
    """Makes `directory` and returns the folders that were missing, outermost first."""
    missing = [folder for folder in (directory, *directory.parents) if not folder.exists()][::-1]
    directory.mkdir(parents=True, exist_ok=True)
    return missing


def _remove_abandoned(directory: Path) -> None:
    for folder in directory.glob(f"{PARTIAL_PREFIX}*"):
        if time.time() - folder.stat().st_mtime > _ABANDONED_AFTER_S:
            shutil.rmtree(folder, ignore_errors=True)


def _move_into_place(partial: Path, directory: Path) -> None:
    """Moves the files of `partial` into `directory`; puts the earlier ones back if one of the moves fails."""
    names = sorted(entry.name for entry in partial.iterdir())
    _refuse_foreign_files(directory, names, _earlier_result(partial)[0])
    earlier = partial / "earlier"
    earlier.mkdir()
    moved: list[str] = []
    try:
        for name in names:
            if (directory / name).exists():
                os.replace(directory / name, earlier / name)
            moved.append(name)
            os.replace(partial / name, directory / name)
    except OSError:
        for name in moved:
            if (earlier / name).exists():
                os.replace(earlier / name, directory / name)
            else:
                (directory / name).unlink(missing_ok=True)
        raise


def _refuse_foreign_files(directory: Path, names: Iterable[str], task: str) -> None:
    """A file of these names that no earlier run wrote may be the scan itself, or an expert's mask.nii.gz; one that
    another task wrote belongs to its result."""
    present = {name for name in names if (directory / name).exists()}
    earlier, files = _earlier_result(directory)
    if present & files and earlier and task and earlier != task:
        raise UsageError(f"{directory} holds another result ({earlier}), of which {', '.join(sorted(present & files))} "
                         "would be overwritten: choose another --output.")
    foreign = sorted(present - files)
    if foreign:
        raise UsageError(f"{directory} already holds {', '.join(foreign)}, which MedVAE did not write and would "
                         "overwrite: choose another --output.")


def _earlier_result(directory: Path) -> tuple[str, set[str]]:
    """The task of the result in a folder, "" where none is stated, and its files."""
    try:
        provenance = json.loads((directory / PROVENANCE_FILE).read_text(encoding="utf-8"))
        return str(provenance.get("task", "")), {str(name) for name in provenance["files"]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "", set()


def _write_volumes(result: Detection, folder: Path, progress: Progress, cancel: CancelToken) -> None:
    volumes = {
        "anomaly": (result.anomaly, sitk.sitkFloat32, f"MedVAE anomaly score, {result.unit}"),
        "residual": (result.residual, sitk.sitkFloat32, "MedVAE scan - reconstruction, scan intensity"),
        "reconstruction": (result.reconstruction, sitk.sitkFloat32, "MedVAE healthy reconstruction, scan intensity"),
        "std": (result.std, sitk.sitkFloat32, "MedVAE std over posterior samples, scan intensity"),
        "mask": (result.mask, sitk.sitkUInt8, f"MedVAE anomalies at false-positive rate {result.fpr:g}"),
        "brain": (result.brain, sitk.sitkUInt8, "MedVAE brain mask"),
    }
    for done, (name, (image, pixel_type, description)) in enumerate(volumes.items()):
        progress("write", 0.8 * done / len(volumes), f"Writing {name}.nii.gz")
        write_nifti_gz(image, folder / f"{name}.nii.gz", pixel_type, description, cancel)


def write_nifti_gz(
    image: sitk.Image, path: Path, pixel_type: int, description: str, cancel: CancelToken | None = None
) -> None:
    """Writes `image` as compressed NIfTI of the given pixel type, with `description` in its header (79 bytes kept).

    Raises OSError when the disk refuses, Cancelled when `cancel` is set.
    """
    image = sitk.Cast(image, pixel_type) if image.GetPixelID() != pixel_type else sitk.Image(image)
    for key in image.GetMetaDataKeys():
        image.EraseMetaData(key)  # a scan's own tags (patient, rescale slope) do not describe this volume
    text = description.encode("ascii", "replace")[:_NIFTI_DESCRIPTION_BYTES].decode("ascii")
    image.SetMetaData("ITK_FileNotes", text)  # ITK's name for the NIfTI field `descrip`
    plain = path.with_name(path.name.removesuffix(".gz"))
    complete_bytes = _NIFTI_HEADER_BYTES + image.GetNumberOfPixels() * image.GetSizeOfPixelComponent()
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if shutil.disk_usage(path.parent).free < complete_bytes:  # asked first: the NIfTI library would print to stderr
        raise full
    try:
        sitk.WriteImage(image, str(plain), useCompression=False)
    except RuntimeError as error:
        raise OSError(errno.EIO, f"{path.name} could not be written") from error
    if plain.stat().st_size < complete_bytes:  # ITK does not notice a full disk
        raise full
    gzip_file(plain, path, cancel)
    plain.unlink()


def _write_findings(result: Detection, path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, FINDING_COLUMNS, lineterminator="\n")
        table.writeheader()
        for finding in result.findings:
            table.writerow({key: f"{value:.4f}" if isinstance(value, float) else value
                            for key, value in plain(finding.row()).items()})


def _record_time(result: Detection, stage: str, started: float) -> None:
    timings = result.provenance.setdefault("timings_s", {})
    if isinstance(timings, dict):
        timings[stage] = round(time.perf_counter() - started, 3)


def plain(value: object) -> object:
    """`value` in JSON's own types; numbers that are none (NaN, infinity) become null."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    return str(value)
