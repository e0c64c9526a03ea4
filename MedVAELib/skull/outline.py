"""The head's outline on a plane image: found by a network, cleaned, and judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from ..errors import InputError
from ..preprocessing.morphology import dilated, eroded, largest_part
from ..preprocessing.outlines import MomentEllipse, ellipse_map, moment_ellipse
from .engine import OutlineEngine
from .planes import PlaneImage

NETWORK_SIZE = 192
MIN_SHARE = 0.005
"""Of the frame: what is found must be at least that large."""
MIN_CONFIDENCE = 0.5
MAX_MISFIT = {"axial": 0.10, "sagittal": 0.17, "coronal": 0.16}
"""Of the area, what is too much added to what is missing against an ellipse: 60 simulated heads of all kinds, true
outlines, reached 0.054, 0.123 and 0.114."""
_STRAND = 0.25
"""Of the radius of the largest circle within the head: what is thinner on either side of its middle is none of it."""
HEAD_MM = (30.0, 150.0)
"""Long axis of a fetal head in any of the planes, from the twelfth week."""


@dataclass(frozen=True, eq=False)
class Outline:
    """The head on a plane, on the network's grid.

    map: (192, 192) float32 fraction of head; pixel_mm: of that grid; ellipse: in its pixels; misfit: share of the
    area by which the outline departs from the ellipse; confidence: 0…1; doubts: sentences.
    """

    map: Tensor
    pixel_mm: float
    ellipse: MomentEllipse
    misfit: float
    confidence: float
    doubts: tuple[str, ...] = ()

    @property
    def semi_axes_mm(self) -> tuple[float, float]:
        major, minor = (self.ellipse.semi_axes[0] * self.pixel_mm).tolist()
        return major, minor


def find_outlines(planes: Sequence[tuple[str, PlaneImage]], engine: OutlineEngine) -> list[Outline]:
    """The outline on each of the named planes. Raises InputError where there is nothing like a head."""
    images = torch.stack([letterbox(image.grey_yx) for _, image in planes])
    probability, confidence = engine.find(images)
    return [judge(name, image, clean(probability[i], f"{image.label} ({name})"), float(confidence[i]))
            for i, (name, image) in enumerate(planes)]  # fmt: skip


def letterbox(grey_yx: NDArray[np.float32]) -> Tensor:
    """The image fitted into (192, 192), black around it, by one scale for both axes."""
    (height, width), edge = grey_yx.shape, max(grey_yx.shape)
    top, left = _margins(grey_yx.shape)
    margins, size = (left, edge - width - left, top, edge - height - top), (NETWORK_SIZE, NETWORK_SIZE)
    image = torch.from_numpy(np.ascontiguousarray(grey_yx))[None, None]
    # Shrunk apart from the black around it, so that the frame's edge stays as sharp as the network has learned it.
    square = torch.cat([F.pad(image, margins, mode="replicate"), F.pad(torch.ones_like(image), margins)])
    small, inside = F.interpolate(square, size, mode="bilinear", antialias=True, align_corners=False)[:, 0]
    return small.clamp(0, 1) * (inside > 0.5)


def unletterbox(outline: Tensor, shape: tuple[int, int]) -> NDArray[np.float32]:
    """A map on the network's grid back on an image's own pixels."""
    (height, width), (top, left) = shape, _margins(shape)
    square = F.interpolate(outline[None, None], (max(shape), max(shape)), mode="bilinear", align_corners=False)[0, 0]
    return np.ascontiguousarray(square[top : top + height, left : left + width].numpy())


def image_position(place_yx: Sequence[float], shape: tuple[int, int]) -> tuple[float, float]:
    """A place (row, column) on the network's grid in an image's own pixels."""
    scale = max(shape) / NETWORK_SIZE
    row, column = ((at + 0.5) * scale - 0.5 - margin for at, margin in zip(place_yx, _margins(shape), strict=True))
    return row, column


def _margins(shape: tuple[int, int]) -> tuple[int, int]:
    """Rows above and columns before an image in the middle of a square of its longer edge."""
    return (max(shape) - shape[0]) // 2, (max(shape) - shape[1]) // 2


def clean(probability: Tensor, label: str) -> Tensor:
    """The largest part, its holes filled, as fractions of head per pixel with edges one pixel wide.

    Raises InputError, naming `label`, when nothing is left.
    """
    values = probability.numpy()
    part = largest_part(values > 0.5)
    if part.sum() < MIN_SHARE * values.size:
        raise InputError(f"{label}: no outline of a head was found on it; give a standard plane that shows the head.")
    head = _without_strands(ndimage.binary_fill_holes(part))
    # A wide edge of an unsure network would not look like the sharp edges the shape model was trained with: the
    # distance to the half level, in pixels, follows from the slope there.
    by_row, by_column = np.gradient(values)
    distance = (values - 0.5) / np.maximum(np.hypot(by_row, by_column), 1e-3)
    edge = dilated(head) & ~eroded(head)
    fraction = np.where(edge, np.clip(distance + 0.5, 0, 1), head).astype(np.float32)
    return torch.from_numpy(fraction)


def _without_strands(head: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """What lies close to the largest part that is thick: a bright line beside the head may hang on to it. An oval, cut
    off or not, stays as it is."""
    depth = ndimage.distance_transform_edt(head)
    thin = _STRAND * depth.max()
    return head & (ndimage.distance_transform_edt(~largest_part(depth > thin)) <= 2 * thin)


def judge(name: str, image: PlaneImage, outline: Tensor, confidence: float) -> Outline:
    """What speaks against this being a usable standard plane of a head."""
    pixel_mm = image.pixel_mm * max(image.grey_yx.shape) / NETWORK_SIZE
    ellipse = moment_ellipse(outline[None])
    drawn = ellipse_map(ellipse, *outline.shape)[0]
    misfit = float((outline - drawn).abs().sum() / outline.sum())
    major_mm, minor_mm = (2 * ellipse.semi_axes[0] * pixel_mm).tolist()
    label, doubts = f"{image.label} ({name})", []
    if confidence < MIN_CONFIDENCE:
        doubts.append(f"{label} does not look like a standard plane of a fetal head "
                      f"(the network's confidence is {confidence:.2f}).")  # fmt: skip
    if misfit > MAX_MISFIT[name]:
        doubts.append(f"The outline found on {label} is no oval: it departs from one by {misfit:.0%} of its area.")
    if not HEAD_MM[0] <= major_mm <= HEAD_MM[1]:
        doubts.append(f"The outline found on {label} is {major_mm:.0f} x {minor_mm:.0f} mm large, and fetal heads are "
                      f"{HEAD_MM[0]:g} to {HEAD_MM[1]:g} mm long: check the pixel size.")  # fmt: skip
    if _touches_border(unletterbox(outline, image.grey_yx.shape)):
        doubts.append(f"The head on {label} reaches the frame's edge: what is cut off is guessed.")
    return Outline(outline, pixel_mm, ellipse, misfit, confidence, tuple(doubts))


def _touches_border(outline_yx: NDArray[np.float32]) -> bool:
    rim = np.concatenate([outline_yx[[0, -1]].ravel(), outline_yx[:, [0, -1]].ravel()])
    return float((rim > 0.5).mean()) > 0.02
