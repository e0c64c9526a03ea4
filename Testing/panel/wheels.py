"""Tiny packages with the names of the real ones: as wheels for pip, or laid out as pip would have left them."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

MODULES = {"scikit-learn": "sklearn"}


def files(name: str, version: str, requires: Sequence[str] = ()) -> dict[str, bytes]:
    """Every file of the package by its path in site-packages, the record last."""
    module = MODULES.get(name, name)
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    metadata = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"]
    metadata += [f"Requires-Dist: {each}\n" for each in requires]
    contents = {
        f"{module}/__init__.py": f'__version__ = "{version}"\n'.encode(),
        f"{module}/lib/native.so": b"\x7fELF" + bytes(2000),
        f"{info}/METADATA": "".join(metadata).encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    lines = []
    for path, data in contents.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        lines.append(f"{path},sha256={digest},{len(data)}\n")
    contents[f"{info}/RECORD"] = ("".join(lines) + f"{info}/RECORD,,\n").encode()
    return contents


def make_wheel(folder: Path, name: str, version: str, requires: Sequence[str] = (), tag: str = "py3-none-any") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / f"{name.replace('-', '_')}-{version}-{tag}.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, data in files(name, version, requires).items():
            archive.writestr(path, data)
    return wheel


def lay_out(site: Path, versions: Mapping[str, str]) -> None:
    """Puts the packages into `site` as a finished installation has them."""
    for name, version in versions.items():
        for path, data in files(name, version).items():
            (site / path).parent.mkdir(parents=True, exist_ok=True)
            (site / path).write_bytes(data)
