"""The `medvae` command: its subcommands, and the one place where failures become a sentence and an exit code."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

from .. import __version__
from ..failures import Failure
from ..listening import print_anything, whoever_listens
from . import bundles, evaluate, latent, synthesise
from .detect import detect
from .generate import generate
from .prepare import prepare
from .skull import skull
from .train import train

app = typer.Typer(
    name="medvae",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("detect")(detect)
app.command("skull")(skull)
app.command("train")(train)
app.command("prepare")(prepare)
app.command("generate")(generate)
app.add_typer(evaluate.app, name="evaluate")
app.add_typer(latent.app, name="latent")
app.add_typer(bundles.app, name="bundles")
app.add_typer(synthesise.app, name="synthesise")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"medvae {__version__}")
        raise typer.Exit()


@app.callback()
def medvae(
    version: Annotated[bool, typer.Option(
        "--version", help="Print the version and exit.", callback=_print_version, is_eager=True)] = False,
) -> None:
    """See where a brain scan departs from healthy anatomy, and a fetal skull in 3D from ultrasound planes.

    For research use only. Try it on the samples that come with MedVAE:

        medvae detect --sample --output demo_output

        medvae skull --sample --output skull_output
    """


def run(arguments: Sequence[str]) -> int:
    """Runs the command and returns its exit code; prints a failure as one sentence on standard error.

    With `--debug` among the arguments the traceback is printed before the sentence.
    """
    print_anything()
    with whoever_listens():
        return _run(arguments)


def _run(arguments: Sequence[str]) -> int:
    try:
        code = app(args=list(arguments), prog_name="medvae", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except Exception as error:
        if "--debug" in arguments:
            traceback.print_exc()
        code, sentence = explain(error)
        if sentence:
            print(f"medvae: {' '.join(sentence.split())}", file=sys.stderr)
        return code


def explain(error: Exception) -> tuple[int, str]:
    """The exit code and the sentence for a failure of any kind."""
    if hasattr(error, "format_message"):  # a usage error of the command-line parser
        if type(error).__name__ == "NoArgsIsHelpError":
            print(error.format_message())
            return 2, ""
        return 2, f"{error.format_message()} (See 'medvae --help'.)"
    if isinstance(error, typer.Abort):
        return 130, "Cancelled."
    failure = Failure.of(error)
    hint = " Run the same command with --debug added and report what it prints." if failure.unexpected else ""
    return failure.exit_code, failure.message + hint
