"""The sample scan that comes with MedVAE, and how a detection on it compares with the lesions put into it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from ..files.itk_files import itk_name
from ..resources import resource_dir

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rich.table import Table

    from ..anomaly.result import Detection


@dataclass(frozen=True)
class PutIn:
    """A lesion put into the sample, the share of its voxels that lie in findings, and whether it is found by that."""

    name: str
    volume_ml: float
    covered: float
    found: bool


@dataclass(frozen=True)
class Outcome:
    """Every lesion put in, and the labels of the findings that are none of them."""

    lesions: tuple[PutIn, ...]
    false_findings: tuple[int, ...]

    @property
    def sentence(self) -> str:
        found = sum(lesion.found for lesion in self.lesions)
        return (f"Found {found} of the {len(self.lesions)} lesions put into the sample; "
                f"{len(self.false_findings)} findings are none of them.")


def sample_scan() -> Path:
    """The sample's file. Raises UsageError when this installation lacks it."""
    path = _sample_dir() / "flair.nii.gz"
    if not path.is_file():
        raise UsageError(f"This installation lacks the sample scan {path}: use a clone of the repository.")
    return path


def compare_with_truth(result: Detection) -> Outcome:
    """`compare` with the sample's own lesions: `truth.nii.gz` labels them on its grid, in the order in which
    `truth.json` lists them (name, volume_ml, centroid_ras_mm)."""
    import SimpleITK as sitk

    listed = json.loads((_sample_dir() / "truth.json").read_text(encoding="utf-8"))
    truth_zyx = sitk.GetArrayFromImage(sitk.ReadImage(itk_name(_sample_dir() / "truth.nii.gz")))
    return compare(result, truth_zyx, listed)


def compare(result: Detection, truth_zyx: NDArray[np.uint8], listed: list[dict[str, Any]]) -> Outcome:
    """Which lesions are found, by the rule of `medvae evaluate anomaly`: a tenth of one lies in findings; and which
    findings are wrong: less than a tenth of one lies on lesion. truth_zyx: 1, 2 … in the order of `listed`."""
    import SimpleITK as sitk

    from ..evaluation.metrics import MIN_OVERLAP, on_lesion

    components = sitk.GetArrayFromImage(result.components)
    covered = [float((components[truth_zyx == label] > 0).mean()) for label in range(1, len(listed) + 1)]
    lesions = tuple(PutIn(str(entry["name"]), float(entry["volume_ml"]), share, share >= MIN_OVERLAP)
                    for entry, share in zip(listed, covered, strict=True))
    labels = [finding.label for finding in result.findings]
    right = on_lesion(components, labels, truth_zyx > 0)
    return Outcome(lesions, tuple(label for label, is_right in zip(labels, right, strict=True) if not is_right))


def outcome_table(outcome: Outcome) -> Table:
    """The lesions as a table for the terminal."""
    from rich.table import Table

    table = Table(title="Lesions put into the sample", title_justify="left")
    table.add_column("lesion")
    table.add_column("ml", justify="right")
    table.add_column("found")
    table.add_column("covered by findings", justify="right")
    for lesion in outcome.lesions:
        table.add_row(lesion.name, f"{lesion.volume_ml:.2f}", "yes" if lesion.found else "no",
                      f"{lesion.covered:.0%}")
    return table


def _sample_dir() -> Path:
    return resource_dir() / "sample"
