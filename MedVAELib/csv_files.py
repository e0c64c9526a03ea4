"""CSV tables written in one step: an interrupted run leaves the old table or the new one, never half of it, and runs
side by side do not lose one another's lines."""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import UsageError

_LOCK_ABANDONED_AFTER_S, _LOOK_S = 20.0, 0.02


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


@contextmanager
def only_writer(path: Path) -> Iterator[None]:
    """No other run is in here for the same table: for reading it and writing it anew. Raises OSError.

    The lock is a file beside the table, which works on network disks, too. One that stays the same for
    `_LOCK_ABANDONED_AFTER_S` was left by a run that was killed; by this computer's clock, as the disk's may differ.
    """
    lock = path.with_name(f".{path.name}.lock")
    seen, since = _identity(lock), time.monotonic()
    while True:
        abandoned = time.monotonic() - since > _LOCK_ABANDONED_AFTER_S
        try:
            os.close(os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            break
        except FileExistsError:
            pass
        except PermissionError:  # on Windows also for a moment after the last one was removed
            if os.name != "nt" or abandoned:
                raise
        found = _identity(lock)
        if found != seen:
            seen, since = found, time.monotonic()
        elif abandoned:
            _removed(lock)
        else:
            time.sleep(_LOOK_S)
    try:
        yield
    finally:
        _removed(lock)


def _removed(lock: Path) -> None:
    """Where it cannot be removed, as while Windows scans it for viruses, the next run takes it for abandoned."""
    with suppress(OSError):
        lock.unlink()


def _identity(file: Path) -> tuple[int, int] | None:
    try:
        stat = file.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_mtime_ns


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
