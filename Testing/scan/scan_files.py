"""Scan files made for tests."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from Testing.conftest import synthetic_head

SIZE, SPACING = (40, 44, 20), (5.0, 5.0, 9.0)


def small_head(**changes: object) -> sitk.Image:
    return synthetic_head(**{"size_ijk": SIZE, "spacing_mm": SPACING, **changes})  # type: ignore[arg-type]


def written(image: sitk.Image, path: Path, compress: bool = False) -> Path:
    sitk.WriteImage(image, str(path), compress)
    return path


def link(path: Path, target: Path) -> Path:
    """A link, to something that is there or not; skips the test on systems that allow none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.symlink_to(target)
    except OSError:
        pytest.skip("no links here")
    return path


def from_array(array: np.ndarray, vector: bool = False, spacing: Sequence[float] = SPACING) -> sitk.Image:
    image = sitk.GetImageFromArray(array, isVector=vector)
    image.SetSpacing([*spacing, 1.0][: image.GetDimension()])
    return image


def changed(change: Callable[[np.ndarray], None]) -> sitk.Image:
    """The small head with its array changed in place."""
    head = small_head()
    array = sitk.GetArrayFromImage(head)
    change(array)
    result = sitk.GetImageFromArray(array)
    result.CopyInformation(head)
    return result


def nifti_with(folder: Path, *fields: tuple[str, int, Sequence[object]], name: str = "scan.nii") -> Path:
    """A NIfTI file of the small head with header fields (struct format, byte offset, values) overwritten."""
    path = written(small_head(), folder / name)
    data = bytearray(path.read_bytes())
    for form, offset, values in fields:
        struct.pack_into("<" + form, data, offset, *values)
    path.write_bytes(data)
    return path


def cut(path: Path, keep: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    return path


def text_replaced(path: Path, old: str, new: str) -> Path:
    text = path.read_bytes()
    assert old.encode() in text
    path.write_bytes(text.replace(old.encode(), new.encode(), 1))
    return path


def enhanced_dicom(path: Path, images: Mapping[float, sitk.Image], order: Sequence[int] | None = None,
                   change: Callable[[pydicom.Dataset], None] = lambda header: None) -> Path:
    """One enhanced MR file with an image per b-value, its frames in any order; `change` edits it before it is written.
    """
    first, *others = (sitk.Cast(image, sitk.sitkInt16) for image in images.values())
    first.SetMetaData("0008|0060", "MR")
    header = pydicom.dcmread(written(first, path))
    frames, pixels = [], []
    for b_value, image in zip(images, (first, *others), strict=True):
        diffusion = pydicom.Dataset()
        diffusion.DiffusionBValue = b_value
        for place, values in zip(header.PerFrameFunctionalGroupsSequence, sitk.GetArrayFromImage(image), strict=True):
            frames.append(deepcopy(place))
            frames[-1].MRDiffusionSequence = [diffusion]
            pixels.append(values.astype("<i2").tobytes())
    order = range(len(frames)) if order is None else order
    header.PerFrameFunctionalGroupsSequence = [frames[index] for index in order]
    header.PixelData, header.NumberOfFrames = b"".join(pixels[index] for index in order), len(frames)
    change(header)
    header.save_as(path)
    return path


def dicom_series(folder: Path, image: sitk.Image | None = None, uid: str = "1.2.3.4", description: str = "t2_flair",
                 prefix: str = "", skip: Sequence[int] = (), shift_mm: float = 0.0, **tags: str) -> Path:
    """Writes an image as a series of slices; shift_mm moves each slice sideways, as a tilted gantry does."""
    head = small_head(size_ijk=(24, 28, 12), spacing_mm=(8, 8, 14)) if image is None else image
    slices = sitk.Cast(head, sitk.sitkInt16) if head.GetNumberOfComponentsPerPixel() == 1 else head
    folder.mkdir(parents=True, exist_ok=True)
    direction = np.array(head.GetDirection()).reshape(3, 3)
    common = {"0008|0060": "MR", "0020|000d": "1.2.3", "0020|000e": uid, "0008|103e": description,
              "0010|0010": "Doe^Jane", "0010|0020": "12345", "0008|0008": "ORIGINAL\\PRIMARY\\M",
              "0020|0037": "\\".join(f"{v:.8f}" for v in direction[:, :2].T.ravel()), "0018|0050": "14",
              **{tag.replace("_", "|")[1:]: value for tag, value in tags.items()}}
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for k in range(head.GetSize()[2]):
        if k in skip:
            continue
        position = np.array(head.TransformIndexToPhysicalPoint((0, 0, k))) + direction[:, 0] * shift_mm * k
        one = slices[:, :, k]
        place = {"0020|0032": "\\".join(f"{v:.6f}" for v in position), "0020|0013": str(k)}
        for tag, value in {**common, **place}.items():
            one.SetMetaData(tag, value)
        # names in no useful order: slices are put in order by their position
        writer.SetFileName(str(folder / f"{prefix}{(7 * k) % 23:02d}_{k}.dcm"))
        writer.Execute(one)
    return folder


OBLIQUE = ((0.96, -0.28, 0.0), (0.28, 0.96, 0.0), (0.0, 0.0, 1.0))
SAGITTAL = ((0, 0, 1), (-1, 0, 0), (0, -1, 0))


def assert_same_image(found: sitk.Image, expected: sitk.Image, atol: float = 1e-5) -> None:
    assert found.GetPixelID() == sitk.sitkFloat32 and found.GetSize() == expected.GetSize()
    for get in ("GetSpacing", "GetOrigin", "GetDirection"):
        np.testing.assert_allclose(getattr(found, get)(), getattr(expected, get)(), atol=1e-4)
    np.testing.assert_allclose(sitk.GetArrayViewFromImage(found), sitk.GetArrayViewFromImage(expected), atol=atol)
