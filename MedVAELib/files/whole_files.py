"""Files that are there whole or not at all, and what a disk refuses as one sentence."""

from __future__ import annotations

import errno
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import UsageError

_WAIT_S = 2.0 if os.name == "nt" else 0.0
_OF_A_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENODEV,
              errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN)  # the last four, of a network's


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to; what lies there takes the file's place when the block ends without an
    exception, so that an interrupted run leaves the old file or the new one, never half of it. Raises OSError."""
    temporary = temporary_name(path, ".tmp")
    try:
        yield temporary
        put_in_place(temporary, path)
    finally:
        remove_temporary(temporary)


def temporary_name(path: Path, suffix: str) -> Path:
    """A hidden name beside `path` that no other process takes, in whatever container or on whatever host it runs."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}{suffix}")


def remove_temporary(path: Path) -> None:
    """For a `finally`: what Windows does not let go at once stays, and hides no error that is on its way."""
    with suppress(OSError):
        path.unlink(missing_ok=True)


def put_in_place(file: Path, path: Path) -> None:
    """`os.replace` with patience: on Windows nothing can be replaced while a virus scanner or the user's spreadsheet
    looks at it; often that is over in a moment. Raises OSError."""
    end = time.monotonic() + _WAIT_S
    while True:
        try:
            return os.replace(file, path)
        except PermissionError:
            if time.monotonic() >= end:
                raise
            time.sleep(0.05)


def new_folder(parent: Path, prefix: str) -> Path:
    """A folder of a name that is not there yet, open to whom its parent is: on Windows `tempfile.mkdtemp` makes one
    that its owner alone may read, and so do files that are moved out of it. Raises OSError."""
    folder = parent / f"{prefix}{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    return folder


@contextmanager
def writing_to(directory: Path, setting: str = "--output") -> Iterator[None]:
    """An OSError in here that is about writing to `directory` (no permission, disk full, a file where the folder should
    be) becomes a UsageError of one sentence; one about a file elsewhere stays what it is."""
    try:
        yield
    except OSError as error:
        if not _concerns(error, directory):
            raise
        reason = error.strerror or str(error)
        raise UsageError(f"Results cannot be written to {directory} ({reason}): "
                         f"choose another {setting} or make room there.") from error


def _concerns(error: OSError, directory: Path) -> bool:
    """Whether the failure is about the output: its path is there, or it has none (a write on an open file) and is one
    that disks have."""
    if error.filename is None:
        return error.errno in _OF_A_DISK
    place, directory = Path(os.path.abspath(str(error.filename))), Path(os.path.abspath(directory))
    return place.is_relative_to(directory) or directory.is_relative_to(place)
