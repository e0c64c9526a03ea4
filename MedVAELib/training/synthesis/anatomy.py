"""Label maps of real heads as the synthesiser's raw material: intensity groups and tissue classes.

An intensity *group* is a structure that gets its own brightness in a synthetic scan; a tissue *class* is what the
network predicts. Several groups share a class (thalamus and striatum are both deep grey).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch

from ...errors import InputError
from ...files.folders import files_below
from ...files.itk_files import stored_image
from ...tissues import (
    BACKGROUND,
    BRAINSTEM,
    CEREBELLUM,
    CORTEX,
    DEEP_GREY,
    EXTRACEREBRAL,
    OUTER_CSF,
    VENTRICLES,
    WHITE,
)

EXTRACEREBRAL_LABELS = (502, 506, 507, 508, 509, 511, 512, 514, 515, 516, 530)

# (name, FreeSurfer labels, tissue class). White-matter lesions and vessels (25, 57, 30, 62 …) are healthy white
# matter in the target: the label maps are of real people and not free of lesions.
GROUPS: tuple[tuple[str, tuple[int, ...], int], ...] = (
    ("background", (0,), BACKGROUND),
    ("white", (2, 41, 28, 60, 85, 25, 57, 30, 62, 136, 137, 163, 164), WHITE),
    ("cortex", (3, 42, 26, 58), CORTEX),
    ("hippocampus", (17, 18, 53, 54), CORTEX),
    ("thalamus", (10, 49), DEEP_GREY),
    ("striatum", (11, 50, 12, 51, 13, 52), DEEP_GREY),
    ("cerebellar white", (7, 46), BRAINSTEM),
    ("cerebellar cortex", (8, 47), CEREBELLUM),
    ("brainstem", (16,), BRAINSTEM),
    ("ventricles", (4, 43, 5, 44, 14, 15, 72), VENTRICLES),
    ("outer csf", (24,), OUTER_CSF),
    *((f"extracerebral {label}", (label,), EXTRACEREBRAL) for label in EXTRACEREBRAL_LABELS),
)
GROUP_INDEX = {name: index for index, (name, _, _) in enumerate(GROUPS)}
TISSUE_OF_GROUP = torch.tensor([tissue for _, _, tissue in GROUPS])


@dataclass(frozen=True)
class Anatomy:
    """One head: intensity groups (uint8, zyx, 1 mm, axes inferior→superior, posterior→anterior, left→right).

    brain_centre and brain_size are in voxels (= mm), zyx.
    """

    name: str
    groups: torch.Tensor
    brain_centre: tuple[float, float, float]
    brain_size: tuple[float, float, float]


def label_map_files(folder: Path, names: Sequence[str] | None = None) -> list[Path]:
    """The label maps in a folder, all or those named. Raises InputError where there are none."""
    files = sorted(Path(folder).glob("*.nii.gz"))
    if names is not None:
        files = [file for file in files if file.name.split(".")[0] in names]
    if not files:
        raise InputError(f"{folder}: no label maps (*.nii.gz) there; name a folder that holds some.")
    return files


def read_anatomy(path: Path) -> Anatomy:
    """Reads a FreeSurfer-numbered label map (1 mm); unknown labels become background."""
    image = sitk.DICOMOrient(stored_image(path, sitk.sitkInt16), "RAS")
    labels = sitk.GetArrayFromImage(image)  # SimpleITK 'RAS' counts towards R, A, S: x left→right, y post→ant
    table = np.zeros(max(int(labels.max()), 530) + 1, np.uint8)
    for index, (_, numbers, _) in enumerate(GROUPS):
        table[list(numbers)] = index
    groups = table[labels]
    brain = np.argwhere((groups > 0) & (groups <= GROUP_INDEX["ventricles"]))
    low, high = brain.min(0), brain.max(0)
    margin = 60  # what a 160×192×160 mm window around a displaced, rotated brain can reach
    crop = tuple(slice(max(0, int(a) - margin), int(b) + margin) for a, b in zip(low, high, strict=True))
    offset = np.array([c.start for c in crop])
    return Anatomy(
        path.name.split(".")[0],
        torch.from_numpy(np.ascontiguousarray(groups[crop])),
        tuple(((low + high) / 2 - offset).tolist()),
        tuple((high - low).astype(float).tolist()),
    )


@dataclass(frozen=True)
class LesionMask:
    """A real lesion in MNI space: fractions (uint8 0…255, zyx, 2 mm) and the first voxel's position in RAS mm (zyx)."""

    fraction: torch.Tensor
    origin_mm: tuple[float, float, float]


LESION_SPACING_MM = 2.0


def lesion_mask_files(folder: Path) -> list[Path]:
    """All below a folder. Raises InputError for one that cannot be read."""
    return sorted(path for path in files_below(folder) if path.name.endswith(".nii.gz"))


def read_lesion_masks(files: Iterable[Path]) -> list[LesionMask]:
    """Lesion masks (1 mm, MNI space), averaged to 2 mm; empty ones are left out."""
    masks = []
    for path in files:
        image = sitk.DICOMOrient(stored_image(path, sitk.sitkFloat32), "RAS")
        mask = torch.from_numpy((sitk.GetArrayFromImage(image) > 0).astype(np.float32))[None, None]
        step = round(LESION_SPACING_MM / image.GetSpacing()[0])
        mask = torch.nn.functional.avg_pool3d(mask, step, ceil_mode=True)
        x, y, z = image.GetOrigin()
        half = (step - 1) / 2 * image.GetSpacing()[0]
        if mask.sum() > 0:
            masks.append(LesionMask((mask[0, 0] * 255).to(torch.uint8), (z + half, -y + half, -x + half)))
    return masks
