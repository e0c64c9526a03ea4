"""Importing a bundle from an archive or a folder into the user's bundles, trusting nothing in it."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from .bundle import (
    BUNDLE_NAME,
    METADATA_FILE,
    NAME_RULE,
    PICKLE_SUFFIXES,
    Bundle,
    bundle_paths,
    pickle_refusal,
    read_bundle,
    replace_bundle_folder,
    user_bundle_dir,
)
from .errors import BundleError

MAX_FILES = 200
MAX_BYTES = 2 * 2**30
MAX_RATIO = 200  # text and weights compress far less, a zip bomb far more
KEPT_SUFFIXES = frozenset({".json", ".safetensors", ".md", ".txt", ".csv", ".png", ".svg"})


def import_bundle(source: str | Path, name: str | None = None) -> Bundle:
    """Copies the bundle in `source` (a zip archive or a folder) to the user's bundles, verified, and returns it.

    It gets the name `name`, or its folder's or archive's own. Only text, pictures and safetensors are copied.
    Raises BundleError, leaving nothing behind, when the source is no sound bundle, holds pickled files, tries to
    write outside its folder, is unreasonably large, or a bundle of that name exists.
    """
    source = Path(os.path.abspath(os.path.expanduser(source)))
    if not source.exists():
        raise BundleError(f"{source} does not exist: give a bundle's folder or zip archive.")
    if source.suffix.lower() in PICKLE_SUFFIXES:
        raise BundleError(pickle_refusal(source))
    with tempfile.TemporaryDirectory(prefix="medvae-import-", ignore_cleanup_errors=True) as temporary:
        try:
            unpacked = source if source.is_dir() else _unpack(source, Path(temporary))
            folder = _bundle_folder(unpacked, source)
            files = _files_to_copy(folder)
        except OSError as error:
            raise BundleError(f"{source} cannot be read ({error.strerror}): check it and the free disk space.") \
                from error
        read_bundle(folder).verify()
        target = user_bundle_dir() / _target_name(name, folder, unpacked, source)

        def fill(new: Path) -> None:
            for file in files:
                copy = new / file.relative_to(folder)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, copy)

        replace_bundle_folder(target, fill)
    return read_bundle(target)


def _target_name(name: str | None, folder: Path, unpacked: Path, source: Path) -> str:
    if name is None:
        name = folder.name if source.is_dir() or folder != unpacked else source.stem
    if not BUNDLE_NAME.fullmatch(name):
        raise BundleError(f"{name!r} cannot be a bundle's name: {NAME_RULE} (--name).")
    existing = bundle_paths().get(name)
    if existing is not None:
        raise BundleError(f"There is already a bundle {name} in {existing}: import under another name with --name, "
                          "or remove that folder first.")
    return name


def _bundle_folder(root: Path, source: Path) -> Path:
    """`root` itself or the one folder in it that holds the metadata."""
    if (root / METADATA_FILE).is_file():
        return root
    inside = [file.parent for file in root.glob(f"*/{METADATA_FILE}")]
    if len(inside) == 1 and inside[0].name != "configs":  # configs/ is where a MONAI bundle has it
        return inside[0]
    _refuse_pickles(root.rglob("*"))
    raise BundleError(f"{source} holds no {METADATA_FILE} (or several): it is not a MedVAE bundle.")


def _files_to_copy(folder: Path) -> list[Path]:
    everything = []
    for entry in folder.rglob("*"):
        everything.append(entry)
        if entry.is_symlink():
            raise BundleError(f"{entry} is a link, which a bundle may not hold: replace it by the file itself.")
        if len(everything) > MAX_FILES:
            raise BundleError(f"{folder} holds more than {MAX_FILES} files: it is not a MedVAE bundle.")
    files = [entry for entry in everything if entry.is_file()]
    _refuse_pickles(files)
    return [file for file in files if file.suffix.lower() in KEPT_SUFFIXES]


def _refuse_pickles(files: Iterable[Path]) -> None:
    for file in files:
        if file.suffix.lower() in PICKLE_SUFFIXES:
            raise BundleError(pickle_refusal(file))


def _unpack(archive: Path, directory: Path) -> Path:
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = [entry for entry in opened.infolist() if not entry.is_dir()]
            _check_entries(archive, entries)
            for entry in entries:
                target = directory / PurePosixPath(entry.filename)
                target.parent.mkdir(parents=True, exist_ok=True)
                with opened.open(entry) as packed, target.open("wb") as file:
                    shutil.copyfileobj(packed, file, 2**20)  # stops at the declared size, which was checked
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise BundleError(f"{archive} is not an intact zip archive: get the bundle again.") from error
    return directory


def _check_entries(archive: Path, entries: list[zipfile.ZipInfo]) -> None:
    total = sum(entry.file_size for entry in entries)
    if len(entries) > MAX_FILES or total > MAX_BYTES:
        raise BundleError(f"{archive} would unpack to {len(entries)} files of {total / 2**30:.1f} GB: "
                          "it is not a MedVAE bundle.")
    for entry in entries:
        path = PurePosixPath(entry.filename)
        if path.is_absolute() or ".." in path.parts or "\\" in entry.filename or ":" in entry.filename:
            raise BundleError(f"{archive} holds {entry.filename!r}, which points outside the bundle: "
                              "do not use it.")
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise BundleError(f"{archive} holds the link {entry.filename!r}, which a bundle may not: do not use it.")
        if path.suffix.lower() in PICKLE_SUFFIXES:
            raise BundleError(pickle_refusal(f"{entry.filename} in {archive}"))
        if entry.file_size > 2**20 and entry.file_size > MAX_RATIO * max(entry.compress_size, 1):
            raise BundleError(f"{archive} holds {entry.filename!r}, which would unpack to "
                              f"{entry.file_size / max(entry.compress_size, 1):.0f} times its size: do not use it.")
