"""What is installed and what is not: whole, half-finished and unsuitable installations in a folder of their own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "MedVAE"))

from MedVAEPanel import dependencies  # noqa: E402

from .wheels import lay_out, make_wheel  # noqa: E402

WHOLE = {"torch": "2.13.0", "monai": "1.6.1", "scikit-learn": "1.9.1", "safetensors": "0.8.0", "numpy": "2.4.6",
         "scipy": "1.17.1", "SimpleITK": "2.5.7", "vtk": "9.7.2", "pydicom": "3.0.2"}


@pytest.fixture
def site(tmp_path):
    folder = tmp_path / "lib" / "site-packages"
    folder.mkdir(parents=True)
    lay_out(folder, WHOLE)
    return folder


def states(site: Path) -> dict[str, dependencies.State]:
    return {state.package.name: state for state in dependencies.inspect([str(site)])}


def remove_package(site: Path, *patterns: str) -> None:
    dependencies.remove([path for pattern in patterns for path in site.glob(pattern)])


def test_a_whole_installation_needs_nothing(site):
    found = states(site)
    assert {name: state.version for name, state in found.items()} == WHOLE
    assert {state.kind for state in found.values()} == {"ok"}
    assert dependencies.plan(list(found.values())).empty


def test_a_missing_package_is_planned_with_its_range(site):
    remove_package(site, "monai*")
    found = states(site)
    assert found["monai"].kind == "missing" and found["monai"].text == "not installed"
    plan = dependencies.plan(list(found.values()), pytorch_extension=True)
    assert plan.pip == ("monai>=1.4",) and plan.torch is None and plan.remove == ()


def test_torch_goes_through_the_pytorch_extension_where_it_can(site):
    remove_package(site, "torch*")
    found = list(states(site).values())
    assert dependencies.plan(found, pytorch_extension=True).torch == ">=2.6,!=2.9.*"
    assert dependencies.plan(found, pytorch_extension=True).pip == ()
    assert dependencies.plan(found).pip == ("torch>=2.6,!=2.9.*",)
    offline = dependencies.plan(found, wheels="/wheels", pytorch_extension=True)
    assert offline.torch is None and offline.pip == ("torch>=2.6,!=2.9.*",)


@pytest.mark.parametrize("version", ["2.5.1", "2.9.1", "2.9.1+cu128"])
def test_an_unsuitable_torch_is_replaced(site, version):
    remove_package(site, "torch*")
    lay_out(site, {"torch": version})
    state = states(site)["torch"]
    assert (state.kind, state.version) == ("unsuitable", version)
    assert dependencies.plan([state]).pip == ("torch>=2.6,!=2.9.*",)


def test_a_gpu_build_of_torch_fits(site):
    remove_package(site, "torch*")
    lay_out(site, {"torch": "2.8.0+cu128"})
    assert states(site)["torch"].kind == "ok"


HALF_FINISHED = {
    "files but no record yet": lambda site: remove_package(site, "torch-*"),
    "metadata not written": lambda site: (site / "torch-2.13.0.dist-info" / "METADATA").unlink(),
    "metadata cut to nothing": lambda site: (site / "torch-2.13.0.dist-info" / "METADATA").write_bytes(b""),
    "record not written": lambda site: (site / "torch-2.13.0.dist-info" / "RECORD").unlink(),
    "library cut short": lambda site: (site / "torch" / "lib" / "native.so").write_bytes(b"\x7fELF"),
    "library missing": lambda site: (site / "torch" / "lib" / "native.so").unlink(),
    "module missing": lambda site: (site / "torch" / "__init__.py").unlink(),
    "folder missing": lambda site: remove_package(site, "torch"),
    "second version over it": lambda site: lay_out(site, {"torch": "2.8.0"}),
    "being replaced": lambda site: ((site / "torch").rename(site / "~orch"), remove_package(site, "torch-*")),
}


@pytest.mark.parametrize("damage", HALF_FINISHED)
def test_a_half_finished_installation_is_seen_and_cleared_away(site, damage):
    HALF_FINISHED[damage](site)
    others = {path for path in site.iterdir() if "orch" not in path.name}
    found = states(site)
    assert found["torch"].kind == "broken" and found["torch"].text == "damaged"
    assert [name for name, state in found.items() if state.kind != "ok"] == ["torch"]
    plan = dependencies.plan(list(found.values()))
    assert plan.pip == ("torch>=2.6,!=2.9.*",)
    dependencies.remove(plan.remove)
    assert set(site.iterdir()) == others, "exactly torch's own files go"
    assert states(site)["torch"].kind == "missing"


def test_what_slicer_ships_is_never_asked_for(site):
    remove_package(site, "*")
    found = list(states(site).values())
    plan = dependencies.plan(found)
    assert set(plan.names) == {"torch", "monai", "scikit-learn", "safetensors"}
    assert len(plan.problems) == 5 and all("install Slicer again" in sentence for sentence in plan.problems)


@pytest.mark.parametrize(("system", "machine", "wheels", "problems"), [
    ("darwin", "x86_64", None, 1), ("darwin", "x86_64", "folder", 0), ("darwin", "arm64", None, 0),
    ("linux", "x86_64", None, 0),
])
def test_there_is_no_pytorch_for_macs_with_intel(site, monkeypatch, system, machine, wheels, problems):
    remove_package(site, "torch-*")
    found = list(states(site).values())
    monkeypatch.setattr(dependencies.sys, "platform", system)
    monkeypatch.setattr(dependencies.platform, "machine", lambda: machine)
    for extension in (True, False):
        plan = dependencies.plan(found, wheels, extension)
        assert len(plan.problems) == problems and all("arm64" in sentence for sentence in plan.problems)


def test_constraints_pin_what_slicer_ships_and_nothing_else(site):
    assert set(dependencies.constraints([str(site)]).split()) == \
        {"numpy==2.4.6", "scipy==1.17.1", "SimpleITK==2.5.7", "vtk==9.7.2", "pydicom==3.0.2"}


def test_a_package_that_pip_does_not_know_of_may_not_be_put_over_slicers(site):
    remove_package(site, "vtk-*")
    assert "vtk<0" in dependencies.constraints([str(site)]).split()
    assert states(site)["vtk"].kind == "ok"


def test_only_folders_in_site_packages_are_ever_removed(tmp_path):
    """A package found elsewhere, as a clone on PYTHONPATH, is somebody's own."""
    own = tmp_path / "src"
    lay_out(own, {"torch": "2.13.0"})
    remove_package(own, "torch-*")
    state = states(own)["torch"]
    assert state.remains == () and (own / "torch").is_dir()


def test_wheels_that_do_not_fit_are_named(tmp_path):
    make_wheel(tmp_path, "torch", "2.13.0", tag="cp27-cp27m-win_amd64")
    make_wheel(tmp_path, "monai", "1.0")
    make_wheel(tmp_path, "scikit-learn", "1.9.1")
    (tmp_path / "not-a-wheel-name.whl").write_bytes(b"")
    wanted = ["torch>=2.6,!=2.9.*", "monai>=1.4", "scikit-learn", "safetensors"]
    assert dependencies.lacking_wheels(tmp_path, wanted) == ["torch", "monai", "safetensors"]
    make_wheel(tmp_path, "torch", "2.13.0+cpu")
    assert "torch" not in dependencies.lacking_wheels(tmp_path, wanted)


def test_requirements_are_those_of_the_library():
    tomllib = pytest.importorskip("tomllib", reason="comes with Python 3.11")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    shipped = {package.name for package in dependencies.PACKAGES if package.with_slicer}
    names = {re.match(r"[\w-]+", text).group(): text.replace(" ", "") for text in project["dependencies"]}
    assert dependencies.requirements() == {name: text for name, text in names.items() if name not in shipped}
    assert set(names) == {package.name for package in dependencies.PACKAGES}


def test_looking_imports_nothing():
    code = ("import sys; sys.path.insert(0, 'MedVAE'); from MedVAEPanel import dependencies as d, library;"
            "d.plan(d.inspect()); d.constraints(); library.ensure_library_on_path(); import MedVAELib;"
            "print(sorted({'torch', 'monai', 'numpy', 'scipy', 'sklearn', 'vtk', 'slicer', 'qt'} & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
