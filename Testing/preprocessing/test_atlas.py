"""The shipped atlas is what its README says, and its builder undoes the differences between heads."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from MedVAELib.errors import InputError
from MedVAELib.preprocessing.atlas import (
    BRAIN_CENTROID_RAS_MM,
    atlas_grid,
    build_atlas,
    head_of_labels,
    load_atlas,
    read_atlas,
)
from MedVAELib.resources import resource_dir


def centroid_ras_mm(brain: sitk.Image) -> np.ndarray:
    weights = sitk.GetArrayFromImage(brain)
    index = [float(i) for i in np.average(np.argwhere(weights > 0.5), axis=0)[::-1]]
    return np.array(brain.TransformContinuousIndexToPhysicalPoint(index)) * (-1, -1, 1)


def test_the_shipped_atlas():
    atlas = load_atlas()
    brain, intensity = (sitk.GetArrayFromImage(image) for image in (atlas.brain, atlas.intensity))
    assert atlas.brain.GetSize() == atlas.intensity.GetSize() == atlas_grid().GetSize()
    assert 0 <= brain.min() and brain.max() == pytest.approx(1)
    assert 1000 < (brain > 0.5).sum() * 0.008 < 1600  # ml of an adult brain
    assert np.abs(brain - brain[:, :, ::-1]).max() < 0.01  # symmetric
    assert centroid_ras_mm(atlas.brain) == pytest.approx(BRAIN_CENTROID_RAS_MM, abs=2)
    white = np.quantile(intensity[brain > 0.95], 0.5)
    assert 85 < white < 125  # white matter is 100
    assert sum(file.stat().st_size for file in (resource_dir() / "atlas").iterdir()) < 1_500_000


def labels(scale, shift_mm, tilt):
    """A head of ellipsoids as a label map: soft tissue, bone, outer CSF, white matter, a ventricle."""
    size, spacing = 116, 2.0
    axis = (np.arange(size) - (size - 1) / 2) * spacing
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    x, y, z = x - shift_mm[0], y - shift_mm[1], z - shift_mm[2]
    x, y = np.cos(tilt) * x - np.sin(tilt) * y, np.sin(tilt) * x + np.cos(tilt) * y
    array = np.zeros((size,) * 3, np.int16)
    for label, radii in ((507, (80, 100, 95)), (515, (72, 92, 87)), (24, (68, 88, 83)), (2, (64, 84, 79)),
                         (4, (12, 28, 12))):
        array[(x / radii[0] / scale) ** 2 + (y / radii[1]) ** 2 + (z / radii[2]) ** 2 <= 1] = label
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((spacing,) * 3)
    image.SetOrigin((axis[0],) * 3)
    return image


def unsure(brain: np.ndarray) -> float:
    """Volume in which heads disagree, against the brain's."""
    return ((brain > 0.1) & (brain < 0.9)).sum() / (brain > 0.5).sum()


def test_differently_placed_heads_are_averaged_into_one_sharp_head(tmp_path):
    (tmp_path / "maps").mkdir()
    heads = [labels(0.92, (8, -6, 4), 0.15), labels(1.08, (-5, 9, -7), -0.15)]
    for i, head in enumerate(heads):
        sitk.WriteImage(head, str(tmp_path / "maps" / f"{i}.nii.gz"))
    atlas = build_atlas(tmp_path / "maps", tmp_path / "atlas")
    brain = sitk.GetArrayFromImage(atlas.brain)
    centred = [sitk.GetArrayFromImage(sitk.Resample(head_of_labels(head)[1], atlas_grid())) for head in heads]
    assert unsure(brain) < 0.7 * unsure((centred[0] + centred[1]) / 2)  # what is left is the rim of one 4 mm voxel
    expected_ml = 4 / 3 * np.pi * 64 * 84 * 79 / 1000
    assert (brain > 0.5).sum() * 0.008 == pytest.approx(expected_ml, rel=0.06)
    assert centroid_ras_mm(atlas.brain) == pytest.approx(BRAIN_CENTROID_RAS_MM, abs=2)


def test_a_folder_without_label_maps_is_refused(tmp_path):
    with pytest.raises(InputError, match="no label maps"):
        build_atlas(tmp_path, tmp_path / "out")
    with pytest.raises(InputError, match="atlas file"):
        read_atlas(tmp_path)
