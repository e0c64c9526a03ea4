"""Writing a skull prediction: the files of the contract, all of them or none."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import SimpleITK as sitk

from .nifti_files import write_nifti_gz
from .outputs import PROVENANCE_FILE, atomic_output, check_writable, names_in, plain, report_problem
from .progress import CancelToken, Progress, no_progress
from .skull.result import where_drawn

if TYPE_CHECKING:
    from .skull.result import SkullPrediction

BIOMETRY_FILE = "biometry.json"
SKULL_TASK = "skull"
SKULL_FILES = ("skull.nii.gz", "skull_mask.nii.gz", "std.nii.gz", "skull.vtp", BIOMETRY_FILE, "report.html",
               PROVENANCE_FILE)  # fmt: skip


def check_skull_writable(directory: str | Path) -> None:
    """Raises UsageError unless a prediction could be written to `directory` now; leaves nothing behind."""
    check_writable(directory, SKULL_FILES, SKULL_TASK)


def write_skull(
    result: SkullPrediction, directory: str | Path, progress: Progress = no_progress,
    cancel: CancelToken | None = None,
) -> dict[str, Path]:  # fmt: skip
    """Writes every file of the contract into `directory` (made if need be) and returns their paths by file name.

    Without the packages that draw it there is no report, and the provenance says so. Raises UsageError when the folder
    cannot be written or holds files of these names that MedVAE did not write, Cancelled when `cancel` is set; in both
    cases the folder is as it was before.
    """
    from .skull.surface import write_surface  # VTK takes seconds to load: an unusable folder is named before

    cancel = cancel or CancelToken()
    with atomic_output(directory) as partial:
        started = time.perf_counter()
        _write_volumes(result, partial, progress, cancel)
        progress("write", 0.4, "Writing skull.vtp")
        write_surface(result.surface, str(partial / "skull.vtp"))
        (partial / BIOMETRY_FILE).write_text(_json(biometry_record(result)), encoding="utf-8")
        _record_time(result, "write_volumes", started)
        cancel.check()
        problem = report_problem()
        if problem:
            result.provenance["report"] = problem
        else:
            _write_report(result, partial, progress)
        cancel.check()
        names = sorted([*names_in(partial), PROVENANCE_FILE])
        record = {**result.provenance, "task": SKULL_TASK, "warnings": list(result.warnings), "files": names}
        (partial / PROVENANCE_FILE).write_text(_json(record), encoding="utf-8")
        cancel.check()
    progress("write", 1.0, f"Results are in {directory}")
    return {name: Path(directory) / name for name in names}


def biometry_record(result: SkullPrediction) -> dict[str, object]:
    """What `biometry.json` holds."""
    measures = {
        measure.name: {
            "value": measure.value, "std": measure.std, "interval_95": list(measure.interval), "unit": measure.unit,
            "percentile": measure.percentile,
        } for measure in result.measures
    }  # fmt: skip
    return {
        "measures": measures, "ga_weeks": result.ga_weeks, "planes_used": result.planes_used,
        "planes_missing": result.planes_missing, "samples": result.samples,
        "conventions": "outer to outer, in the axial plane through the head's centre; HC of the outline's ellipse; "
                       "percentiles by INTERGROWTH-21st" + where_drawn(result.provenance["drawn_outside_mm"]),
        "warnings": list(result.warnings),
    }  # fmt: skip


def _write_volumes(result: SkullPrediction, folder: Path, progress: Progress, cancel: CancelToken) -> None:
    frame = "head frame, not registered"
    volumes = {
        "skull": (result.probability, sitk.sitkFloat32, f"MedVAE probability of head; {frame}"),
        "skull_mask": (result.mask, sitk.sitkUInt8, f"MedVAE head inside outer table; {frame}"),
        "std": (result.std, sitk.sitkFloat32, f"MedVAE std of the probability; {frame}"),
    }
    for done, (name, (image, pixel_type, description)) in enumerate(volumes.items()):
        progress("write", 0.4 * done / len(volumes), f"Writing {name}.nii.gz")
        write_nifti_gz(image, folder / f"{name}.nii.gz", pixel_type, description, cancel)


def _write_report(result: SkullPrediction, partial: Path, progress: Progress) -> None:
    started = time.perf_counter()
    progress("write", 0.5, "Writing the report")
    from .reporting.skull_page import write_skull_report  # matplotlib and jinja2: only where a report is written

    write_skull_report(result, partial)
    _record_time(result, "write_report", started)


def _record_time(result: SkullPrediction, stage: str, started: float) -> None:
    timings = result.provenance.setdefault("timings_s", {})
    if isinstance(timings, dict):
        timings[stage] = round(time.perf_counter() - started, 3)


def _json(record: object) -> str:
    return json.dumps(plain(record), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
