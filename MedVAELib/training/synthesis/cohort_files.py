"""A synthetic cohort on disk: images, lesions and the table that trainings and the latent tasks read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from ... import __version__
from ...errors import InputError, UsageError
from ...files.csv_files import write_csv
from ...files.folders import unreadable
from ...files.itk_files import stored_image
from ...files.nifti_files import write_nifti_gz
from ...files.whole_files import replaced, writing_to
from ...preprocessing.geometry import like
from ...preprocessing.mni import mni_grid
from ...preprocessing.model_image import block_means, model_image
from ...progress import CancelToken, Progress, no_progress, scaled
from .anatomy import label_map_files, lesion_mask_files, read_lesion_masks
from .cohort import HEALTHY, KINDS, SPACING_MM, CohortCase, CohortSynthesiser, least_count, plan
from .mni_heads import MniHead, read_heads

IMAGES_FILE, LESIONS_FILE, REQUEST_FILE = "images.csv", "lesions.csv", "cohort.json"
_LESIONS_FOLDER = "lesions"
SPACINGS_MM = (2.0, 4.0)
_SHARE_OF_HEADS = 0.1


@dataclass(frozen=True)
class CohortRequest:
    """What decides a cohort. spacing_mm: 4 for the models' grid (40×48×40), 2 for 80×96×80.

    Raises UsageError for values out of range.
    """

    kind: str
    count: int
    seed: int = 0
    spacing_mm: float = 4.0
    confounded: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UsageError(f"There is no cohort of kind '{self.kind}': use one of {', '.join(KINDS)}.")
        if self.count < 1:
            raise UsageError(f"A cohort has at least one case, not {self.count}.")
        if self.spacing_mm not in SPACINGS_MM:
            raise UsageError(f"Cohorts are made at 2 or 4 mm, not at {self.spacing_mm:g}.")


def write_cohort(
    request: CohortRequest, label_maps: Path, lesion_masks: Path, output: Path, progress: Progress = no_progress,
    cancel: CancelToken | None = None, heads: Sequence[MniHead] | None = None,
) -> Path:
    """Writes `images.csv`, the images it lists, and `lesions.csv` with the fraction of lesion beside each; returns the
    table. The same request with the same label maps and masks goes on where it was interrupted.

    lesion_masks: the folder that holds ms_ljubljana and stroke_soop. heads: those of `label_maps` where they were read
    before. Raises UsageError for a folder with another cohort or other files of these names in it, or that cannot be
    written, InputError where label maps or masks are missing, Cancelled.
    """
    cancel = cancel or CancelToken()
    maps, mask_files = label_map_files(label_maps), _mask_files(request, lesion_masks)
    sources = {"label_maps": _sizes(maps, label_maps), "lesion_masks": _sizes(mask_files, lesion_masks)}
    masks = read_lesion_masks(mask_files)
    try:
        cases = plan(request.kind, request.count, request.seed, len(maps), len(masks), request.confounded)
    except ValueError as error:
        raise UsageError(f"This cohort cannot be made: {error}.") from None
    _claim(output, {"medvae_version": __version__, **asdict(request), **sources}, [case.name for case in cases])
    _warn_of_few(request, len(maps), progress)
    heads = heads if heads is not None else read_heads(label_maps, scaled(progress, 0.0, _SHARE_OF_HEADS), cancel)
    synthesise = CohortSynthesiser(request.kind, heads, masks)
    rows = []
    with writing_to(output):
        for number, case in enumerate(cases):
            cancel.check()
            rows.append(_write_case(case, synthesise, request.spacing_mm, output))
            progress("cases", _SHARE_OF_HEADS + (1 - _SHARE_OF_HEADS) * (number + 1) / len(cases), case.name)
        table = [_row(case, heads[case.head].name) for case in cases]
        for file, lines in ((LESIONS_FILE, [row for row in rows if row]), (IMAGES_FILE, table)):
            write_csv(output / file, lines, list(lines[0]) if lines else ["case"])
    return output / IMAGES_FILE


def _warn_of_few(request: CohortRequest, heads: int, progress: Progress) -> None:
    """Before the heads are read, which takes minutes."""
    least = least_count(request.kind, heads)
    if request.count < least:
        progress("warning", 0.0, f"{request.count} scans are too few to train on and to judge by: make {least} at "
                 "least (--count), with which every part of the split has a head with every label.")


def _mask_files(request: CohortRequest, folder: Path) -> list[Path]:
    name = KINDS[request.kind].masks
    if not name:
        return []
    found = lesion_mask_files(Path(folder) / name) if (Path(folder) / name).is_dir() else []
    if not found:
        raise InputError(f"{Path(folder) / name} holds no lesion masks (*.nii.gz): a cohort of kind {request.kind} "
                         "needs them.")
    return found


def _sizes(files: Sequence[Path], folder: Path) -> dict[str, int]:
    """Bytes of every file by its path in the folder: which head and mask a case shows follows from all of them. Raises
    InputError for one that is not there."""
    try:
        return {file.relative_to(folder).as_posix(): file.stat().st_size for file in files}
    except OSError as error:
        raise unreadable(error) from None


def _claim(output: Path, wanted: dict[str, Any], cases: Sequence[str]) -> None:
    """Notes in the folder what the cohort is made of, or finds it there.

    Raises UsageError for a folder that holds another cohort, or somebody's files where the cohort's would come.
    """
    file = output / REQUEST_FILE
    try:
        output.mkdir(parents=True, exist_ok=True)
        if file.exists():
            if json.loads(file.read_text(encoding="utf-8")) != wanted:
                raise UsageError(f"{output} holds a cohort that was made in another way: choose another --output.")
            return
        names = (IMAGES_FILE, LESIONS_FILE, _LESIONS_FOLDER, *map(_image_name, cases))
        if taken := next((name for name in names if (output / name).exists()), ""):
            raise UsageError(f"{output / taken} exists and is of no cohort of this command: choose another --output.")
        with replaced(file) as temporary:
            temporary.write_text(json.dumps(wanted, indent=2) + "\n", encoding="utf-8")
    except (OSError, TypeError, ValueError) as error:
        raise UsageError(f"{output} cannot be used for a cohort ({error}): choose another --output.") from error


def _write_case(case: CohortCase, synthesise: CohortSynthesiser, spacing_mm: float, output: Path) -> dict[str, object]:
    """Makes and writes a case unless it is there; its line for the table of lesions, empty for healthy ones."""
    image, lesion = output / _image_name(case.name), output / _LESIONS_FOLDER / _image_name(case.name)
    sick = case.label != HEALTHY
    if not image.exists():
        scan, factor = synthesise(case), round(spacing_mm / SPACING_MM)
        if sick:
            lesion.parent.mkdir(exist_ok=True)
            _write_volume(block_means(scan.lesion, factor), spacing_mm, lesion)
        _write_volume(model_image(scan.values, scan.brain, factor), spacing_mm, image)  # last: it marks what is done
    if not sick:
        return {}
    fraction = sitk.GetArrayFromImage(stored_image(lesion))
    return {"case": case.name, "file": f"{lesion.parent.name}/{lesion.name}",
            "lesion_ml": round(float(fraction.sum()) * spacing_mm**3 / 1000, 3), "mask": case.mask}


def _row(case: CohortCase, head: str) -> dict[str, object]:
    return {"file": _image_name(case.name), "case": case.name, "patient": f"head{head}", "label": case.label,
            "split": case.split, **asdict(case.acquisition)}


def _image_name(case: str) -> str:
    return f"{case}.nii.gz"


def _write_volume(values_zyx: NDArray[np.float32], spacing_mm: float, path: Path) -> None:
    image = like(values_zyx.astype(np.float32), mni_grid(spacing_mm))
    write_nifti_gz(image, path, sitk.sitkFloat32, "MedVAE synthetic, 0 to 1")
