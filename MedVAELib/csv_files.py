"""CSV tables written in one step: an interrupted run leaves the old table or the new one, never half of it."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from .errors import UsageError


def write_csv(path: Path, rows: Sequence[Mapping[str, object]], columns: Sequence[str]) -> Path:
    """Writes the columns of the rows; what a row lacks or has as None stays empty. Raises OSError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, columns, lineterminator="\n")
            table.writeheader()
            table.writerows(rows)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def refuse_foreign_table(path: Path, columns: Sequence[str]) -> None:
    """Raises UsageError where a table of this name lies that does not begin with these columns: it is someone's own,
    perhaps the very table of cases, and would be overwritten."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            found = next(csv.reader(file), [])
    except OSError:  # not there, or nothing that could be overwritten
        return
    except (ValueError, csv.Error):
        found = []
    if found[: len(columns)] != list(columns):
        raise UsageError(f"{path} is a table that MedVAE did not write and would overwrite: choose another --output.")
