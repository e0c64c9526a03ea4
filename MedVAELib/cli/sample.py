"""The sample scan that comes with MedVAE, and how a detection on it compares with the lesions put into it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UsageError
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

    `truth.nii.gz` marks the lesions on the sample's grid and `truth.json` lists them (name, volume_ml,
    centroid_ras_mm); each one listed is the connected component whose centroid is nearest.
    """
    import numpy as np
    import SimpleITK as sitk

    listed = json.loads((_sample_dir() / "truth.json").read_text(encoding="utf-8"))
    truth = sitk.ReadImage(str(_sample_dir() / "truth.nii.gz")) > 0
    components = sitk.ConnectedComponent(truth, True)
    shapes = sitk.LabelShapeStatisticsImageFilter()
    shapes.Execute(components)
    labels = list(shapes.GetLabels())
    centroids_ras_mm = np.array([shapes.GetCentroid(label) for label in labels]) * (-1, -1, 1)  # ITK's are LPS
    components_zyx = sitk.GetArrayViewFromImage(components)
    mask_zyx = sitk.GetArrayViewFromImage(result.mask) > 0

    lesions = []
    for entry in listed:
        distance_mm = np.linalg.norm(centroids_ras_mm - entry["centroid_ras_mm"], axis=1)
        lesion_zyx = components_zyx == labels[int(distance_mm.argmin())]
        lesions.append(PutIn(str(entry["name"]), float(entry["volume_ml"]), float(mask_zyx[lesion_zyx].mean())))
    findings_zyx = sitk.GetArrayViewFromImage(result.components)
    touched = set(np.unique(findings_zyx[components_zyx > 0]).tolist())
    return Outcome(tuple(lesions), tuple(f.label for f in result.findings if f.label not in touched))


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
