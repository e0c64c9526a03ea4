"""The picture in CONTRIBUTING.md, held: which part may import which, and what nothing may import."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "MedVAELib"
FILES = sorted(PACKAGE.rglob("*.py"))

# A part may import its own rank and lower ones. What is not named here is a part of rank 0: plain helpers below
# everything (errors, progress, scan reading ...), which may import only one another.
RANKS = {
    "cli": 6, "worker": 6, "__main__": 6,
    "evaluation": 5, "cohort": 5,
    "report": 4, "reporting": 4, "outputs": 4, "detection_outputs": 4, "skull_outputs": 4,
    "anomaly": 3, "skull": 3, "latent": 3,
    "inference": 2, "bundle": 2, "bundle_import": 2, "training": 2, "preprocessing": 2,
    "models": 1,
    "networks": 0,
}
# Result types are what report and outputs are about, so they see them; evaluation and training share preprocessing.
NEVER = {"slicer", "qt", "ctk", "PythonQt", "pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve"}
EXTRAS = {"typer", "rich", "jinja2", "matplotlib", "yaml", "pydantic", "tensorboard", "distributed", "dask"}
EXTRAS_ALLOWED_IN = {"cli", "report", "reporting", "training", "evaluation", "cohort"}


@cache
def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"), str(file))


def part(file: Path) -> str:
    """The first level of the package that a file belongs to, e.g. "cli", "scan"."""
    first = file.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imports(file: Path, module_level_only: bool = False) -> list[tuple[int, str]]:
    """(line, absolute dotted name) of every import; inside functions and TYPE_CHECKING only if asked for."""
    package = ["MedVAELib", *file.relative_to(PACKAGE).parts[:-1]]
    found = []
    for node in statements(tree(file), module_level_only):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[:len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found += [(node.lineno, f"{module}.{alias.name}") for alias in node.names]
    return found


def statements(module: ast.Module, module_level_only: bool) -> list[ast.AST]:
    if not module_level_only:
        return list(ast.walk(module))
    found: list[ast.AST] = []
    waiting: list[ast.AST] = list(module.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            waiting += node.orelse
            continue
        found.append(node)
        waiting += ast.iter_child_nodes(node)
    return found


def calls() -> list[tuple[Path, ast.Call]]:
    """Every call in the package."""
    return [(file, node) for file in FILES for node in ast.walk(tree(file)) if isinstance(node, ast.Call)]


def named(file: Path) -> str:
    return str(file.relative_to(ROOT))


def test_imports_run_downwards():
    wrong = []
    for file in FILES:
        if file == PACKAGE / "__init__.py":
            continue  # offers the public names lazily
        here = part(file)
        for line, name in imports(file):
            parts = name.split(".")
            if parts[0] != "MedVAELib" or len(parts) < 2 or parts[1] in ("__version__", here):
                continue
            if name.startswith("MedVAELib.anomaly.result"):  # the result's plain types are seen from everywhere above
                allowed = RANKS.get(here, 0) >= 3
            elif here == "networks":
                allowed = False
            else:
                allowed = RANKS.get(parts[1], 0) <= RANKS.get(here, 0)
            if not allowed:
                wrong.append(f"{named(file)}:{line}: {here} may not import {name}")
    assert not wrong, "\n".join(wrong)


def test_never_imported():
    wrong = [f"{named(file)}:{line}: {name}" for file in FILES for line, name in imports(file)
             if name.split(".")[0] in NEVER]
    assert not wrong


def test_packages_of_the_extras_are_imported_where_they_are_used():
    wrong = [f"{named(file)}:{line}: {name}" for file in FILES if part(file) not in EXTRAS_ALLOWED_IN
             for line, name in imports(file, module_level_only=True) if name.split(".")[0] in EXTRAS]
    assert not wrong


def test_nothing_is_unpickled():
    """torch.load only for a training's own checkpoints, and only without pickled objects; numpy never with them."""
    wrong = []
    for file, node in calls():
        called, given = ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}
        if called == "torch.load" and not (part(file) == "training" and given.get("weights_only") == "True"):
            wrong.append(f"{named(file)}:{node.lineno}")
        if given.get("allow_pickle") == "True" or called in ("eval", "exec", "torch.jit.load", "yaml.load"):
            wrong.append(f"{named(file)}:{node.lineno}")
    assert not wrong


def test_every_part_of_the_table_is_known():
    """A misspelt rank would silently allow everything."""
    assert set(RANKS) <= {part(file) for file in FILES}


def test_the_checks_can_fail():
    """The reading of imports finds relative, nested and conditional ones."""
    file = PACKAGE / "networks" / "imaginary.py"
    source = ("from ..training import run\nimport slicer\nif TYPE_CHECKING:\n    import rich\n"
              "def f():\n    from ...x import y\n    import typer\n")
    tree_of = ast.parse(source)
    original = globals()["tree"]
    globals()["tree"] = lambda _: tree_of
    try:
        assert {name for _, name in imports(file)} >= {"MedVAELib.training.run", "slicer", "rich", "typer"}
        assert {name for _, name in imports(file, module_level_only=True)} == {"MedVAELib.training.run", "slicer"}
    finally:
        globals()["tree"] = original


def test_importing_the_package_imports_nothing_heavy():
    code = ("import MedVAELib, MedVAELib.errors, MedVAELib.progress, MedVAELib.bundle, MedVAELib.outputs, sys;"
            "import MedVAELib.evaluation.tables;"
            "print(sorted({'torch', 'monai', 'vtk', 'sklearn', 'scipy', 'SimpleITK', 'numpy', 'typer', 'matplotlib'}"
            " & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.stdout.strip() == "[]", done.stderr


def test_every_name_that_simpleitk_is_given_is_one_that_it_can_open():
    """`itk_name` is easily forgotten, and missed on Windows alone."""
    given = [(file.relative_to(PACKAGE).as_posix(), node) for file, node in calls()
             if isinstance(node.func, ast.Attribute) and node.func.attr in
             ("ReadImage", "WriteImage", "SetFileName", "SetFileNames")]
    bare = [f"{name}:{node.lineno}" for name, node in given
            if name != "skull/surface.py" and "itk_name(" not in ast.unparse(node)]  # VTK knows all letters
    assert len(given) > 10 and not bare
