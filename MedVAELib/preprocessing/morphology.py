"""Binary morphology with the nearest neighbours along the axes: as scipy's, whose steps take forty times as long as
whole-array shifts do."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


def dilated(mask: NDArray[np.bool_], steps: int = 1) -> NDArray[np.bool_]:
    """`mask` (any number of axes) and what lies within that many steps along the axes of it."""
    for _ in range(steps):
        grown = mask.copy()
        for after, before in _neighbours(mask.ndim):
            grown[after] |= mask[before]
            grown[before] |= mask[after]
        mask = grown
    return mask


def eroded(mask: NDArray[np.bool_], steps: int = 1) -> NDArray[np.bool_]:
    """What lies farther than that many steps from all that is not in `mask`; beyond the array nothing is."""
    for _ in range(steps):
        shrunk = mask.copy()
        for axis, (after, before) in enumerate(_neighbours(mask.ndim)):
            shrunk[after] &= mask[before]
            shrunk[before] &= mask[after]
            edges = np.moveaxis(shrunk, axis, 0)
            edges[0], edges[-1] = False, False
        mask = shrunk
    return mask


def opened(mask: NDArray[np.bool_], steps: int = 1) -> NDArray[np.bool_]:
    """Without what is thinner than two steps and the voxel between."""
    return dilated(eroded(mask, steps), steps)


def closed(mask: NDArray[np.bool_], steps: int = 1) -> NDArray[np.bool_]:
    """With gaps as thin filled; nothing closes against the array's border."""
    return eroded(dilated(mask, steps), steps)


def largest_part(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest connected component; an empty mask stays empty."""
    labels, count = ndimage.label(mask)
    if count < 2:
        return mask
    return labels == np.bincount(labels.ravel())[1:].argmax() + 1


def filled(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """With the holes that it encloses."""
    result, box = mask.copy(), bounding_box(mask, (0,) * mask.ndim)  # a head is far smaller than its field of view
    result[box] = ndimage.binary_fill_holes(mask[box])
    return result


def bounding_box(mask: NDArray[np.bool_], margin: Sequence[int]) -> tuple[slice, ...]:
    """The box that holds the mask with a margin per axis, within the array; the whole array where the mask is empty."""
    box = []
    for axis, size in enumerate(mask.shape):
        used = np.flatnonzero(mask.any(tuple(other for other in range(mask.ndim) if other != axis)))
        low, high = (int(used[0]) - margin[axis], int(used[-1]) + margin[axis]) if used.size else (0, size - 1)
        box.append(slice(max(low, 0), min(high + 1, size)))
    return tuple(box)


def _neighbours(axes: int) -> list[tuple[tuple[slice, ...], tuple[slice, ...]]]:
    """Per axis, all voxels but the first and all but the last, which are neighbours pairwise."""
    whole = slice(None)
    return [tuple((*[whole] * axis, part, *[whole] * (axes - axis - 1)) for part in (slice(1, None), slice(None, -1)))
            for axis in range(axes)]
