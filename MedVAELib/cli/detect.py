"""`medvae detect`: scans in, a folder of results for each out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import Cancelled, CohortError, DeviceMemoryError, MedVAEError, UsageError
from ..progress import CancelToken, Progress, scaled
from .listeners import cancelled_by_signals, progress_listener
from .options import DebugOption, DeviceOption, ProgressKind, ProgressOption

if TYPE_CHECKING:
    from ..anomaly.result import Detection
    from .sample import Outcome

_SHARE_OF_WRITING = 0.15  # of a scan's progress, the rest being the detection
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
        metavar="SCAN", show_default=False,
        help="FLAIR or DWI brain scans: files (NIfTI, NRRD, MetaImage, ...) or DICOM folders.")] = None,
    sample: Annotated[bool, typer.Option(
        "--sample", help="Use the sample scan that comes with MedVAE, and compare with what was put into it.")] = False,
    modality: Annotated[ModalityChoice, typer.Option(
        help="Kind of scan; 'auto' decides from the image and says so.")] = ModalityChoice.auto,
    bundle: Annotated[str | None, typer.Option(
        metavar="NAME|DIR", show_default=False,
        help="Model to use (see 'medvae bundles list'); by default the one shipped with MedVAE.")] = None,
    samples: Annotated[int, typer.Option(
        min=1, max=1024,
        help="Posterior samples drawn: more give a smoother standard deviation, and take longer.")] = 16,
    fpr: Annotated[float, typer.Option(
        min=0.00001, max=0.5, help="Share of healthy brain voxels that the mask may flag by mistake.")] = 0.01,
    score: Annotated[str, typer.Option(
        metavar="NAME",
        help="Anomaly score: zscore, absolute, reconstruction_probability, kl_gradient or ssim.")] = "zscore",
    series: Annotated[str | None, typer.Option(
        metavar="NAME", show_default=False, help="Which series of a DICOM folder, when it holds several.")] = None,
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

        medvae detect a.nii.gz b.nii.gz --device cuda:1 --output results
    """
    if bool(scans) == sample:
        raise UsageError("Give one or more scans to detect on, or --sample, and not both.")
    settings: dict[str, Any] = {"samples": samples, "fpr": fpr, "score": score, "device": device, "seed": seed}
    with cancelled_by_signals() as cancel, progress_listener(progress) as listener:
        listener("start", 0.0, "Starting")
        from ..bundle import DEFAULT_ANOMALY_BUNDLE, load_bundle
        from .sample import compare_with_truth, sample_scan

        settings["bundle"] = load_bundle(bundle or DEFAULT_ANOMALY_BUNDLE)
        quiet = progress is ProgressKind.json
        if sample:
            result = _detect_one(sample_scan(), output, "auto", None, settings, listener, cancel)
            _say(result, output, quiet, compare_with_truth(result))
        elif len(scans) == 1:
            result = _detect_one(scans[0], output, modality.value, series, settings, listener, cancel)
            _say(result, output, quiet)
        else:
            _detect_many(scans, output, modality.value, series, settings, listener, cancel, quiet)


def _detect_many(
    scans: Sequence[Path], output: Path, modality: str, series: str | None, settings: dict[str, Any],
    listener: Progress, cancel: CancelToken, quiet: bool,
) -> None:
    """Every scan in its own folder, with one detector; an unusable scan does not keep the others from being done."""
    from ..anomaly.detect import Detector

    settings = {**settings, "detector": Detector.load(settings["bundle"], settings["device"])}
    failed = 0
    for index, (scan, case) in enumerate(zip(scans, case_names(scans), strict=True)):
        part = scaled(listener, index / len(scans), (index + 1) / len(scans))
        try:
            result = _detect_one(scan, output / case, modality, series, settings, part, cancel)
        except (Cancelled, DeviceMemoryError):
            raise
        except MedVAEError as error:
            failed += 1
            print(f"medvae: {case}: {error}", file=sys.stderr)
        else:
            _say(result, output / case, quiet)
    if failed:
        raise CohortError(f"{failed} of {len(scans)} scans failed, for the reasons above; "
                          f"the results of the others are in {output}.")


def _detect_one(
    path: Path, directory: Path, modality: str, series: str | None, settings: dict[str, Any],
    listener: Progress, cancel: CancelToken,
) -> Detection:
    from ..outputs import check_writable, write_detection

    check_writable(directory)
    listener("read", 0.0, f"Reading {path.name}")
    from ..anomaly.detect import detect_anomalies
    from ..scan import Scan

    cancel.check()
    scan = Scan.read(path, modality=modality, series=series)
    cancel.check()
    result = detect_anomalies(scan, progress=scaled(listener, 0.0, 1.0 - _SHARE_OF_WRITING), cancel=cancel, **settings)
    write_detection(result, directory, progress=scaled(listener, 1.0 - _SHARE_OF_WRITING, 1.0), cancel=cancel)
    return result


def case_names(scans: Sequence[Path]) -> list[str]:
    """A folder name for each scan, from its file name; where that is not unique, with its folder's name before it."""
    names = [_stem(scan) for scan in scans]
    names = [f"{scan.resolve().parent.name}_{name}" if names.count(name) > 1 else name
             for scan, name in zip(scans, names, strict=True)]
    unique: list[str] = []
    for name in names:
        candidate, number = name, 2
        while candidate in unique:
            candidate, number = f"{name}_{number}", number + 1
        unique.append(candidate)
    return unique


def _stem(scan: Path) -> str:
    name = scan.name or scan.resolve().name
    for suffix in (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".img.gz", ".hdr", ".dcm"):
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[:-len(suffix)]
    return name


def _say(result: Detection, directory: Path, quiet: bool, outcome: Outcome | None = None) -> None:
    """What the user sees at the end. With JSON lines (`quiet`) only the warnings, on standard error."""
    for warning in result.warnings:
        print(f"medvae: warning: {warning}", file=sys.stderr)
    if quiet:
        return
    from rich.console import Console

    console = Console()
    console.print(_findings_table(result) if result.findings else
                  f"No anomaly at a false-positive rate of {result.fpr:g}.")
    if len(result.findings) > _ROWS_SHOWN:
        print(f"... and {len(result.findings) - _ROWS_SHOWN} more in {directory / 'findings.csv'}")
    if outcome is not None:
        from .sample import outcome_table

        console.print(outcome_table(outcome))
        print(outcome.sentence)
    print(f"Report: {directory / 'report.html'}")


def _findings_table(result: Detection) -> object:
    from rich.table import Table

    table = Table(title=f"Findings ({result.modality}, {len(result.findings)})", title_justify="left")
    for column in ("#", "location", "kind"):
        table.add_column(column)
    for column in ("ml", "peak", "R mm", "A mm", "S mm"):
        table.add_column(column, justify="right")
    for finding in result.findings[:_ROWS_SHOWN]:
        table.add_row(str(finding.label), finding.location, finding.polarity, f"{finding.volume_ml:.2f}",
                      f"{finding.peak:.1f}", *(f"{value:.0f}" for value in finding.centroid_ras_mm))
    return table
