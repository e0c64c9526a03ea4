"""The average head: a FLAIR-like intensity image with its brain probability, built from whole-head label maps.

    python -m MedVAELib.preprocessing.atlas LABEL_MAPS OUT

Built by affine alignment of every label map and its mirror image to their common average (two rounds, the mean
transform removed after each, so that the atlas has the average size and pose; Guimond et al. 2000 in its affine form).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy.ndimage import binary_fill_holes, distance_transform_edt

from ..errors import InputError
from ..files.itk_files import itk_name
from ..files.nifti_files import write_nifti_gz
from ..resources import resource_dir
from .geometry import like, ras_grid
from .registration import quick, register_affine

SPACING_MM = 2.0
SIZE_XYZ = (96, 118, 100)
CENTRE_RAS_MM = (0.0, -14.0, -4.0)
# Where the centroid of the brain lies in the common stereotaxic frames (origin near the anterior commissure).
BRAIN_CENTROID_RAS_MM = (0.0, -18.0, 10.0)
ROUNDS = 2

# Brightness of each label in a FLAIR-like image, white matter = 100. FreeSurfer numbering plus extracerebral classes.
INTENSITIES: dict[float, tuple[int, ...]] = {
    100: (2, 41, 7, 46, 16, 28, 60, 77, 85, 25, 57, 512),
    125: (3, 42, 8, 47, 17, 18, 53, 54),
    110: (10, 11, 12, 13, 26, 49, 50, 51, 52, 58, 136, 137, 163, 164),
    10: (4, 5, 14, 15, 24, 43, 44, 72, 506),
    20: (515,),  # compact bone
    40: (30, 62, 514, 502),  # vessels and sinuses
    75: (507, 508, 509, 530),  # soft tissue
    90: (511, 516),  # skin and fat, marrow
}
CSF_OUTSIDE = 24
FIRST_EXTRACEREBRAL = 500
CLOSING_MM = 4.0


@dataclass(frozen=True)
class Atlas:
    """intensity: float32, white matter about 100, head included. brain: float32 probability in 0…1. Same 2 mm grid."""

    intensity: sitk.Image
    brain: sitk.Image


@lru_cache(maxsize=1)
def load_atlas() -> Atlas:
    """The shipped atlas. Raises InputError when its files are missing."""
    return read_atlas(resource_dir() / "atlas")


def read_atlas(folder: Path) -> Atlas:
    """The atlas that `build_atlas` wrote into `folder`. Raises InputError when its files are missing."""
    images = {}
    for name in ("intensity", "brain"):
        path = folder / f"{name}.nii.gz"
        if not path.is_file():
            raise InputError(f"The atlas file {path} is missing; install MedVAE with its Resources folder.")
        images[name] = sitk.ReadImage(itk_name(path), sitk.sitkFloat32)
    return Atlas(images["intensity"], images["brain"] / 255.0)


def atlas_grid() -> sitk.Image:
    """An empty uint8 image on the atlas grid: axes R, A, S; 2 mm; symmetric about the midsagittal plane."""
    return ras_grid(CENTRE_RAS_MM, SIZE_XYZ[::-1], SPACING_MM)


def brain_of_labels(tissue: np.ndarray, spacing_mm: float) -> np.ndarray:
    """Brain mask (bool, zyx) of brain tissue and ventricles: sulci closed (4 mm), without the outer rim of CSF."""
    pad = int(np.ceil(2 * CLOSING_MM / spacing_mm))
    padded = np.pad(tissue, pad)
    grown = distance_transform_edt(~padded) * spacing_mm <= CLOSING_MM
    closed = distance_transform_edt(grown) * spacing_mm > CLOSING_MM
    return binary_fill_holes(closed | padded)[pad:-pad, pad:-pad, pad:-pad]


def head_of_labels(labels: sitk.Image) -> tuple[sitk.Image, sitk.Image]:
    """(FLAIR-like intensity, brain mask) of one label map, both float32 at half its resolution, moved to the atlas.

    Moved: the centroid of the brain lies where the atlas has it. Raises InputError for a map without brain.
    """
    array = sitk.GetArrayViewFromImage(labels)
    table = np.zeros(max(int(array.max()), 1024) + 1, np.float32)
    for value, ids in INTENSITIES.items():
        table[list(ids)] = value
    tissue = (array > 0) & (array < FIRST_EXTRACEREBRAL) & (array != CSF_OUTSIDE)
    intensity, fraction = (sitk.BinShrink(like(volume, labels), [2, 2, 2])
                           for volume in (table[np.clip(array, 0, None)], tissue.astype(np.float32)))
    mask = brain_of_labels(sitk.GetArrayViewFromImage(fraction) >= 0.5, float(np.mean(fraction.GetSpacing())))
    if not mask.any():
        raise InputError("A label map holds no brain label; the atlas needs whole-head maps in FreeSurfer numbering.")
    brain = like(mask.astype(np.float32), fraction)
    index = [float(v) for v in np.argwhere(mask).mean(0)[::-1]]
    r, a, s = BRAIN_CENTROID_RAS_MM
    shift = np.array([-r, -a, s]) - brain.TransformContinuousIndexToPhysicalPoint(index)
    for image in (intensity, brain):
        image.SetOrigin(tuple(np.array(image.GetOrigin()) + shift))
    return intensity, brain


def build_atlas(label_maps_dir: Path, output: Path) -> Atlas:
    """Averages every label map in `label_maps_dir` into `output`/intensity.nii.gz and brain.nii.gz (uint8).

    Raises InputError for a folder without label maps. Two minutes and 1 GB for twenty maps of 256³ on one core.
    """
    paths = sorted(p for p in Path(label_maps_dir).iterdir() if p.name.endswith((".nii", ".nii.gz")))
    if not paths:
        raise InputError(f"{label_maps_dir} holds no label maps (*.nii.gz).")
    heads = [head_of_labels(sitk.ReadImage(itk_name(p), sitk.sitkInt16)) for p in paths]
    transforms = [sitk.AffineTransform(3) for _ in heads]
    for round_number in range(ROUNDS):
        average = _symmetric_mean([head for head, _ in heads], transforms)
        recipe = quick(average)
        transforms = [register_affine(average, head, recipe, transform)
                      for (head, _), transform in zip(heads, transforms, strict=True)]
        transforms = _without_mean(transforms)
        print(f"round {round_number + 1} of {ROUNDS}: {len(heads)} heads aligned", file=sys.stderr, flush=True)
    intensity = _symmetric_mean([head for head, _ in heads], transforms)
    brain = _symmetric_mean([brain for _, brain in heads], transforms) * 255.0
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    for name, image in (("intensity", intensity), ("brain", brain)):
        scaled = sitk.Cast(sitk.Clamp(sitk.Round(image), sitk.sitkFloat32, 0, 255), sitk.sitkUInt8)
        write_nifti_gz(scaled, output / f"{name}.nii.gz", sitk.sitkUInt8, f"MedVAE average head, {name}", level=9)
    return read_atlas(output)


def _symmetric_mean(images: list[sitk.Image], transforms: list[sitk.AffineTransform]) -> sitk.Image:
    """Mean of the images on the atlas grid, averaged with its own mirror image."""
    grid = atlas_grid()
    total = np.zeros(SIZE_XYZ[::-1], np.float64)
    for image, transform in zip(images, transforms, strict=True):
        total += sitk.GetArrayFromImage(sitk.Resample(image, grid, transform, sitk.sitkLinear, 0.0))
    return like(((total + total[:, :, ::-1]) / (2 * len(images))).astype(np.float32), grid)


def _without_mean(transforms: list[sitk.AffineTransform]) -> list[sitk.AffineTransform]:
    """The same transforms after removing their mean (of themselves and their mirrors), so that the mean is identity."""
    mirror = np.diag([-1.0, 1.0, 1.0, 1.0])
    matrices = [_matrix(t) for t in transforms]
    mean = np.mean(matrices + [mirror @ m @ mirror for m in matrices], axis=0)
    centred = [m @ np.linalg.inv(mean) for m in matrices]
    return [sitk.AffineTransform(m[:3, :3].ravel().tolist(), m[:3, 3].tolist()) for m in centred]


def _matrix(transform: sitk.AffineTransform) -> np.ndarray:
    """4×4 matrix (mm, LPS) of an affine transform with any centre."""
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(transform.GetMatrix(), (3, 3))
    matrix[:3, 3] = transform.TransformPoint((0.0, 0.0, 0.0))
    return matrix


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m MedVAELib.preprocessing.atlas LABEL_MAPS OUT")
    build_atlas(Path(sys.argv[1]), Path(sys.argv[2]))
