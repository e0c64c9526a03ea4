"""The lists of files in the CMake files of the Slicer extension: what is not listed there is not packaged.

    python -m Testing.cmake_lists    writes them anew from the tree
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS, RESOURCES = "MODULE_PYTHON_SCRIPTS", "MODULE_PYTHON_RESOURCES"
PACKAGED_RESOURCES = ("atlas", "bundles", "configs", "sample")
"""Folders of Resources that the library reads; the catalogue's entry and screenshots stay in the repository."""
_IGNORED_SUFFIXES = {".pyc", ".pyo", ".tmp"}


def expected(root: Path = ROOT) -> dict[Path, dict[str, list[str]]]:
    """The files in the tree, by CMake file and list, sorted."""
    module, library, resources = root / "MedVAE", root / "MedVAELib", root / "Resources"
    packaged = [file for folder in PACKAGED_RESOURCES for file in _files(resources / folder)]
    return {
        module / "CMakeLists.txt": _split(module, _files(module)),
        library / "CMakeLists.txt": _split(library, _files(library)),
        resources / "CMakeLists.txt": {RESOURCES: _named(resources, packaged)},
    }


def _split(folder: Path, files: Iterable[Path]) -> dict[str, list[str]]:
    files = [file for file in files if file != folder / "CMakeLists.txt"]
    return {SCRIPTS: _named(folder, [file for file in files if file.suffix == ".py"]),
            RESOURCES: _named(folder, [file for file in files if file.suffix != ".py"])}


def _files(folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*")
            if file.is_file() and file.suffix not in _IGNORED_SUFFIXES
            and not any(part == "__pycache__" or part.startswith(".") for part in file.relative_to(folder).parts)]


def _named(folder: Path, files: Iterable[Path]) -> list[str]:
    return sorted(file.relative_to(folder).as_posix() for file in files)


def written(cmake_file: Path) -> dict[str, list[str]]:
    """The lists as the CMake file has them."""
    text = re.sub(r"#.*", "", cmake_file.read_text(encoding="utf-8"))
    return {name: body.split() for name, body in re.findall(r"set\((MODULE_PYTHON_\w+)\s([^)]*)\)", text)}


def write(cmake_file: Path, lists: Mapping[str, list[str]]) -> None:
    text = cmake_file.read_text(encoding="utf-8")
    for name, files in lists.items():
        new = "\n".join([f"set({name}", *(f"  {file}" for file in files), "  )"])
        text, count = re.subn(rf"set\({name}\s[^)]*\)", new, text)
        if count != 1:
            raise ValueError(f"{cmake_file} has {count} lists {name}, not one.")
    cmake_file.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    for cmake_file, lists in expected().items():
        if written(cmake_file) != lists:
            write(cmake_file, lists)
            print(f"{cmake_file.relative_to(ROOT)} written anew")
