"""CSV files that list the cases of a cohort, read so that whatever leaves something unclear is named by its line."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..files.csv_files import read_csv

_UNSAFE_NAME = re.compile(
    r'[\x00-\x1f<>:"/\\|?*]|^[. ]|[. ]$|^$|^summary\.csv$'
    r"|^(con|prn|aux|nul|com\d|lpt\d) *(\.|$)", re.I)  # devices of Windows, whatever their suffix
LONGEST_NAME = 120


def names_a_folder(name: str) -> bool:
    """Whether a case's results can have a folder of this name, on every system."""
    return len(name) <= LONGEST_NAME and not _UNSAFE_NAME.search(name)


@dataclass(frozen=True)
class Line:
    """A line of a table. values: by column, without blanks around them."""

    table: Path
    number: int
    values: Mapping[str, str]

    def value(self, column: str) -> str:
        """What stands there, "" if nothing does."""
        return self.values.get(column, "")

    def required(self, column: str) -> str:
        """Raises InputError if nothing stands there."""
        if not self.value(column):
            raise self.error(f"the column '{column}' is empty; fill it in.")
        return self.value(column)

    def case_name(self) -> str:
        """The column "case", which becomes a folder's name. Raises InputError if it cannot."""
        name = self.required("case")
        if not names_a_folder(name):
            raise self.error(f"'{name}' cannot be the name of a folder on every system; use letters, digits, '-' and "
                             "'_', but no name that Windows keeps for itself, such as CON.")
        return name

    def path(self, text: str) -> Path:
        """A file or folder; relative ones start from the table's own folder."""
        return self.table.parent / os.path.expanduser(text)  # of an unknown user: as it is

    def error(self, what: str) -> InputError:
        return InputError(f"{self.table}, line {self.number}: {what}")


def read_table(table: Path, required: Sequence[str], optional: Sequence[str], what: str) -> list[Line]:
    """The lines of a CSV file that are not empty. Other columns are passed over; commas, semicolons or tabs may
    separate. what: a line stands for, for messages. Raises InputError, naming file and line."""
    _, rows = read_csv(table, required, optional, what)
    return [Line(table, number, values) for number, values in rows]
