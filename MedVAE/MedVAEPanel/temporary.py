"""The folder in which the panel hands scans to the worker: of this user alone, and gone with the session."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import IO

_PREFIX, _LOCK = "medvae-", "in use"


class TemporaryFolder:
    """A locked file says that its session lives: the system unlocks it however that ends. So the folders of sessions
    that crashed are known, and removed when the next one is made."""

    def __init__(self, parent: str | Path | None = None):
        """parent: the system's own without one. Raises OSError when nothing can be made there."""
        for attempts_left in (2, 1, 0):  # a file system without locks has none to give: nobody removes the last one
            self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
            self._lock = (self.path / _LOCK).open("wb")
            if (_locked(self._lock) and (self.path / _LOCK).exists()) or not attempts_left:
                break
            self.remove()  # another session that was starting came before the lock, and took it for left
        for folder in self.path.parent.glob(f"{_PREFIX}*"):
            _remove_if_left(folder)

    def remove(self) -> None:
        self._lock.close()
        shutil.rmtree(self.path, ignore_errors=True)


def _remove_if_left(folder: Path) -> None:
    try:
        with (folder / _LOCK).open("rb+") as lock:
            if not _locked(lock):
                return
            shutil.rmtree(folder, ignore_errors=True)  # while locked: a session that is starting notices
        (folder / _LOCK).unlink()  # on Windows, which removes no open file: none of a session that is starting, either
        folder.rmdir()
    except OSError:  # another user's, none of ours, or gone
        pass


def _locked(file: IO[bytes]) -> bool:
    """Locks the file for this process until it is closed; False if another one has it."""
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
