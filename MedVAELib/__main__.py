"""`python -m MedVAELib` and the `medvae` command."""

from __future__ import annotations

import os
import sys


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

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
