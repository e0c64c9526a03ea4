"""A folder of cases: which file is the scan, which the expert's mask, which the brain mask.

    CASES_DIR/<case>/  flair.nii.gz | flair_zscored.nii.gz | dwi.nii.gz
                       mask.nii.gz | mask1.nii.gz (+ mask2.nii.gz, a second rater) | labels.nii.gz   (all > 0 = lesion)
                       brainmask.nii.gz (optional)

A case without a mask counts as healthy when its folder's name starts with "healthy", else it is only looked at.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ..errors import Cancelled, DeviceMemoryError, InputError, MedVAEError
from ..files.folders import is_file_or_lost
from ..progress import CancelToken, Progress, scaled

Scores = TypeVar("Scores")

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


def one_by_one(
    cases: Iterable[Any], total: int, evaluate: Callable[[Any, Progress], Scores],
    failed: Callable[[Any, str], Scores], progress: Progress, cancel: CancelToken | None,
) -> list[Scores]:
    """Scores of every case, of one that fails those that `failed` makes of the reason: it does not stop the others.

    cases: each has a name; they may be made while they are used. Raises Cancelled, and DeviceMemoryError (it would hit
    every case).
    """
    results = []
    for number, case in enumerate(cases):
        if cancel is not None:
            cancel.check()
        part = scaled(progress, number / total, (number + 1) / total)
        part("evaluate", 0.0, case.name)
        try:
            results.append(evaluate(case, scaled(part, 0.0, 0.9)))
        except (Cancelled, DeviceMemoryError):
            raise
        except MedVAEError as error:
            results.append(failed(case, str(error)))
        part("evaluate", 1.0, case.name)
    return results


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
    name = Path(os.path.abspath(folder)).name  # a link is called as it is, not as what it leads to
    return Case(name, scan, _first(folder, TRUTH_NAMES), _first(folder, SECOND_RATER_NAMES),
                _first(folder, BRAIN_NAMES))


def _first(folder: Path, names: tuple[str, ...]) -> Path | None:
    paths = (folder / f"{name}{suffix}" for name in names for suffix in _SUFFIXES)
    return next((path for path in paths if is_file_or_lost(path)), None)
