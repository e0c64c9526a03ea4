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
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        self._lock = (self.path / _LOCK).open("wb")
        _locked(self._lock)
        for folder in self.path.parent.glob(f"{_PREFIX}*"):
            _remove_if_left(folder)

    def remove(self) -> None:
        self._lock.close()
        shutil.rmtree(self.path, ignore_errors=True)


def _remove_if_left(folder: Path) -> None:
    try:
        with (folder / _LOCK).open("rb+") as lock:
            left = _locked(lock)
    except OSError:  # another user's, or none of ours
        return
    if left:
        shutil.rmtree(folder, ignore_errors=True)


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
