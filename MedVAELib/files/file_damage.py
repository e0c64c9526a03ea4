"""What the checks of all image files share: the damage that they name, and what they note about a usable file."""

from __future__ import annotations

import contextlib
import gzip
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError

MAX_SHEAR = 1e-2
"""Largest |cosine| between two index axes (and deviation of an axis' length from 1) taken for rounding."""

MAX_NONFINITE_FRACTION = 1e-4
"""Up to this share of voxels that are NaN or infinite is replaced by 0 with a warning; more is refused."""

CHUNK = 1 << 20


@dataclass(frozen=True)
class FileNotes:
    """What the checks found worth knowing about a usable file."""

    warnings: tuple[str, ...] = ()
    nearest: NDArray[np.float64] | None = None
    """Of a NIfTI orientation off by rounding: the direction (3, 3), LPS, of the rectangular grid next to it. ITK has to
    be told to accept such a file, and then takes the inverse of that direction (mended by ITK pull request 4847)."""
    states_spacing: bool = True  # False where a NRRD or MetaImage header leaves out the voxel size


def times(values: Iterable[float]) -> str:
    """One number per axis, for a message."""
    return " x ".join(f"{float(value):.4g}" for value in values)


def text_name(path: str | Path) -> str:
    """Raises InputError for a name that is no UTF-8."""
    name = str(path)
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise InputError(f"{ascii(name)} has a name that is no UTF-8: rename it.") from None
    return name


def unsaid_orientation(path: Path) -> str:
    """The warning for a file or folder that leaves the patient's axes to its reader."""
    name = path.name or path.resolve().name
    return (f"The header of {name} does not say how the patient lies: axes are taken as stored, so left and right may "
            "be exchanged.")


def truncated(path: Path, found: int, expected: int) -> InputError:
    return InputError(f"{path} is truncated, it holds {found} of the {expected} bytes that its header declares: "
                      "copy or export it again.")


def is_gzip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


@contextlib.contextmanager
def gzip_errors(path: Path) -> Iterator[None]:
    """Says in one sentence what is wrong with compressed data that is read inside."""
    try:
        yield
    except EOFError:
        raise InputError(f"{path} is truncated, its compressed data ends early: copy or export it again.") from None
    except (gzip.BadGzipFile, zlib.error):
        raise InputError(f"{path} is damaged, its compressed data does not match its checksum: "
                         "copy or export it again.") from None


def judge_nonfinite(name: str, nan: int, infinite: int, total: int) -> tuple[str, ...]:
    """A warning about voxels that are no finite numbers, () without any; raises InputError if they are many."""
    bad = nan + infinite
    if bad == 0:
        return ()
    if bad > MAX_NONFINITE_FRACTION * total:
        kind = "not numbers (NaN)" if nan >= infinite else "infinite"
        raise InputError(f"{name} has {100 * bad / total:.3g} % of its voxels {kind}: replace them, by 0 where "
                         "nothing was scanned, or export it again.")
    return (f"{name} has {bad} voxels that are not finite numbers: they were set to 0.",)
