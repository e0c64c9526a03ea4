"""Slices of a scan that hold one value alone: lost on the way, or blanked.

A brain that one of them cuts in two would be examined on one side only. One or two in a row are filled in from their
neighbours; of more, the user is told.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

_MOST_FILLED = 2  # in a row
_LEAST_DATA = 0.1  # of what the fullest slice holds: what lies beside a lost slice, not beside padding
_LISTED = 6
_WAYS = ("third", "second", "first")  # of the file's axes, by those of the array (zyx)
_STRIDE = 8  # of the voxels that are looked at first


def fill_lost_slices(image: sitk.Image, source: str) -> tuple[sitk.Image, list[str]]:
    """The image (3D, one value per voxel) with up to two lost slices in a row interpolated linearly between their
    neighbours, and a warning of these and of longer gaps. An image without any is given back as it is."""
    values, notes = sitk.GetArrayViewFromImage(image), []
    filled = None
    for axis in range(3):
        short, long = [], []
        for start, stop in _gaps(values, axis):
            if stop - start > _MOST_FILLED:
                long += range(start, stop)
                continue
            short += range(start, stop)
            filled = values.copy() if filled is None else filled
            along = np.moveaxis(filled, axis, 0)
            for number in range(start, stop):
                # The same to the last bit from either side, as programs store slices in either order.
                before, after = stop - number, number - start + 1
                along[number] = (before * along[start - 1] + after * along[stop]) / (before + after)
        count, way = values.shape[axis], _WAYS[axis]
        if short:
            was = "was" if len(short) == 1 else "were"
            notes.append(f"{source}: {_without_data(short, count)} along its {way} axis and {was} filled in from "
                         "the neighbours: what lies there was not seen.")
        if long:
            notes.append(f"{source}: {_without_data(long, count)} along its {way} axis: what lies there was not seen, "
                         "and brain on one side may be left out.")
    if filled is None:
        return image, notes
    whole = sitk.GetImageFromArray(filled)
    whole.CopyInformation(image)
    return whole, notes


def _gaps(values: NDArray[np.float32], axis: int) -> Iterator[tuple[int, int]]:
    """First and last but one of every run of slices that hold one value each, between slices that hold data."""
    slices = np.moveaxis(values, axis, 0)
    some = slices[:, ::_STRIDE, ::_STRIDE]
    maybe = np.flatnonzero(some.min((1, 2)) == some.max((1, 2)))
    empty = np.zeros(len(slices) + 1, bool)
    empty[[number for number in maybe if slices[number].min() == slices[number].max()]] = True
    starts = np.flatnonzero(empty[1:] & ~empty[:-1]) + 1  # a run at the first slice has no data before it
    for start in starts:
        stop = start + int(np.argmin(empty[start:]))
        if stop == len(slices):
            return
        level = slices[start].flat[0]
        held = (some != level).mean((1, 2))
        if min(held[start - 1], held[stop]) >= _LEAST_DATA * held.max():
            yield int(start), int(stop)


def _without_data(numbers: list[int], count: int) -> str:
    """Half a sentence; slices are counted from 1."""
    if len(numbers) == 1:
        return f"slice {numbers[0] + 1} of {count} holds no data"
    listed = ", ".join(str(number + 1) for number in numbers[:_LISTED])
    return f"slices {listed}{', …' if len(numbers) > _LISTED else ''} of {count} hold no data"
