"""`python -m MedVAELib` and the `medvae` command."""

from __future__ import annotations

import os
import sys
from typing import NoReturn


def main() -> None:
    """Runs the command line and exits with its code."""
    # On Windows the Fortran libraries below numpy and torch would end the process at Ctrl-C, before it is heard here.
    os.environ.setdefault("FOR_DISABLE_CONSOLE_CTRL_HANDLER", "1")
    try:
        import rich  # noqa: F401
        import typer  # noqa: F401
    except ImportError as error:
        sys.exit(f'medvae: The command line needs the package {error.name}: run  pip install ".[cli]"  in its folder.')
    from .cli.app import run

    leave(run(sys.argv[1:]))


def leave(code: int) -> NoReturn:
    """Ends the process. One of those that torchrun started does it without the interpreter's clean-up, in which PyTorch
    2.13 now and then aborts when all is done, so that torchrun would call the run a failure."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    main()
