"""What a scanner burns into its pictures: callipers, writing, scales, grey bars and blanked rectangles."""

from __future__ import annotations

import torch
from torch import Tensor

from .random import Draw


def annotate(draw: Draw, image: Tensor, outline: Tensor) -> Tensor:
    """A copy of a picture (H, W) with a random choice of marks; outline (H, W) tells where callipers belong."""
    image = image.clone()
    for mark, probability in ((_callipers, 0.2), (_dotted_ellipse, 0.04), (_depth_scale, 0.4), (_grey_bar, 0.35),
                              (_writing, 0.5), (_writing, 0.3), (_blank, 0.35), (_blank, 0.15)):
        if draw.chance(probability):
            mark(draw, image, outline)
    return image


def _edge_points(outline: Tensor) -> Tensor:
    return torch.nonzero((outline > 0.2) & (outline < 0.8))


def _put(image: Tensor, row: int, column: int, pattern: Tensor, value: float) -> None:
    """Writes `value` where pattern (h, w) is set, as far as it lies within the image."""
    top, left = max(row, 0), max(column, 0)
    bottom, right = min(row + pattern.shape[0], image.shape[0]), min(column + pattern.shape[1], image.shape[1])
    if top < bottom and left < right:
        part = pattern[top - row : bottom - row, left - column : right - column]
        image[top:bottom, left:right] = torch.where(part, value, image[top:bottom, left:right])


def _cross(size: int, device: torch.device) -> Tensor:
    pattern = torch.zeros(2 * size + 1, 2 * size + 1, dtype=torch.bool, device=device)
    pattern[size], pattern[:, size] = True, True
    return pattern


def _callipers(draw: Draw, image: Tensor, outline: Tensor) -> None:
    """Crosses on opposite points of the outline or, at times, anywhere: they must not tell where the head is."""
    edge = _edge_points(outline)
    if draw.chance(0.4):
        height, width = image.shape
        edge = (draw.uniform(0, 1, 40, 2) * edge.new_tensor([height, width])).long()
    if len(edge) < 8:
        return
    size, value = draw.integer(2, 4), draw.number(0.7, 1.0)
    pattern = _cross(size, image.device)
    centre = edge.float().mean(0)
    for _ in range(draw.integer(1, 3)):
        first = edge[draw.integer(0, len(edge))].float()
        second = edge[(edge.float() - (2 * centre - first)).square().sum(1).argmin()].float()
        for point in (first, second):
            _put(image, int(point[0]) - size, int(point[1]) - size, pattern, value)
        if draw.chance(0.6):
            share = torch.linspace(0, 1, max(2, int((second - first).norm() / 4)), device=image.device)[:, None]
            dots = (first + share * (second - first)).long()
            image[dots[:, 0], dots[:, 1]] = value


def _dotted_ellipse(draw: Draw, image: Tensor, outline: Tensor) -> None:
    edge = _edge_points(outline)
    if len(edge):
        kept = edge[(edge.sum(1) % draw.integer(3, 6)) == 0]
        image[kept[:, 0], kept[:, 1]] = draw.number(0.5, 1.0)


def _depth_scale(draw: Draw, image: Tensor, outline: Tensor) -> None:
    column = draw.integer(0, 8) if draw.chance(0.5) else image.shape[1] - draw.integer(1, 9)
    step, value = draw.integer(6, 16), draw.number(0.4, 1.0)
    image[::step, column] = value
    image[:: 5 * step, max(column - 2, 0) : column + 3] = value


def _grey_bar(draw: Draw, image: Tensor, outline: Tensor) -> None:
    height, width = draw.integer(20, max(21, image.shape[0] // 2)), draw.integer(1, 5)
    row, column = draw.integer(0, max(1, image.shape[0] - height)), draw.integer(0, 6)
    ramp = torch.linspace(1, 0, height, device=image.device)[:, None]
    image[row : row + height, column : column + width] = ramp[: image.shape[0] - row]


def _writing(draw: Draw, image: Tensor, outline: Tensor) -> None:
    """Lines of random signs."""
    value, lines = draw.number(0.5, 1.0), draw.integer(1, 5)
    row, left = draw.integer(0, image.shape[0]), draw.integer(0, image.shape[1])
    if draw.chance(0.75):  # mostly beside the sector
        left = draw.integer(0, 12) if draw.chance(0.5) else image.shape[1] - draw.integer(12, 50)
    for _ in range(lines):
        for column in range(left, left + 4 * draw.integer(3, 16), 4):
            _put(image, row, column, draw.uniform(0, 1, 5, 3) < 0.55, value)
        row += 7


def _blank(draw: Draw, image: Tensor, outline: Tensor) -> None:
    """A black rectangle in a corner, where a patient's name or a body mark stood."""
    height, width = draw.integer(6, image.shape[0] // 4), draw.integer(8, image.shape[1] // 4)
    rows = slice(0, height) if draw.chance(0.3) else slice(image.shape[0] - height, None)
    columns = slice(0, width) if draw.chance(0.3) else slice(image.shape[1] - width, None)
    image[rows, columns] = 0
