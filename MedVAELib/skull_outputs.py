"""Writing a skull prediction: the files of the contract, all of them or none."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import SimpleITK as sitk

from .files.nifti_files import write_volumes
from .outputs import PROVENANCE_FILE, check_writable, json_text, written
from .progress import CancelToken, Progress, no_progress, scaled
from .skull.result import where_drawn

if TYPE_CHECKING:
    from .skull.result import SkullPrediction

BIOMETRY_FILE = "biometry.json"
SKULL_TASK = "skull"
SKULL_FILES = ("skull.nii.gz", "skull_mask.nii.gz", "std.nii.gz", "skull.vtp", BIOMETRY_FILE, "report.html",
               PROVENANCE_FILE)
_SHARE_OF_VOLUMES = 0.8  # of the files but the report


def check_skull_writable(directory: str | Path) -> None:
    """Raises UsageError unless a prediction could be written to `directory` now; leaves nothing behind."""
    check_writable(directory, SKULL_FILES, SKULL_TASK)


def write_skull(
    result: SkullPrediction, directory: str | Path, progress: Progress = no_progress,
    cancel: CancelToken | None = None,
) -> dict[str, Path]:
    """Writes every file of the contract into `directory` (made if need be) and returns their paths by file name.

    Without the packages that draw it there is no report, and the provenance says so. Raises UsageError when the folder
    cannot be written or holds files of these names that MedVAE did not write, Cancelled when `cancel` is set; in both
    cases the folder is as it was before.
    """
    from .skull.surface import write_surface  # VTK takes seconds to load: an unusable folder is named before

    cancel = cancel or CancelToken()

    def fill(partial: Path, report: Progress) -> None:
        frame = "head frame, not registered"
        write_volumes(partial, {
            "skull": (result.probability, sitk.sitkFloat32, f"MedVAE probability of lying in the head; {frame}"),
            "skull_mask": (result.mask, sitk.sitkUInt8, f"MedVAE head inside outer table; {frame}"),
            "std": (result.std, sitk.sitkFloat32, f"MedVAE std of the soft occupancy over samples; {frame}"),
        }, scaled(report, 0.0, _SHARE_OF_VOLUMES), cancel)
        report("write", _SHARE_OF_VOLUMES, "Writing skull.vtp")
        write_surface(result.surface, str(partial / "skull.vtp"))
        (partial / BIOMETRY_FILE).write_text(json_text(biometry_record(result)), encoding="utf-8")

    def draw(partial: Path) -> None:
        from .reporting.skull_page import write_skull_report  # matplotlib and jinja2: only where a report is written

        write_skull_report(result, partial)

    return written(result, directory, fill, draw, {"task": SKULL_TASK}, progress, cancel, share=0.5)


def biometry_record(result: SkullPrediction) -> dict[str, object]:
    """What `biometry.json` holds."""
    measures = {
        measure.name: {
            "value": measure.value, "std": measure.std, "interval_95": list(measure.interval), "unit": measure.unit,
            "percentile": measure.percentile,
        } for measure in result.measures
    }
    return {
        "measures": measures, "ga_weeks": result.ga_weeks, "planes_used": result.planes_used,
        "planes_missing": result.planes_missing, "samples": result.samples,
        "conventions": "outer to outer, in the axial plane through the head's centre; axes and circumference of the "
                       "outline's ellipse; percentiles by INTERGROWTH-21st"
                       + where_drawn(result.provenance["drawn_outside_mm"])
                       + "; std is that of the samples times a calibrated factor, and never less than the error of "
                       "outlines on real planes",
        "notes": result.notes, "warnings": list(result.warnings),
    }
