"""CSV files that list the cases of a cohort, read so that whatever leaves something unclear is named by its line."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError

_UNSAFE_NAME = re.compile(r'[\x00-\x1f<>:"/\\|?*]|^[. ]|[. ]$')
_LONGEST_NAME = 120
_STATED_SEPARATOR = re.compile(r'"?sep=([^"\w\r\n])"?\s*$', re.I)  # Excel's own first line


@dataclass(frozen=True)
class Line:
    """A line of a table, by column."""

    table: Path
    number: int
    values: Mapping[str, str]

    def value(self, column: str) -> str:
        """What stands there, "" if nothing does."""
        return (self.values.get(column) or "").strip()

    def required(self, column: str) -> str:
        """Raises InputError if nothing stands there."""
        if not self.value(column):
            raise self.error(f"the column '{column}' is empty; fill it in.")
        return self.value(column)

    def case_name(self) -> str:
        """The column "case", which becomes a folder's name. Raises InputError if it cannot."""
        name = self.required("case")
        if _UNSAFE_NAME.search(name) or len(name) > _LONGEST_NAME or name.lower() == "summary.csv":
            raise self.error(f"'{name}' cannot be the name of a folder; use letters, digits, '-' and '_'.")
        return name

    def path(self, text: str) -> Path:
        """A file or folder; relative ones start from the table's own folder."""
        return self.table.parent / os.path.expanduser(text)  # of an unknown user: as it is

    def error(self, what: str) -> InputError:
        return InputError(f"{self.table}, line {self.number}: {what}")


def read_table(table: Path, required: Sequence[str], optional: Sequence[str], what: str) -> list[Line]:
    """The lines of a CSV file that are not empty. Other columns are passed over; commas, semicolons or tabs may
    separate. what: a line stands for, for messages. Raises InputError, naming file and line."""
    lines = _text_lines(table, required)
    start, separator = _heading(lines)
    if start == len(lines):
        raise InputError(f"{table} is empty: give it a first line with the columns {', '.join(required)}.")
    try:
        reader = csv.DictReader(lines[start:], delimiter=separator, skipinitialspace=True, strict=True)
        columns = [(name or "").strip().lower() for name in reader.fieldnames or []]
        reader.fieldnames = columns
        missing = [name for name in required if name not in columns]
        if missing:
            raise InputError(f"{table} has no column '{missing[0]}' (it has: {', '.join(columns)}): name the columns "
                             f"{' and '.join(required)} in its first line.")  # fmt: skip
        twice = [name for name in (*required, *optional) if columns.count(name) > 1]
        if twice:
            raise InputError(f"{table} has the column '{twice[0]}' more than once: keep one of them.")
        rows = [(start + reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise InputError(f"{table} is no CSV file that can be read ({error}): export it again.") from None
    found = [_line(table, number, row) for number, row in rows if any((v or "").strip() for v in _texts(row))]
    if not found:
        raise InputError(f"{table} lists no cases: add a line for each {what} below the columns' names.")
    return found


def _line(table: Path, number: int, row: dict) -> Line:
    line = Line(table, number, row)
    if None in row:
        raise line.error("there are more values than columns; put quotes around values that hold the separator.")
    return line


def _text_lines(table: Path, required: Sequence[str]) -> list[str]:
    try:
        text = table.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        columns = " and ".join(required)
        raise InputError(f"{table} does not exist: give a CSV file with the columns {columns}.") from None
    except UnicodeDecodeError:
        raise InputError(f"{table} is not a text file in UTF-8: export it as 'CSV UTF-8'.") from None
    except OSError as error:
        raise InputError(f"{table} cannot be read ({error.strerror}): give a CSV file.") from None
    return text.splitlines(keepends=True)


def _heading(lines: Sequence[str]) -> tuple[int, str]:
    """Which line names the columns (their number if none does), and what separates values."""
    separator = ""
    for index, line in enumerate(lines):
        if stated := _STATED_SEPARATOR.match(line):
            separator = stated[1]
        elif line.strip():
            return index, separator or max(",;\t", key=line.count)
    return len(lines), separator


def _texts(row: dict) -> list[str]:
    return [value for value in row.values() if isinstance(value, str)]
