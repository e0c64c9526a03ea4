"""`medvae synthesise`: cohorts of synthetic patients made from label maps of real heads."""

from __future__ import annotations

import os
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from ..errors import UsageError
from ..listening import cancelled_by_signals
from .listeners import progress_listener, spoken
from .options import DebugOption, ProgressKind, ProgressOption

app = typer.Typer(no_args_is_help=True, help="Make synthetic images with known truth from label maps of real heads.")


class KindChoice(str, Enum):
    """What the patients of a cohort have."""

    flair_leuko = "flair-leuko"
    flair_healthy = "flair-healthy"
    dwi_strokes = "dwi-strokes"


@app.command("cohort")
def cohort(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", show_default=False,
                                         help="Folder for the images and their table images.csv.")],
    kind: Annotated[KindChoice, typer.Option(
        help="flair-leuko: healthy, MS with real masks, leukoencephalopathy of grades 1 to 3; flair-healthy; "
             "dwi-strokes: healthy and strokes with real masks.")] = KindChoice.flair_leuko,
    count: Annotated[int, typer.Option(min=1, help="How many scans.")] = 700,
    seed: Annotated[int, typer.Option(min=0, help="The same seed makes the same cohort.")] = 0,
    spacing: Annotated[float, typer.Option(
        metavar="2|4", help="Voxels in mm: 4 for images of 40×48×40 as the models take them, 2 for 80×96×80.")] = 4.0,
    confounded: Annotated[bool, typer.Option(
        "--confounded", help="Let the scanner's settings follow the label, as when every disease has its own scanner.",
    )] = False,
    label_maps: Annotated[Path | None, typer.Option(
        metavar="DIR", show_default=False,
        help="FreeSurfer-numbered label maps of whole heads; by default those below $MEDVAE_DATA.")] = None,
    lesion_masks: Annotated[Path | None, typer.Option(
        metavar="DIR", show_default=False,
        help="Folder with real lesion masks in MNI space, ms_ljubljana and stroke_soop; by default below $MEDVAE_DATA.",
    )] = None,
    progress: ProgressOption = ProgressKind.bar,
    debug: DebugOption = False,
) -> None:
    """Make a cohort of scans in MNI space, brain-masked and scaled like prepared scans, split by anatomy.

    images.csv lists file, case, patient (the label map), label, split and the scanner's settings; lesions.csv the
    fraction of lesion in every voxel. The same command goes on where it was interrupted.

    Examples:

        medvae synthesise cohort --kind flair-leuko --count 700 --output cohort

        medvae synthesise cohort --kind flair-leuko --confounded --count 700 --output confounded

        medvae synthesise cohort --kind dwi-strokes --spacing 2 --count 100 --output strokes
    """
    with cancelled_by_signals() as cancel, progress_listener(progress) as listener:
        listener("start", 0.0, "Starting")
        from ..training.synthesis.cohort_files import CohortRequest, write_cohort

        request = CohortRequest(kind.value, count, seed, spacing, confounded)
        table = write_cohort(request, label_maps or _below_data("label_maps", "--label-maps"),
                             lesion_masks or _below_data("lesion_masks", "--lesion-masks"), output,
                             spoken(listener), cancel)
    if progress is not ProgressKind.json:
        print(f"Table of {count} images: {table}")


def _below_data(name: str, option: str) -> Path:
    data = os.environ.get("MEDVAE_DATA")
    if not data:
        raise UsageError(f"Give {option}, or set MEDVAE_DATA to the folder that holds brain/{name}.")
    return Path(data) / "brain" / name
