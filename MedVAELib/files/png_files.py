"""PNG files of grey with opacity: SimpleITK does not read them, and VTK, where they are damaged, ends the process."""

from __future__ import annotations

import os
import struct
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ..errors import InputError
from .itk_files import itk_name, quiet

PNG = b"\x89PNG\r\n\x1a\n"
_SAME_BYTES = {(8, 4): (16, 0), (16, 4): (8, 6)}
"""By bits and colour type of grey with opacity, those of pixels of as many bytes that SimpleITK reads: grey, RGBA."""


def grey_without_opacity(path: Path) -> sitk.Image | None:
    """The grey values of a PNG file that holds opacity beside them (H, W), as stored; None for any other file.

    A filtered row of a PNG is bytes, whatever they stand for, so SimpleITK reads the file under a header that calls
    grey and opacity the two bytes of one number, or four channels. Raises InputError for one that is damaged.
    """
    with path.open("rb") as file:
        data = file.read(len(PNG))
        data += file.read() if data == PNG else b""
    chunks = list(png_chunks(data))
    if len(data) < 33 or chunks[0] != (b"IHDR", 16, 29):
        return None
    bits, colour = data[24:26]
    by_chunk = colour == 0 and any(kind == b"tRNS" for kind, _, _ in chunks)  # one grey value is said to be clear
    if (bits, colour) not in _SAME_BYTES and not by_chunk:
        return None
    damaged = InputError(f"{path} is no image that can be read, its PNG data is damaged: copy or export it again.")
    if chunks[-1][0] != b"IEND" or _checksum(data[12:29]) != data[29:33]:
        raise damaged
    header = b"IHDR" + data[16:24] + bytes(_SAME_BYTES.get((bits, colour), (bits, colour))) + data[26:29]
    kept = [data[start - 8 : stop + 4] for kind, start, stop in chunks if kind in (b"IDAT", b"IEND")]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, quiet():
        copy = os.path.join(folder, "grey.png")
        Path(copy).write_bytes(b"".join([PNG, data[8:12], header, _checksum(header), *kept]))
        try:
            values = sitk.GetArrayFromImage(sitk.ReadImage(itk_name(copy)))
        except (RuntimeError, MemoryError):
            raise damaged from None
    if by_chunk:
        return sitk.GetImageFromArray(values)
    if bits == 8:
        return sitk.GetImageFromArray((values >> 8).astype(np.uint8))
    return sitk.GetImageFromArray(values[..., 0].astype(np.uint16) << 8 | values[..., 1])


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and stop of what each holds; nothing where it is no PNG."""
    at = len(PNG) if data.startswith(PNG) else len(data)
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        yield kind, at + 8, at + 8 + size
        if kind == b"IEND":  # what follows is no picture
            return
        at += 12 + size


def _checksum(chunk: bytes) -> bytes:
    return zlib.crc32(chunk).to_bytes(4, "big")
