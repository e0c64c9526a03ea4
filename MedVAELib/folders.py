"""What lies in a folder and below it, but for what the operating system put there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from .errors import InputError

_OF_THE_SYSTEM = ("thumbs.db", "desktop.ini", "system volume information", "$recycle.bin", "lost+found")


def files_below(folder: Path, below: bool = True) -> Iterator[Path]:
    """The files of a folder and, unless not `below`, of its sub-folders, in a stable order, without hidden ones and
    those of the system. Raises InputError for a folder that cannot be read: else what lies there would be missed.
    """
    for place, folders, names in os.walk(folder, onerror=_refuse):
        folders[:] = sorted(filter(_of_a_person, folders)) if below else []
        yield from (Path(place, name) for name in sorted(filter(_of_a_person, names)))


def unreadable(error: OSError) -> InputError:
    """For the file or folder that the error names."""
    reason = error.strerror or "input/output error"
    if isinstance(error, FileNotFoundError):
        return InputError(f"{error.filename} does not exist.")
    return InputError(f"{error.filename} cannot be read ({reason}): ask for permission to read it, or take it out of "
                      "the folder.")


def _refuse(error: OSError) -> None:
    raise unreadable(error) from None


def _of_a_person(name: str) -> bool:
    return not name.startswith(".") and name.lower() not in _OF_THE_SYSTEM
