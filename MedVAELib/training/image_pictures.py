"""Pictures of a run on images: reconstructions below their originals, and samples, for 2D and 3D alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..files.whole_files import replaced

_GAP = 2
_HEIGHT = 112  # pixels that a small image is enlarged to at least


def view(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """(1, *shape) → (H, W): a picture itself; of a volume its middle axial, coronal and sagittal planes, side by side,
    anterior or superior up, NaN beside them."""
    if image.ndim == 3:
        return image[0]
    volume = image[0]
    planes = [np.take(volume, volume.shape[axis] // 2, axis)[::-1] for axis in range(3)]
    height = max(plane.shape[0] for plane in planes)
    return np.hstack([np.pad(plane, ((0, height - plane.shape[0]), (0, 0)), constant_values=np.nan)
                      for plane in planes])


def grid(rows: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Rows of images, (n, 1, *shape) each, as one grey picture (H, W) in 0…1; small images are enlarged."""
    lines = []
    for row in rows:
        views = [_enlarged(np.nan_to_num(view(image), nan=1.0)) for image in row]
        lines.append(np.hstack([np.pad(part, _GAP // 2, constant_values=1.0) for part in views]))
    width = max(line.shape[1] for line in lines)
    return np.vstack([np.pad(line, ((0, 0), (0, width - line.shape[1])), constant_values=1.0) for line in lines])


def sample_rows(images: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """(N, 1, *shape) in about twice as many columns as rows."""
    columns = max(1, math.ceil(math.sqrt(2 * len(images))))
    return [images[start : start + columns] for start in range(0, len(images), columns)]


def save_grey(picture: NDArray[np.float32], path: Path) -> None:
    """(H, W) in 0…1 as PNG; the file is replaced at once."""
    from matplotlib.image import imsave

    with replaced(path) as temporary:
        imsave(temporary, np.clip(picture, 0, 1), cmap="gray", vmin=0, vmax=1, format="png")


def _enlarged(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    factor = max(1, round(_HEIGHT / picture.shape[0]))
    return picture.repeat(factor, 0).repeat(factor, 1)
