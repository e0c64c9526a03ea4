"""Installations by the real pip, from folders of tiny wheels into an environment of their own."""

from __future__ import annotations

import ast
import importlib
import os
import subprocess
import sys
import tempfile
import types
import venv
from pathlib import Path
from urllib.request import urlopen

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "MedVAE"))

from MedVAEPanel import dependencies, installer  # noqa: E402

from .wheels import lay_out, make_wheel  # noqa: E402

SHIPPED = {"numpy": "2.1.0", "scipy": "1.15.0", "SimpleITK": "2.5.0", "vtk": "9.4.0", "pydicom": "3.0.1"}


class Environment:
    """An environment like Slicer's, and the pip of Slicer's that installs into it."""

    def __init__(self, folder: Path):
        venv.create(folder, with_pip=False, symlinks=os.name != "nt")
        self.python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        self.site = next(folder.glob("Lib/site-packages" if os.name == "nt" else "lib/python*/site-packages"))
        self.calls: list[list[str]] = []
        lay_out(self.site, SHIPPED)

    def pip_install(self, arguments: list[str]) -> None:
        self.calls.append(list(arguments))
        subprocess.run([sys.executable, "-m", "pip", "--python", str(self.python), "install", *arguments], check=True,
                       capture_output=True)

    def install(self, wheels: Path | None = None, extension: bool = False) -> list[str]:
        """Installs what is missing and returns the log. Raises InstallError."""
        log: list[str] = []
        plan = dependencies.plan(dependencies.inspect([str(self.site)]), wheels, extension)
        self.log = log
        installer.install(plan, log.append, [str(self.site)], str(self.site))
        return log

    def versions(self) -> dict[str, str]:
        return {state.package.name: state.version for state in dependencies.inspect([str(self.site)])}


@pytest.fixture
def slicer_before_5_12(tmp_path, monkeypatch):
    """Only slicer.util.pip_install."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)  # the tester's own package server has no say here
    environment = Environment(tmp_path / "environment")
    stand_in = types.ModuleType("slicer")
    stand_in.util = types.SimpleNamespace(pip_install=environment.pip_install)
    monkeypatch.setitem(sys.modules, "slicer", stand_in)
    monkeypatch.delitem(sys.modules, "slicer.packaging", raising=False)
    return environment


@pytest.fixture
def slicer_5_12(slicer_before_5_12, monkeypatch):
    """With slicer.packaging as well; the fallback then must not be used."""
    environment = slicer_before_5_12

    def pip_install(requirements, constraints=None, requester=None):
        environment.pip_install([*requirements, "-c", str(constraints)])

    def pip_ensure(requirements, constraints=None, prompt_install=True, requester=None):
        assert prompt_install is False, "the panel has asked already"
        index = ["--no-index", "--find-links", environment.index]
        environment.pip_install([*index, *requirements, "-c", str(constraints)])

    packaging = types.ModuleType("slicer.packaging")
    packaging.pip_install, packaging.pip_ensure = pip_install, pip_ensure
    monkeypatch.setitem(sys.modules, "slicer.packaging", packaging)
    sys.modules["slicer"].util.pip_install = lambda *_: pytest.fail("slicer.packaging comes first")
    return environment


@pytest.fixture
def wheels(tmp_path):
    folder = tmp_path / "my wheels"
    for name, version in {"torch": "2.13.0", "monai": "1.6.1", "scikit-learn": "1.9.1", "safetensors": "0.8.0"}.items():
        make_wheel(folder, name, version, requires=["numpy>=1"] if name == "monai" else [])
    make_wheel(folder, "numpy", "2.4.6")  # tempting: a newer one than Slicer's
    return folder


@pytest.mark.parametrize("slicer_version", ["slicer_before_5_12", "slicer_5_12"])
def test_offline_from_a_folder_of_wheels(slicer_version, wheels, request):
    environment = request.getfixturevalue(slicer_version)
    log = environment.install(wheels)
    assert environment.versions() == {**SHIPPED, "torch": "2.13.0", "monai": "1.6.1", "scikit-learn": "1.9.1",
                                      "safetensors": "0.8.0"}
    assert len(environment.calls) == 1 and "--no-index" in environment.calls[0]
    assert log[-1] == "Everything that MedVAE needs is installed."
    assert "PIP_CONSTRAINT" not in os.environ and "PIP_LOG" not in os.environ


def test_online_through_pip_ensure_only_what_is_missing(slicer_5_12, wheels, tmp_path, monkeypatch):
    """Also for a user whose temporary folder has a blank in its name."""
    (tmp_path / "Jane Doe").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "Jane Doe"))
    slicer_5_12.index = str(wheels)
    lay_out(slicer_5_12.site, {"torch": "2.8.0", "monai": "1.6.1"})
    slicer_5_12.install()
    assert [name for name in slicer_5_12.calls[0] if name[0].isalpha()] == ["scikit-learn", "safetensors"]
    assert slicer_5_12.versions()["torch"] == "2.8.0", "what is there and fits stays"


def test_torch_through_the_pytorch_extension(slicer_5_12, wheels, monkeypatch):
    asked = []

    class PyTorchUtilsLogic:
        def installTorch(self, askConfirmation=False, torchVersionRequirement=None):  # noqa: N802 - its own name
            asked.append(torchVersionRequirement)
            with urlopen(os.environ["PIP_CONSTRAINT"]) as constraints:
                assert constraints.read().startswith(b"numpy==2.1.0")
            lay_out(slicer_5_12.site, {"torch": "2.13.0+cu130"})
            return types.ModuleType("torch")

    extension = types.ModuleType("PyTorchUtils")
    extension.PyTorchUtilsLogic = PyTorchUtilsLogic
    monkeypatch.setitem(sys.modules, "PyTorchUtils", extension)
    slicer_5_12.index = str(wheels)
    slicer_5_12.install(extension=True)
    assert asked == [">=2.6,!=2.9.*"]
    assert slicer_5_12.versions()["torch"] == "2.13.0+cu130"


@pytest.mark.parametrize("damage", ["no record", "library cut short", "two versions"])
def test_recovers_from_a_half_finished_installation(slicer_before_5_12, wheels, damage):
    environment = slicer_before_5_12
    site = environment.site
    lay_out(site, {"torch": "2.8.0", "monai": "1.6.1", "scikit-learn": "1.9.1", "safetensors": "0.8.0"})
    (site / "torch" / "of_the_old_version.py").write_text("")
    if damage == "no record":
        (site / "torch-2.8.0.dist-info" / "RECORD").unlink()
    elif damage == "library cut short":
        (site / "torch" / "lib" / "native.so").write_bytes(b"")
    else:
        lay_out(site, {"torch": "2.7.0"})
    environment.install(wheels)
    assert environment.versions()["torch"] == "2.13.0"
    assert not (site / "torch" / "of_the_old_version.py").exists()
    assert [path.name for path in site.glob("torch-*")] == ["torch-2.13.0.dist-info"]


def test_what_slicer_ships_is_kept_even_if_a_package_asks_for_a_newer_one(slicer_before_5_12, wheels):
    (wheels / "monai-1.6.1-py3-none-any.whl").unlink()
    make_wheel(wheels, "monai", "1.7.0", requires=["numpy>=2.4"])
    with pytest.raises(installer.InstallError, match="comes with this Slicer"):
        slicer_before_5_12.install(wheels)
    assert {name: slicer_before_5_12.versions()[name] for name in SHIPPED} == SHIPPED
    assert any("numpy" in line for line in slicer_before_5_12.log), "the log says which package"


def test_a_dependency_that_the_folder_lacks_is_named(slicer_before_5_12, wheels):
    (wheels / "monai-1.6.1-py3-none-any.whl").unlink()
    make_wheel(wheels, "monai", "1.7.0", requires=["fsspec"])
    with pytest.raises(installer.InstallError, match="no package fsspec"):
        slicer_before_5_12.install(wheels)


def test_a_damaged_wheel_is_an_error_and_the_next_try_works(slicer_before_5_12, wheels):
    wheel = wheels / "safetensors-0.8.0-py3-none-any.whl"
    whole = wheel.read_bytes()
    wheel.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(installer.InstallError, match="damaged"):
        slicer_before_5_12.install(wheels)
    wheel.write_bytes(whole)
    slicer_before_5_12.install(wheels)
    assert slicer_before_5_12.versions()["safetensors"] == "0.8.0"


def test_the_folder_is_checked_before_anything_is_touched(slicer_before_5_12, wheels, tmp_path):
    lay_out(slicer_before_5_12.site, {"torch": "2.13.0"})
    (slicer_before_5_12.site / "torch-2.13.0.dist-info" / "RECORD").unlink()
    (tmp_path / "empty").mkdir()
    with pytest.raises(installer.InstallError, match="holds no wheels"):
        slicer_before_5_12.install(tmp_path / "empty")
    (wheels / "torch-2.13.0-py3-none-any.whl").unlink()
    with pytest.raises(installer.InstallError, match=r"no wheel of torch that fits Python \d"):
        slicer_before_5_12.install(wheels)
    assert (slicer_before_5_12.site / "torch").is_dir() and slicer_before_5_12.calls == []


def test_a_folder_that_may_not_be_written_is_found_by_trying(slicer_before_5_12, wheels, monkeypatch):
    def refused(path, *arguments, **options):
        raise PermissionError(13, "Access is denied", str(path))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Path, "touch", refused)
        with pytest.raises(installer.InstallError, match="may not be written"):
            slicer_before_5_12.install(wheels)
    assert installer._may_write(str(slicer_before_5_12.site)) and not list(slicer_before_5_12.site.glob(".medvae*"))


def test_an_installer_that_does_nothing_is_noticed(slicer_before_5_12, wheels):
    sys.modules["slicer"].util.pip_install = lambda arguments: None
    with pytest.raises(installer.InstallError, match="torch is still not installed"):
        slicer_before_5_12.install(wheels)


@pytest.mark.parametrize("text, sentence", [
    ("OSError: [Errno 28] No space left on device", "disk is full"),
    ("ERROR: Could not install: [WinError 5] Access is denied: 'c10.dll'", "restart Slicer"),
    ("Failed to establish a new connection: [Errno -3] Temporary failure in name resolution", "no connection"),
    ("2026-01-01T00:00:00,000 ERROR: something new", "something new"),
])
def test_every_failure_is_one_sentence(text, sentence):
    said = installer._sentence([text], RuntimeError("pip ended with 1"))
    assert sentence in said and said.count("\n") == 0


def test_the_pytorch_extension_is_looked_for_without_importing_it(monkeypatch, tmp_path):
    assert not installer.has_pytorch_extension()
    (tmp_path / "PyTorchUtils.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    assert installer.has_pytorch_extension()


@pytest.mark.skipif("SLICER_SOURCE_DIR" not in os.environ, reason="SLICER_SOURCE_DIR names no Slicer checkout")
@pytest.mark.parametrize("file, function, keywords", [
    ("Base/Python/slicer/packaging.py", "pip_ensure", {"requirements", "constraints", "prompt_install", "requester"}),
    ("Base/Python/slicer/packaging.py", "pip_install", {"requirements", "constraints", "requester"}),
    ("Base/Python/slicer/util.py", "pip_install", {"requirements"}),
    ("Modules/Scripted/SampleData/SampleData.py", "registerCustomSampleDataCategory", {"category", "title"}),
    ("Modules/Scripted/SampleData/SampleData.py", "registerCustomSampleDataSource",
     {"category", "sampleName", "uris", "fileNames", "nodeNames", "checksums", "thumbnailFileName", "loadFileTypes"}),
])
def test_slicers_own_functions_take_what_they_are_given(file, function, keywords):
    source = Path(os.environ["SLICER_SOURCE_DIR"]) / file
    if not source.is_file():
        pytest.skip(f"the checkout lacks {file}")
    tree = ast.parse(source.read_text(encoding="utf-8"))
    found = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == function]
    if not found and function == "registerCustomSampleDataCategory":
        pytest.skip("before Slicer 5.12, where the panel does without it")
    assert len(found) == 1
    assert keywords <= {argument.arg for argument in (*found[0].args.args, *found[0].args.kwonlyargs)}
