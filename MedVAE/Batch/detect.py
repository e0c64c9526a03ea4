"""Detects anomalies on many scans without the panel, in 3D Slicer or in its Python alone:

    Slicer --no-splash --no-main-window --python-script detect.py -- SCANS --output DIR
    PythonSlicer detect.py SCANS --output DIR

SCANS are scan files, folders of them, DICOM folders, or CSV files with the columns case and scan. Every scan gets a
folder in DIR, and DIR/summary.csv a line for each. Results are those of the panel and of `medvae detect`.

Exit codes: 0 done, 1 a mistake of MedVAE's own, 2 wrong usage, 3 input cannot be used, 4 bundle missing or damaged,
5 some cases failed, 6 out of memory, 130 cancelled.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from MedVAEPanel import batch  # noqa: E402


def arguments_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="detect.py", description="Find where brain scans depart from healthy "
                                     "anatomy. For research use only.", allow_abbrev=False)
    parser.add_argument("scans", nargs="+", type=Path, metavar="SCAN",
                        help="scan files, folders of them, DICOM folders, or CSV files (columns case and scan)")
    parser.add_argument("--match", default="*", metavar="PATTERN",
                        help="of a folder, take the files with such names, as in 'flair*.nii.gz'")
    parser.add_argument("--modality", choices=("auto", "flair", "dwi"), default="auto", help="kind of scan")
    parser.add_argument("--fpr", type=float, default=0.01, help="share of healthy voxels that may be flagged (0.01)")
    parser.add_argument("--score", default="zscore", metavar="NAME", help="anomaly score (zscore)")
    parser.add_argument("--series", metavar="NAME",
                        help="which series of DICOM folders, or volume of 4D files, that hold several")
    batch.add_common_options(parser, samples=16)
    return parser


def run(options: argparse.Namespace) -> int:
    from MedVAELib.bundle import DEFAULT_ANOMALY_BUNDLE
    from MedVAELib.cohort import Settings

    settings = Settings(options.bundle or DEFAULT_ANOMALY_BUNDLE, options.device, options.samples, options.fpr,
                        options.score, options.seed, options.modality, options.series)
    return batch.run_cases(PARSER, options, cases_of(options.scans, options.match), settings, "scans",
                           lambda row: f"{row.findings} findings, {row.volume_ml:g} ml")


def cases_of(paths: Sequence[Path], pattern: str) -> list:
    """The cases of all arguments, in their order."""
    from MedVAELib.cohort import cases_of_paths, read_cases
    from MedVAELib.cohort.cases import refuse_double_names, scans_in

    listed, scans = [], []
    for path in paths:
        if path.suffix.lower() == ".csv":  # not other tables: they lie beside scans in many a study
            listed += read_cases(path)
        else:
            scans += scans_in(path, pattern) if path.is_dir() else [path]
    cases = [*listed, *cases_of_paths(scans)]
    refuse_double_names(cases, "The list of scans")
    return cases


PARSER = arguments_parser()
if __name__ == "__main__":
    batch.leave(batch.main(PARSER, run, sys.argv[1:]))
