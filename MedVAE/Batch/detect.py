"""Detects anomalies on many scans without the panel, in 3D Slicer or in its Python alone:

    Slicer --no-splash --no-main-window --python-script detect.py -- SCANS --output DIR
    PythonSlicer detect.py SCANS --output DIR

SCANS are scan files, folders of them, DICOM folders, or CSV files with the columns case and scan. Every scan gets a
folder in DIR, and DIR/summary.csv a line for each. Results are those of the panel and of `medvae detect`.

Exit codes: 0 done, 2 wrong usage, 3 input cannot be used, 4 bundle missing or damaged, 5 some cases failed,
130 cancelled.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from MedVAEPanel.library import ensure_library_on_path  # noqa: E402


def arguments_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="detect.py", description="Find where brain scans depart from healthy "
                                     "anatomy. For research use only.", allow_abbrev=False)  # fmt: skip
    parser.add_argument("scans", nargs="+", type=Path, metavar="SCAN",
                        help="scan files, folders of them, DICOM folders, or CSV files (columns case and scan)")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="folder for the results")
    parser.add_argument("--match", default="*", metavar="PATTERN",
                        help="of a folder, take the files with such names, as in 'flair*.nii.gz'")
    parser.add_argument("--resume", action="store_true",
                        help="do only what is missing, failed, or was made in another way")
    parser.add_argument("--modality", choices=("auto", "flair", "dwi"), default="auto", help="kind of scan")
    parser.add_argument("--bundle", metavar="NAME|DIR", help="model to use; by default the one shipped with MedVAE")
    parser.add_argument("--samples", type=int, default=16, metavar="N", help="posterior samples (16)")
    parser.add_argument("--fpr", type=float, default=0.01, help="share of healthy voxels that may be flagged (0.01)")
    parser.add_argument("--score", default="zscore", metavar="NAME", help="anomaly score (zscore)")
    parser.add_argument("--series", metavar="NAME", help="which series of DICOM folders that hold several")
    parser.add_argument("--device", default="auto", metavar="auto|cpu|cuda[:i]", help="where to compute (auto)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the posterior samples (0)")
    parser.add_argument("--progress", choices=("lines", "json", "none"), default="lines",
                        help="what to print: a line per scan, JSON lines, or nothing")
    parser.add_argument("--debug", action="store_true", help="on failure, print the traceback as well")
    return parser


def main(arguments: Sequence[str]) -> int:
    """Runs the batch and returns its exit code; a failure is one sentence on standard error."""
    arguments = list(arguments[1:] if arguments[:1] == ["--"] else arguments)  # Slicer's mark for "not for me"
    try:
        options = arguments_parser().parse_args(arguments)
    except SystemExit as error:  # argparse has said what is wrong
        return int(error.code or 0)
    try:
        ensure_library_on_path()
        return run(options)
    except KeyboardInterrupt:
        say("Cancelled.")
        return 130
    except Exception as error:
        if options.debug:
            traceback.print_exc()
        try:
            from MedVAELib.failures import Failure
        except ImportError:
            say(str(error))
            return 1
        failure = Failure.of(error)
        say(failure.message)
        return failure.exit_code


def run(options: argparse.Namespace) -> int:
    from MedVAELib.bundle import DEFAULT_ANOMALY_BUNDLE
    from MedVAELib.cohort import SUMMARY_FILE, Settings, run_cohort
    from MedVAELib.listening import JsonLines, cancelled_by_signals
    from MedVAELib.outputs import report_problem
    from MedVAELib.progress import no_progress

    settings = Settings(options.bundle or DEFAULT_ANOMALY_BUNDLE, options.device, options.samples, options.fpr,
                        options.score, options.seed, options.modality, options.series)  # fmt: skip
    cases = cases_of(options.scans, options.match)
    if report_problem():
        say(f"The reports are {report_problem()}.")
    progress = JsonLines(sys.stdout) if options.progress == "json" else no_progress
    with cancelled_by_signals() as cancel:
        rows = run_cohort(cases, options.output, settings, resume=options.resume, progress=progress, cancel=cancel,
                          told=teller(len(cases), options.progress == "lines"), debug=options.debug)  # fmt: skip
    failed = sum(row.status == "failed" for row in rows)
    if failed:
        say(f"{failed} of {len(rows)} scans failed, for the reasons above; the results of the others and "
            f"{SUMMARY_FILE} are in {options.output}.")  # fmt: skip
    return 5 if failed else 0


def cases_of(paths: Sequence[Path], pattern: str) -> list:
    """The cases of all arguments, in their order."""
    from MedVAELib.cohort import cases_of_paths, read_cases
    from MedVAELib.cohort.cases import refuse_double_names, scans_in

    listed, scans = [], []
    for path in paths:
        if path.suffix.lower() == ".csv":
            listed += read_cases(path)
        else:
            scans += scans_in(path, pattern) if path.is_dir() else [path]
    cases = [*listed, *cases_of_paths(scans)]
    refuse_double_names(cases, "The list of scans")
    return cases


def teller(count: int, lines: bool) -> Callable:
    """Says how each case went: failures on standard error, the others, if wanted, on standard output."""
    told = 0

    def tell(row, result) -> None:
        nonlocal told
        told += 1
        if row.status == "failed":
            say(f"[{told}/{count}] {row.case}: {row.message}")
        elif lines:
            how = f"{row.seconds:.1f} s" if result is not None else "done before"
            print(f"[{told}/{count}] {row.case}: {row.findings} findings, {row.volume_ml:g} ml ({how})", flush=True)

    return tell


def say(sentence: str) -> None:
    print(f"detect.py: {sentence}", file=sys.stderr, flush=True)


def leave(code: int) -> None:
    """Ends the process with this exit code, Slicer with it."""
    try:
        import slicer

        application = slicer.app
    except (ImportError, AttributeError):  # plain Python, or Slicer's without the application
        sys.exit(code)
    if application is None:
        sys.exit(code)
    sys.stdout.flush()
    sys.stderr.flush()
    slicer.util.exit(code)


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
