"""The naive baseline on real planes: how far the bright part of an image extends, with nothing learned.

The skull echoes most, so the brightest tenth of a lightly smoothed plane is taken for an elliptical ring, and the
ring's semi-axes from its second moments. Of the simple rules tried on the real planes (Otsu's threshold or the
brightest 3 to 10 %, extents between several quantiles, or the ring) this one came closest.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

BRIGHT_SHARE = 0.1
SMOOTHING_MM = 1.0
_WORKING_PIXEL_MM = 0.4


def bright_axes_mm(grey_yx: np.ndarray, pixel_mm: float) -> tuple[float, float]:
    """Full major and minor axis in mm of the bright ring on a plane (H, W)."""
    step = max(1, int(_WORKING_PIXEL_MM / pixel_mm))
    height, width = (n // step * step for n in grey_yx.shape)
    small = grey_yx[:height, :width].reshape(height // step, step, width // step, step).mean((1, 3))
    pixel_mm *= step
    smooth = ndimage.gaussian_filter(small, SMOOTHING_MM / pixel_mm)
    rows, columns = np.nonzero(smooth > np.quantile(smooth, 1 - BRIGHT_SHARE))
    if len(rows) < 3:
        return 0.0, 0.0
    # Points spread evenly over a ring lie with a standard deviation of a semi-axis over √2 along that axis.
    variances = np.linalg.eigvalsh(np.cov(np.stack([rows, columns])))
    minor, major = 2 * np.sqrt(2 * np.clip(variances, 0, None)) * pixel_mm
    return float(major), float(minor)

