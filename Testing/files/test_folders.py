"""What counts as lying in a folder: nothing of the operating system, and nothing is missed in silence."""

from __future__ import annotations

import errno
import os

import pytest

from MedVAELib.cohort.cases import scans_in
from MedVAELib.cohort.run import fingerprint
from MedVAELib.errors import InputError
from MedVAELib.files.dicom_files import dicom_files
from MedVAELib.files.folders import files_below, files_matching
from MedVAELib.scan import Scan
from MedVAELib.training.image_listing import find_images
from Testing.scan.scan_files import dicom_series, link, small_head

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


def test_linked_folders_belong_to_it_and_circles_end(tmp_path):
    folder, store = tmp_path / "in", tmp_path / "store"
    for path in (folder / "b" / "1.nii", store / "deep" / "2.nii"):
        path.parent.mkdir(parents=True)
        path.touch()
    for name, target in (("a", "in/b"), ("c", "store"), ("b/up", "in"), ("b/lost.nii", "nowhere")):
        link(folder / name, tmp_path / target)  # "a" is "b" under another name, "up" leads back

    def names(files):
        return [str(file.relative_to(folder)) for file in files]

    assert names(files_below(folder)) == ["b/1.nii", "b/lost.nii", "c/deep/2.nii"]
    assert names(files_matching(folder, "*/*.nii")) == ["b/1.nii", "b/lost.nii"]
    assert names(files_matching(folder, "**/deep/**/[0-9].*")) == ["c/deep/2.nii"]
    assert names(scans_in(folder)) == ["b/1.nii", "b/lost.nii", "c/deep/2.nii"]
    for found in (find_images(folder), find_images(folder, "**/*.nii"), find_images(folder / "**" / "*.nii")):
        assert {"1.nii", "lost.nii", "2.nii"} == {record.file.name for record in found}


@pytest.fixture
def chosen(tmp_path):
    """Folders by label, and one, earlier in the alphabet, with links to some of what they hold and back to it all."""
    for name in ("healthy/p1", "ms/p1", "ms/p2"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "a.png").touch()
    link(tmp_path / "chosen" / "x", tmp_path / "ms" / "p1")
    link(tmp_path / "chosen" / "z", tmp_path)
    return tmp_path


@pytest.mark.parametrize(("pattern", "expected"), [
    ("**/*", "healthy/p1 ms/p1 ms/p2"), ("**/*.png", "healthy/p1 ms/p1 ms/p2"), ("ms/*/*.png", "ms/p1 ms/p2"),
    ("ms/**", "ms/p1 ms/p2"), ("chosen/x/*", "chosen/x"), ("chosen/*/*.png", "chosen/x"), ("**/x/*.png", "chosen/x"),
    ("chosen/**/ms/*/*.png", "chosen/z/ms/p1 chosen/z/ms/p2"), ("*.png", ""), ("ms/*.png", ""),
])
def test_what_lies_behind_a_link_has_the_name_that_is_asked_for_its_own_first(chosen, pattern, expected):
    found = [file.relative_to(chosen).parent.as_posix() for file in files_matching(chosen, pattern)]
    assert found == expected.split()


def test_a_link_is_no_label_of_an_image_that_has_its_own(chosen):
    assert [record.label for record in find_images(chosen)] == ["healthy", "ms", "ms"]


@pytest.mark.parametrize(("pattern", "folders"), [
    ("ms*/*/*.png", ". ms ms/p1 ms/p2"), ("m?/p2/a.*", ". ms ms/p2"), ("*.png", "."),
    ("*/*.png", ". chosen healthy ms"), ("ms/**/*.png", ". ms ms/p1 ms/p2"),
])
def test_only_what_a_pattern_asks_for_is_read(chosen, monkeypatch, pattern, folders):
    read, real = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda place: read.append(os.path.relpath(place, chosen)) or real(place))
    list(files_matching(chosen, pattern))
    assert [name.replace(os.sep, "/") for name in read] == folders.split()


def test_half_a_series_behind_a_link_is_read(tmp_path):
    whole = dicom_series(tmp_path / "whole", small_head())
    (tmp_path / "store").mkdir()
    for file in list(files_below(whole))[::2]:
        file.rename(tmp_path / "store" / file.name)
    link(whole / "part2", tmp_path / "store")
    assert Scan.read(whole).image.GetSize() == small_head().GetSize()


def test_a_file_of_one_name_size_and_date_is_another_by_what_it_holds(tmp_path):
    scans = [tmp_path / name / "anat" / "flair.nii" for name in ("s1", "s2", "s3")]
    for scan, voxel in zip(scans, (b"1", b"2", b"1"), strict=True):
        scan.parent.mkdir(parents=True)
        scan.write_bytes(bytes(200_000) + voxel + bytes(200_000))
        os.utime(scan, ns=(1, 1))
    first, other, same = map(fingerprint, scans)
    assert first == same and first[:-1] == other[:-1] and first != other
