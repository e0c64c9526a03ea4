"""`medvae bundles`: which models there are, whether they are intact, and adding one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import BundleError
from .options import DebugOption

if TYPE_CHECKING:
    from ..bundle import Bundle

app = typer.Typer(no_args_is_help=True, help="List, check, import and describe model bundles.")


@app.command("list")
def list_command(debug: DebugOption = False) -> None:
    """Show the bundles that --bundle takes by name: the shipped ones and those you imported."""
    from rich.console import Console
    from rich.table import Table

    from ..bundle import bundle_paths, read_bundle

    table = Table("name", "version", "takes", "task", "folder")
    paths = bundle_paths()
    for name, path in paths.items():
        try:  # a damaged bundle must not hide the others
            bundle = read_bundle(path)
            table.add_row(name, bundle.version, ", ".join(bundle.modality), bundle.metadata["task"], str(path))
        except BundleError:
            table.add_row(name, "?", "?", f"damaged: see 'medvae bundles verify {name}'", str(path))
    if paths:
        Console().print(table)
    else:
        print("No bundles are installed: import one with 'medvae bundles import ARCHIVE'.")


@app.command("verify")
def verify_command(
    names: Annotated[list[str] | None, typer.Argument(
        metavar="[NAME|DIR]...", show_default=False, help="Bundles to check; all of them when none is given.")] = None,
    debug: DebugOption = False,
) -> None:
    """Check that bundles are complete and exactly as released (SHA-256, metadata, weights).

    Example:  medvae bundles verify healthy-anatomy
    """
    from ..bundle import bundle_paths, load_bundle

    damaged = []
    for name in names or list(bundle_paths()):
        try:
            bundle = load_bundle(name)
            bundle.verify()
            print(f"{name}: intact ({bundle.version}, sha256 {bundle.sha256[:12]}...)")
        except BundleError as error:
            damaged.append(error)
            if len(names or []) != 1:
                print(f"{name}: {error}")
    if len(damaged) == 1:
        raise damaged[0]
    if damaged:
        raise BundleError(f"{len(damaged)} bundles are damaged or missing, as listed above.")


@app.command("import")
def import_command(
    source: Annotated[Path, typer.Argument(metavar="ARCHIVE|DIR", show_default=False,
                                           help="A bundle as a zip archive or a folder.")],
    name: Annotated[str | None, typer.Option(show_default=False, help="Name to give it, if not its own.")] = None,
    debug: DebugOption = False,
) -> None:
    """Add someone else's bundle to yours. It cannot run code: pickled weights are refused.

    Example:  medvae bundles import their-model.zip --name their-model
    """
    from ..bundle_import import import_bundle

    bundle = import_bundle(source, name)
    print(f"Imported {bundle.name} {bundle.version} into {bundle.path}.")


@app.command("info")
def info_command(
    name: Annotated[str, typer.Argument(metavar="NAME|DIR", show_default=False, help="The bundle.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole metadata as JSON.")] = False,
    debug: DebugOption = False,
) -> None:
    """Describe a bundle: what it is for, what it was trained on, and what was measured.

    Example:  medvae bundles info healthy-anatomy
    """
    from ..bundle import load_bundle

    bundle = load_bundle(name)
    if as_json:
        print(json.dumps(bundle.metadata, indent=2, ensure_ascii=False))
        return
    _describe(bundle)


def _describe(bundle: Bundle) -> None:
    from rich.console import Console
    from rich.table import Table

    metadata = bundle.metadata
    console = Console()
    table = Table(show_header=False, box=None)
    for label, value in (
        ("name", f"{bundle.name} {bundle.version}"), ("task", metadata["task"]),
        ("description", metadata["description"]), ("intended use", metadata["intended_use"]),
        ("takes", ", ".join(bundle.modality)), ("model", bundle.model), ("weights", f"sha256 {bundle.sha256}"),
        ("authors", metadata["authors"]), ("copyright", metadata["copyright"]), ("folder", str(bundle.path)),
    ):
        table.add_row(label, value)
    console.print(table)
    trained = Table("trained on", "source", "licence", "used for")
    for entry in metadata["medvae"]["training_data"]:
        trained.add_row(entry["name"], entry["source"], entry["licence"], entry["used_for"])
    console.print(trained)
    print("Measured results:")
    print(json.dumps(metadata["medvae"]["results"], indent=2, ensure_ascii=False))
