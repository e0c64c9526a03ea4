"""Writing a detection: the files of the contract, all of them or none."""

from __future__ import annotations

from pathlib import Path

import SimpleITK as sitk

from .anomaly.result import FINDING_COLUMNS, Detection
from .files.csv_files import write_csv
from .files.nifti_files import write_volumes
from .outputs import PROVENANCE_FILE, check_writable, plain, written
from .progress import CancelToken, Progress, no_progress

DETECTION_TASK = "detection"
DETECTION_FILES = ("anomaly.nii.gz", "brain.nii.gz", "findings.csv", "mask.nii.gz", "overlay.png", PROVENANCE_FILE,
                   "reconstruction.nii.gz", "report.html", "residual.nii.gz", "std.nii.gz")


def check_detection_writable(directory: str | Path) -> None:
    """Raises UsageError unless a detection could be written to `directory` now; leaves nothing behind."""
    check_writable(directory, DETECTION_FILES, DETECTION_TASK)


def write_detection(
    result: Detection, directory: str | Path, progress: Progress = no_progress, cancel: CancelToken | None = None,
) -> dict[str, Path]:
    """Writes every file of the contract into `directory` (made if need be) and returns their paths by file name.

    Without the packages that draw it there is no report, and the provenance says so.
    Volumes lie on the scan's grid: anomaly, residual, reconstruction, std as float32, mask and brain as uint8.
    Raises UsageError when the folder cannot be written or holds files of these names that MedVAE did not write,
    Cancelled when `cancel` is set; in both cases the folder is as it was before.
    """
    cancel = cancel or CancelToken()

    def fill(partial: Path, report: Progress) -> None:
        write_volumes(partial, {
            "anomaly": (result.anomaly, sitk.sitkFloat32, f"MedVAE anomaly score, {result.unit}"),
            "residual": (result.residual, sitk.sitkFloat32, "MedVAE scan - reconstruction, scan intensity"),
            "reconstruction": (result.reconstruction, sitk.sitkFloat32,
                               "MedVAE healthy reconstruction, scan intensity"),
            "std": (result.std, sitk.sitkFloat32, "MedVAE std over posterior samples, scan intensity"),
            "mask": (result.mask, sitk.sitkUInt8, f"MedVAE anomalies at false-positive rate {result.fpr:g}"),
            "brain": (result.brain, sitk.sitkUInt8, "MedVAE brain mask"),
        }, report, cancel)
        rows = [{key: f"{value:.4f}" if isinstance(value, float) else value
                 for key, value in plain(finding.row()).items()} for finding in result.findings]
        write_csv(partial / "findings.csv", rows, FINDING_COLUMNS)

    def draw(partial: Path) -> None:
        from .report import write_report  # matplotlib and jinja2: only where a report is written

        write_report(result, partial)

    record = {"task": DETECTION_TASK, "modality": result.modality, "unit": result.unit,
              "threshold": result.threshold, "fpr": result.fpr}
    return written(result, directory, fill, draw, record, progress, cancel)
