"""`medvae skull`: standard planes in, a 3D skull with its uncertainty out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..bundle import MIN_SKULL_SAMPLES, SKULL_SAMPLES
from ..errors import UsageError
from ..listening import cancelled_by_signals
from ..progress import CancelToken, Progress
from .listeners import progress_listener, warn
from .many import run_many
from .options import BundleOption, DebugOption, DeviceOption, ProgressKind, ProgressOption

if TYPE_CHECKING:
    from ..cohort.skull import SkullRow, SkullSettings
    from ..skull.result import SkullPrediction

_PLANE_HELP = "{} plane: PNG, JPEG, DICOM, NIfTI or NRRD; volume.nii.gz@40 takes a slice of a volume (also @x40, @y40)."


def _plane_option(name: str) -> Any:
    upright = " Upright: the top of the head up or down." if name == "coronal" else ""
    text = _PLANE_HELP.format(name.capitalize()) + upright
    return typer.Option(f"--{name}", metavar="FILE", show_default=False, help=text)


def skull(
    output: Annotated[Path, typer.Option(
        "--output", "-o", metavar="DIR", show_default=False,
        help="Folder for the results; with --cohort, one folder in it per head.")],
    axial: Annotated[str | None, _plane_option("axial")] = None,
    sagittal: Annotated[str | None, _plane_option("sagittal")] = None,
    coronal: Annotated[str | None, _plane_option("coronal")] = None,
    spacing: Annotated[str, typer.Option(
        metavar="MM", show_default=False,
        help="Edge of a pixel in mm: 0.25 where the files do not state it; axial=0.25,coronal=0.3 whatever they "
             "state.")] = "",
    ga: Annotated[str, typer.Option(
        metavar="WEEKS", show_default=False,
        help="Gestational age for percentiles of the measures: weeks, as 24.5, or weeks and days, as 24+3.")] = "",
    sample: Annotated[bool, typer.Option(
        "--sample", help="Use the planes that come with MedVAE, and compare with the head they show.")] = False,
    cohort: Annotated[Path | None, typer.Option(
        "--cohort", metavar="FILE", show_default=False,
        help="CSV file with the columns case, axial, sagittal, coronal, and if wanted spacing and ga: one head per "
             "line.")] = None,
    resume: Annotated[bool, typer.Option(
        "--resume", help="With --cohort: do only what is missing, failed, or was made in another way.")] = False,
    scheduler: Annotated[str | None, typer.Option(
        "--scheduler", metavar="ADDRESS", show_default=False,
        help="With --cohort: compute on the Dask cluster of this scheduler (host:port).")] = None,
    bundle: BundleOption = None,
    samples: Annotated[int, typer.Option(
        min=MIN_SKULL_SAMPLES,
        help="Heads drawn: more give a smoother standard deviation, and take longer.")] = SKULL_SAMPLES,
    device: DeviceOption = "auto",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the samples: same seed, same result.")] = 0,
    progress: ProgressOption = ProgressKind.bar,
    debug: DebugOption = False,
) -> None:
    """Predict the skull of a fetus in 3D from one to three standard planes of ultrasound.

    Writes into DIR a report, the skull as probability and mask, its standard deviation, a surface coloured by it, and
    biometry with standard deviations; all in mm in a frame of the head's own, since planes are not registered.

    Examples:

        medvae skull --sample --output skull_output

        medvae skull --axial head.png --spacing 0.21 --ga 24+3 --output results

        medvae skull --axial a.dcm --sagittal s.dcm --coronal c.dcm --output results

        medvae skull --cohort heads.csv --output results --resume
    """
    files = tuple((name, text) for name, text in (("axial", axial), ("sagittal", sagittal), ("coronal", coronal))
                  if text is not None)
    if (bool(files), sample, cohort is not None).count(True) != 1:
        raise UsageError("Give --axial, --sagittal or --coronal (any of them), or --cohort, or --sample, and not "
                         "several of these.")
    if (resume or scheduler) and cohort is None:
        raise UsageError("--resume and --scheduler are for a --cohort.")
    with cancelled_by_signals() as cancel, progress_listener(progress) as listener:
        listener("start", 0.0, "Starting")
        from ..bundle import DEFAULT_SKULL_BUNDLE, load_bundle
        from ..cohort.skull import SkullCase, SkullSettings

        settings = SkullSettings(bundle or DEFAULT_SKULL_BUNDLE, device, samples, seed, spacing, ga)
        quiet = progress is ProgressKind.json
        if cohort is not None:
            _predict_many(cohort, output, settings, scheduler, listener, cancel, quiet, resume=resume, debug=debug)
            return
        if sample:
            from .skull_sample import sample_case

            case = sample_case()
        else:
            case = SkullCase("skull", files, spacing)
        settings.check([case])
        result = settings.run(case, output, load_bundle(settings.bundle), None, listener, cancel)
        _say(result, output, quiet, sample)


def _predict_many(
    table: Path, output: Path, settings: SkullSettings, scheduler: str | None, listener: Progress,
    cancel: CancelToken, quiet: bool, *, resume: bool, debug: bool,
) -> None:
    """Every head in its own folder, with one model; an unusable plane does not keep the others from being done."""
    from ..cohort.skull import read_skull_cases

    cases = read_skull_cases(table)

    def told(row: SkullRow, result: SkullPrediction | None) -> None:
        if row.message:
            print(f"medvae: {row.case}: warning: {row.message}", file=sys.stderr)
        if not quiet:
            print(f"{row.case}: HC {row.hc_mm:.0f} ± {row.hc_std_mm:.1f} mm from {row.planes}")

    run_many(cases, output, settings, scheduler, listener, cancel, told, "heads",
             quiet=quiet, resume=resume, debug=debug)


def _say(result: SkullPrediction, directory: Path, quiet: bool, sample: bool) -> None:
    """What the user sees at the end. With JSON lines (`quiet`) only the warnings, on standard error."""
    warn(result.warnings)
    if quiet:
        return
    from rich.console import Console

    from ..outputs import report_line
    from .skull_sample import biometry_table, sample_truth

    missing = f"; not given: {', '.join(result.planes_missing)}" if result.planes_missing else ""
    print(f"Skull from {', '.join(result.planes_used)}{missing}")
    Console().print(biometry_table(result, sample_truth() if sample else None))
    print(report_line(result.provenance, directory))
