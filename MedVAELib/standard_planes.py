"""The three standard planes of a fetal head, and the subsets of them that an examination may have."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations

PLANES = ("axial", "sagittal", "coronal")
"""In order of clinical relevance; the channels of a case's planes are in this order."""
AXES = {"axial": (1, 0, 2), "sagittal": (2, 1, 0), "coronal": (2, 0, 1)}
"""Which of x, y, z = 0, 1, 2 (to the right, anterior, superior) rows and columns run along, and the normal."""
Subset = tuple[str, ...]
SUBSETS: tuple[Subset, ...] = tuple(chosen for count in (3, 2, 1) for chosen in combinations(PLANES, count))
"""All seven, most planes first, in clinical order."""
BY_COUNT: tuple[Subset, ...] = (PLANES, PLANES[:2], PLANES[:1])
"""What "three", "two" and "one" plane mean: the axial one is always acquired, the sagittal one often."""


def named(planes: Iterable[str]) -> str:
    """How a subset of the planes is called, whatever their order."""
    chosen = set(planes)
    return " + ".join(plane for plane in PLANES if plane in chosen)
