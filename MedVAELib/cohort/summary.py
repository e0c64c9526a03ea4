"""`summary.csv`: one line per case, true all through a run, of thousands of cases but for the last seconds."""

from __future__ import annotations

import csv
import errno
import json
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..failures import Failure
from ..files.csv_files import only_writer, refuse_foreign_table, write_csv
from ..outputs import PROVENANCE_FILE, UNFINISHED
from ..progress import CancelToken

SUMMARY_FILE = "summary.csv"
DONE, FAILED, NOT_RUN = "done", "failed", "not run"
_AGAIN_AFTER_S = 5.0
_SHARE_OF_TIME = 0.05  # of a run that may go into writing the table: all of it is written every time


class Row:
    """A line of a summary: a dataclass that begins with the case and what is read for it. status: done, failed or not
    run; message: warnings of a result, or why there is none."""

    @classmethod
    def not_run(cls, case: Any) -> Any:
        """The line of a case before its turn comes."""
        return cls(case.name, case.listed)

    @classmethod
    def of_failure(cls, case: Any, failure: Failure, seconds: float) -> Any:
        """The line of a case without a result. seconds: until it failed."""
        return cls(case.name, case.listed, FAILED, seconds=round(seconds, 2), exit_code=failure.exit_code,
                   message=failure.message)


def failures(rows: Sequence[Any], noun: str, output: Path) -> str:
    """How many of the cases failed, as the sentence at the end; "" where none did. noun: the cases are."""
    failed = sum(row.status == FAILED for row in rows)
    if not failed:
        return ""
    others = "the results of the others and " if failed < len(rows) else ""
    return (f"{failed} of {len(rows)} {noun} failed, for the reasons above; "
            f"{others}{SUMMARY_FILE} {'are' if others else 'is'} in {output}.")


def check_summary(row: type, output: Path) -> None:
    """Raises UsageError where a summary.csv lies that is no summary of such rows."""
    refuse_foreign_table(output / SUMMARY_FILE, [field.name for field in fields(row)])


class Summary:
    """The table of a run while its rows change: written anew after every case as long as that takes little of the time,
    of thousands of cases every few seconds, and at the end, however that comes.

    Raises what `write_summary` raises, but a table that cannot be written only at the end.
    """

    def __init__(self, rows: Sequence[Any], output: Path, cancel: CancelToken):
        self._rows, self._output, self._cancel = rows, output, cancel
        self._changed, self._next = False, 0.0

    def __enter__(self) -> Summary:
        return self

    def changed(self) -> None:
        """The rows are others than those in the table."""
        self._changed = True

    def write_if_due(self) -> None:
        """Writes the table if rows have changed and writing has not just taken its share of the time. Raises Cancelled;
        a table that cannot be written now is written later."""
        started = time.monotonic()
        if not self._changed or started < self._next:
            return
        try:
            write_summary(self._rows, self._output, self._cancel)
        except UsageError:  # the table is open elsewhere, or the disk full for a while: it is written at the end again
            self._next = time.monotonic() + _AGAIN_AFTER_S
            return
        self._changed, ended = False, time.monotonic()
        self._next = ended + (ended - started) / _SHARE_OF_TIME

    def __exit__(self, *_: object) -> None:
        if self._changed:
            write_summary(self._rows, self._output)  # also when cancelled


def write_summary(rows: Sequence[Any], output: Path, cancel: CancelToken | None = None) -> Path:
    """Writes the table, of rows of one dataclass, in one step, and keeps its other lines: an earlier run wrote them, or
    one that is under way. Raises UsageError when the folder cannot be written, Cancelled while it waits for another
    run to have written."""
    path = output / SUMMARY_FILE
    columns = [field.name for field in fields(rows[0])]
    try:
        output.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with only_writer(path, cancel):
            before, after = _lines_of_others(path, [row.case for row in rows], columns)
            return write_csv(path, [*before, *(asdict(row) for row in rows), *after], columns)
    except OSError as error:
        raise UsageError(f"{path} cannot be written ({error.strerror or error}): choose another --output or make room "
                         "there.") from error


def _lines_of_others(
    path: Path, cases: Iterable[str], columns: Sequence[str]
) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """The lines of a summary before and after those of `cases`, without results whose folder is gone."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = [{column: line[column] for column in columns} for line in csv.DictReader(file)]
    except (OSError, ValueError, KeyError, csv.Error):  # not there, or no summary any more
        return [], []
    own = {os.path.normcase(case) for case in cases}
    names = [os.path.normcase(line["case"] or "") for line in lines]
    place = next((index for index, name in enumerate(names) if name in own), len(lines))
    kept = [index for index, line in enumerate(lines) if names[index] and names[index] not in own
            and (line["status"] != DONE or os.path.isdir(path.parent / line["case"]))]
    return [lines[index] for index in kept if index < place], [lines[index] for index in kept if index > place]


def read_provenance(folder: Path) -> dict[str, Any] | None:
    """What an earlier result says of itself; None without a complete one."""
    try:
        provenance = json.loads((folder / PROVENANCE_FILE).read_text(encoding="utf-8"))
        complete = all((folder / name).is_file() and (folder / name).stat().st_size for name in provenance["files"])
        complete = complete and UNFINISHED not in provenance
        return provenance if complete and isinstance(provenance["request"], dict) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
