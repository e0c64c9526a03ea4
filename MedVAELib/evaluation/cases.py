"""A folder of cases: which file is the scan, which the expert's mask, which the brain mask.

    CASES_DIR/<case>/  flair.nii.gz | flair_zscored.nii.gz | dwi.nii.gz
                       mask.nii.gz | mask1.nii.gz (+ mask2.nii.gz, a second rater) | labels.nii.gz   (all > 0 = lesion)
                       brainmask.nii.gz (optional)

A case without a mask counts as healthy when its folder's name starts with "healthy", else it is only looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError

SCAN_NAMES = ("flair", "flair_zscored", "dwi")
TRUTH_NAMES = ("mask", "mask1", "labels")
SECOND_RATER_NAMES = ("mask2",)
BRAIN_NAMES = ("brainmask",)
_SUFFIXES = (".nii.gz", ".nii")


@dataclass(frozen=True)
class Case:
    """One case's files. truth: the expert's mask, or None. second_rater, brain: None where there is no such file."""

    name: str
    scan: Path
    truth: Path | None = None
    second_rater: Path | None = None
    brain: Path | None = None

    @property
    def kind(self) -> str:
        """"lesions", "healthy" or "no truth"."""
        if self.truth is not None:
            return "lesions"
        return "healthy" if self.name.startswith("healthy") else "no truth"


def find_cases(folder: str | Path) -> list[Case]:
    """The cases in `folder`, by name; a folder that holds a scan itself is one case.

    Raises InputError when there is none.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: give the folder that holds one folder per case.")
    candidates = [folder, *sorted(entry for entry in folder.iterdir() if entry.is_dir())]
    cases = [case for case in map(_case, candidates) if case is not None]
    if not cases:
        raise InputError(f"{folder} holds no case: each case is a folder with {' or '.join(SCAN_NAMES)}.nii.gz in it.")
    return cases


def _case(folder: Path) -> Case | None:
    scan = _first(folder, SCAN_NAMES)
    if scan is None:
        return None
    return Case(folder.resolve().name, scan, _first(folder, TRUTH_NAMES), _first(folder, SECOND_RATER_NAMES),
                _first(folder, BRAIN_NAMES))


def _first(folder: Path, names: tuple[str, ...]) -> Path | None:
    paths = (folder / f"{name}{suffix}" for name in names for suffix in _SUFFIXES)
    return next((path for path in paths if path.is_file()), None)
