"""Which scans a cohort holds: from a CSV file, or from files and folders."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import InputError, UsageError
from ..files.folders import files_matching, is_file_or_lost
from ..outputs import PROVENANCE_FILE
from ..scan import MODALITIES, dicom_folder
from .table import LONGEST_NAME, Line, names_a_folder, read_table

REQUIRED_COLUMNS = ("case", "scan")
OPTIONAL_COLUMNS = ("modality", "series")
_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".img.gz", ".hdr", ".dcm")


class OfOneScan:
    """A dataclass of a case whose `scan` is all that is read."""

    scan: Path

    @property
    def sources(self) -> tuple[Path, ...]:
        return (self.scan,)

    @property
    def listed(self) -> str:
        """The scan's path as tables have it: whole, as they may be read from anywhere."""
        return str(self.scan.absolute())


@dataclass(frozen=True)
class Case(OfOneScan):
    """A scan of a cohort; its name is that of its folder. modality, series: "" means as set for all."""

    name: str
    scan: Path
    modality: str = ""
    series: str = ""

    def resolved(self) -> Case:
        """With an absolute path, for another machine."""
        return replace(self, scan=self.scan.absolute())


def read_cases(table: Path) -> list[Case]:
    """The cases of a CSV file with the columns case, scan and, if wanted, modality and series.

    Relative paths start from the file's own folder; other columns are passed over. Commas, semicolons or tabs may
    separate. Raises InputError, naming file and line, for a table that leaves anything unclear; whether the scans
    are there is seen when their turn comes.
    """
    cases = [_case(line) for line in read_table(table, REQUIRED_COLUMNS, OPTIONAL_COLUMNS, "scan")]
    refuse_double_names(cases, table)
    return cases


def cases_of_paths(paths: Sequence[Path]) -> list[Case]:
    """A case for every scan file or DICOM folder, named after it."""
    return [Case(name, path) for path, name in zip(paths, case_names(paths), strict=True)]


def case_names(scans: Sequence[Path]) -> list[str]:
    """A folder name for each scan, from its file name, or "scan" where that can name none; where it is not unique, with
    its folder's name before it."""
    names = [_folder_name(stem(scan)) for scan in scans]
    names = [_folder_name(f"{Path(os.path.abspath(scan)).parent.name}_{name}") if names.count(name) > 1 else name
             for scan, name in zip(scans, names, strict=True)]
    unique: list[str] = []
    taken: set[str] = set()  # upper and lower case are one on many disks
    for name in names:
        candidate, number = name, 2
        while candidate.lower() in taken:
            candidate, number = f"{name}_{number}", number + 1
        taken.add(candidate.lower())
        unique.append(candidate)
    return unique


def _folder_name(name: str) -> str:
    short = name
    if len(name) > LONGEST_NAME:  # cut, and still another one than its neighbours'
        short = f"{name[: LONGEST_NAME - 9]}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return short if names_a_folder(short) else "scan"


def scans_in(folder: Path, pattern: str = "*") -> list[Path]:
    """The scan files in a folder and below, whose names match the pattern; MedVAE's own results are passed over.

    A folder without any that holds files is one DICOM scan. Raises InputError for a folder without either, or
    one that cannot be read.
    """
    files = sorted(file for file in files_matching(folder, f"**/{pattern}")
                   if file.name.lower().endswith(_SUFFIXES[:-1]))
    found = [file for file in files if is_file_or_lost(file) and not (file.parent / PROVENANCE_FILE).exists()]
    if found:
        return found
    if files or pattern != "*" or not any(file.is_file() for file in folder.iterdir()):
        raise InputError(f"{folder} holds no scans whose names match '{pattern}': give a folder of NIfTI, NRRD or "
                         "MetaImage files, or of DICOM slices.")
    return [folder]


def refuse_double_names(cases: Sequence[Case], source: object) -> None:
    """Raises InputError if two cases would share a folder; upper and lower case are one on many disks."""
    seen: set[str] = set()
    for case in cases:
        if case.name.lower() in seen:
            raise InputError(f"{source} names the case '{case.name}' more than once: give each case a name of its own.")
        seen.add(case.name.lower())


def refuse_results_among_slices(sources: Iterable[Path], directories: Iterable[Path]) -> None:
    """Raises UsageError if a directory of results is a scan's DICOM folder or lies inside it: what lies there counts as
    part of the scan, which would be another one after every run. sources: files and folders that are read."""
    folders = {folder.resolve() for source in sources if (folder := dicom_folder(source)) is not None}
    for directory in directories:
        place = directory.resolve()
        for folder in folders.intersection((place, *place.parents)):
            raise UsageError(f"{folder} is read as a DICOM folder, and the results in {directory} would lie in it: "
                             "give another --output.")


def stem(scan: Path) -> str:
    """The scan's name without its suffix."""
    name = scan.name if scan.name not in ("", "..") else scan.resolve().name
    for suffix in _SUFFIXES:
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)]
    return name


def _case(line: Line) -> Case:
    modality = line.value("modality").lower()
    if modality and modality not in MODALITIES:
        raise line.error(f"there is no modality '{modality}'; use one of {', '.join(MODALITIES)}, or leave it empty.")
    return Case(line.case_name(), line.path(line.required("scan")), modality, line.value("series"))
