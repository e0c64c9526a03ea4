"""Training cases of the outline network: simulated pictures, real HC18 planes, and pictures without a head."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ..progress import CancelToken
from ..training.hc18 import plane_names, read_plane
from ..training.processes import from_background, heard_alone
from ..training.synthesis.planes import smooth_noise
from ..training.synthesis.random import Draw
from ..training.synthesis.ultrasound import PictureMaker
from .outline import NETWORK_SIZE

_KEPT = 400  # pixels along a real plane's longer side that are kept: twice what the network sees
Batch = tuple[Tensor, Tensor, Tensor]
"""image (B, 1, 192, 192) 0…1, outline (B, 1, 192, 192) 0…1, head (B,) 0 or 1: what the loss takes."""


@dataclass(frozen=True)
class MixConfig:
    """real: share of real planes among the pictures with a head (0: simulated only); empty: share of pictures without
    a head; turn_deg, zoom: greatest rotation, and range of scales, of augmented pictures."""

    real: float = 0.35
    empty: float = 0.12
    turn_deg: float = 40.0
    zoom: tuple[float, float] = (0.7, 1.35)

    def __post_init__(self) -> None:
        if not (0 <= self.real <= 1 and 0 <= self.empty < 1):
            raise ValueError("real and empty must be shares")
        if not 0 < self.zoom[0] <= self.zoom[1]:
            raise ValueError("zoom must be a range of positive scales")


def read_real(folder: Path, part: str) -> list[Tensor]:
    """The HC18 planes of a part with their outlines: (2, H, W) each, shrunk to what augmentation needs."""
    planes = []
    for name in plane_names(folder, part):
        plane = read_plane(folder, name)
        both = torch.stack([torch.from_numpy(plane.grey_yx), torch.from_numpy(plane.outline_yx)])
        scale = min(1.0, _KEPT / max(both.shape[1:]))
        size = [round(n * scale) for n in both.shape[1:]]
        planes.append(F.interpolate(both[None], size=size, mode="bilinear", antialias=True)[0])
    return planes


class OutlineCaseMaker:
    """Cases by number, each from its seed alone. real: planes from `read_real`, or none."""

    def __init__(self, pictures: PictureMaker, real: list[Tensor], mix: MixConfig):
        self.pictures, self.real, self.mix = pictures, real, mix

    def __call__(self, seed: int) -> tuple[Tensor, Tensor, float]:
        """image, outline (192, 192), and 1 for a head plane."""
        draw = Draw(seed + (1 << 42))
        if draw.chance(self.mix.empty):
            image = self._empty(draw, seed)
            return degraded(draw, image), torch.zeros_like(image), 0.0
        if self.real and draw.chance(self.mix.real):
            both = self.real[draw.integer(0, len(self.real))]
            image, outline = augmented(draw, both, self.mix)
        else:
            picture = self.pictures(seed)
            image, outline = picture.image, picture.outline
            if draw.chance(0.3):
                image, outline = augmented(draw, torch.stack([image, outline]), self.mix)
        return degraded(draw, image), outline, 1.0

    def _empty(self, draw: Draw, seed: int) -> Tensor:
        kind = draw.integer(0, 4)
        if kind == 0:
            return _pattern(draw)
        if kind == 1 and self.real:
            both = self.real[draw.integer(0, len(self.real))]
        else:
            picture = self.pictures(seed)
            both = torch.stack([picture.image, picture.outline])
        image, outline = augmented(draw, both, self.mix)
        return _without_head(draw, image, outline)


def augmented(draw: Draw, both: Tensor, mix: MixConfig) -> tuple[Tensor, Tensor]:
    """A picture and its outline (2, H, W), turned, scaled, moved, mirrored, at times cropped: (192, 192) each."""
    height, width = both.shape[1:]
    turn = math.radians(draw.number(-mix.turn_deg, mix.turn_deg) + 180 * draw.chance(0.3))
    zoom = math.exp(draw.number(math.log(mix.zoom[0]), math.log(mix.zoom[1])))
    stretch = math.exp(draw.number(-0.08, 0.08))
    mirror = -1.0 if draw.chance(0.5) else 1.0
    step = max(height, width) / NETWORK_SIZE / zoom  # pixels of the picture per pixel of the square
    line = torch.arange(NETWORK_SIZE) - (NETWORK_SIZE - 1) / 2
    rows, columns = line[:, None] * step * stretch, line[None] * step / stretch * mirror
    # What the picture is turned about lies where the middle of its outline goes: near the middle of the square.
    mass = both[1].sum().clamp(min=1)
    centre = [float((both[1].sum(1 - axis) * torch.arange(n)).sum() / mass) for axis, n in enumerate((height, width))]
    share = draw.number(0, 1)
    middle = [share * c + (1 - share) * (n - 1) / 2 for c, n in zip(centre, (height, width), strict=True)]
    moved = [m + draw.number(-0.08, 0.08) * n for m, n in zip(middle, (height, width), strict=True)]
    row = moved[0] + rows * math.cos(turn) - columns * math.sin(turn)
    column = moved[1] + rows * math.sin(turn) + columns * math.cos(turn)
    grid = torch.stack([(2 * column + 1) / width - 1, (2 * row + 1) / height - 1], -1)[None]
    if step > 1.3:
        both = F.avg_pool2d(both[None], 3, 1, 1, count_include_pad=False)[0]
    image, outline = F.grid_sample(both[None], grid, mode="bilinear", align_corners=False)[0]
    return _windowed(draw, image, outline)


def _windowed(draw: Draw, image: Tensor, outline: Tensor) -> tuple[Tensor, Tensor]:
    """The picture cut to a frame of usual proportions, black around it, as it is when a whole plane is fitted in."""
    if draw.chance(0.5):
        return image, outline
    side = NETWORK_SIZE
    high = round(side * draw.number(0.62, 1.0))
    top = (side - high) // 2
    frame = torch.zeros_like(image)
    frame[top : top + high] = 1
    return image * frame, outline * frame


def degraded(draw: Draw, image: Tensor) -> Tensor:
    """Gain, gamma, blur, noise, uneven brightness, 8 bits."""
    image = image.clamp(0, 1) ** math.exp(draw.number(-0.5, 0.5)) * draw.number(0.55, 1.25)
    if draw.chance(0.3):
        image = F.avg_pool2d(image[None, None], 3, 1, 1)[0, 0]
    if draw.chance(0.3):
        image = image + draw.normal(*image.shape) * draw.number(0, 0.06) * (image > 0)
    if draw.chance(0.2):
        uneven = smooth_noise(draw, tuple(image.shape), draw.integer(2, 5))
        image = image * torch.exp(draw.number(0, 0.5) * uneven)
    return (image.clamp(0, 1) * 255).round() / 255


def _without_head(draw: Draw, image: Tensor, outline: Tensor) -> Tensor:
    """The same tissue with no head in it: a part beside the head, enlarged; else the picture in scrambled pieces."""
    if draw.chance(0.5):
        size = draw.integer(48, 80)
        places = [(draw.integer(0, NETWORK_SIZE - size), draw.integer(0, NETWORK_SIZE - size)) for _ in range(12)]
        best = min(places, key=lambda at: float(outline[at[0] : at[0] + size, at[1] : at[1] + size].sum()))
        part = image[best[0] : best[0] + size, best[1] : best[1] + size]
        if outline[best[0] : best[0] + size, best[1] : best[1] + size].mean() < 0.02 and part.std() > 0.02:
            return F.interpolate(part[None, None], size=(NETWORK_SIZE, NETWORK_SIZE), mode="bilinear")[0, 0]
    pieces = draw.integer(3, 7)
    size = NETWORK_SIZE // pieces
    whole = image[: size * pieces, : size * pieces].reshape(pieces, size, pieces, size).permute(0, 2, 1, 3)
    order = torch.randperm(pieces * pieces, generator=draw.generator)
    mixed = whole.reshape(-1, size, size)[order].reshape(pieces, pieces, size, size).permute(0, 2, 1, 3)
    return F.interpolate(mixed.reshape(1, 1, size * pieces, -1), size=(NETWORK_SIZE, NETWORK_SIZE))[0, 0]


def _pattern(draw: Draw) -> Tensor:
    """No ultrasound at all: nothing, noise, clouds, stripes, a gradient, rectangles."""
    side, kind = NETWORK_SIZE, draw.integer(0, 6)
    if kind == 0:
        return torch.full((side, side), draw.number(0, 1) if draw.chance(0.5) else 0.0)
    if kind == 1:
        return draw.uniform(0, 1, side, side)
    if kind == 2:
        return (0.5 + 0.3 * smooth_noise(draw, (side, side), draw.integer(3, 30))).clamp(0, 1)
    line = torch.linspace(-1, 1, side)
    angle = draw.number(0, math.pi)
    ramp = line[:, None] * math.sin(angle) + line[None] * math.cos(angle)
    if kind == 3:
        return 0.5 + 0.5 * torch.sin(ramp * draw.number(3, 60))
    if kind == 4:
        return (0.5 + 0.5 * ramp).clamp(0, 1)
    image = torch.full((side, side), draw.number(0, 0.3))
    for _ in range(draw.integer(1, 8)):
        top, left, high, wide = (draw.integer(0, 150), draw.integer(0, 150), draw.integer(8, 90), draw.integer(8, 90))
        image[top : top + high, left : left + wide] = draw.number(0, 1)
    return image


class OutlineBatches:
    """Batches by number; make: builds the maker, called where the batches are made."""

    def __init__(self, make: Callable[[], OutlineCaseMaker], batch: int, seed: int):
        self.make, self.batch, self.seed = make, batch, seed
        self._maker: OutlineCaseMaker | None = None

    def __getitem__(self, number: int) -> Batch:
        self._maker = self._maker or self.make()
        return outline_batch(self._maker, self.seed, number, self.batch)


def outline_batch(maker: OutlineCaseMaker, seed: int, number: int, batch: int) -> Batch:
    """Batch `number` of the endless stream `seed`: the same whoever makes it."""
    first = seed * 10_000_019 + number * batch
    images, outlines, heads = zip(*(maker(first + index) for index in range(batch)), strict=True)
    return torch.stack(images)[:, None], torch.stack(outlines)[:, None], torch.tensor(heads)


def outline_stream(
    make: Callable[[], OutlineCaseMaker], batch: int, seed: int, start: int, workers: int,
    cancel: CancelToken | None = None,
) -> Iterator[Batch]:
    """Batches from background processes or (workers 0) none. cancel: also ends the waiting for a batch, by Cancelled,
    where one process trains."""
    return from_background(OutlineBatches(make, batch, seed), workers, heard_alone(cancel).check, count(start))
