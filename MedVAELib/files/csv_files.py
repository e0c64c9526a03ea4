"""CSV tables read as spreadsheets write them, and written in one step: an interrupted run leaves the old table or the
new one, never half of it, and runs side by side do not lose one another's lines."""

from __future__ import annotations

import csv
import errno
import io
import math
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import InputError, UsageError
from ..progress import CancelToken
from .whole_files import replaced

_LOCK_ABANDONED_AFTER_S, _LOOK_S = 20.0, 0.02
_STATED_SEPARATOR = re.compile(r'"?sep=([^"\w\r\n])"?\s*$', re.I)  # Excel's own first line
_NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?")
_LEADING_ZERO = re.compile(r"[+-]?0[0-9]")
MISSING = {"", "n/a", "na", "nan", "none", "null", "-", "."}


def is_table(path: Path) -> bool:
    """Whether a file that the user names is a table, by its suffix."""
    return path.suffix.lower() in (".csv", ".tsv", ".txt")


def read_csv(
    table: Path, required: Sequence[str], optional: Sequence[str], what: str, spelt: Callable[[str], str] = str.lower
) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """The columns' names, and of every line that is not empty its number and the values that it has, by column, all
    without blanks around them.

    Commas, semicolons or tabs may separate. spelt: what becomes of a column's name; what: a line stands for, for
    messages. Raises InputError, naming file and line.
    """
    lines = _text_lines(table, required)
    start, separator = _heading(lines)
    if start == len(lines):
        raise InputError(f"{table} is empty: give it a first line with the columns {', '.join(required)}.")
    try:
        reader = csv.DictReader(lines[start:], delimiter=separator, skipinitialspace=True, strict=True)
        columns = [spelt((name or "").strip()) for name in reader.fieldnames or []]
        reader.fieldnames = columns
        missing = [name for name in required if name not in columns]
        if missing:
            raise InputError(f"{table} has no column '{missing[0]}' (it has: {', '.join(columns)}): name the columns "
                             f"{' and '.join(required)} in its first line.")
        twice = [name for name in (*required, *optional) if columns.count(name) > 1]
        if twice:
            raise InputError(f"{table} has the column '{twice[0]}' more than once: keep one of them.")
        rows = [(start + reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise InputError(f"{table} is no CSV file that can be read ({error}): export it again.") from None
    found = []
    for number, row in rows:
        values = {name: value.strip() for name, value in row.items() if isinstance(value, str)}
        if None in row and any(value.strip() for value in (*values.values(), *row[None])):
            raise InputError(f"{table}, line {number}: there are more values than columns; put quotes around values "
                             "that hold the separator.")
        if any(values.values()):
            found.append((number, values))
    if not found:
        raise InputError(f"{table} lists no cases: add a line for each {what} below the columns' names.")
    return columns, found


def as_numbers(texts: Sequence[str]) -> list[float] | None:
    """A column as numbers, NaN where it says that there is none; None if it is text.

    A zero before a number makes it a name ("01"). A comma is a decimal one, unless three digits follow everywhere.
    """
    texts = [text.strip() for text in texts]
    after_comma = [len(text.rpartition(",")[2]) for text in texts if "," in text]
    if any(map(_LEADING_ZERO.match, texts)) or (after_comma and set(after_comma) == {3}):
        return None
    try:
        return [math.nan if text.lower() in MISSING else _number(text) for text in texts]
    except ValueError:
        return None


def _number(text: str) -> float:
    """Raises ValueError for what Python alone takes for a number: "1_2", "infinity"."""
    if not _NUMBER.fullmatch(text):
        raise ValueError(text)
    return float(text.replace(",", "."))


def _text_lines(table: Path, required: Sequence[str]) -> list[str]:
    try:
        text = table.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        columns = " and ".join(required)
        raise InputError(f"{table} does not exist: give a CSV file with the columns {columns}.") from None
    except UnicodeDecodeError:
        text = "\0"
    except OSError as error:
        raise InputError(f"{table} cannot be read ({error.strerror}): give a CSV file.") from None
    if "\0" in text:  # plain letters in UTF-16 can pass for UTF-8 with a zero after each
        raise InputError(f"{table} is not a text file in UTF-8: export it as 'CSV UTF-8'.")
    return list(io.StringIO(text))


def _heading(lines: Sequence[str]) -> tuple[int, str]:
    """Which line names the columns (their number if none does), and what separates values."""
    separator = ""
    for index, line in enumerate(lines):
        if stated := _STATED_SEPARATOR.match(line):
            separator = stated[1]
        elif line.strip():
            return index, separator or max(",;\t", key=line.count)
    return len(lines), separator


def write_csv(path: Path, rows: Sequence[Mapping[str, object]], columns: Sequence[str]) -> Path:
    """Writes the columns of the rows; what a row lacks or has as None stays empty. Raises OSError."""
    with replaced(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, columns, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    return path


def write_rows(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    """Results as `write_csv` has them: columns in the order in which they first appear, figures with five digits, NaN
    empty."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    return write_csv(path, [{key: _cell(value) for key, value in row.items()} for row in rows], columns)


def _cell(value: object) -> object:
    if isinstance(value, float):
        return f"{value:.5g}" if math.isfinite(value) else ""
    return value


@contextmanager
def only_writer(path: Path, cancel: CancelToken | None = None) -> Iterator[None]:
    """No other run is in here for the same table: for reading it and writing it anew. Raises OSError, and Cancelled
    while it waits.

    The lock is a file beside the table, which works on network disks, too. One that stays the same for
    `_LOCK_ABANDONED_AFTER_S` was left by a run that was killed; by this computer's clock, as the disk's may differ.
    """
    lock, own = path.with_name(f".{path.name}.lock"), uuid.uuid4().hex
    seen, since = _holder(lock), time.monotonic()
    while True:
        if cancel is not None:
            cancel.check()
        abandoned = time.monotonic() - since > _LOCK_ABANDONED_AFTER_S
        try:
            _make(lock, own)
            break
        except FileExistsError:
            pass
        except PermissionError:  # on Windows also for a moment after the last one was removed
            if os.name != "nt" or abandoned:
                raise
        found = _holder(lock)
        if found != seen:
            seen, since = found, time.monotonic()
        elif abandoned:
            _take_away(lock, seen, own)
        time.sleep(_LOOK_S)
    try:
        yield
    finally:
        # Where it cannot be removed, as while Windows scans it for viruses, the next run takes it for abandoned. A run
        # that was stopped for long finds another's in its place.
        with suppress(OSError):
            if _holder(lock) == own:
                lock.unlink()


def _make(lock: Path, own: str) -> None:
    """Raises FileExistsError where another run has it."""
    file = os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    try:
        os.write(file, own.encode("ascii"))
    except OSError:
        lock.unlink(missing_ok=True)
        raise
    finally:
        os.close(file)


def _take_away(lock: Path, abandoned: str | None, own: str) -> None:
    """Of several runs that find a lock abandoned, one gets it away; another may have got hold of the new lock of that
    one, and puts it back."""
    aside = lock.with_name(f"{lock.name}.{own}")
    try:
        os.replace(lock, aside)
        if _holder(aside) == abandoned:
            aside.unlink()
        else:
            os.replace(aside, lock)
    except PermissionError:
        if os.name != "nt":  # there another run may just look at it; here nobody may write into the folder
            raise
    except OSError as error:
        if error.errno == errno.EROFS:
            raise


def _holder(lock: Path) -> str | None:
    """What the run that has the lock calls itself; None without a lock."""
    try:
        return lock.read_text(encoding="ascii", errors="replace")
    except OSError:
        return None


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
