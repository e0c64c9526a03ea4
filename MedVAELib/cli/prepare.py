"""`medvae prepare`: scans in, images as models take them out, with one table of all."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import CohortError, UsageError
from ..files.whole_files import writing_to
from ..listening import cancelled_by_signals
from .listeners import progress_listener, warn
from .many import run_many
from .options import DebugOption, DeviceOption, ProgressKind, ProgressOption, SeriesOption, expanded

if TYPE_CHECKING:
    from ..cohort.prepare import PreparedImages, PrepareRow


class PreparationChoice(str, Enum):
    """What images are made of the scans."""

    mni_4mm = "mni-4mm"
    slices = "slices"
    patches = "patches"


class AxisChoice(str, Enum):
    """What slices are perpendicular to."""

    axial = "axial"
    coronal = "coronal"
    sagittal = "sagittal"


class BrainChoice(str, Enum):
    """Where brain masks come from."""

    detector = "detector"
    template = "template"


def prepare(
    scans: Annotated[list[Path], typer.Argument(
        metavar="SCAN...|TABLE.csv", show_default=False, callback=expanded,
        help="Scans, or one CSV table with the columns case and scan, and if wanted series, patient, label, split, "
             "lesion and brain (masks); its other columns, modality too, go with the images and change nothing.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", show_default=False,
                                         help="Folder for the images and their table images.csv.")],
    preparation: Annotated[PreparationChoice, typer.Option(
        help="mni-4mm: the whole brain in MNI space, 40×48×40; slices; patches: non-overlapping pieces of axial slices "
             "that know their share of lesion.")] = PreparationChoice.mni_4mm,
    brain: Annotated[BrainChoice, typer.Option(
        help="Brain masks of scans that bring none: the detector's, or that of an average head, registered.",
    )] = BrainChoice.detector,
    lesions: Annotated[Path | None, typer.Option(
        metavar="TABLE.csv", show_default=False,
        help="Lesion masks of a table's cases: CSV with the columns case and file.")] = None,
    series: SeriesOption = None,
    axis: Annotated[AxisChoice, typer.Option(help="Slices: what they are perpendicular to.")] = AxisChoice.axial,
    first: Annotated[float, typer.Option("--from", min=0, max=1, help="Slices: from which share of the brain.")] = 0.3,
    last: Annotated[float, typer.Option("--to", min=0, max=1, help="Slices: up to which share of the brain.")] = 0.8,
    size: Annotated[int | None, typer.Option(
        metavar="PIXELS", show_default=False,
        help="Side of the square images; by default 224 for slices, 28 for patches.")] = None,
    pixel: Annotated[float | None, typer.Option(
        metavar="MM", show_default=False, help="Edge of a pixel; by default 1 mm for patches, and for slices that "
                                               "with which they show 224 mm.")] = None,
    every: Annotated[int, typer.Option(
        min=1, help="Slices and patches: take every n-th slice; neighbours look alike.")] = 1,
    resume: Annotated[bool, typer.Option(
        "--resume", help="Do only what is missing, failed, or was made in another way.")] = False,
    scheduler: Annotated[str | None, typer.Option(
        "--scheduler", metavar="ADDRESS", show_default=False,
        help="Compute on the Dask cluster of this scheduler (host:port).")] = None,
    device: DeviceOption = "auto",
    progress: ProgressOption = ProgressKind.bar,
    debug: DebugOption = False,
) -> None:
    """Bring scans into the form that image autoencoders are trained on, as published.

    mni-4mm: affine to MNI space by mutual information, brain mask, mean over 4×4×4 mm, clipped at the 99.5th
    percentile, scaled to 0…1. Writes a folder per scan, images.csv for 'medvae train', and summary.csv.

    Examples:

        medvae prepare a.nii.gz b.nii.gz --output prepared

        medvae prepare scans.csv --preparation slices --axis axial --from 0.4 --to 0.7 --size 160 --output slices

        medvae prepare strokes/images.csv --lesions strokes/lesions.csv --preparation patches --output patches
    """
    with cancelled_by_signals() as cancel, progress_listener(progress) as listener:
        listener("start", 0.0, "Starting")
        from ..cohort import cases_of_paths
        from ..cohort.prepare import (
            PrepareCase,
            PrepareSettings,
            check_images_table,
            read_prepare_cases,
            write_images_table,
        )
        from ..files.csv_files import is_table
        from ..preprocessing.slices import PatchSettings, SliceSettings

        table = scans[0] if len(scans) == 1 and is_table(scans[0]) else None
        if lesions is not None and table is None:
            raise UsageError("--lesions goes with one CSV table of cases.")
        cases = read_prepare_cases(table, lesions) if table else [
            PrepareCase(case.name, case.scan, case.name) for case in cases_of_paths(scans)]
        chosen: dict[str, Any] = {"size": size, "pixel_mm": pixel}
        try:
            slices = SliceSettings(axis.value, first, last, every=every, **_given(chosen))
            patches = PatchSettings(every=every, **_given({"side": size, "pixel_mm": pixel}))
        except ValueError as error:
            raise UsageError(f"These settings do not go together: {error}.") from None
        settings = PrepareSettings(preparation.value, slices, patches, brain.value, device=device, series=series)
        check_images_table(output, table)
        rows: dict[str, PrepareRow] = {}

        def told(row: PrepareRow, result: PreparedImages | None) -> None:
            rows[row.case] = row
            warn(result.warnings if result else ())

        quiet, failure = progress is ProgressKind.json, None
        try:
            run_many(cases, output, settings, scheduler, listener, cancel, told, "scans",
                     quiet=quiet, resume=resume, debug=debug)
        except CohortError as error:
            failure = error
        with writing_to(output):
            done = [case for case in cases if case.name in rows]
            images = write_images_table(done, [rows[case.name] for case in done], output)
        if failure:
            raise failure
    if not quiet:
        print(f"Table of the images: {images}")


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
