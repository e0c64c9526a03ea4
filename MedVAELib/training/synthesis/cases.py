"""Synthetic scans as images in space with their truth: for calibration, evaluation and the bundled sample."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ...files.nifti_files import write_nifti_gz
from ...files.whole_files import writing_to
from ...preprocessing.geometry import like, ras_grid
from ...progress import CancelToken, Progress, no_progress
from ...scan import Scan
from ...tissues import BRAIN
from ..brains import load_synthesiser
from .brains import BrainSynthesiser, SynthesisConfig

LESION_FRACTION = 0.5
"""A voxel belongs to the truth mask when at least half of it is lesion."""


@dataclass(frozen=True)
class SyntheticCase:
    """scan: float32, arbitrary units; lesions, brain: uint8 masks on its grid (brain without the lesions' effect)."""

    scan: Scan
    lesions: sitk.Image
    brain: sitk.Image


def case_config(modality: str, healthy: bool, spacing_mm: float = 1.0) -> SynthesisConfig:
    """Realistic scans of one modality at `spacing_mm`: whole field of view, no coarse noise, bright lesions or none."""
    shape = tuple(int(16 * np.ceil(n / spacing_mm / 16)) for n in (176, 208, 176))
    base = SynthesisConfig(
        shape=shape, spacing_mm=spacing_mm, flair=float(modality == "flair"), dwi=float(modality == "dwi"),
        lesions=0.0 if healthy else 1.0, tumour=0.0, bright=1.0, real_masks=1.0, blobs=0.5, coarse_noise=0.0,
        truncated=0.0, thick_slices=0.3,
    )
    # Acute infarcts were measured at 2.4 to 2.7 times the white matter; training goes down to 1.3, below the cortex.
    return replace(base, blobs=0.0, lesion_brightness=(1.8, 3.0)) if modality == "dwi" else base


def synthetic_case(synthesise: BrainSynthesiser, seed: int, modality: str) -> SyntheticCase:
    """Scan number `seed` of a synthesiser as a case; `modality` is given to the scan as requested by the user."""
    made = synthesise(seed)
    grid = ras_grid((0.0, 0.0, 0.0), made.image.shape[1:], synthesise.config.spacing_mm)
    image = like(made.image[0].numpy().astype(np.float32) * 1000, grid)
    brain = made.target[list(BRAIN)].sum(0).numpy() > 0.5
    return SyntheticCase(
        Scan.from_image(image, modality, f"synthetic_{modality}_{seed:03d}"),
        like((made.lesions.numpy() >= LESION_FRACTION).astype(np.uint8), grid), like(brain.astype(np.uint8), grid),
    )


def write_cases(
    label_maps: Path, output: Path, modality: str, scans: int, lesion_masks: Path | None = None,
    names: list[str] | None = None, seed: int = 0, progress: Progress = no_progress,
    cancel: CancelToken | None = None,
) -> list[Path]:
    """Writes `scans` cases in the layout that `medvae evaluate` reads; healthy ones where there are no lesion masks.

    A case: flair.nii.gz or dwi.nii.gz, brainmask.nii.gz and, with lesions, mask.nii.gz. names: label maps to use.
    Raises UsageError when the folder cannot be written, Cancelled with the cases so far.
    """
    healthy, output, cancel = lesion_masks is None, Path(output), cancel or CancelToken()
    synthesise = load_synthesiser(label_maps, lesion_masks, case_config(modality, healthy), "cpu", names)
    folders = []
    for number in range(scans):
        cancel.check()
        case = synthetic_case(synthesise, seed + number, modality)
        cancel.check()
        folder = output / f"{'healthy' if healthy else 'lesions'}_{modality}_{seed + number:04d}"
        with writing_to(output):
            _write_case(case, folder, modality, healthy, cancel)
        folders.append(folder)
        progress("cases", (number + 1) / scans, folder.name)
    return folders


def _write_case(case: SyntheticCase, folder: Path, modality: str, healthy: bool, cancel: CancelToken) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_nifti_gz(case.brain, folder / "brainmask.nii.gz", sitk.sitkUInt8, "MedVAE synthetic, brain", cancel)
    if not healthy:
        write_nifti_gz(case.lesions, folder / "mask.nii.gz", sitk.sitkUInt8, "MedVAE synthetic, lesions", cancel)
    # Last: a folder is a case by its scan, which would be one without lesions as long as the mask is missing.
    write_nifti_gz(case.scan.image, folder / f"{modality}.nii.gz", sitk.sitkFloat32, "MedVAE synthetic scan", cancel)
