"""NIfTI files written whole or not at all: ITK leaves a truncated one on a full disk without a word."""

from __future__ import annotations

import errno
import os
import shutil
import struct
from collections.abc import Mapping
from pathlib import Path

import SimpleITK as sitk

from ..progress import CancelToken, Progress
from .gzip_blocks import LEVEL, gzip_file
from .itk_files import itk_name
from .whole_files import remove_temporary, replaced, temporary_name

_DESCRIPTION_BYTES = 79
_HEADER_BYTES = 352
_CODES_AT = 252
SCANNER, MNI = 1, 4
"""What the header calls the space of an image (qform_code and sform_code)."""


def write_nifti_gz(
    image: sitk.Image, path: Path, pixel_type: int, description: str, cancel: CancelToken | None = None,
    level: int = LEVEL, space: int = SCANNER,
) -> None:
    """Writes `image` as compressed NIfTI of the given pixel type, with `description` in its header (79 bytes kept).

    level: of the compression, 1 to 9. space: SCANNER or MNI. Raises OSError when the disk refuses, Cancelled when
    `cancel` is set; in both cases a file that was there before stays as it was.
    """
    image = sitk.Cast(image, pixel_type) if image.GetPixelID() != pixel_type else sitk.Image(image)
    for key in image.GetMetaDataKeys():
        image.EraseMetaData(key)  # a scan's own tags (patient, rescale slope) do not describe this volume
    text = description.encode("ascii", "replace")[:_DESCRIPTION_BYTES].decode("ascii")
    image.SetMetaData("ITK_FileNotes", text)  # ITK's name for the NIfTI field `descrip`
    plain = temporary_name(path, ".nii")
    try:
        _write_plain(image, plain)
        if space != SCANNER:  # the only one that ITK writes
            with plain.open("r+b") as file:
                file.seek(_CODES_AT)
                file.write(struct.pack("=2h", space, space))
        with replaced(path) as packed:
            gzip_file(plain, packed, cancel, level)
    finally:
        remove_temporary(plain)


def write_volumes(
    folder: Path, volumes: Mapping[str, tuple[sitk.Image, int, str]], progress: Progress, cancel: CancelToken
) -> None:
    """Writes each of `volumes`, name → (image, pixel type, description), as `folder/<name>.nii.gz`. Raises as
    `write_nifti_gz`."""
    for done, (name, (image, pixel_type, description)) in enumerate(volumes.items()):
        progress("write", done / len(volumes), f"Writing {name}.nii.gz")
        write_nifti_gz(image, folder / f"{name}.nii.gz", pixel_type, description, cancel)


def _write_plain(image: sitk.Image, path: Path) -> None:
    values = image.GetNumberOfPixels() * image.GetNumberOfComponentsPerPixel()
    complete_bytes = _HEADER_BYTES + values * image.GetSizeOfPixelComponent()
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if shutil.disk_usage(path.parent).free < complete_bytes:  # asked first: the NIfTI library would print to stderr
        raise full
    try:
        sitk.WriteImage(image, itk_name(path), useCompression=False)
    except RuntimeError as error:
        raise OSError(errno.EIO, f"{path.name} could not be written") from error
    if path.stat().st_size < complete_bytes:
        raise full
