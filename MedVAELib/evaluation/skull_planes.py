"""Heads with known shape, and what an examination shows of them: planes placed by hand, imaged, their outlines found.

The way from the image on is that of `medvae skull`: the same outline network, cleaning and canonical maps. With given
outlines the image and the network are left out, which tells the outlines' errors from the shape model's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..skull.biometry import measure_heads
from ..skull.engine import OutlineEngine
from ..skull.imaged_planes import FILLED
from ..skull.outline import Outline, find_outlines, judge, letterbox
from ..skull.planes import PlaneImage
from ..skull.predict import network_input
from ..standard_planes import PLANES, Subset
from ..training.synthesis.head_masks import mask_files, read_mask, skull_thickness_mm
from ..training.synthesis.heads import KINDS, Head, HeadPopulation, read_head_shapes
from ..training.synthesis.planes import PlanePose, cut, draw_image_pose, outline_map
from ..training.synthesis.random import Draw
from ..training.synthesis.ultrasound import simulate_bmode
from .skull import Case
from .skull_metrics import Solid

IMAGE_PX = (432, 576)


@dataclass(frozen=True, eq=False)
class SeenPlanes:
    """What is seen of a head, by plane: the image, its outline as used, and the true one on the image's pixels."""

    images: Mapping[str, PlaneImage]
    outlines: Mapping[str, Outline]
    true_outlines: Mapping[str, np.ndarray]
    _canonical: dict[Subset, tuple[Tensor, Tensor, float]] = field(default_factory=dict, repr=False)

    def canonical(self, subset: Subset) -> tuple[Tensor, Tensor, float]:
        """Canonical maps (3, 96, 96), which of them are there (3,), and the spacing in mm of the case's grid; made once
        for all methods."""
        if subset not in self._canonical:
            chosen = {plane: (self.outlines[plane].map, self.outlines[plane].pixel_mm) for plane in subset}
            self._canonical[subset] = network_input(chosen)
        return self._canonical[subset]


@dataclass(frozen=True)
class Examination:
    """How planes are taken. misplacement: 1 for ±10°, ±7 pixels and ±3 mm; engine: finds the outlines, None to give
    them as they are."""

    engine: OutlineEngine | None
    misplacement: float = 1.0

    def see(self, head: Head, poses: Mapping[str, PlanePose], seed: int) -> SeenPlanes:
        """Images of all planes, half of them mirrored, and their outlines. Raises InputError where the
        network finds no head."""
        draw = Draw(seed)
        images, truths = {}, {}
        for plane, pose in poses.items():
            pixel_mm = head.ofd_mm / (IMAGE_PX[1] * draw.number(*FILLED))
            image, truth = self._image(draw, head, pose, pixel_mm)
            if draw.chance(0.5):
                image, truth = image.flip(1), truth.flip(1)
            images[plane] = PlaneImage(np.ascontiguousarray(image.numpy()), pixel_mm, name=head.name)
            truths[plane] = truth.numpy()
        if self.engine is not None:
            found = find_outlines(list(images.items()), self.engine)
        else:
            found = [judge(plane, images[plane], letterbox(truth), 1.0) for plane, truth in truths.items()]
        return SeenPlanes(images, dict(zip(images, found, strict=True)), truths)

    def _image(self, draw: Draw, head: Head, pose: PlanePose, pixel_mm: float) -> tuple[Tensor, Tensor]:
        if self.engine is not None:
            return simulate_bmode(draw, head, pose, IMAGE_PX, pixel_mm)
        outline = outline_map(cut(head.sdf, head.spacing_mm, pose, IMAGE_PX, pixel_mm), pixel_mm)
        return outline, outline


def case_of(head: Head, kind: str, examination: Examination, seed: int, name: str = "") -> Case:
    """A head as a case: its planes are placed here, and imaged when they are asked for."""
    number = int.from_bytes(hashlib.sha256(f"{seed} {name or head.name}".encode()).digest()[:6], "big")
    draw = Draw(number)
    poses = {plane: draw_image_pose(draw, plane, head, examination.misplacement) for plane in PLANES}
    sdf = head.sdf.cpu()
    measures = {key: float(value) for key, value in measure_heads(sdf[None] / head.spacing_mm, head.spacing_mm).items()}
    return Case(name or head.name, head.name, kind, Solid(sdf.numpy(), head.spacing_mm),
                lambda: examination.see(head, poses, number + 1), measures,
                {plane: partial(_distance_to_plane, pose) for plane, pose in poses.items()})


def mask_cases(folder: Path, names: Sequence[str], views: int, examination: Examination,
               seed: int) -> Iterator[Case]:
    """Every named mask below a folder as a head, its planes placed `views` times. Raises InputError for a mask that
    cannot be used."""
    files = mask_files(folder)
    for name in names:
        mask = read_mask(name, files[name])
        head = Head(mask.sdf, mask.sdf - skull_thickness_mm(mask.ga_weeks), mask.spacing_mm, mask.ga_weeks, "", name)
        kind = "mask, spina bifida" if "SB" in name else "mask"
        for view in range(views):
            yield case_of(head, kind, examination, seed, f"{name} view {view + 1}" if views > 1 else name)


def drawn_cases(folder: Path, names: Sequence[str], count: int, examination: Examination, seed: int) -> Iterator[Case]:
    """Heads drawn from the population of the named masks, all kinds in turn."""
    population = HeadPopulation(read_head_shapes(folder, names))
    for number in range(count):
        head = population(seed * 1_000_003 + number, KINDS[number % len(KINDS)])
        yield case_of(head, f"drawn, {head.kind}", examination, seed)


def held_back_names(folder: Path, training: Sequence[str], wanted: Sequence[str] = ()) -> list[str]:
    """Names of the masks to evaluate on: those wanted, else all that no model was trained or chosen on.

    Raises InputError for a name that is not there, and when nothing is left.
    """
    names = list(mask_files(folder))
    missing = sorted(set(wanted) - set(names))
    if missing:
        raise InputError(f"{folder} holds no head mask named {missing[0]}: it has {', '.join(names)}.")
    chosen = list(wanted) or [name for name in names if name not in set(training)]
    if not chosen:
        raise InputError(f"{folder} holds only heads that the models were trained on: name some with --name to see "
                         "what they make of those.")
    return chosen


def _distance_to_plane(pose: PlanePose, points_mm: np.ndarray) -> np.ndarray:
    """Of points (n, 3, zyx mm from the head's centroid)."""
    normal = pose.basis(torch.device("cpu"))[2].numpy()
    return np.abs(points_mm[:, ::-1] @ normal - pose.offset_mm)


