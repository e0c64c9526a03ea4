"""The simple baselines every table carries: how bright a voxel is, with nothing learned.

Meissen et al. 2021 ("Challenging current semi-supervised anomaly segmentation methods for brain MRI") found that a
threshold on histogram-equalised FLAIR beats most published autoencoders.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

SMOOTHING_VOXELS = 0.6
_BINS = 256


def intensity_score(scan: np.ndarray, region: np.ndarray) -> np.ndarray:
    """Plain intensity inside `region` (bool, zyx), lightly smoothed against noise: a stronger baseline than without.

    Negative intensities (z-scored scans) are first shifted up, so that the zero outside the region is dark. float32.
    """
    low = min(0.0, float(np.quantile(scan[region], 0.001))) if region.any() else 0.0
    inside = np.clip(scan - np.float32(low), 0, None) * region
    return ndimage.gaussian_filter(inside.astype(np.float32), SMOOTHING_VOXELS) * region


def equalised_score(scan: np.ndarray, region: np.ndarray) -> np.ndarray:
    """Histogram-equalised intensity inside `region` (256 bins, linear between them), in 0…1, 0 outside. float32."""
    score = np.zeros(scan.shape, np.float32)
    values = scan[region]
    if values.size:
        counts, edges = np.histogram(values, _BINS)
        share = counts.cumsum() / values.size
        score[region] = np.interp(values, (edges[:-1] + edges[1:]) / 2, share)
    return score


def flag_brightest(score: np.ndarray, region: np.ndarray, voxels: int) -> np.ndarray:
    """Mask (bool, zyx) of the `voxels` highest scores in `region`: a baseline's threshold at matched volume."""
    mask = np.zeros(region.shape, bool)
    inside = np.flatnonzero(region)
    voxels = min(voxels, inside.size)
    if voxels:
        values = score.ravel()[inside]
        mask.ravel()[inside[np.argpartition(values, values.size - voxels)[values.size - voxels:]]] = True
    return mask
