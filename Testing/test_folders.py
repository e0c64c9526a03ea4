"""What counts as lying in a folder: nothing of the operating system, and nothing is missed in silence."""

from __future__ import annotations

import errno
import os

import pytest

from MedVAELib.cohort.cases import scans_in
from MedVAELib.cohort.run import fingerprint
from MedVAELib.dicom_files import dicom_files
from MedVAELib.errors import InputError
from MedVAELib.folders import files_below
from MedVAELib.training.image_listing import find_images
from Testing.scan.scan_files import dicom_series, small_head

OF_THE_SYSTEM = ("Thumbs.db", "desktop.ini", ".DS_Store", "._slice.dcm", "System Volume Information/x", ".Trashes/1/x")


@pytest.fixture
def unreadable(tmp_path, monkeypatch):
    """A folder with two images and a sub-folder that nobody may look into."""
    def scandir(place=".", real=os.scandir):
        if os.fspath(place) == str(tmp_path / "in" / "locked"):
            raise PermissionError(errno.EACCES, "Permission denied", os.fspath(place))
        return real(place)

    (tmp_path / "in" / "locked").mkdir(parents=True)
    for name in ("a.dcm", "b.nii", "locked/c.dcm"):
        (tmp_path / "in" / name).write_bytes(bytes(200))
    monkeypatch.setattr(os, "scandir", scandir)
    return tmp_path / "in"


@pytest.mark.parametrize("search", [lambda folder: list(dicom_files(folder)), find_images, scans_in])
def test_a_sub_folder_that_cannot_be_read_is_named(unreadable, search):
    with pytest.raises(InputError, match="locked cannot be read .Permission denied.: ask for permission"):
        search(unreadable)


def test_of_a_scan_that_cannot_be_read_there_is_no_fingerprint(unreadable):
    assert fingerprint(unreadable) is None


def test_what_the_system_puts_there_is_no_part_of_a_scan(tmp_path):
    folder = dicom_series(tmp_path / "dicom", small_head())
    before, slices = fingerprint(folder), list(files_below(folder))
    for name in OF_THE_SYSTEM:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"words")
    assert fingerprint(folder) == before and list(files_below(folder)) == slices
    assert list(dicom_files(folder)) == [str(file) for file in slices]
    (folder / "new.dcm").touch()
    assert fingerprint(folder) != before
