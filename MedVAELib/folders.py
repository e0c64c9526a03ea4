"""What lies in a folder and below it, but for what the operating system put there."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from functools import partial
from pathlib import Path, PurePath

from .errors import InputError

_OF_THE_SYSTEM = ("thumbs.db", "desktop.ini", "system volume information", "$recycle.bin", "lost+found")


def files_below(folder: Path, below: bool = True) -> Iterator[Path]:
    """The files of a folder and, unless not `below`, of its sub-folders, in a stable order, without hidden ones and
    those of the system. Linked sub-folders count; a folder that is reached twice, perhaps in a circle, counts once, as
    itself rather than as a link beside it. Raises InputError for a folder that cannot be read: else what lies there
    would be missed.
    """
    seen = set()
    for place, folders, names in os.walk(folder, onerror=_refuse, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(filter(_of_a_person, folders), key=partial(_links_last, place)) if below else []
        yield from (Path(place, name) for name in sorted(filter(_of_a_person, names)))


def files_matching(folder: Path, pattern: str) -> list[Path]:
    """Those of `files_below` whose path in the folder matches, part by part; ** stands for any number of parts, as in
    Path.glob, which passes over linked folders. Raises InputError as `files_below` does."""
    wanted = PurePath(pattern).parts
    return [file for file in files_below(folder, len(wanted) > 1) if _match(file.relative_to(folder).parts, wanted)]


def is_file_or_lost(path: Path) -> bool:
    """Whether this is a file, or a link to one that is not there, as where data were never fetched: that is told when
    it is read, and else nobody would miss it."""
    return path.is_file() or (path.is_symlink() and not path.exists())


def _match(parts: Sequence[str], wanted: Sequence[str]) -> bool:
    if not wanted:
        return not parts
    if wanted[0] == "**":
        return any(_match(parts[skipped:], wanted[1:]) for skipped in range(len(parts) + 1))
    return bool(parts) and fnmatch(parts[0], wanted[0]) and _match(parts[1:], wanted[1:])


def unreadable(error: OSError) -> InputError:
    """For the file or folder that the error names."""
    reason = error.strerror or "input/output error"
    if isinstance(error, FileNotFoundError):
        return InputError(f"{error.filename} does not exist.")
    return InputError(f"{error.filename} cannot be read ({reason}): ask for permission to read it, or take it out of "
                      "the folder.")


def _refuse(error: OSError) -> None:
    raise unreadable(error) from None


def _links_last(place: str, name: str) -> tuple[bool, str]:
    return os.path.islink(os.path.join(place, name)), name


def _of_a_person(name: str) -> bool:
    return not name.startswith(".") and name.lower() not in _OF_THE_SYSTEM
