"""The sample scan that comes with MedVAE, and how a detection on it compares with the lesions put into it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UsageError
from ..files.itk_files import itk_name
from ..resources import resource_dir

if TYPE_CHECKING:
    from rich.table import Table

    from ..anomaly.result import Detection


@dataclass(frozen=True)
class PutIn:
    """A lesion put into the sample, and the share of its voxels that the detection's mask covers."""

    name: str
    volume_ml: float
    covered: float

    @property
    def found(self) -> bool:
        return self.covered > 0


@dataclass(frozen=True)
class Outcome:
    """Every lesion put in, and the labels of the findings that touch none of them."""

    lesions: tuple[PutIn, ...]
    false_findings: tuple[int, ...]

    @property
    def sentence(self) -> str:
        found = sum(lesion.found for lesion in self.lesions)
        return (f"Found {found} of the {len(self.lesions)} lesions put into the sample; "
                f"{len(self.false_findings)} findings touch none of them.")


def sample_scan() -> Path:
    """The sample's file. Raises UsageError when this installation lacks it."""
    path = _sample_dir() / "flair.nii.gz"
    if not path.is_file():
        raise UsageError(f"This installation lacks the sample scan {path}: use a clone of the repository.")
    return path


def compare_with_truth(result: Detection) -> Outcome:
    """Which of the sample's lesions the detection's mask touches (by at least one voxel).

    `truth.nii.gz` labels them 1, 2 ... on the sample's grid, in the order in which `truth.json` lists them (name,
    volume_ml, centroid_ras_mm).
    """
    import numpy as np
    import SimpleITK as sitk

    from ..anomaly.result import BRIGHT

    listed = json.loads((_sample_dir() / "truth.json").read_text(encoding="utf-8"))
    truth_zyx = sitk.GetArrayFromImage(sitk.ReadImage(itk_name(_sample_dir() / "truth.nii.gz")))
    mask_zyx = sitk.GetArrayViewFromImage(result.mask) == BRIGHT
    lesions = tuple(
        PutIn(str(entry["name"]), float(entry["volume_ml"]), float(mask_zyx[truth_zyx == label].mean()))
        for label, entry in enumerate(listed, start=1))
    touched = set(np.unique(sitk.GetArrayViewFromImage(result.components)[truth_zyx > 0]).tolist())
    return Outcome(lesions, tuple(finding.label for finding in result.findings if finding.label not in touched))


def outcome_table(outcome: Outcome) -> Table:
    """The lesions as a table for the terminal."""
    from rich.table import Table

    table = Table(title="Lesions put into the sample", title_justify="left")
    table.add_column("lesion")
    table.add_column("ml", justify="right")
    table.add_column("found")
    table.add_column("covered by the mask", justify="right")
    for lesion in outcome.lesions:
        table.add_row(lesion.name, f"{lesion.volume_ml:.2f}", "yes" if lesion.found else "no",
                      f"{lesion.covered:.0%}")
    return table


def _sample_dir() -> Path:
    return resource_dir() / "sample"
