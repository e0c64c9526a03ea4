"""Connected components of the anomaly mask as findings: volume, peak, position, tissue and side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from ..preprocessing.geometry import ijk_to_ras_mm, ras_mm_to_ijk
from ..tissues import BACKGROUND, EXTRACEREBRAL, TISSUES
from .result import DARK, Finding

if TYPE_CHECKING:
    from .mirror import Mirror

MIN_VOLUME_ML = 0.03
"""Smaller components are not reported: about three voxels of a 2 mm scan, thirty of a 1 mm scan."""
STRICTNESS = 1.6
"""A component is reported if its mean score is this many times rarer than the threshold: most of what only just passes
it is healthy. The mask shows every bright voxel above the threshold, of dark ones those reported."""
HIGH_STRICTNESS = 2.2
"""The same on DWI, where artefacts are many and infarcts stand out, and of dark components."""
DARK_STRICTNESS = 10.0
"""Dark findings on FLAIR need a score that is this many times rarer than the false-positive rate asked for."""
DARK_MARGIN = float(np.log10(DARK_STRICTNESS))
"""How far above the threshold their score therefore lies."""
_MIDLINE_MM = 4.0  # from the midplane, on average: nearer, a finding has no side
_BOTH_SIDES = 0.2  # of a finding on the other side: then it lies on both
_VOXELS_LOOKED_AT = 2000


def rank_findings(
    bright: NDArray[np.float32], dark: NDArray[np.float32] | None, limit: float, strictness: float, image: sitk.Image,
    probability: NDArray[np.float32], grid: sitk.Image, mirror: Mirror,
) -> tuple[NDArray[np.uint8], NDArray[np.uint16], list[Finding]]:
    """Mask (1 bright, 2 dark), component labels and findings, surest first: by how far their mean score exceeds their
    threshold; labels are ranks.

    bright, dark: calibrated scores of either side, zyx on the grid of `image`, dark None where it does not count, and
    set to 0 where the bright side is above the threshold;
    limit: the threshold; strictness: of bright ones, as in `find_components`; the rest as in `describe`.
    """
    voxel_ml = float(np.prod(image.GetSpacing())) / 1000
    mask = (bright > limit).astype(np.uint8)
    components = find_components(bright, limit, strictness, voxel_ml)
    described = describe(components, bright, image, "bright", probability, grid, mirror)
    excess = [finding.mean - limit for finding in described]
    if dark is not None:
        dark[mask > 0] = 0
        hypo = find_components(dark, limit + DARK_MARGIN, HIGH_STRICTNESS, voxel_ml)
        mask[hypo > 0] = DARK
        components = np.where(hypo > 0, hypo + len(described), components)  # numbered on from the bright ones
        darker = describe(hypo, dark, image, "dark", probability, grid, mirror)
        excess += [finding.mean - limit - DARK_MARGIN for finding in darker]
        described += darker
    order = np.argsort(-np.array(excess), kind="stable")
    ranks = np.zeros(len(described) + 1, np.uint16)
    ranks[order + 1] = np.arange(1, len(ranks))
    return mask, ranks[components], [replace(described[n], label=rank) for rank, n in enumerate(order, 1)]


def by_residual(
    mask: NDArray[np.uint8], components: NDArray[np.uint16], findings: Sequence[Finding], residual: NDArray[np.float32]
) -> tuple[NDArray[np.uint8], list[Finding]]:
    """Mask and findings of a score that counts both signs: dark where the scan is darker on average."""
    means = ndimage.mean(residual, components, [finding.label for finding in findings]) if findings else []
    darker = {finding.label for finding, mean in zip(findings, means, strict=True) if mean < 0}
    findings = [replace(f, polarity="dark") if f.label in darker else f for f in findings]
    return np.where(np.isin(components, list(darker)), DARK, mask).astype(np.uint8), findings


def find_components(score: NDArray[np.float32], limit: float, strictness: float, voxel_ml: float) -> NDArray[np.uint16]:
    """Labels 1…n of the components above `limit` (26-neighbourhood) that have at least MIN_VOLUME_ML and a mean score
    `strictness` times rarer than it, largest first; 0 elsewhere."""
    image = sitk.ConnectedComponent(sitk.GetImageFromArray((score > limit).astype(np.uint8)), True)
    image = sitk.RelabelComponent(image, minimumObjectSize=math.ceil(MIN_VOLUME_ML / voxel_ml - 1e-6))
    labels = sitk.GetArrayViewFromImage(image)
    inside = labels > 0
    sizes = np.bincount(labels[inside], minlength=1)
    means = np.bincount(labels[inside], score[inside], minlength=1) / np.maximum(sizes, 1)
    kept = means > limit + np.log10(strictness)
    numbers = np.minimum(np.cumsum(kept), np.iinfo(np.uint16).max).astype(np.uint16) * kept
    return numbers[labels]


def describe(
    labels: NDArray[np.uint16], score: NDArray[np.float32], image: sitk.Image, polarity: str,
    probability: NDArray[np.float32], grid: sitk.Image, mirror: Mirror,
) -> list[Finding]:
    """One finding per label, in their order.

    labels, score: zyx on the grid of `image`, whose voxels the bounding boxes count; probability: (K, D, H, W) on the
    model's grid, and mirror, for the location.
    """
    voxel_ml = float(np.prod(image.GetSpacing())) / 1000
    inside = np.flatnonzero(labels)
    order = inside[np.argsort(labels.ravel()[inside], kind="stable")]
    counts = np.bincount(labels.ravel()[inside], minlength=1)
    starts = np.cumsum(counts)
    findings = []
    for label in range(1, len(counts)):
        flat = order[starts[label - 1] : starts[label]]
        zyx = np.stack(np.unravel_index(flat, labels.shape), 1)
        values = score.ravel()[flat]
        low, high = zyx.min(0), zyx.max(0)
        centroid = ijk_to_ras_mm(image, zyx.mean(0)[::-1])
        findings.append(Finding(
            label=label, polarity=polarity, location=_location(zyx, image, probability, grid, mirror),
            volume_ml=len(flat) * voxel_ml, peak=float(values.max()), mean=float(values.mean()),
            centroid_ras_mm=tuple(float(v) for v in centroid),
            peak_ras_mm=tuple(float(v) for v in ijk_to_ras_mm(image, zyx[values.argmax()][::-1])),
            bbox_ijk=tuple(int(v) for v in low[::-1]),
            bbox_size_ijk=tuple(int(v) for v in (high - low + 1)[::-1]),
        ))
    return findings


def _location(
    zyx: NDArray[np.int64], image: sitk.Image, probability: NDArray[np.float32], grid: sitk.Image, mirror: Mirror,
) -> str:
    """Side and healthy tissue under most of the component, e.g. "left white matter", "white matter on both sides"."""
    places = ijk_to_ras_mm(image, zyx[:: max(1, len(zyx) // _VOXELS_LOOKED_AT), ::-1])
    index = np.round(ras_mm_to_ijk(grid, places)).astype(int)[:, ::-1]
    index = np.clip(index, 0, np.array(probability.shape[1:]) - 1)
    share = probability[:, index[:, 0], index[:, 1], index[:, 2]].mean(1)
    share[[BACKGROUND, EXTRACEREBRAL]] = 0
    tissue = TISSUES[int(share.argmax())]
    if not mirror.whole:  # with one side alone in view, nothing tells which it is
        return tissue
    off_midplane_mm = mirror.side_mm(places)
    if np.abs(off_midplane_mm).mean() < _MIDLINE_MM:
        return tissue
    right = float((off_midplane_mm > 0).mean())
    if min(right, 1 - right) > _BOTH_SIDES:
        return f"{tissue} on both sides"
    return f"{'right' if right > 0.5 else 'left'} {tissue}"
