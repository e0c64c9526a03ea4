"""`medvae detect`: scans in, a folder of results for each out."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import UsageError
from ..listening import cancelled_by_signals
from ..progress import CancelToken, Progress
from .listeners import progress_listener, warn
from .many import run_many
from .options import BundleOption, DebugOption, DeviceOption, ProgressKind, ProgressOption, SeriesOption, expanded

if TYPE_CHECKING:
    from ..anomaly.result import Detection
    from ..cohort import Case, CaseRow, Settings
    from .sample import Outcome

_ROWS_SHOWN = 10


class ModalityChoice(str, Enum):
    """What kind of scan it is."""

    auto = "auto"
    flair = "flair"
    dwi = "dwi"


def detect(
    output: Annotated[Path, typer.Option(
        "--output", "-o", metavar="DIR", show_default=False,
        help="Folder for the results; with several scans, one folder in it per scan.")],
    scans: Annotated[list[Path] | None, typer.Argument(
        metavar="SCAN", show_default=False, callback=expanded,
        help="FLAIR or DWI brain scans: files (NIfTI, NRRD, MetaImage, ...) or DICOM folders.")] = None,
    sample: Annotated[bool, typer.Option(
        "--sample", help="Use the sample scan that comes with MedVAE, and compare with what was put into it.")] = False,
    cohort: Annotated[Path | None, typer.Option(
        "--cohort", metavar="FILE", show_default=False,
        help="CSV file with the columns case and scan, and if wanted modality and series: one scan per line.")] = None,
    resume: Annotated[bool, typer.Option(
        "--resume", help="With several scans: do only what is missing, failed, or was made in another way.")] = False,
    scheduler: Annotated[str | None, typer.Option(
        "--scheduler", metavar="ADDRESS", show_default=False,
        help="With several scans: compute on the Dask cluster of this scheduler (host:port).")] = None,
    modality: Annotated[ModalityChoice, typer.Option(
        help="Kind of scan; 'auto' decides from the image and says so.")] = ModalityChoice.auto,
    bundle: BundleOption = None,
    samples: Annotated[int, typer.Option(
        min=1, help="Posterior samples drawn: more give a smoother standard deviation, and take longer.")] = 16,
    fpr: Annotated[float, typer.Option(
        min=0.00001, max=0.5, help="Share of healthy brain voxels that the mask may flag by mistake.")] = 0.01,
    score: Annotated[str, typer.Option(
        metavar="NAME",
        help="Anomaly score: zscore, absolute, reconstruction_probability, kl_gradient or ssim.")] = "zscore",
    series: SeriesOption = None,
    device: DeviceOption = "auto",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the posterior samples: same seed, same result.")] = 0,
    progress: ProgressOption = ProgressKind.bar,
    debug: DebugOption = False,
) -> None:
    """Find where brain scans depart from healthy anatomy.

    Writes into DIR a report, a table of findings, and maps on exactly the scan's own grid:
    anomaly score, mask, healthy reconstruction, residual, standard deviation.

    Examples:

        medvae detect --sample --output demo_output

        medvae detect flair.nii.gz --output results

        medvae detect dicom_folder --series "AX FLAIR" --fpr 0.005 --output results

        medvae detect dwi_4d.nii.gz --series "b-value 1000" --output results

        medvae detect a.nii.gz b.nii.gz --device cuda:1 --output results

        medvae detect --cohort cases.csv --output results --resume
    """
    if (bool(scans), sample, cohort is not None).count(True) != 1:
        raise UsageError("Give one or more scans to detect on, or --cohort, or --sample, and not several of them.")
    many = cohort is not None or len(scans or []) > 1
    if (resume or scheduler) and not many:
        raise UsageError("--resume and --scheduler are for several scans or a --cohort.")
    if sample and (series is not None or modality is not ModalityChoice.auto):
        raise UsageError("--series and --modality are for scans of your own: leave them out with --sample.")
    with cancelled_by_signals() as cancel, progress_listener(progress) as listener:
        listener("start", 0.0, "Starting")
        from ..bundle import DEFAULT_ANOMALY_BUNDLE, load_bundle
        from ..cohort import Case, Settings, cases_of_paths, read_cases
        from ..cohort.detect import detect_case
        from .sample import compare_with_truth, sample_scan

        settings = Settings(bundle or DEFAULT_ANOMALY_BUNDLE, device, samples, fpr, score, seed, modality.value, series)
        quiet = progress is ProgressKind.json
        if many:
            cases = read_cases(cohort) if cohort is not None else cases_of_paths(scans)
            _detect_many(cases, output, settings, scheduler, listener, cancel, quiet, resume=resume, debug=debug)
            return
        case = Case("sample", sample_scan()) if sample else cases_of_paths(scans)[0]
        settings.check([case])
        result = detect_case(case, output, settings, load_bundle(settings.bundle), None, listener, cancel)
        _say(result, output, quiet, compare_with_truth(result) if sample else None)


def _detect_many(
    cases: Sequence[Case], output: Path, settings: Settings, scheduler: str | None, listener: Progress,
    cancel: CancelToken, quiet: bool, *, resume: bool, debug: bool,
) -> None:
    """Every scan in its own folder, with one detector; an unusable scan does not keep the others from being done."""

    def told(row: CaseRow, result: Detection | None) -> None:
        if result is not None:
            _say(result, output / row.case, quiet)
        elif not quiet:
            print(f"{row.case}: {row.findings} findings, {row.volume_ml:g} ml in all")

    run_many(cases, output, settings, scheduler, listener, cancel, told, "scans",
             quiet=quiet, resume=resume, debug=debug)


def _say(result: Detection, directory: Path, quiet: bool, outcome: Outcome | None = None) -> None:
    """What the user sees at the end. With JSON lines (`quiet`) only the warnings, on standard error."""
    warn(result.warnings)
    if quiet:
        return
    from rich.console import Console

    from ..outputs import report_line
    from ..reporting import words

    console = Console()
    console.print(_findings_table(result) if result.findings else
                  words.summary([], words.flagged_ml(result)))
    if len(result.findings) > _ROWS_SHOWN:
        print(f"... and {len(result.findings) - _ROWS_SHOWN} more in {directory / 'findings.csv'}")
    if outcome is not None:
        from .sample import outcome_table

        console.print(outcome_table(outcome))
        print(outcome.sentence)
    print(report_line(result.provenance, directory))


def _findings_table(result: Detection) -> object:
    from rich.table import Table

    table = Table(title=f"Findings ({result.modality}, {len(result.findings)})", title_justify="left")
    for column in ("#", "location", "kind"):
        table.add_column(column)
    for column in ("ml", "peak", "mean", "R mm", "A mm", "S mm"):
        table.add_column(column, justify="right")
    for finding in result.findings[:_ROWS_SHOWN]:
        table.add_row(str(finding.label), finding.location, finding.polarity, f"{finding.volume_ml:.2f}",
                      f"{finding.peak:.1f}", f"{finding.mean:.1f}",
                      *(f"{value:.0f}" for value in finding.centroid_ras_mm))
    return table
