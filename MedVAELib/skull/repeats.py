"""Two planes that are one picture: the same file twice, saved anew, brightened, or cut a little smaller."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations, product

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .outline import letterbox
from .planes import PlaneImage

SAME = 0.998
"""Correlation on the network's grid from which on two pictures are one. A JPEG file of quality 30 reaches 0.9997 with
what it was made of, neighbouring slices of MR scans 1 mm apart 0.994, real planes of two fetuses 0.80."""
_ALIKE = 0.95  # from where on it is worth looking for a cut
_MOST_CUT_PX = 8


def refuse_repeats(planes: Mapping[str, PlaneImage]) -> None:
    """Raises InputError when two planes are one and the same image."""
    for one, other in combinations(planes, 2):
        if one_picture(planes[one].grey_yx, planes[other].grey_yx):
            raise InputError(f"{planes[other].label} is given as {one} and as {other} plane: each must be an image of "
                             "its own; leave out what was not acquired.")


def one_picture(one: NDArray[np.float32], other: NDArray[np.float32]) -> bool:
    """Whether one grey image (H, W) is a copy of the other, or of it without up to _MOST_CUT_PX rows and columns."""
    alike = _correlation(one, other)
    if alike > SAME:
        return True
    small, large = sorted((one, other), key=lambda grey: grey.size)
    cut = [of - n for of, n in zip(large.shape, small.shape, strict=True)]
    if alike < _ALIKE or not (0 <= min(cut) and 0 < max(cut) <= _MOST_CUT_PX):
        return False
    height, width = small.shape
    return any(_correlation(large[row : row + height, column : column + width], small) > SAME
               for row, column in product(*(range(n + 1) for n in cut)))


def _correlation(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    return float(np.corrcoef(letterbox(one).numpy().ravel(), letterbox(other).numpy().ravel())[0, 1])
