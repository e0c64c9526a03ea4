"""Features for the Fréchet distance without a download: a convolutional network with fixed random weights.

Inception features were learned on photographs, know nothing of volumes, and would have to be downloaded; features
learned on the images at hand would depend on a training nobody else can repeat. Convolutions with random filters
followed by rectification already respond to edges, texture and their places (Saxe et al. 2011), and random embeddings
rank generated images where photographs are no guide (Naeem et al. 2020); they come out the same on every machine. Such
a distance compares with others of this network on the same reference images, and with nothing else.

Per level of a pyramid (full size, half, a quarter …) two layers of zero-mean random filters with rectification. Mean
responses over the image tell texture and sharpness; those in the cells of a coarse grid, brought to `LAYOUT` numbers by
a fixed random rotation, tell where things are. Few numbers, so that a hundred images fill their covariance; each in
units of its standard deviation over the reference images.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..progress import CancelToken

NAME = "random convolutions, seed 20"
LAYOUT = 12
_SEED = 20
_CHANNELS = 6
_SMALLEST = 8  # voxels that the smallest side of a level has at least
_LEVELS = 6
_CELLS = {2: 4, 3: 3}
_AT_ONCE = 32
_FURTHEST = 20.0  # standard deviations that a response in a cell counts at most
Features = Callable[[NDArray[np.float32]], NDArray[np.float64]]


def random_features(reference: NDArray[np.float32], cancel: CancelToken | None = None) -> Features:
    """A function from images (N, 1, *shape) in 0…1 to features (N, F), in units of the reference images' spread."""
    texture, layout = _responses(reference, cancel)
    centre, unit = layout.mean(0), _spread(layout)
    rotation = _rotation(layout.shape[1])

    def joined(texture: NDArray[np.float64], layout: NDArray[np.float64]) -> NDArray[np.float64]:
        # A cell that is all but empty in the reference images has a tiny spread: one image with something there would
        # outweigh everything else.
        return np.concatenate([texture, np.clip((layout - centre) / unit, -_FURTHEST, _FURTHEST) @ rotation], 1)

    def raw(images: NDArray[np.float32]) -> NDArray[np.float64]:
        return joined(*_responses(images, cancel))

    known = joined(texture, layout)
    mean, std = known.mean(0), _spread(known)
    return lambda images: (raw(images) - mean) / std


def _spread(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standard deviations, infinite for what never varies and so says nothing."""
    std = values.std(0)
    return np.where(std > 1e-6 * max(float(std.max()), 1e-12), std, np.inf)


def _responses(images: NDArray[np.float32], cancel: CancelToken | None) -> tuple[NDArray, NDArray]:
    """Mean responses over the image (N, levels · channels), and in each cell (N, levels · channels · cells)."""
    parts = []
    for start in range(0, len(images), _AT_ONCE):
        (cancel or CancelToken()).check()
        with torch.inference_mode():
            parts.append(_pyramid(torch.from_numpy(np.array(images[start : start + _AT_ONCE], np.float32))).numpy())
    cells = np.concatenate(parts).astype(np.float64)
    return cells.mean(2), cells.reshape(len(cells), -1)


def _pyramid(image: Tensor) -> Tensor:
    """(B, levels · channels, cells)."""
    dimensions = image.dim() - 2
    convolve, pool, cells = ((F.conv2d, F.avg_pool2d, F.adaptive_avg_pool2d) if dimensions == 2 else
                             (F.conv3d, F.avg_pool3d, F.adaptive_avg_pool3d))
    first, second = _filters(dimensions)
    found = []
    for _ in range(_LEVELS):
        response = convolve(F.relu(convolve(image, first)), second)  # no padding: its edge is none of the image's
        found.append(cells(F.relu(response), _CELLS[dimensions]).flatten(2))
        if min(image.shape[2:]) < 2 * _SMALLEST:
            break
        image = pool(image, 2)
    return torch.cat(found, 1)


@cache
def _filters(dimensions: int) -> tuple[Tensor, Tensor]:
    """Zero-mean filters, so that brightness alone moves nothing; drawn by numpy, whose streams stay the same."""
    random = np.random.default_rng(_SEED)
    kernels = []
    for inputs, width in ((1, 5), (_CHANNELS, 3)):
        kernel = random.standard_normal((_CHANNELS, inputs, *(width,) * dimensions)).astype(np.float32)
        kernel -= kernel.mean(tuple(range(2, kernel.ndim)), keepdims=True)
        kernel /= np.sqrt((kernel**2).sum(tuple(range(1, kernel.ndim)), keepdims=True))
        kernels.append(torch.from_numpy(kernel))
    return kernels[0], kernels[1]


def _rotation(responses: int) -> NDArray[np.float64]:
    """Orthonormal directions (R, LAYOUT)."""
    drawn = np.random.default_rng(_SEED + 1).standard_normal((responses, min(LAYOUT, responses)))
    return np.linalg.qr(drawn)[0]
