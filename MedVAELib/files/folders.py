"""What lies in a folder and below it, but for what the operating system put there."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path, PurePath

from ..errors import InputError

_OF_THE_SYSTEM = ("thumbs.db", "desktop.ini", "system volume information", "$recycle.bin", "lost+found")
Rest = tuple[str, ...]
"""The parts of a pattern that the path below a folder must match."""


def files_below(folder: Path, below: bool = True) -> Iterator[Path]:
    """The files of a folder and, unless not `below`, of its sub-folders, in a stable order, without hidden ones and
    those of the system. Linked sub-folders count, after all others; a folder that is reached twice, perhaps in a
    circle, counts once, as itself rather than as a link to it. Raises InputError for a folder that cannot be read:
    else what lies there would be missed.
    """
    return files_matching(folder, "**/*" if below else "*")


def files_matching(folder: Path, pattern: str) -> Iterator[Path]:
    """Those of `files_below` whose path in the folder matches, part by part; ** stands for any number of parts, as in
    Path.glob, which passes over linked folders. Sub-folders that the pattern does not ask for are not read. Raises
    InputError as `files_below` does."""
    sought: dict[str, set[Rest]] = {}  # in a folder under its real name: a circle brings nothing new
    real: list[tuple[str, set[Rest]]] = [(os.fspath(folder), {PurePath(pattern).parts})]
    linked: list[tuple[str, set[Rest]]] = []  # wait until all that is real was seen
    while real or linked:
        place, rests = real.pop() if real else linked.pop(0)
        before = sought.setdefault(os.path.realpath(place), set())
        rests = rests - before
        if not rests:
            continue
        _, folders, files = next(os.walk(place, onerror=_refuse))
        for name in sorted(filter(_of_a_person, files)):
            if _ends(_after(rests, name)) and not _ends(_after(before, name)):
                yield Path(place, name)
        before |= rests
        asked = [(os.path.join(place, name), left) for name in sorted(filter(_of_a_person, folders))
                 if (left := _after(rests, name) - {()})]
        linked += [entry for entry in asked if os.path.islink(entry[0])]
        real += [entry for entry in reversed(asked) if not os.path.islink(entry[0])]


def is_file_or_lost(path: Path) -> bool:
    """Whether this is a file, or a link to one that is not there, as where data were never fetched: that is told when
    it is read, and else nobody would miss it."""
    return path.is_file() or (path.is_symlink() and not path.exists())


def _after(rests: Iterable[Rest], name: str) -> set[Rest]:
    """What is left of a pattern, in each way of reading it, once its next part was this name."""
    left = set()
    for rest in rests:
        if rest[:1] == ("**",):
            left |= {rest, *_after([rest[1:]], name)}
        elif rest and fnmatch(name, rest[0]):
            left.add(rest[1:])
    return left


def _ends(rests: Iterable[Rest]) -> bool:
    return any(set(rest) <= {"**"} for rest in rests)


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
