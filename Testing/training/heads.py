"""A label map of a simple head, FreeSurfer-numbered, for tests that need no real one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk


def write_head(folder: Path, name: str = "01") -> Path:
    """Nested ellipsoids: skin 507, CSF 24, cortex 3/42, white matter 2/41, thalamus 10/49, ventricle 4/43; 1 mm RAS."""
    shape = (200, 220, 190)
    z, y, x = np.ogrid[: shape[0], : shape[1], : shape[2]]
    centre = np.array(shape) / 2
    labels = np.zeros(shape, np.int16)

    def inside(rz: float, ry: float, rx: float) -> np.ndarray:
        return ((z - centre[0]) / rz) ** 2 + ((y - centre[1]) / ry) ** 2 + ((x - centre[2]) / rx) ** 2 < 1

    right = np.broadcast_to(x > centre[2], shape)
    labels[inside(88, 100, 85)] = 507
    labels[inside(76, 88, 73)] = 24
    for radius, left_label, right_label in ((70, 3, 42), (62, 2, 41), (25, 10, 49), (14, 4, 43)):
        ball = inside(radius, radius * 1.18, radius * 0.95)
        labels[ball & ~right], labels[ball & right] = left_label, right_label
    image = sitk.GetImageFromArray(labels)
    image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
    folder.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(folder / f"{name}.nii.gz"))
    return folder
