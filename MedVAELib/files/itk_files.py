"""What SimpleITK has to be told before it reads or writes a file, and what it gets wrong."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ..errors import InputError
from .file_damage import FileNotes, text_name


def _plain_letters_alone() -> bool:
    """Whether ITK cannot open every name: Windows gives it those of the code page, unless that is set to UTF-8."""
    if os.name != "nt":
        return False
    import ctypes

    return ctypes.windll.kernel32.GetACP() != 65001


_PLAIN_LETTERS_ALONE = _plain_letters_alone()


def itk_name(path: str | Path) -> str:
    """A file's name as SimpleITK takes it. Raises InputError for one that it cannot open.

    A name that is no UTF-8 (a byte of it stands for a letter of another code page) would end the process. On Windows
    ITK knows the letters of the machine's code page alone: folders have a short name beside their own there.
    """
    name = text_name(path)
    if not _PLAIN_LETTERS_ALONE or name.isascii():
        return name
    place = Path(name)
    folder = _short_name(str(place.parent.absolute()))
    if folder.isascii() and place.name.isascii():
        return os.path.join(folder, place.name)
    raise InputError(f"{path}: on Windows images can be read and written under names of plain letters (a to z) alone: "
                     "rename the file or move it to a folder of such a name.")


def _short_name(folder: str) -> str:
    import ctypes

    buffer = ctypes.create_unicode_buffer(1 << 15)
    found = ctypes.windll.kernel32.GetShortPathNameW(folder, buffer, len(buffer))
    return buffer.value if found else folder


@contextlib.contextmanager
def alone(path: Path) -> Iterator[Path]:
    """A file that is to be read, by a name under which ITK reads it: of a .nii.gz beside a .nii of the same name it
    takes the header, and the other's voxels."""
    if not path.name.lower().endswith(".nii.gz") or not os.path.lexists(path.with_name(path.name[:-3])):
        yield path
        return
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        other = Path(folder, "image.nii.gz")
        try:
            other.symlink_to(path.absolute())
        except OSError:  # Windows asks for a privilege
            shutil.copyfile(path, other)
        yield other


def stored_image(path: Path, pixel_type: int = sitk.sitkUnknown) -> sitk.Image:
    """The file's image and nothing else's, as its own pixel type or another. Raises RuntimeError as SimpleITK does."""
    with alone(path) as file:
        return sitk.ReadImage(itk_name(file), pixel_type)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the readers' own warnings on standard error (ITK's, pydicom's): what matters is said in our sentences."""
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)


@contextlib.contextmanager
def accept_rounded_axes(notes: FileNotes) -> Iterator[None]:
    """Lets ITK read a NIfTI file whose sform is off by rounding; it looks nowhere but in the environment."""
    variable = "ITK_NIFTI_SFORM_PERMISSIVE"
    before = os.environ.get(variable)
    if notes.nearest is not None:
        os.environ[variable] = "YES"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(variable, None)
        else:
            os.environ[variable] = before


def placed(image: sitk.Image, notes: FileNotes) -> sitk.Image:
    """An image as it was read, where its header says that it lies."""
    if notes.nearest is not None:
        direction = np.eye(image.GetDimension())
        direction[:3, :3] = notes.nearest
        image.SetDirection(direction.ravel().tolist())
    return image
