"""Finding the brain in a scan and reading its healthy anatomy; the network's window follows its own output."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from ..errors import InputError
from ..inference import Encoded, Engine
from ..preprocessing.geometry import field_of_view_ras_mm, ijk_to_ras_mm, like, ras_grid, to_grid
from ..preprocessing.intensity import MIN_BRAIN_ML, NETWORK_MAX, NETWORK_MEDIAN, Foreground
from ..preprocessing.morphology import closed, dilated, largest_part, opened
from ..progress import CancelToken
from ..scan import Scan
from ..tissues import BRAIN, OUTER_CSF, PARENCHYMA, VENTRICLES

MAX_PASSES = 4
_SETTLED_MM = 4.0
_SETTLED_SCALE = 0.07
_SURE, _SURER = 0.75, 0.04
"""Confidence from which on a head is taken to lie as its header says, and by how much a turned one must exceed it: 13
real scans .72 to .82, turned .06 less and further; with a header that turns them .58 to .72, turned back .08 more and
further."""
_HALF_TURNS = {"vertical": (1, 2), "left-to-right": (0, 1), "front-to-back": (0, 2)}  # about it, these (D, H, W) flip
_CLOSING = 3  # voxels: sulci up to 12 mm wide at 2 mm belong to the brain
_TOP_TO_CENTRE_MM = 78.0  # from the top of the scalp to the middle of the brain of an adult


@dataclass(frozen=True, eq=False)
class Anatomy:
    """A scan in the network's window, and the tissue probabilities read from it.

    image: (D, H, W), the brain's median at 0.5; support: where the scan holds data; probability: (K, D, H, W) at the
    posterior mean; grid: the window in space. Scan intensity = image · scale + offset.
    """

    image: NDArray[np.float32]
    support: NDArray[np.bool_]
    probability: NDArray[np.float32]
    encoded: Encoded
    grid: sitk.Image
    scale: float
    offset: float
    passes: int

    @property
    def confidence(self) -> float:
        """Mean probability of the likeliest tissue over the brain tissue."""
        tissue = parenchyma(self) > 0.5
        return float(self.probability.max(0)[tissue].mean()) if tissue.any() else 0.0


def read_anatomy(
    scan: Scan, values: NDArray[np.float32], foreground: Foreground, engine: Engine, shape: tuple[int, int, int],
    spacing_mm: float, cancel: CancelToken,
) -> Anatomy:
    """Samples the scan around its brain and runs the network, moving and rescaling the window until both settle.

    values: the scan's intensities with everything outside `foreground.support` set to the offset. Raises InputError
    if no brain is found.
    """
    whole, known = _sample_whole(scan.image, values - foreground.offset, foreground.support, spacing_mm)
    cancel.check()
    image = sitk.GetArrayViewFromImage(whole)
    centre = _first_centre(image * (known > 0.5), spacing_mm)
    scale = _first_scale(image, centre, spacing_mm)
    for number in range(1, MAX_PASSES + 1):
        cancel.check()
        window, start = _window(image, centre, shape)
        support = _window(known, centre, shape)[0] > 0.5
        network_input = np.clip(window / scale, 0, NETWORK_MAX).astype(np.float32) * support
        encoded = engine.encode(network_input)
        cancel.check()
        probability = engine.decode_mean(encoded)
        brain = largest_part(probability[list(BRAIN)].sum(0) * support > 0.5)
        volume = brain.sum() * spacing_mm**3 / 1000
        if volume < MIN_BRAIN_ML / 5:
            break
        moved = _box_centre(brain & (probability[OUTER_CSF] < 0.5)) + start
        median = float(np.median(window[brain])) / NETWORK_MEDIAN
        settled = np.abs(moved - centre).max() * spacing_mm <= _SETTLED_MM and abs(median / scale - 1) < _SETTLED_SCALE
        if settled or number == MAX_PASSES:
            break
        centre, scale = moved, max(median, 1e-6 * scale)
    if volume < MIN_BRAIN_ML:
        raise InputError(
            f"{scan.path or scan.name}: no brain was found in it (only {volume:.0f} ml look like one); "
            "choose a brain scan, with head or skull-stripped, whose header gives its true orientation and voxel size."
        )
    index = np.array(start)[::-1] + (np.array(shape)[::-1] - 1) / 2
    grid = ras_grid(ijk_to_ras_mm(whole, index), shape, spacing_mm)
    return Anatomy(network_input, support, probability, encoded, grid, scale, foreground.offset, number)


def brain_mask(anatomy: Anatomy) -> NDArray[np.float32]:
    """Smooth brain map (D, H, W), > 0.5 inside: brain tissue and ventricles, sulci closed, holes filled.

    The rim of CSF under the skull stays outside, as in the masks that readers draw.
    """
    tissue = (parenchyma(anatomy) + anatomy.probability[VENTRICLES]) * anatomy.support
    core = largest_part(opened(tissue > 0.5))
    filled = closed(np.pad(core, _CLOSING + 1), _CLOSING)
    filled = ndimage.binary_fill_holes(filled)[(slice(_CLOSING + 1, -_CLOSING - 1),) * 3]
    near = dilated(core)
    smooth = ndimage.gaussian_filter(filled.astype(np.float32), 0.7)
    return np.maximum(tissue * near, smooth).astype(np.float32) * anatomy.support


def parenchyma(anatomy: Anatomy) -> NDArray[np.float32]:
    """Probability of brain tissue without CSF, (D, H, W)."""
    return anatomy.probability[list(PARENCHYMA)].sum(0)


def better_turned(anatomy: Anatomy, engine: Engine, cancel: CancelToken) -> str | None:
    """The axis ("vertical", "left-to-right" or "front-to-back") about which half a turn makes the network surer, as
    where the header turns the head the wrong way; None where none does, and where the network is sure as it is.

    A mirrored head looks like another one, so "vertical" also stands for one that is back to front. Raises
    DeviceMemoryError, Cancelled.
    """
    if anatomy.confidence >= _SURE:
        return None
    surest, confidence = None, anatomy.confidence + _SURER
    for axis, flipped in _HALF_TURNS.items():
        cancel.check()
        image = np.ascontiguousarray(np.flip(anatomy.image, flipped))
        turned = replace(anatomy, image=image, probability=engine.decode_mean(engine.encode(image)))
        if turned.confidence > confidence:
            surest, confidence = axis, turned.confidence
    return surest


# --- Placing the window ----------------------------------------------------------------------------------------------


def _sample_whole(
    image: sitk.Image, values: NDArray[np.float32], support: NDArray[np.bool_], spacing_mm: float
) -> tuple[sitk.Image, NDArray[np.float32]]:
    """The whole field of view on a patient-aligned grid, and the share of each voxel that holds data."""
    low, high = field_of_view_ras_mm(image)
    size_xyz = np.ceil((high - low) / spacing_mm).astype(int) + 1
    grid = ras_grid((low + high) / 2, size_xyz[::-1], spacing_mm)
    sampled = to_grid(like(values, image), grid)
    if support.all():  # the field of view itself
        inside = sitk.GetImageFromArray(np.ones([2, 2, 2], np.float32))  # half of it in each of two voxels
        size = np.array(image.GetSize())
        inside.SetSpacing((np.array(image.GetSpacing()) * size / 2).tolist())
        inside.SetOrigin(image.TransformContinuousIndexToPhysicalPoint((size / 4 - 0.5).tolist()))
        inside.SetDirection(image.GetDirection())
        known = sitk.GetArrayFromImage(sitk.Resample(inside, grid, sitk.Transform(), sitk.sitkNearestNeighbor, 0.0))
    else:
        known = sitk.GetArrayFromImage(to_grid(like(support.astype(np.float32), image), grid))
    return sampled, known


def _first_centre(image: NDArray[np.float32], spacing_mm: float) -> NDArray[np.float64]:
    """A first guess of the brain's centre (zyx voxels): below the top of what is brighter than air."""
    coarse = image[::2, ::2, ::2]
    positive = coarse[coarse > 0]
    if positive.size < 100:
        return (np.array(image.shape) - 1) / 2
    head = largest_part(coarse > 0.25 * np.quantile(positive, 0.9))
    levels = np.flatnonzero(head.sum((1, 2)) * (2 * spacing_mm) ** 2 > 1500)  # a section of at least 15 cm²
    if not levels.size:
        return (np.array(image.shape) - 1) / 2
    top, bottom = 2.0 * levels.max(), 2.0 * levels.min()
    z = top - min((top - bottom) / 2, _TOP_TO_CENTRE_MM / spacing_mm)
    upper = np.argwhere(head[int(max(bottom, z - 10)) // 2 : int(top) // 2 + 1])
    y, x = (upper[:, 1:].min(0) + upper[:, 1:].max(0)).astype(float)
    return np.array([z, y, x])


def _first_scale(image: NDArray[np.float32], centre: NDArray[np.float64], spacing_mm: float) -> float:
    """Median of a ball around the centre, which is mostly brain, over what it shall become."""
    radius = int(45 / spacing_mm)
    ball = _window(image, centre, (2 * radius,) * 3)[0]
    z, y, x = np.ogrid[-radius:radius, -radius:radius, -radius:radius]
    inside = ball[(z**2 + y**2 + x**2 < radius**2) & (ball > 0)]
    largest = float(np.abs(image).max()) or 1.0
    return max(float(np.median(inside)) if inside.size else largest, 1e-6 * largest) / NETWORK_MEDIAN


def _window(
    array: NDArray, centre: NDArray[np.float64], shape: tuple[int, int, int]
) -> tuple[NDArray, NDArray[np.int64]]:
    """The part of `array` around `centre` (voxels), zero-padded to `shape`, and its first index."""
    start = np.round(centre - (np.array(shape) - 1) / 2).astype(int)
    low, high = np.maximum(start, 0), np.minimum(start + shape, array.shape)
    out = np.zeros(shape, array.dtype)
    if (high > low).all():
        to = tuple(slice(a - s, b - s) for a, b, s in zip(low, high, start, strict=True))
        out[to] = array[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    return out, start


def _box_centre(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Middle between the planes that cut off half a per cent of the mask on either side, zyx voxels."""
    centre = []
    for axis in range(3):
        share = np.cumsum(mask.sum(tuple(a for a in range(3) if a != axis)).astype(float))
        low, high = np.searchsorted(share, [0.005 * share[-1], 0.995 * share[-1]])
        centre.append((low + high) / 2)
    return np.array(centre)
