"""Which packages MedVAE has in Slicer's Python, and what an installation would do. Nothing is imported to find out.

What comes with Slicer is used as it is and never asked for: replacing it breaks Slicer.
"""

from __future__ import annotations

import csv
import importlib.metadata
import platform
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path

from .translation import tr as _

REQUIREMENTS_FILE = Path(__file__).resolve().parents[1] / "Resources" / "requirements.txt"
KEPT = ("numpy", "scipy", "SimpleITK", "vtk", "pydicom", "pillow", "requests")
"""Packages of Slicer's own that an installation must leave at their version."""
_NO_TORCH = _("There is no recent PyTorch for Macs with Intel processors, nor for programs that are made for them: "
              "on a Mac with Apple silicon use the Slicer for it (arm64).")
_NATIVE = (".so", ".pyd", ".dll", ".dylib")


@dataclass(frozen=True)
class Package:
    """`name` as pip knows it; `folders`: what it puts into site-packages, the first being the module."""

    name: str
    folders: tuple[str, ...]
    with_slicer: bool = False

    @property
    def module(self) -> str:
        return self.folders[0]


PACKAGES = (
    Package("torch", ("torch", "torchgen", "functorch")),
    Package("monai", ("monai",)),
    Package("scikit-learn", ("sklearn",)),
    Package("safetensors", ("safetensors",)),
    Package("SimpleITK", ("SimpleITK",), with_slicer=True),
    Package("numpy", ("numpy",), with_slicer=True),
    Package("scipy", ("scipy",), with_slicer=True),
    Package("vtk", ("vtk",), with_slicer=True),
    Package("pydicom", ("pydicom",), with_slicer=True),
)


@dataclass(frozen=True)
class State:
    """kind: "ok", "missing", "broken" (half-finished) or "unsuitable" (another version is needed)."""

    package: Package
    kind: str
    version: str = ""
    detail: str = ""
    remains: tuple[Path, ...] = ()
    """What a half-finished installation left, to be removed before the next one."""

    @property
    def installable(self) -> bool:
        return self.kind != "ok" and not self.package.with_slicer

    @property
    def text(self) -> str:
        """The state in words, for the table."""
        if self.kind == "ok":
            return _("comes with Slicer") if self.package.with_slicer else _("installed")
        return {"missing": _("not installed"), "broken": _("damaged"), "unsuitable": _("does not fit")}[self.kind]


def requirements() -> dict[str, str]:
    """Requirement strings by package name, as the module's requirements.txt has them."""
    found = {}
    for line in REQUIREMENTS_FILE.read_text(encoding="utf-8").splitlines():
        line = line.partition("#")[0].strip()
        if line:
            found[_requirement(line).name] = line
    return found


def inspect(paths: Sequence[str] | None = None) -> list[State]:
    """The state of every package in `paths` (default: sys.path), without importing any."""
    importlib.invalidate_caches()
    where = list(sys.path if paths is None else paths)
    wanted = requirements()
    return [_state(package, wanted.get(package.name, package.name), where) for package in PACKAGES]


def _state(package: Package, wanted: str, paths: Sequence[str]) -> State:
    distributions = _distributions(package.name, paths)
    there = _module_there(package, paths)
    if package.with_slicer:
        version = _version(distributions[0]) if distributions else ""
        detail = "" if there else _("{name} comes with Slicer but is not there: install Slicer again.").format(
            name=package.name)
        return State(package, "ok" if there else "missing", version, detail)
    leftovers = _leftovers(package, paths)
    if not distributions:
        folders = _folders(package, paths)
        if folders or leftovers:
            return State(package, "broken", "", _("Its installation was interrupted."), (*folders, *leftovers))
        return State(package, "missing", "", _("Needed: {what}").format(what=wanted))
    trouble = _trouble(distributions, there)
    if trouble:
        remains = (*(_metadata_folder(each) for each in distributions), *_folders(package, paths), *leftovers)
        return State(package, "broken", _version(distributions[0]), trouble, tuple(p for p in remains if p))
    version = _version(distributions[0])
    if not _requirement(wanted).specifier.contains(version, prereleases=True):
        return State(package, "unsuitable", version, _("Needed: {what}").format(what=wanted))
    return State(package, "ok", version)


def _trouble(distributions: Sequence[importlib.metadata.Distribution], there: bool) -> str:
    """Why the installation cannot be whole, in one sentence; "" if it looks whole."""
    versions = sorted({_version(each) for each in distributions})
    if len(versions) > 1:
        return _("Two versions lie over one another ({versions}).").format(versions=", ".join(versions))
    if not versions[0] or not there:
        return _("Its installation was interrupted.")
    for distribution in distributions:
        record = distribution.read_text("RECORD")
        if record is None:
            if (_metadata_folder(distribution) or Path()).suffix == ".dist-info":
                return _("Its installation was interrupted.")
            continue
        for entry in csv.reader(record.splitlines()):
            if len(entry) == 3 and _is_telling(entry[0]):
                file = Path(str(distribution.locate_file(entry[0])))
                if not file.is_file() or (entry[2].isdigit() and file.stat().st_size < int(entry[2])):
                    return _("The file {name} is missing or cut short.").format(name=entry[0])
    return ""


def _is_telling(name: str) -> bool:
    """Checking every file of torch takes too long; these are what an interrupted installation lacks or cuts."""
    return not name.startswith("..") and (name.endswith(_NATIVE) or name.count("/") <= 1 and name.endswith(".py"))


def _distributions(name: str, paths: Sequence[str]) -> list[importlib.metadata.Distribution]:
    seen, found = set(), []
    for each in importlib.metadata.distributions(name=name, path=list(paths)):
        folder = _metadata_folder(each)
        if folder not in seen:
            seen.add(folder)
            found.append(each)
    return found


def _metadata_folder(distribution: importlib.metadata.Distribution) -> Path | None:
    folder = getattr(distribution, "_path", None)
    return None if folder is None else Path(str(folder))


def _version(distribution: importlib.metadata.Distribution) -> str:
    try:
        return distribution.version or ""
    except Exception:  # metadata that is missing or cut short fails in ways that differ between Pythons
        return ""


def _module_there(package: Package, paths: Sequence[str]) -> bool:
    spec = PathFinder.find_spec(package.module, list(paths))
    return spec is not None and spec.origin is not None  # a folder without __init__.py has no origin


def _folders(package: Package, paths: Iterable[str]) -> tuple[Path, ...]:
    candidates = (Path(path) / folder for path in paths for folder in package.folders)
    return tuple(folder for folder in candidates if folder.is_dir() and folder.parent.name == "site-packages")


def _leftovers(package: Package, paths: Iterable[str]) -> tuple[Path, ...]:
    """pip renames what it replaces to "~…" and leaves that behind when it is stopped or a file is in use."""
    stems = {f"~{name[1:]}" for name in (*package.folders, package.name.replace("-", "_"))}
    found = []
    for path in map(Path, paths):
        if path.name == "site-packages" and path.is_dir():
            found += [each for each in path.glob("~*") if each.name.partition("-")[0] in stems]
    return tuple(found)


@dataclass(frozen=True)
class Plan:
    """What an installation does, in this order."""

    remove: tuple[Path, ...]
    torch: str | None
    """Version range of PyTorch that the PyTorch extension is to install; None: not through it."""
    pip: tuple[str, ...]
    wheels: Path | None
    problems: tuple[str, ...]
    """Sentences on what no installation can mend."""

    @property
    def empty(self) -> bool:
        return not (self.remove or self.torch or self.pip)

    @property
    def names(self) -> list[str]:
        return (["torch"] if self.torch else []) + names_of(self.pip)

    @property
    def loaded(self) -> list[str]:
        """Those of `names` that this Slicer uses in their present version, if any, until it is restarted."""
        return [each.name for each in PACKAGES if each.name in self.names and each.module in sys.modules]


def plan(states: Sequence[State], wheels: str | Path | None = None, pytorch_extension: bool = False) -> Plan:
    """How to install what is missing: from the folder `wheels` if given, else torch through the PyTorch extension,
    which picks the build for this machine's GPU, and the rest with pip."""
    wanted = requirements()
    missing = [state.package.name for state in states if state.installable]
    problems = [state.detail for state in states if state.kind != "ok" and state.package.with_slicer]
    if "torch" in missing and wheels is None and (sys.platform, platform.machine()) == ("darwin", "x86_64"):
        problems.append(_NO_TORCH)
    torch = None
    if "torch" in missing and pytorch_extension and wheels is None:
        missing.remove("torch")
        torch = wanted["torch"].removeprefix("torch")
    return Plan(
        remove=tuple(path for state in states if state.installable for path in state.remains), torch=torch,
        pip=tuple(wanted[name] for name in missing), wheels=None if wheels is None else Path(wheels),
        problems=tuple(problems),
    )


def constraints(paths: Sequence[str] | None = None) -> str:
    """Lines for pip's constraints file that hold what Slicer ships at its version."""
    where = list(sys.path if paths is None else paths)
    lines = []
    for name in KEPT:
        found = _distributions(name, where)
        version = _version(found[0]) if found else ""
        if version:
            lines.append(f"{name}=={version}")
        elif PathFinder.find_spec(name, where) is not None:
            lines.append(f"{name}<0")  # Slicer's own, of which pip knows nothing: it would put a second one over it
    return "\n".join(lines) + "\n"


def remove(paths: Iterable[Path]) -> None:
    """Removes what `Plan.remove` names. Raises OSError when a file is in use or may not be removed."""
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def lacking_wheels(wheels: Path, wanted: Sequence[str]) -> list[str]:
    """The names in `wanted` (requirement strings) for which the folder holds no wheel that fits this Python."""
    tags, utils = _packaging("tags"), _packaging("utils")
    here = set(tags.sys_tags())
    offered: dict[str, list] = {}
    for file in wheels.glob("*.whl"):
        try:
            name, version, _build, fits = utils.parse_wheel_filename(file.name)
        except ValueError:
            continue
        if fits & here:
            offered.setdefault(name, []).append(version)
    lacking = []
    for text in wanted:
        requirement = _requirement(text)
        versions = offered.get(utils.canonicalize_name(requirement.name), [])
        if not any(requirement.specifier.contains(version, prereleases=True) for version in versions):
            lacking.append(requirement.name)
    return lacking


def names_of(wanted: Iterable[str]) -> list[str]:
    """Of packages, from requirement strings."""
    return [_requirement(each).name for each in wanted]


def _requirement(text: str):
    return _packaging("requirements").Requirement(text)


def _packaging(part: str):
    """`packaging` itself where it is installed, else the copy within pip."""
    try:
        return importlib.import_module(f"packaging.{part}")
    except ImportError:
        return importlib.import_module(f"pip._vendor.packaging.{part}")
