"""CSV tables written in one step: an interrupted run leaves the old table or the new one, never half of it, and runs
side by side do not lose one another's lines."""

from __future__ import annotations

import csv
import os
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import UsageError
from .progress import CancelToken
from .whole_files import replaced

_LOCK_ABANDONED_AFTER_S, _LOOK_S = 20.0, 0.02


def write_csv(path: Path, rows: Sequence[Mapping[str, object]], columns: Sequence[str]) -> Path:
    """Writes the columns of the rows; what a row lacks or has as None stays empty. Raises OSError."""
    with replaced(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, columns, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    return path


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
        else:
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
    with suppress(OSError):
        os.replace(lock, aside)
        if _holder(aside) == abandoned:
            aside.unlink()
        else:
            os.replace(aside, lock)


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
