"""A cohort of synthetic patients in MNI space: who has what, and what the scan of each looks like.

Anatomy from label maps of real heads, brought to MNI as scans are; lesions from real masks or grown from the
ventricles; brightness, bias field, slices and noise as in `brains.py`. Split by anatomy, and the real lesion masks are
split too: no head and no lesion of the test scans is in the training scans.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...preprocessing.mni import WINDOW_CENTER_RAS_MM, WINDOW_MM_ZYX
from ...tissues import BACKGROUND, EXTRACEREBRAL, OUTER_CSF, VENTRICLES
from .acquisition import blur, closed, ragged, sample_groups, thick_slices, tissue_fractions
from .anatomy import GROUP_INDEX, GROUPS, LesionMask
from .brains import DWI, FLAIR
from .lesions import real_lesion
from .mni_heads import MniHead
from .normal_brightness import brighten
from .periventricular import leukoencephalopathy
from .random import Draw
from .sequences import Acquisition, brightness_factors, draw_acquisition, noise_factor

SPACING_MM = 2.0
SPLITS = {"train": 0.65, "validation": 0.1, "test": 0.25}
HEALTHY, MS, STROKE, LEUKO = "healthy", "ms", "stroke", "leuko"


@dataclass(frozen=True)
class Kind:
    """labels: what its patients have, each as often as it stands there; masks: where the real masks of its lesions lie
    below the folder of masks; spread: how much larger MNI brains are than those the masks were drawn in, zyx."""

    modality: str
    labels: tuple[str, ...]
    masks: str = ""
    spread: tuple[float, float, float] = (1.0, 1.0, 1.0)


KINDS = {
    # The masks of Lesjak et al. lie in a rigid MNI frame: brains keep their size. Scaled by what our average needs to
    # become as large as MNI, 75 % of their volume is in white matter, unscaled 69 %.
    "flair-leuko": Kind("flair", (HEALTHY, MS, f"{LEUKO}1", HEALTHY, MS, f"{LEUKO}2", f"{LEUKO}3"), "ms_ljubljana",
                        (1.125, 1.05, 1.09)),
    "flair-healthy": Kind("flair", (HEALTHY,)),
    "dwi-strokes": Kind("dwi", (STROKE, STROKE, STROKE, HEALTHY), "stroke_soop"),
}
BRIGHTNESS = {MS: (1.4, 1.8), LEUKO: (1.35, 1.75), STROKE: (1.8, 3.0)}
"""Of lesions against white matter: MS and acute infarcts (2.4 to 2.7) as measured on real scans, infarcts widened."""


@dataclass(frozen=True)
class CohortCase:
    """One scan to be made: all that decides it. head, mask: numbers of the head and of the lesion's mask, if any."""

    name: str
    label: str
    head: int
    split: str
    mask: int | None
    acquisition: Acquisition
    seed: int


@dataclass(frozen=True)
class CohortScan:
    """values, lesion: (80, 96, 80) float32 on the 2 mm MNI window, unscaled brightness and fraction of lesion; brain:
    bool."""

    values: NDArray[np.float32]
    lesion: NDArray[np.float32]
    brain: NDArray[np.bool_]


def plan(kind: str, count: int, seed: int, heads: int, masks: int, confounded: bool) -> list[CohortCase]:
    """The cases of a cohort: labels and heads in turn, so that every head has every label about equally often.

    confounded: the scanner's settings follow the label instead of chance. Raises ValueError for fewer than three heads
    or masks, from which no test set can be split off, or a confounded cohort of one label.
    """
    what, shuffle = KINDS[kind], Random(seed)
    labels = sorted(set(what.labels))
    if heads < len(SPLITS) or (what.masks and masks < len(SPLITS)):
        raise ValueError("a cohort needs three label maps and three masks at least, one for each part of the split")
    if confounded and len(labels) < 2:
        raise ValueError(f"a cohort of kind {kind} has one label, with which nothing can be confounded")
    order = shuffle.sample(range(heads), heads)
    split_of_head = _split(order)
    split_of_mask = _split(shuffle.sample(range(masks), masks)) if what.masks else {}
    masks_of = {split: [mask for mask, part in split_of_mask.items() if part == split] for split in SPLITS}
    cases = []
    for number in range(count):
        label = what.labels[number % len(what.labels)]
        head = order[(number // len(what.labels)) % heads]
        case_seed = seed * 1_000_003 + number
        place = labels.index(label) / (len(labels) - 1) if confounded else None
        # Apart from the picture's own seed, so that a confounded cohort shows the same brains as a plain one.
        acquisition = draw_acquisition(Draw(case_seed + 2**40), what.modality, place)
        mask = shuffle.choice(masks_of[split_of_head[head]]) if label in (MS, STROKE) else None
        name = f"{label}_{number:05d}"
        cases.append(CohortCase(name, label, head, split_of_head[head], mask, acquisition, case_seed))
    return cases


def least_count(kind: str, heads: int) -> int:
    """From how many scans on every part of the split has every label: heads come in turn, those that train last."""
    held_back = sum(part != "train" for part in _split(range(heads)).values())
    return (held_back + 1) * len(KINDS[kind].labels)


def _split(order: Sequence[int]) -> dict[int, str]:
    """Which part each of the shuffled numbers belongs to; every part gets one at least."""
    held_back = {split: max(1, round(share * len(order))) for split, share in SPLITS.items() if split != "train"}
    parts = [split for split, n in held_back.items() for _ in range(n)]
    return dict(zip(order, [*parts, *["train"] * (len(order) - len(parts))], strict=True))


class CohortSynthesiser:
    """Makes the scan of a case from the case alone."""

    def __init__(self, kind: str, heads: Sequence[MniHead], masks: Sequence[LesionMask]):
        self.kind, self.heads, self.masks = KINDS[kind], heads, masks
        self.shape = tuple(round(n / SPACING_MM) for n in WINDOW_MM_ZYX)
        axes = [torch.arange(n) * SPACING_MM - (n - 1) / 2 * SPACING_MM + centre
                for n, centre in zip(self.shape, WINDOW_CENTER_RAS_MM[::-1], strict=True)]
        self.grid_mm = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)

    def __call__(self, case: CohortCase) -> CohortScan:
        draw, head = Draw(case.seed), self.heads[case.head]
        mni, linear = self._place(draw)
        groups = sample_groups(head.anatomy.groups, mni @ head.linear.T + head.offset, head.linear @ linear, SPACING_MM)
        target = tissue_fractions(groups, self.shape)
        grey, lesion_factor = brightness_factors(self.kind.modality, case.acquisition)
        means = _group_means(draw, self.kind.modality, grey)
        image = means[groups].mean(0).view(self.shape)
        image = image * (1 + draw.number(0, 0.05) * draw.field(self.shape, 20)[0])
        image = brighten(draw, image, target, mni, SPACING_MM)
        lesion = self._lesion(draw, case, target, mni)
        if case.label != HEALTHY:
            brightness = draw.number(*BRIGHTNESS[case.label.rstrip("123")]) * lesion_factor
            texture = brightness * (1 + draw.number(0, 0.12) * draw.field(self.shape, draw.integer(8, 20))[0])
            image = image * (1 - lesion) + lesion * torch.maximum(texture, image)
        image = self._acquire(draw, image, means[groups[0]].view(self.shape), case.acquisition)
        brain = _brain(draw, target)
        return CohortScan(image.numpy(), (lesion * brain).numpy(), brain.numpy())

    def _place(self, draw: Draw) -> tuple[Tensor, Tensor]:
        """MNI positions (D, H, W, zyx) that the voxels show: what an affine registration leaves, and a shape of its own
        for every patient; and the linear part."""
        a, b, c = (draw.normal(3) * 0.02).tolist()
        skew = torch.tensor([[0, -c, b], [c, 0, -a], [-b, a, 0]])
        linear = torch.linalg.matrix_exp(skew) @ torch.diag(1 + 0.015 * draw.normal(3))
        if draw.chance(0.5):
            linear = linear * torch.tensor([1.0, 1.0, -1.0])  # mirror left and right
        centre = torch.tensor(WINDOW_CENTER_RAS_MM[::-1])
        elastic = draw.field(self.shape, 5, 3) * draw.number(0, 3.5)
        elastic = elastic + draw.field(self.shape, 11, 3) * draw.number(0, 1.5)
        moved = (self.grid_mm - centre) @ linear.T + centre + draw.normal(3) * 1.0
        return moved + elastic.permute(1, 2, 3, 0), linear

    def _lesion(self, draw: Draw, case: CohortCase, target: Tensor, mni: Tensor) -> Tensor:
        """Fraction (D, H, W) of lesion."""
        if case.mask is not None:
            centre = torch.tensor(WINDOW_CENTER_RAS_MM[::-1])
            where = (mni - centre) / torch.tensor(self.kind.spread) + centre + draw.normal(3) * 1.5
            tissue = 1 - target[[BACKGROUND, VENTRICLES, OUTER_CSF, EXTRACEREBRAL]].sum(0)
            return real_lesion(self.masks[case.mask], where) * tissue * draw.number(0.85, 1.0)
        if case.label.startswith(LEUKO):
            grade = int(case.label.removeprefix(LEUKO))
            return leukoencephalopathy(draw, grade, target, mni, SPACING_MM) * draw.number(0.85, 1.0)
        return torch.zeros(self.shape)

    def _acquire(self, draw: Draw, image: Tensor, tissue: Tensor, acquisition: Acquisition) -> Tensor:
        """Tissue's own grain, blur, slices, bias field and Rician noise."""
        image = image + draw.number(0, 0.05) * tissue * draw.normal(*self.shape)
        image = blur(image.clamp(min=0), draw.number(0.25, 0.8))
        if draw.chance(0.4):
            image = thick_slices(image, 0, draw.integer(2, 4))
        image = image * torch.exp(draw.field(self.shape, 3)[0] * draw.number(0, 0.2))
        noise = draw.number(0.02, 0.06) * noise_factor(self.kind.modality, acquisition)
        real, imaginary = noise * draw.normal(*self.shape), noise * draw.normal(*self.shape)
        return ((image + real).square() + imaginary.square()).sqrt()


def _group_means(draw: Draw, modality: str, grey: float) -> Tensor:
    """Brightness of each group, white matter 1, over the middle half of what was measured and widened for training."""
    table: Mapping[str, tuple[float, float]] = FLAIR if modality == "flair" else DWI
    means = torch.zeros(len(GROUPS))
    means[GROUP_INDEX["white"]] = 1.0
    for name, (low, high) in table.items():
        if name in ("ventricles", "outer csf"):
            value = draw.number(0.04, 0.15) if modality == "flair" else draw.number(0.3, 0.48)
        else:
            quarter = (high - low) / 4
            value = draw.number(low + quarter, high - quarter)
            if name not in ("cerebellar white", "brainstem"):
                value *= grey
        means[GROUP_INDEX[name]] = value
    means[GROUP_INDEX["outer csf"] + 1 :] = draw.number(0.3, 1.0)  # shows where a mask reaches beyond the brain
    return means


def _brain(draw: Draw, target: Tensor) -> Tensor:
    """An imperfect brain mask (bool): sulci closed, grown and shrunk by a voxel from place to place."""
    tissue = 1 - target[[BACKGROUND, OUTER_CSF, EXTRACEREBRAL]].sum(0)
    level = draw.field(tuple(tissue.shape), 8)[0] * draw.number(0, 0.8) + draw.number(-0.5, 0.5)
    return ragged(closed((tissue > 0.5).float()[None, None]), level)
