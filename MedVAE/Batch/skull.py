"""Predicts the skulls of many fetuses without the panel, in 3D Slicer or in its Python alone:

    Slicer --no-splash --no-main-window --python-script skull.py -- HEADS.csv --output DIR
    PythonSlicer skull.py HEADS.csv --output DIR

HEADS.csv has a line for each head, with the columns case, one or more of axial, sagittal and coronal (an image file,
or volume.nii.gz@40 for a slice of a volume), and, if wanted, spacing (mm per pixel, where the files do not state it)
and ga (weeks, as 24.5, or weeks and days, as 24+3). Every head gets a folder in DIR, and DIR/summary.csv a line for
each. Results are those of the panel and of `medvae skull`.

Exit codes: 0 done, 1 a mistake of MedVAE's own, 2 wrong usage, 3 input cannot be used, 4 bundle missing or damaged,
5 some cases failed, 6 out of memory, 130 cancelled.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from MedVAEPanel import batch  # noqa: E402
from MedVAEPanel.library import ensure_library_on_path  # noqa: E402


def arguments_parser() -> argparse.ArgumentParser:
    ensure_library_on_path()
    from MedVAELib.bundle import SKULL_SAMPLES

    parser = argparse.ArgumentParser(prog="skull.py", description="Predict fetal skulls in 3D from standard planes of "
                                     "ultrasound. For research use only.", allow_abbrev=False)
    parser.add_argument("heads", nargs="+", type=Path, metavar="HEADS.csv",
                        help="CSV files with the columns case, axial, sagittal, coronal, spacing, ga")
    parser.add_argument("--spacing", default="", metavar="MM",
                        help="mm per pixel of heads for which the table has none: 0.25 where the file does not state "
                             "it, axial=0.25,coronal=0.3 whatever it states")
    parser.add_argument("--ga", default="", metavar="WEEKS",
                        help="gestational age where the table has none: weeks, as 24.5, or weeks and days, as 24+3")
    batch.add_common_options(parser, samples=SKULL_SAMPLES)
    return parser


def run(options: argparse.Namespace) -> int:
    from MedVAELib.bundle import DEFAULT_SKULL_BUNDLE
    from MedVAELib.cohort.cases import refuse_double_names
    from MedVAELib.cohort.skull import SkullSettings, read_skull_cases

    settings = SkullSettings(options.bundle or DEFAULT_SKULL_BUNDLE, options.device, options.samples, options.seed,
                             options.spacing, options.ga)
    cases = [case for table in options.heads for case in read_skull_cases(table)]
    refuse_double_names(cases, "The list of heads")
    return batch.run_cases(PARSER, options, cases, settings, "heads",
                           lambda row: f"HC {row.hc_mm:.0f} ± {row.hc_std_mm:.1f} mm from {row.planes}")


PARSER = arguments_parser()
if __name__ == "__main__":
    batch.leave(batch.main(PARSER, run, sys.argv[1:]))
