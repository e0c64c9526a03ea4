"""A DICOM file with an ultrasound frame, byte by byte: SimpleITK writes no sequences."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

_LONG = {b"OB", b"OW", b"SQ", b"UN"}


def element(group: int, number: int, kind: str, value: bytes) -> bytes:
    """An explicit little-endian element."""
    value += (b"\0" if kind in ("UI", "OB", "OW") else b" ") * (len(value) % 2)
    head = struct.pack("<HH", group, number) + kind.encode()
    if kind.encode() in _LONG:
        return head + b"\0\0" + struct.pack("<I", len(value)) + value
    return head + struct.pack("<H", len(value)) + value


def region(delta_cm: tuple[float, float], spatial: int = 1, units: int = 3) -> bytes:
    """One item of SequenceOfUltrasoundRegions."""
    content = (element(0x18, 0x6012, "US", struct.pack("<H", spatial))
               + element(0x18, 0x6024, "US", struct.pack("<H", units))
               + element(0x18, 0x6026, "US", struct.pack("<H", units))
               + element(0x18, 0x602C, "FD", struct.pack("<d", delta_cm[0]))
               + element(0x18, 0x602E, "FD", struct.pack("<d", delta_cm[1])))
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(content)) + content


def write_ultrasound(
    path: Path, frame: np.ndarray, regions: list[bytes], pixel_spacing: str = "", aspect: str = "", private: int = 0
) -> Path:
    """frame: uint8, (H, W) or (H, W, 3); private: bytes of a maker's own element before the regions."""
    samples = 1 if frame.ndim == 2 else 3
    sop = b"1.2.840.10008.5.1.4.1.1.6.1"
    meta = (element(2, 1, "OB", b"\0\1") + element(2, 2, "UI", sop) + element(2, 3, "UI", b"1.2.3.4")
            + element(2, 0x10, "UI", b"1.2.840.10008.1.2.1") + element(2, 0x12, "UI", b"1.2.3"))
    data = element(8, 0x16, "UI", sop) + element(8, 0x18, "UI", b"1.2.3.4") + element(8, 0x60, "CS", b"US")
    if private:
        data += element(0x09, 0x10, "LO", b"MAKER") + element(0x09, 0x1001, "OB", bytes(private))
    data += element(0x10, 0x10, "PN", b"SOMEBODY^SECRET")
    if regions:
        data += element(0x18, 0x6011, "SQ", b"".join(regions))
    colours = b"RGB" if samples == 3 else b"MONOCHROME2"
    numbers = [(0x02, samples)]
    data += element(0x28, 0x02, "US", struct.pack("<H", numbers[0][1])) + element(0x28, 0x04, "CS", colours)
    if samples == 3:
        data += element(0x28, 0x06, "US", struct.pack("<H", 0))
    data += element(0x28, 0x10, "US", struct.pack("<H", frame.shape[0]))
    data += element(0x28, 0x11, "US", struct.pack("<H", frame.shape[1]))
    if pixel_spacing:
        data += element(0x28, 0x30, "DS", pixel_spacing.encode())
    if aspect:
        data += element(0x28, 0x34, "IS", aspect.encode())
    for number, value in ((0x100, 8), (0x101, 8), (0x102, 7), (0x103, 0)):
        data += element(0x28, number, "US", struct.pack("<H", value))
    data += element(0x7FE0, 0x10, "OB", np.ascontiguousarray(frame, np.uint8).tobytes())
    path.write_bytes(b"\0" * 128 + b"DICM" + element(2, 0, "UL", struct.pack("<I", len(meta))) + meta + data)
    return path
