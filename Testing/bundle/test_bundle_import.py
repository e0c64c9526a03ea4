"""Bundles from elsewhere: nothing in them runs, overwrites or fills the disk."""

import errno
import os
import pickle
import stat
import tempfile
import zipfile

import pytest

from MedVAELib.bundle import (
    load_bundle,
    save_bundle,
)
from MedVAELib.bundle_import import import_bundle
from MedVAELib.errors import BundleError
from Testing.bundle.bundle_files import Exploit, metadata, one_sentence, weights, zipped


@pytest.fixture
def foreign(tmp_path):
    return save_bundle(tmp_path / "elsewhere" / "theirs", metadata(), weights(), "card")


@pytest.mark.parametrize("form", ["folder", "flat zip", "zip with a folder"])
def test_import(foreign, tmp_path, form):
    source = foreign.path if form == "folder" else \
        zipped(foreign.path, tmp_path / "theirs.zip", "" if form == "flat zip" else "theirs/")
    imported = import_bundle(source)
    assert imported.path == tmp_path / "user" / "theirs"
    load_bundle("theirs").verify()
    assert import_bundle(source, name="again").name == "again"


def test_an_import_is_done_although_a_virus_scanner_holds_what_was_unpacked(foreign, tmp_path, monkeypatch):
    def held(path, **options):
        raise PermissionError(errno.EACCES, "in use", path)

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    source = zipped(foreign.path, tmp_path / "theirs.zip", "")
    monkeypatch.setattr(os, "unlink", held)
    assert import_bundle(source).name == "theirs"


def test_import_never_overwrites(foreign, bundle):
    import_bundle(foreign.path)
    for name in ("theirs", "good"):
        with pytest.raises(BundleError) as failure:
            import_bundle(foreign.path, name)
        one_sentence(failure, "already", "--name")


def test_import_copies_no_programs(foreign):
    (foreign.path / "run.py").write_text("print('x')")
    (foreign.path / "licence.txt").write_text("CC0")
    assert {file.name for file in import_bundle(foreign.path).path.iterdir()} == {
        "metadata.json", "model.safetensors", "README.md", "licence.txt"}


@pytest.mark.parametrize("name", ["../escape", "", ".hidden", "a/b", "a" * 65])
def test_import_under_a_name_that_is_none(foreign, tmp_path, name):
    with pytest.raises(BundleError, match="cannot be a bundle's name"):
        import_bundle(foreign.path, name)
    assert not (tmp_path / "user").exists()


@pytest.mark.parametrize("entry", [
    "../evil.json", "/tmp/evil.json", "a/../../evil.json", "..\\evil.json", "C:\\x.json",
])
def test_import_of_an_archive_that_points_outside(foreign, tmp_path, entry):
    archive = zipped(foreign.path, tmp_path / "theirs.zip")
    with zipfile.ZipFile(archive, "a") as packed:
        packed.writestr(entry, "{}")
    with pytest.raises(BundleError) as failure:
        import_bundle(archive)
    one_sentence(failure, "outside", "theirs.zip")
    assert not (tmp_path / "user").exists()


def test_import_of_an_archive_with_a_link(foreign, tmp_path):
    archive = zipped(foreign.path, tmp_path / "theirs.zip")
    link = zipfile.ZipInfo("secrets.txt")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(archive, "a") as packed:
        packed.writestr(link, "/etc/passwd")
    with pytest.raises(BundleError, match="link"):
        import_bundle(archive)


def test_import_of_a_folder_with_a_link(foreign):
    (foreign.path / "secrets.txt").symlink_to("/etc/passwd")
    with pytest.raises(BundleError, match="link"):
        import_bundle(foreign.path)


def test_import_of_a_zip_bomb(foreign, tmp_path):
    (foreign.path / "notes.txt").write_bytes(bytes(8 * 2**20))
    with pytest.raises(BundleError) as failure:
        import_bundle(zipped(foreign.path, tmp_path / "theirs.zip"))
    one_sentence(failure, "times its size")


def test_import_of_very_many_files(foreign, tmp_path):
    for number in range(250):
        (foreign.path / f"{number}.txt").write_text("x")
    for source in (foreign.path, zipped(foreign.path, tmp_path / "theirs.zip")):
        with pytest.raises(BundleError, match="not a MedVAE bundle"):
            import_bundle(source)


def test_import_of_too_many_bytes(foreign, tmp_path, monkeypatch):
    monkeypatch.setattr("MedVAELib.bundle_import.MAX_BYTES", 100)
    with pytest.raises(BundleError, match="not a MedVAE bundle"):
        import_bundle(zipped(foreign.path, tmp_path / "theirs.zip"))


@pytest.mark.parametrize("name", ["model.pt", "deep/er/model.PTH", "x.pkl", "epoch.ckpt"])
def test_import_refuses_pickles_anywhere(foreign, tmp_path, name):
    (foreign.path / name).parent.mkdir(parents=True, exist_ok=True)
    (foreign.path / name).write_bytes(pickle.dumps(Exploit()))
    for source in (foreign.path, zipped(foreign.path, tmp_path / "theirs.zip")):
        with pytest.raises(BundleError) as failure:
            import_bundle(source)
        one_sentence(failure, "pickled", name)
    with pytest.raises(BundleError, match="pickled"):
        import_bundle(foreign.path / name)


@pytest.mark.parametrize("content", [b"", b"not a zip", None])
def test_import_of_something_that_is_no_archive(foreign, tmp_path, content):
    archive = zipped(foreign.path, tmp_path / "theirs.zip")
    archive.write_bytes(archive.read_bytes()[:-40] if content is None else content)
    with pytest.raises(BundleError) as failure:
        import_bundle(archive)
    one_sentence(failure, "theirs.zip", "zip archive")


def test_import_of_an_archive_damaged_inside(foreign, tmp_path):
    archive = zipped(foreign.path, tmp_path / "theirs.zip")
    data = archive.read_bytes()
    for start in range(60, 560, 20):  # what the damage is called depends on where it is
        archive.write_bytes(data[:start] + bytes(30) + data[start + 30 :])
        with pytest.raises(BundleError):
            import_bundle(archive)
    assert not (tmp_path / "user").exists()


def test_import_of_a_damaged_bundle_leaves_nothing(foreign, tmp_path):
    foreign.weights_path.write_bytes(b"changed")
    with pytest.raises(BundleError, match="SHA-256"):
        import_bundle(foreign.path)
    assert not (tmp_path / "user").exists()


def test_import_of_a_monai_bundle_and_of_nothing(tmp_path):
    (tmp_path / "monai" / "configs").mkdir(parents=True)
    (tmp_path / "monai" / "configs" / "metadata.json").write_text("{}")
    with pytest.raises(BundleError, match="not a MedVAE bundle"):
        import_bundle(tmp_path / "monai")
    with pytest.raises(BundleError, match="does not exist"):
        import_bundle(tmp_path / "absent.zip")
