"""Pictures of grey with opacity: their grey to the last bit, and a sentence where they are damaged, not a crash."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
import SimpleITK as sitk

from MedVAELib.errors import InputError
from MedVAELib.files.png_files import PNG, grey_without_opacity
from MedVAELib.skull.planes import PlaneImage
from MedVAELib.training.image_sets import read_images

HEIGHT, WIDTH = 40, 48
WHOLE = [(0, 0, 1, 1)]
ADAM7 = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
"""First row and column, and steps between rows and columns, of the passes of an interlaced picture."""


def pixels(bits: int, channels: int = 2) -> np.ndarray:
    values = np.random.default_rng(0).integers(0, 1 << bits, (HEIGHT, WIDTH, channels))
    return values.astype(np.uint8 if bits == 8 else np.uint16)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


def rows(values: np.ndarray, passes=WHOLE, kind: int = 0) -> bytes:
    """The picture's bytes before they are compressed, each row led by its filter's number."""
    parts = (values[y::down, x::right].astype(values.dtype.newbyteorder(">")) for y, x, down, right in passes)
    return b"".join(bytes([kind]) + row.tobytes() for part in parts for row in part)


def png(compressed: bytes, bits: int, colour: int = 4, interlaced: bool = False, more: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, bits, colour, 0, 0, interlaced)
    return PNG + chunk(b"IHDR", header) + more + chunk(b"IDAT", compressed) + chunk(b"IEND", b"")


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("interlaced", [False, True])
def test_grey_beside_opacity_is_kept_to_the_last_bit(tmp_path, bits, interlaced):
    values = pixels(bits)
    made = png(zlib.compress(rows(values, ADAM7 if interlaced else WHOLE)), bits, interlaced=interlaced)
    (tmp_path / "a.png").write_bytes(made)
    read = sitk.GetArrayFromImage(grey_without_opacity(tmp_path / "a.png"))
    assert read.dtype == values.dtype and np.array_equal(read, values[..., 0])


@pytest.mark.parametrize("bits", [8, 16])
def test_a_grey_value_that_is_said_to_be_clear_changes_nothing(tmp_path, bits):
    values = pixels(bits, 1)
    file = tmp_path / "a.png"
    file.write_bytes(png(zlib.compress(rows(values)), bits, 0, more=chunk(b"tRNS", b"\0\1")))
    assert np.array_equal(sitk.GetArrayFromImage(grey_without_opacity(file)), values[..., 0])
    assert read_images(tmp_path).images.shape == (1, 1, HEIGHT, WIDTH)


def test_other_files_are_not_its_business(tmp_path):
    for name, data in {"grey": png(zlib.compress(rows(pixels(8, 1))), 8, 0), "text": b"text", "start": PNG,
                       "cut": png(b"", 8)[:30]}.items():
        (tmp_path / name).write_bytes(data)
        assert grey_without_opacity(tmp_path / name) is None


def _wrong_bytes() -> bytes:
    compressed = bytearray(zlib.compress(rows(pixels(8))))
    compressed[100:130] = bytes(30)
    return png(bytes(compressed), 8)


WHOLE_ROWS = rows(pixels(8))
DAMAGED = {
    "other bytes": _wrong_bytes(),
    "no such filter": png(zlib.compress(rows(pixels(8), kind=9)), 8),
    "half of the rows": png(zlib.compress(WHOLE_ROWS[: len(WHOLE_ROWS) // 2]), 8),
    "half of the data": png(zlib.compress(WHOLE_ROWS)[:500], 8),
    "another checksum of the rows": png(zlib.compress(WHOLE_ROWS)[:-4] + b"rows", 8),
    "another checksum of the data": png(zlib.compress(WHOLE_ROWS), 8)[:-14] + b"d" + png(b"", 8)[-13:],
    "another checksum of the header": png(zlib.compress(WHOLE_ROWS), 8)[:29] + b"head" +
                                      png(zlib.compress(WHOLE_ROWS), 8)[33:],
    "no end": png(zlib.compress(WHOLE_ROWS), 8)[:-2],
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_picture_is_refused_where_vtk_ended_the_process(tmp_path, damage):
    """By both that read pictures. All checksums of chunks are right but where it says so."""
    (tmp_path / "a.png").write_bytes(DAMAGED[damage])
    for read in (lambda: PlaneImage.read(tmp_path / "a.png", 0.5), lambda: read_images(tmp_path)):
        with pytest.raises(InputError, match=r"a\.png is no image .* damaged") as raised:
            read()
        assert str(raised.value).count(". ") == 0
