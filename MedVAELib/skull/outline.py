"""The head's outline on a plane image: found by a network, cleaned, and judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from ..errors import InputError
from ..preprocessing.morphology import bounding_box, dilated, eroded, largest_part, opened
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
HEAD_MM = (15.0, 150.0)
"""Long axis of a fetal head in any of the planes, from the tenth week."""
ANOTHER = 0.15
"""Of the area of the largest part, what makes another one a second head: .05 at most on 202 real planes of one head,
.22 at least on 19 pictures of two heads side by side (HC18, training and validation)."""
CLOSER_BELOW = 0.5
"""Of the network's grid: a head whose long axis spans less is looked at again, with _AROUND of it on every side, which
makes it as large as heads are on most pictures that the network has learned."""
_AROUND = 0.45
_MOST_LOOKS = 3
_AGREE = 0.9
MIN_SHARED = 0.7
"""Dice of two looks at a head: from _AGREE on there is no further one; below MIN_SHARED of the last with the first, or
with that before, is a doubt."""
_BLACK = 4 / 255
_OPENING, _NEAR = 4 / 460, 6 / 460  # of the head's long axis, which has 460 pixels on most of these planes
_MOST_BLACK = 0.16
"""Of an axial outline's rim, what may lie as near as _NEAR to the black around a picture, more than twice _OPENING
wide: 3 of 202 real planes have more (HC18, training and validation), also at half and a third of their size, and of as
many with 12 % of the head's width blacked out 190. In the other planes the base often lies in shadow, and there are no
real ones to choose a limit on."""
_RING_PX = 3
_DARKER = 0.01
Window = tuple[slice, slice]
"""Rows and columns of an image."""


@dataclass(frozen=True, eq=False)
class Outline:
    """The head on a plane, on the network's grid.

    map: (192, 192) float32 fraction of head; pixel_mm: of that grid; ellipse: in its pixels; misfit: share of the
    area by which the outline departs from the ellipse; confidence: 0…1; window: what the grid shows of the image, of
    image_shape; side: "left", "right", "upper" or "lower" where the grid shows another head beside it, else "";
    doubts: sentences.
    """

    map: Tensor
    pixel_mm: float
    ellipse: MomentEllipse
    misfit: float
    confidence: float
    window: Window
    image_shape: tuple[int, int]
    side: str = ""
    doubts: tuple[str, ...] = ()

    @property
    def semi_axes_mm(self) -> tuple[float, float]:
        major, minor = (self.ellipse.semi_axes[0] * self.pixel_mm).tolist()
        return major, minor

    @property
    def centre_yx_px(self) -> tuple[float, float]:
        """Row and column of the centroid on the image."""
        place = image_position(self.ellipse.centre[0].tolist(), _shape(self.window))
        row, column = (at + part.start for at, part in zip(place, self.window, strict=True))
        return row, column

    def on_image(self) -> NDArray[np.float32]:
        """The map on the image's own pixels."""
        whole = np.zeros(self.image_shape, np.float32)
        whole[self.window] = unletterbox(self.map, _shape(self.window))
        return whole


def find_outlines(planes: Sequence[tuple[str, PlaneImage]], engine: OutlineEngine) -> list[Outline]:
    """The outline on each of the named planes: a small head's is found on the whole image, then on what is around it.
    Raises InputError where there is nothing like a head."""
    first = _looked_at(planes, [_whole(image.grey_yx) for _, image in planes], engine)
    found = [_closer(plane, outline, engine) if _is_small(outline) else outline
             for plane, outline in zip(planes, first, strict=True)]
    return [replace(outline, doubts=(*outline.doubts, *_two_heads(plane, whole)))
            for plane, whole, outline in zip(planes, first, found, strict=True)]


def _two_heads(plane: tuple[str, PlaneImage], outline: Outline) -> tuple[str, ...]:
    """A doubt of a look at the whole image, which shows all that is on it."""
    if not outline.side:
        return ()
    return (f"There may be two heads on {plane[1].label} ({plane[0]}), and the {outline.side} one was measured: if so, "
            "crop the image to the one that you mean.",)


def _looked_at(
    planes: Sequence[tuple[str, PlaneImage]], windows: Sequence[Window], engine: OutlineEngine
) -> list[Outline]:
    images = torch.stack([letterbox(image.grey_yx[window]) for (_, image), window in zip(planes, windows, strict=True)])
    probability, confidence = engine.find(images)
    outlines = []
    for i, (name, image) in enumerate(planes):
        outline = clean(probability[i], f"{image.label} ({name})")
        found = judge(name, image, outline, float(confidence[i]), windows[i])
        outlines.append(replace(found, side=_side(probability[i])))
    return outlines


def _whole(grey_yx: NDArray[np.float32]) -> Window:
    height, width = grey_yx.shape
    return slice(0, height), slice(0, width)


def _around(outline: Outline) -> Window:
    """A head's box with a margin."""
    head = outline.on_image() > 0.5
    rows, columns = bounding_box(head, (0, 0))
    margin = round(_AROUND * max(rows.stop - rows.start, columns.stop - columns.start))
    return bounding_box(head, (margin, margin))


def _is_small(outline: Outline) -> bool:
    return 2 * float(outline.ellipse.semi_axes[0, 0]) < CLOSER_BELOW * NETWORK_SIZE


def _closer(plane: tuple[str, PlaneImage], outline: Outline, engine: OutlineEngine) -> Outline:
    """A small head looked at again, from closer by, until two looks agree; with a doubt where they do not."""
    first, agree, kept = outline.on_image() > 0.5, 0.0, 0.0
    for _ in range(_MOST_LOOKS - 1):
        try:
            again = _looked_at([plane], [_around(outline)], engine)[0]
        except InputError:  # nothing like a head any more
            agree = 0.0
            break
        head = again.on_image() > 0.5
        agree, kept = _dice(outline.on_image() > 0.5, head), _dice(first, head)
        outline = again
        if agree >= _AGREE:
            break
    if min(agree, kept) >= MIN_SHARED:
        return outline
    doubt = (f"The head on {plane[1].label} ({plane[0]}) is small in its frame, and another one when looked at more "
             "closely: crop the image to the head.")
    return replace(outline, doubts=(*outline.doubts, doubt))


def _dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return 2 * float((one & other).sum()) / max(1, int(one.sum()) + int(other.sum()))


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
        raise InputError(f"{label}: no outline of a head was found on it; give a standard plane that shows the head, "
                         "cropped to that one plane.")
    head = _without_strands(ndimage.binary_fill_holes(part))
    # A wide edge of an unsure network would not look like the sharp edges the shape model was trained with: the
    # distance to the half level, in pixels, follows from the slope there.
    by_row, by_column = np.gradient(values)
    distance = (values - 0.5) / np.maximum(np.hypot(by_row, by_column), 1e-3)
    edge = dilated(head) & ~eroded(head)
    fraction = np.where(edge, np.clip(distance + 0.5, 0, 1), head).astype(np.float32)
    return torch.from_numpy(fraction)


def _side(probability: Tensor) -> str:
    """Where the largest part lies against another one that may be a head, too: "left", "right", "upper" or "lower"; ""
    where there is none."""
    labels, count = ndimage.label(probability.numpy() > 0.5)
    areas = np.bincount(labels.ravel())[1:]
    if count < 2 or np.partition(areas, -2)[-2] < ANOTHER * areas.max():
        return ""
    second, first = np.argsort(areas, kind="stable")[-2:] + 1
    down, right = np.subtract(*ndimage.center_of_mass(labels > 0, labels, [first, second]))
    if abs(down) > abs(right):
        return "lower" if down > 0 else "upper"
    return "right" if right > 0 else "left"


def _without_strands(head: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """What lies close to the largest part that is thick: a bright line beside the head may hang on to it. An oval, cut
    off or not, stays as it is."""
    depth = ndimage.distance_transform_edt(head)
    thin = _STRAND * depth.max()
    return head & (ndimage.distance_transform_edt(~largest_part(depth > thin)) <= 2 * thin)


def judge(
    name: str, image: PlaneImage, outline: Tensor, confidence: float, window: Window | None = None
) -> Outline:
    """What speaks against this being a usable standard plane of a head. window: what the outline's grid shows of the
    image, None for all of it."""
    window = window or _whole(image.grey_yx)
    pixel_mm = image.pixel_mm * max(_shape(window)) / NETWORK_SIZE
    ellipse = moment_ellipse(outline[None])
    drawn = ellipse_map(ellipse, *outline.shape)[0]
    misfit = float((outline - drawn).abs().sum() / outline.sum())
    found = Outline(outline, pixel_mm, ellipse, misfit, confidence, window, image.grey_yx.shape)
    major_mm, minor_mm = (2 * mm for mm in found.semi_axes_mm)
    label, doubts = f"{image.label} ({name})", []
    if confidence < MIN_CONFIDENCE:
        doubts.append(f"{label} does not look like a standard plane of a fetal head "
                      f"(the network's confidence is {confidence:.2f}).")
    if misfit > MAX_MISFIT[name]:
        doubts.append(f"The outline found on {label} is no oval: it departs from one by {misfit:.0%} of its area.")
    if not HEAD_MM[0] <= major_mm <= HEAD_MM[1]:
        doubts.append(f"The outline found on {label} is {major_mm:.0f} x {minor_mm:.0f} mm large, and fetal heads are "
                      f"{HEAD_MM[0]:g} to {HEAD_MM[1]:g} mm long: check the pixel size.")
    if _touches_border(found.on_image()):
        doubts.append(f"The head on {label} reaches the frame's edge: what is cut off is guessed.")
    elif name == "axial" and (black := _at_black(image.grey_yx, found.on_image() > 0.5,
                                                 major_mm / image.pixel_mm)) > _MOST_BLACK:
        doubts.append(f"{black:.0%} of the outline found on {label} runs along black, as where the head reaches the "
                      "picture's edge: what is cut off there is guessed.")
    if _looks_inverted(image, found):
        doubts.append(f"{label} looks inverted, bone darker than brain and the frame's border brighter than its "
                      "middle: give the image as the machine shows it, bright on black.")
    return replace(found, doubts=tuple(doubts))


def _at_black(grey_yx: NDArray[np.float32], head_yx: NDArray[np.bool_], long_px: float) -> float:
    """Share of a head's rim at which the picture ends: in the black around an ultrasound's sector, or around a picture
    pasted into a frame. long_px: the head's long axis."""
    opening, near = (max(1, round(share * long_px)) for share in (_OPENING, _NEAR))
    labels, _ = ndimage.label(opened(grey_yx <= _BLACK, opening))
    at_border = np.unique(np.concatenate([labels[[0, -1]].ravel(), labels[:, [0, -1]].ravel()]))
    outside = np.isin(labels, at_border[at_border > 0])
    rim = head_yx & ~eroded(head_yx)
    return float((rim & dilated(outside, near)).sum()) / max(1, int(rim.sum()))


def _looks_inverted(image: PlaneImage, outline: Outline) -> bool:
    """Both signs of a print on white paper: of 250 real planes, 7 show the first, 11 the second, and none both."""
    head, grey = outline.map.numpy() > 0.5, letterbox(image.grey_yx[outline.window]).numpy()
    inner = eroded(head, 2 * _RING_PX)
    if not inner.any():
        return False
    bone = float(np.median(grey[dilated(head, _RING_PX) & ~eroded(head, _RING_PX)]))
    middle, border = _middle_and_border(image.grey_yx)
    return bone < float(np.median(grey[inner])) - _DARKER and middle < border - _DARKER


def _middle_and_border(grey_yx: NDArray[np.float32]) -> tuple[float, float]:
    """Medians of the middle half and of a strip of 5 % along the border."""
    rows, columns = ((n // 4, n - n // 4, max(1, n // 20)) for n in grey_yx.shape)
    strip = np.ones(grey_yx.shape, bool)
    strip[rows[2] : -rows[2], columns[2] : -columns[2]] = False
    return float(np.median(grey_yx[rows[0] : rows[1], columns[0] : columns[1]])), float(np.median(grey_yx[strip]))


def _shape(window: Window) -> tuple[int, int]:
    rows, columns = window
    return rows.stop - rows.start, columns.stop - columns.start


def _touches_border(outline_yx: NDArray[np.float32]) -> bool:
    rim = np.concatenate([outline_yx[[0, -1]].ravel(), outline_yx[:, [0, -1]].ravel()])
    return float((rim > 0.5).mean()) > 0.02
