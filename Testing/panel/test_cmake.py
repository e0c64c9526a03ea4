"""The extension's CMake files: what they install is complete and works."""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SLICER_BUILD = Path(__file__).with_name("slicer_build")
POLICIES = re.compile(r"^cmake_minimum_required\(VERSION ([\d.]+)\.\.\.([\d.]+)", re.MULTILINE)
RAW = "https://raw.githubusercontent.com/MedVAE/MedVAE/main/"


def test_policies_leave_slicers_macros_what_they_need():
    """From the policies of 3.27 on (CMP0148) there is no FindPythonInterp, and no cmake from 3.27 on configures it."""
    lowest, highest = POLICIES.findall((ROOT / "CMakeLists.txt").read_text(encoding="utf-8"))[0]
    assert tuple(map(int, lowest.split("."))) <= tuple(map(int, highest.split("."))) < (3, 27)


def test_catalogue_entry_agrees_with_cmake():
    entry = json.loads((ROOT / "Resources" / "MedVAE.json").read_text(encoding="utf-8"))
    cmake = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    assert re.fullmatch(r"https://raw\.githubusercontent\.com/Slicer/Slicer/main/Schemas/"
                        r"slicer-extension-catalog-entry-schema-v1\.0\.\d\.json#", entry.pop("$schema"))
    homepage = re.search(r'EXTENSION_HOMEPAGE "(.*)"', cmake).group(1)
    assert entry == {"build_dependencies": ["PyTorch"], "build_subdirectory": ".", "category": "Neuroimaging",
                     "scm_revision": "main", "scm_type": "git", "scm_url": f"{homepage}.git", "tier": 3}
    assert re.search(r'EXTENSION_DEPENDS "PyTorch"', cmake)
    module = (ROOT / "MedVAE" / "MedVAE.py").read_text(encoding="utf-8")
    assert '"Neuroimaging"' in module and f'DOCUMENTATION = "{homepage}#in-3d-slicer"' in module
    assert "\n## In 3D Slicer\n" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_pictures_of_the_catalogue_are_in_the_repository():
    cmake = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    addresses = " ".join(re.findall(r'EXTENSION_(?:ICONURL|SCREENSHOTURLS) "(.*)"', cmake)).split()
    assert len(addresses) >= 4
    for address in addresses:
        assert address.startswith(RAW)
        assert (ROOT / address.removeprefix(RAW)).is_file(), address


def test_icons():
    sizes = {}
    for icon in (ROOT / "MedVAE" / "Resources" / "Icons").glob("*.png"):
        data = icon.read_bytes()
        assert data[:8] == b"\x89PNG\r\n\x1a\n"
        sizes[icon.name] = struct.unpack(">II", data[16:24])
        assert len(data) < 100_000
    assert sizes["MedVAE.png"] == (128, 128)
    assert sizes["MedVAESample.png"] == (260, 280), "as the Sample Data module wants it"


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The extension configured and installed by cmake; the folder of its scripted modules."""
    cmake = shutil.which("cmake")
    if cmake is None:
        pytest.skip("cmake is not installed")
    folder = tmp_path_factory.mktemp("extension")
    source = folder / "source"
    for name in ("MedVAE", "MedVAELib", "Resources"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    (source / "Resources" / "bundles" / ".DS_Store").write_text("")
    text = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    # These files need no more than any cmake that the tester has.
    (source / "CMakeLists.txt").write_text(POLICIES.sub(r"cmake_minimum_required(VERSION 3.13...\2", text),
                                           encoding="utf-8")
    build = folder / "build"
    for command in ([cmake, "-S", source, "-B", build, f"-DSlicer_DIR={SLICER_BUILD}"],
                    [cmake, "--install", build, "--prefix", folder / "installed", "--component", "RuntimeLibraries"]):
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert (build / "tests.txt").read_text().splitlines() == ["generic MedVAE", "unittest MedVAE.py"]
    metadata = dict(line.split("=", 1) for line in (build / "metadata.txt").read_text().splitlines())
    assert metadata["DEPENDS"] == "PyTorch" and metadata["DESCRIPTION"].endswith("Research use only.")
    return folder / "installed" / "lib" / "Slicer-5.12" / "qt-scripted-modules"


def test_the_built_extension_holds_what_the_clone_holds(installed):
    there = {file.relative_to(installed).as_posix() for file in installed.rglob("*") if file.is_file()}
    wanted = {file.relative_to(base).as_posix() for folder, base in (
        ("MedVAE", ROOT / "MedVAE"), ("MedVAELib", ROOT),
        *((f"Resources/{name}", ROOT) for name in ("atlas", "bundles", "configs", "sample")),
    ) for file in (ROOT / folder).rglob("*") if file.is_file() and "__pycache__" not in file.parts}
    assert there == wanted - {"CMakeLists.txt", "MedVAELib/CMakeLists.txt"}


def test_the_built_extension_finds_its_library_and_resources(installed):
    code = """
import json, sys
from MedVAEPanel import library, dependencies
library.ensure_library_on_path()
import MedVAELib
from MedVAELib.bundle import bundle_paths, load_bundle
from MedVAELib.resources import resource_dir
for bundle in map(load_bundle, bundle_paths()):
    bundle.check_sum()
print(json.dumps([MedVAELib.__file__, str(resource_dir()), list(bundle_paths()),
                  str(library.resource("sample/flair.nii.gz")), sorted(dependencies.requirements())]))
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MEDVAE_")}
    environment |= {"PYTHONPATH": str(installed), "HOME": str(installed)}
    done = subprocess.run([sys.executable, "-c", code], cwd=installed, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    package, resources, bundles, sample, requirements = json.loads(done.stdout)
    assert Path(package).parent == installed / "MedVAELib"
    assert Path(resources) == installed / "Resources" and Path(sample).is_relative_to(resources)
    assert "healthy-anatomy" in bundles
    assert requirements == ["monai", "safetensors", "scikit-learn", "torch"]
