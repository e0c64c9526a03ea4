"""Small image files of every kind, for tests of what reads them."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

PICTURE, VOLUME = (12, 16), (8, 10, 12)


def blobs(shape: Sequence[int], seed: int) -> NDArray[np.float32]:
    """A bright ellipsoid at a random place on a dark ground with little noise, (*shape) in 0…1."""
    random = np.random.default_rng(seed)
    places = np.meshgrid(*(np.linspace(-1, 1, side) for side in shape), indexing="ij")
    centre, radius = random.uniform(-0.3, 0.3, len(shape)), random.uniform(0.3, 0.7, len(shape))
    distance = sum(((place - c) / r) ** 2 for place, c, r in zip(places, centre, radius, strict=True))
    image = 0.8 / (1 + np.exp(8 * (distance - 1))) + 0.1 + random.normal(0, 0.02, shape)
    return np.clip(image, 0, 1).astype(np.float32)


def write_pictures(folder: Path, counts: Mapping[str, int], shape: Sequence[int] = PICTURE,
                   suffix: str = ".png") -> None:
    """`counts` PNG files 0 … by sub-folder."""
    for number, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            values = (255 * blobs(shape, 100 * number + i)).astype(np.uint8)
            values[0, 0] = 255
            sitk.WriteImage(sitk.GetImageFromArray(values), str(folder / name / f"{i}{suffix}"))


def volume_image(seed: int, shape: Sequence[int] = VOLUME, scale: float = 1000.0) -> sitk.Image:
    image = sitk.GetImageFromArray(scale * blobs(shape, seed))
    image.SetSpacing((2.0, 3.0, 5.0))
    image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
    return image


def write_volumes(folder: Path, count: int, shape: Sequence[int] = VOLUME, scale: float = 1000.0) -> None:
    """NIfTI files 0 … of 2 × 3 × 5 mm, with x, y, z running right, front, top."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        sitk.WriteImage(volume_image(i, shape, scale), str(folder / f"{i}.nii.gz"))


def write_idx(folder: Path, labels: Sequence[int], shape: Sequence[int] = (28, 28)) -> NDArray[np.uint8]:
    """t-images-idx3-ubyte.gz and its labels; returns the pictures (N, y, x)."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = np.stack([(255 * blobs(shape, seed)).astype(np.uint8) for seed in range(len(labels))])
    header = struct.pack(">4I", 0x803, *pictures.shape)
    (folder / "t-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + pictures.tobytes()))
    of_labels = struct.pack(">2I", 0x801, len(labels)) + bytes(labels)
    (folder / "t-labels-idx1-ubyte.gz").write_bytes(gzip.compress(of_labels))
    return pictures


def write_dicom_series(folder: Path, seed: int = 0, uid: str = "1.2.3.4", prefix: str = "", **more: str) -> sitk.Image:
    """A series of one file per slice, their names beginning with `prefix`, with `more` tags; returns the volume."""
    folder.mkdir(parents=True, exist_ok=True)
    volume = sitk.Cast(volume_image(seed), sitk.sitkInt16)
    volume.SetDirection((1, 0, 0, 0, 1, 0, 0, 0, 1))
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for k in range(volume.GetSize()[2]):
        part = volume[:, :, k]
        place = volume.TransformIndexToPhysicalPoint((0, 0, k))
        tags = {
            "0008|0016": "1.2.840.10008.5.1.4.1.1.4", "0008|0018": f"{uid}.{seed}.{k + 1}", "0020|000e": uid,
            "0020|000d": "1.2.3", "0008|0060": "MR", "0020|0013": str(k), "0018|0080": "9000",
            "0020|0037": "1\\0\\0\\0\\1\\0", "0020|0032": "\\".join(f"{value:g}" for value in place),
            "0018|0050": "5", "0028|0030": "3\\2", **more,
        }
        for tag, value in tags.items():
            part.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"{prefix}{k:03d}.dcm"))
        writer.Execute(part)
    return volume
