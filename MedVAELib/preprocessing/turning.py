"""A scan's storage axes reordered and flipped to run along the patient's, and back; no voxel changes its value.

Programs store the same scan in different orders: 3D Slicer flips an axis of every left-handed NIfTI file when it reads
it. What is computed on the turned scan is the same for all of them, to the last bit.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray


@dataclass(frozen=True)
class Turn:
    """Axis n (i, j, k) of the turned image is axis `order[n]` of the scan, from its end where `flipped[n]`."""

    order: tuple[int, int, int]
    flipped: tuple[bool, bool, bool]

    @classmethod
    def to_patient(cls, image: sitk.Image) -> Turn:
        """So that i, j, k run nearest to the patient's left, back and head (LPS)."""
        axes = np.array(image.GetDirection()).reshape(3, 3)  # one column per storage axis, LPS rows
        order = max(itertools.permutations(range(3)), key=lambda p: sum(abs(axes[n, p[n]]) for n in range(3)))
        flipped = tuple(bool(axes[n, order[n]] < 0) for n in range(3))
        return cls(order, flipped)  # type: ignore[arg-type]

    def image(self, image: sitk.Image) -> sitk.Image:
        """The image turned, every voxel where it was in space."""
        turned = sitk.GetImageFromArray(np.ascontiguousarray(self.view(sitk.GetArrayViewFromImage(image))))
        turned.CopyInformation(self.grid(image))
        return turned

    def grid(self, image: sitk.Image) -> sitk.Image:
        """The turned image's geometry, of an image without content."""
        turned = sitk.Image([image.GetSize()[axis] for axis in self.order], sitk.sitkUInt8)
        last = [n - 1 if self.flipped[self.order.index(axis)] else 0 for axis, n in enumerate(image.GetSize())]
        turned.SetOrigin(image.TransformIndexToPhysicalPoint(last))
        turned.SetSpacing([image.GetSpacing()[axis] for axis in self.order])
        axes = np.array(image.GetDirection()).reshape(3, 3)[:, list(self.order)] * np.where(self.flipped, -1.0, 1.0)
        turned.SetDirection((axes + 0.0).ravel().tolist())
        return turned

    def view(self, values_zyx: NDArray) -> NDArray:
        """An array of the scan as the turned image has it, not a copy."""
        return values_zyx.transpose(self._order_zyx)[self._steps]

    def box_back(
        self, first_ijk: Sequence[int], size_ijk: Sequence[int], turned_size: Sequence[int]
    ) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
        """First voxel and size of a box of the turned image (its size: turned_size), in the scan's indices."""
        first, size = [0, 0, 0], [0, 0, 0]
        for n, axis in enumerate(self.order):
            start = turned_size[n] - first_ijk[n] - size_ijk[n] if self.flipped[n] else first_ijk[n]
            first[axis], size[axis] = int(start), int(size_ijk[n])
        return tuple(first), tuple(size)  # type: ignore[return-value]

    @property
    def _order_zyx(self) -> list[int]:
        return [2 - axis for axis in reversed(self.order)]

    @property
    def _steps(self) -> tuple[slice, ...]:
        return tuple(slice(None, None, -1 if flipped else 1) for flipped in reversed(self.flipped))
