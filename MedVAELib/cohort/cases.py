"""Which scans a cohort holds: from a CSV file, or from files and folders."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..outputs import PROVENANCE_FILE
from ..scan import MODALITIES

REQUIRED_COLUMNS = ("case", "scan")
OPTIONAL_COLUMNS = ("modality", "series")
_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".img.gz", ".hdr", ".dcm")
_UNSAFE_NAME = re.compile(r'[\x00-\x1f<>:"/\\|?*]|^[. ]|[. ]$')
_LONGEST_NAME = 120


@dataclass(frozen=True)
class Case:
    """A scan of a cohort; its name is that of its folder. modality, series: "" means as set for all."""

    name: str
    scan: Path
    modality: str = ""
    series: str = ""


def read_cases(table: Path) -> list[Case]:
    """The cases of a CSV file with the columns case, scan and, if wanted, modality and series.

    Relative paths start from the file's own folder; other columns are passed over. Commas, semicolons or tabs may
    separate. Raises InputError, naming file and line, for a table that leaves anything unclear; whether the scans
    are there is seen when their turn comes.
    """
    lines = _lines(table)
    if not lines:
        raise InputError(f"{table} is empty: give it a first line with the columns {', '.join(REQUIRED_COLUMNS)}.")
    separator = max(",;\t", key=lines[0].count)
    try:
        reader = csv.DictReader(lines, delimiter=separator, skipinitialspace=True, strict=True)
        columns = [(name or "").strip().lower() for name in reader.fieldnames or []]
        reader.fieldnames = columns
        missing = [name for name in REQUIRED_COLUMNS if name not in columns]
        if missing:
            raise InputError(f"{table} has no column '{missing[0]}' (it has: {', '.join(columns)}): name the columns "
                             "case and scan in its first line.")  # fmt: skip
        twice = [name for name in (*REQUIRED_COLUMNS, *OPTIONAL_COLUMNS) if columns.count(name) > 1]
        if twice:
            raise InputError(f"{table} has the column '{twice[0]}' more than once: keep one of them.")
        rows = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise InputError(f"{table} is no CSV file that can be read ({error}): export it again.") from None
    cases = [_case(table, line, row) for line, row in rows if any((v or "").strip() for v in _texts(row))]
    if not cases:
        raise InputError(f"{table} lists no cases: add a line for each scan below the columns' names.")
    refuse_double_names(cases, table)
    return cases


def cases_of_paths(paths: Sequence[Path]) -> list[Case]:
    """A case for every scan file or DICOM folder, named after it."""
    return [Case(name, path) for path, name in zip(paths, case_names(paths), strict=True)]


def case_names(scans: Sequence[Path]) -> list[str]:
    """A folder name for each scan, from its file name; where that is not unique, with its folder's name before it."""
    names = [stem(scan) for scan in scans]
    names = [f"{scan.resolve().parent.name}_{name}" if names.count(name) > 1 else name
             for scan, name in zip(scans, names, strict=True)]  # fmt: skip
    unique: list[str] = []
    for name in names:
        candidate, number = name, 2
        while candidate in unique:
            candidate, number = f"{name}_{number}", number + 1
        unique.append(candidate)
    return unique


def scans_in(folder: Path, pattern: str = "*") -> list[Path]:
    """The scan files in a folder and below, whose names match the pattern; MedVAE's own results are passed over.

    A folder without any that holds files is one DICOM scan. Raises InputError for a folder without either.
    """
    files = sorted(file for file in folder.rglob(pattern) if file.name.lower().endswith(_SUFFIXES[:-1]))
    found = [file for file in files if file.is_file() and not file.name.startswith(".")
             and not (file.parent / PROVENANCE_FILE).exists()]  # fmt: skip
    if found:
        return found
    if files or pattern != "*" or not any(file.is_file() for file in folder.iterdir()):
        raise InputError(f"{folder} holds no scans whose names match '{pattern}': give a folder of NIfTI, NRRD or "
                         "MetaImage files, or of DICOM slices.")  # fmt: skip
    return [folder]


def refuse_double_names(cases: Sequence[Case], source: object) -> None:
    """Raises InputError if two cases would share a folder; upper and lower case are one on many disks."""
    seen: set[str] = set()
    for case in cases:
        if case.name.lower() in seen:
            raise InputError(f"{source} names the case '{case.name}' more than once: give each case a name of its own.")
        seen.add(case.name.lower())


def stem(scan: Path) -> str:
    """The scan's name without its suffix."""
    name = scan.name or scan.resolve().name
    for suffix in _SUFFIXES:
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)]
    return name


def _lines(table: Path) -> list[str]:
    try:
        text = table.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{table} does not exist: give a CSV file with the columns case and scan.") from None
    except UnicodeDecodeError:
        raise InputError(f"{table} is not a text file in UTF-8: export it as 'CSV UTF-8'.") from None
    except OSError as error:
        raise InputError(f"{table} cannot be read ({error.strerror}): give a CSV file.") from None
    lines = text.splitlines(keepends=True)
    while lines and not lines[0].strip():
        del lines[0]
    return lines


def _texts(row: dict) -> list[str]:
    return [value for value in row.values() if isinstance(value, str)]


def _case(table: Path, line: int, row: dict) -> Case:
    def value(column: str) -> str:
        return (row.get(column) or "").strip()

    name, scan, modality = value("case"), value("scan"), value("modality").lower()
    if None in row:
        raise InputError(f"{table}, line {line}: there are more values than columns; put quotes around values that "
                         "hold the separator.")  # fmt: skip
    for column, text in (("case", name), ("scan", scan)):
        if not text:
            raise InputError(f"{table}, line {line}: the column '{column}' is empty; fill it in.")
    if _UNSAFE_NAME.search(name) or len(name) > _LONGEST_NAME or name.lower() == "summary.csv":
        raise InputError(f"{table}, line {line}: '{name}' cannot be the name of a folder; use letters, digits, '-' "
                         "and '_'.")  # fmt: skip
    if modality and modality not in MODALITIES:
        raise InputError(f"{table}, line {line}: there is no modality '{modality}'; use one of "
                         f"{', '.join(MODALITIES)}, or leave it empty.")  # fmt: skip
    return Case(name, table.parent / Path(scan).expanduser(), modality, value("series"))
