"""The lowest slices of a scan, often too bright as a whole: what flows into them has not been saturated, the last slice
of a stack has no neighbour that dims it, and the bias field's polynomials, fitted above them, are only carried on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from ..preprocessing.geometry import physical_points, ras_mm_to_ijk
from .anatomy import Anatomy, parenchyma
from .tissue_fit import TissueFit

_REACH_MM = 40.0  # above the lowest brain: cerebellum, medulla and the tips of the temporal lobes
_THIN_MM, _STEP_MM = 2.0, 3.0  # thinner slices are taken together, as thick as this
_MIN_VOXELS = 10  # of tissue in either half of a slice
_TOLERANCE, _MOST = 0.02, 0.5  # natural logarithms: what is as it should be, and what is never exceeded


def dim_lowest_slices(
    fit: TissueFit, anatomy: Anatomy, inside: NDArray[np.bool_], space: sitk.Image
) -> TissueFit:
    """The fit with the lowest slices' excess of brightness in its bias field.

    inside: voxels of the brain that hold data, (D, H, W). space: the scan's image turned to the patient, whose third
    axis counts slices upwards. From the lowest slice with brain up to the first one as bright as expected, the excess
    is what the darker half of the slice, left or right, has over the whole brain in the median: a lesion of one side
    does not count, one that covers most of both would be hidden.
    """
    tissue = inside & (parenchyma(anatomy) > 0.7)
    if not tissue.any():
        return fit
    thickness_mm = space.GetSpacing()[2]
    step_mm = thickness_mm if thickness_mm > _THIN_MM - 0.01 else _STEP_MM
    level = ras_mm_to_ijk(space, physical_points(anatomy.grid))[..., 2] * (thickness_mm / step_mm)
    expected, _ = fit.expected(anatomy.probability)
    ratio = np.log(np.maximum(anatomy.image / fit.bias, 1e-3) / np.maximum(expected, 0.05))
    # Not rounded to even: levels of a half are as frequent as any where slices lie along the grid.
    slices, columns = np.floor(level[tissue] + 0.499).astype(int), np.nonzero(tissue)[2]
    excess = _excess(ratio[tissue] - np.median(ratio[tissue]), slices - slices.min(), columns < np.median(columns),
                     int(_REACH_MM / step_mm) + 1)
    if not excess.any():
        return fit
    factor = np.exp(np.interp(level - slices.min(), np.arange(len(excess)), excess))
    return replace(fit, bias=(fit.bias * factor).astype(np.float32))


def _excess(ratio: NDArray, slices: NDArray[np.int_], left: NDArray[np.bool_], most: int) -> NDArray[np.float64]:
    """Excess of each slice from the lowest on, ending with a 0; ratio, slices, left: one value per voxel of tissue.

    A slice with too little tissue on either side has the excess of its neighbours.
    """
    known = []
    for number in range(most):
        here = slices == number
        halves = [ratio[here & side] for side in (left, ~left)]
        if min(map(len, halves)) < _MIN_VOXELS:
            continue
        excess = min(map(np.median, halves))
        if excess < _TOLERANCE:
            break
        known.append((number, min(excess, _MOST)))
    if not known:
        return np.zeros(1)
    numbers, values = zip(*known, strict=True)
    return np.append(np.interp(np.arange(numbers[-1] + 1), numbers, values), 0.0)
