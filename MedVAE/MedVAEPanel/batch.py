"""What the scripts for `Slicer --python-script` share: exit codes, sentences on standard error, leaving Slicer."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from .library import ensure_library_on_path


def main(parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], int], arguments: Sequence[str]) -> int:
    """Runs a script's `run(options)` and returns the exit code; a failure is one sentence on standard error.

    The parser needs the option `--debug`. Exit codes: 0 done, 1 a mistake of MedVAE's own, 2 wrong usage, 3 input
    cannot be used, 4 bundle missing or damaged, 5 some cases failed, 6 out of memory, 130 cancelled.
    """
    arguments = list(arguments[1:] if arguments[:1] == ["--"] else arguments)  # Slicer's mark for "not for me"
    try:
        options = parser.parse_args(arguments)
    except SystemExit as error:  # argparse has said what is wrong
        return int(error.code or 0)
    try:
        ensure_library_on_path()
        from MedVAELib.listening import print_anything

        print_anything()
        return run(options)
    except KeyboardInterrupt:
        say(parser, "Cancelled.")
        return 130
    except Exception as error:
        if options.debug:
            traceback.print_exc()
        try:
            from MedVAELib.failures import Failure
        except ImportError:
            say(parser, str(error))
            return 1
        failure = Failure.of(error)
        say(parser, failure.message)
        return failure.exit_code


def add_common_options(parser: argparse.ArgumentParser, samples: int) -> None:
    """The options that all scripts have."""
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="folder for the results")
    parser.add_argument("--resume", action="store_true",
                        help="do only what is missing, failed, or was made in another way")
    parser.add_argument("--bundle", metavar="NAME|DIR", help="model to use; by default the one shipped with MedVAE")
    parser.add_argument("--samples", type=int, default=samples, metavar="N", help=f"samples to draw ({samples})")
    parser.add_argument("--device", default="auto", metavar="auto|cpu|cuda[:i]|mps", help="where to compute (auto)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the samples (0)")
    parser.add_argument("--progress", choices=("lines", "json", "none"), default="lines",
                        help="what to print: a line per case, JSON lines, or nothing")
    parser.add_argument("--debug", action="store_true", help="on failure, print the traceback as well")


def run_cases(parser: argparse.ArgumentParser, options: argparse.Namespace, cases: Sequence, settings, what: str,
              in_words: Callable) -> int:
    """Runs a cohort and says how each case went: failures on standard error, the others, if wanted, on standard output.

    settings: the cohort's task. what: the cases are, for messages. in_words(row): what came of one. Returns the exit
    code; raises what `run_cohort` raises.
    """
    from MedVAELib.cohort import run_cohort
    from MedVAELib.cohort.summary import FAILED, failures
    from MedVAELib.listening import cancelled_by_signals, json_lines
    from MedVAELib.outputs import report_problem
    from MedVAELib.progress import no_progress

    told = 0

    def tell(row, result) -> None:
        nonlocal told
        told += 1
        if row.status == FAILED:
            say(parser, f"[{told}/{len(cases)}] {row.case}: {row.message}")
        elif options.progress == "lines":
            how = f"{row.seconds:.1f} s" if result is not None else "done before"
            print(f"[{told}/{len(cases)}] {row.case}: {in_words(row)} ({how})", flush=True)

    if report_problem():
        say(parser, f"The reports are {report_problem()}.")
    progress = json_lines(sys.stdout) if options.progress == "json" else no_progress
    with cancelled_by_signals() as cancel:
        rows = run_cohort(cases, options.output, settings, resume=options.resume, progress=progress, cancel=cancel,
                          told=tell, debug=options.debug)
    if failed := failures(rows, what, options.output):
        say(parser, failed)
    return 5 if failed else 0


def say(parser: argparse.ArgumentParser, sentence: str) -> None:
    print(f"{parser.prog}: {sentence}", file=sys.stderr, flush=True)


def leave(code: int) -> None:
    """Ends the process with this exit code, Slicer with it."""
    # Slicer has loaded its own module long before a script runs; looking for it elsewhere would take seconds.
    slicer = sys.modules.get("slicer")
    if getattr(slicer, "app", None) is None:  # plain Python, or Slicer's without the application
        sys.exit(code)
    sys.stdout.flush()
    sys.stderr.flush()
    slicer.util.exit(code)
