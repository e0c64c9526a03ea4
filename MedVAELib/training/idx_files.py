"""The idx format of MNIST: pictures of one size, bytes, in one file, and their labels in another beside it."""

from __future__ import annotations

import gzip
import struct
import zlib
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError

_IMAGES, _LABELS = 0x00000803, 0x00000801


def is_idx(path: Path) -> bool:
    """Whether a file's name says that it holds pictures in this format."""
    return "idx3" in path.name


@lru_cache(maxsize=2)
def read_idx(path: Path) -> NDArray[np.uint8]:
    """Pictures (N, y, x). Raises InputError for anything else."""
    data = _bytes(path)
    magic, count, height, width = struct.unpack(">4I", data[:16]) if len(data) >= 16 else (0, 0, 0, 0)
    if magic != _IMAGES or len(data) != 16 + count * height * width:
        raise InputError(f"{path} is no complete idx file of pictures: get it again.")
    return np.frombuffer(data, np.uint8, offset=16).reshape(count, height, width)


def read_idx_labels(images: Path) -> list[str]:
    """The labels of a file of pictures, from the file beside it that is named alike; empty where there is none."""
    path = images.with_name(images.name.replace("images", "labels").replace("idx3", "idx1"))
    if path == images or not path.exists():
        return []
    data = _bytes(path)
    magic, count = struct.unpack(">2I", data[:8]) if len(data) >= 8 else (0, 0)
    if magic != _LABELS or len(data) != 8 + count:
        raise InputError(f"{path} is no complete idx file of labels: get it again.")
    return [str(value) for value in data[8:]]


def _bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be read, it is probably damaged: get it again.") from error
