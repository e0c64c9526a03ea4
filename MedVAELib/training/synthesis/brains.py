"""Synthetic brain scans by full domain randomisation, with the healthy anatomy behind each as the target.

Follows the generative idea of SynthSeg (Billot et al. 2023, doi:10.1016/j.media.2023.102789): label map → random
shape → random intensity per structure → random acquisition. Half of the scans are FLAIR- or DWI-like. Lesions and
coarse noise go into the input only. Everything runs in torch on one device.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...preprocessing.intensity import NETWORK_MAX, NETWORK_MEDIAN
from ...tissues import VENTRICLES
from .acquisition import blur, closed, ragged, sample_groups, thick_slices, tissue_fractions
from .anatomy import GROUP_INDEX, GROUPS, Anatomy, LesionMask
from .lesions import MNI_BRAIN_CENTRE, MNI_BRAIN_SIZE, add_lesions
from .normal_brightness import brighten
from .random import Draw

# Brightness against white matter = 1, (low, high) per group; measured on real scans and widened.
FLAIR = {
    "cortex": (1.05, 1.5), "hippocampus": (1.1, 1.6), "thalamus": (0.92, 1.25), "striatum": (0.92, 1.3),
    "cerebellar white": (0.9, 1.15), "cerebellar cortex": (1.0, 1.45), "brainstem": (0.88, 1.25),
    "ventricles": (0.03, 0.4), "outer csf": (0.05, 0.5),
}
DWI = {
    "cortex": (1.15, 1.6), "hippocampus": (1.15, 1.65), "thalamus": (1.02, 1.4), "striatum": (0.95, 1.4),
    "cerebellar white": (0.9, 1.2), "cerebellar cortex": (1.0, 1.5), "brainstem": (0.88, 1.35),
    "ventricles": (0.2, 0.6), "outer csf": (0.2, 0.65),
}
LESION_BRIGHTNESS = {"flair": (1.15, 2.2), "dwi": (1.3, 3.0), "random": (0.1, 2.2)}


@dataclass(frozen=True)
class SynthesisConfig:
    """What is synthesised. Sizes in voxels of `spacing_mm`; probabilities are per scan."""

    shape: tuple[int, int, int] = (80, 96, 80)
    spacing_mm: float = 2.0
    head: float = 0.5  # scans with the head's other tissues; the rest are skull-stripped
    flair: float = 0.45
    dwi: float = 0.15
    lesions: float = 0.75
    tumour: float = 0.15  # of the scans with lesions
    lesion_brightness: tuple[float, float] | None = None  # of bright lesions against white matter; None: by contrast
    bright: float = 0.78  # of the lesions; the rest are darker than white matter
    real_masks: float = 0.6  # of the scans with lesions, where there are masks
    blobs: float = 0.7
    coarse_noise: float = 0.3
    truncated: float = 0.25
    thick_slices: float = 0.45

    def __post_init__(self) -> None:
        if any(n % 16 for n in self.shape):
            raise ValueError(f"shape {self.shape}: every side must be a multiple of 16")
        if not self.spacing_mm > 0:
            raise ValueError("spacing_mm must be positive")
        if self.flair + self.dwi > 1:
            raise ValueError("flair + dwi must not exceed 1")


@dataclass
class SyntheticScan:
    """image (1, D, H, W) as the network sees it; target (K, D, H, W) tissue fractions, all zero where unknowable;
    lesions (D, H, W) fraction of lesion in the input; contrast "flair", "dwi" or "random"."""

    image: Tensor
    target: Tensor
    lesions: Tensor
    contrast: str


class BrainSynthesiser:
    """Makes scan number n from seed and n alone."""

    def __init__(self, anatomies: list[Anatomy], masks: list[LesionMask], config: SynthesisConfig, device="cpu"):
        self.config = config
        self.device = torch.device(device)
        self.masks = masks
        self.anatomies = anatomies
        axes = [(torch.arange(n, device=self.device) - (n - 1) / 2) * config.spacing_mm for n in config.shape]
        self.grid_mm = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)  # (D, H, W, zyx)

    def __call__(self, seed: int) -> SyntheticScan:
        draw = Draw(seed, self.device)
        anatomy = self.anatomies[draw.integer(0, len(self.anatomies))]
        centre = torch.tensor(anatomy.brain_centre, device=self.device)
        tumour = self._tumour(draw) if draw.chance(self.config.lesions) else None
        with_lesions = tumour is not None or draw.chance(self.config.lesions)
        coords, linear = self._deform(draw, tumour)
        labels = anatomy.groups.to(self.device)
        groups = sample_groups(labels, coords + centre, linear, self.config.spacing_mm)  # (S, N) subsamples
        shape = self.config.shape
        target = tissue_fractions(groups, shape)
        contrast, means, spreads = self._contrast(draw)
        image = means[groups].mean(0).view(shape)
        image = image * (1 + draw.number(0, 0.06) * draw.field(shape, 20)[0])
        size = torch.tensor(anatomy.brain_size, device=self.device)
        mni = coords * (torch.tensor(MNI_BRAIN_SIZE, device=self.device) / size)
        mni = mni + torch.tensor(MNI_BRAIN_CENTRE, device=self.device)
        if contrast != "random":
            image = brighten(draw, image, target, mni, self.config.spacing_mm)
        lesions = torch.zeros_like(image)
        brain = target[[1, 2, 3, 6, 7]].sum(0)
        if with_lesions:
            brightness = self.config.lesion_brightness or LESION_BRIGHTNESS[contrast]
            image, lesions = add_lesions(draw, image, brain, mni, self.masks, brightness, tumour, self.config)
        image = image + spreads[groups[0]].view(shape) * draw.normal(*shape)
        return SyntheticScan(*self._acquire(draw, image, target, brain), lesions, contrast)

    # ---- shape ----

    def _tumour(self, draw: Draw) -> tuple[Tensor, float] | None:
        """Centre (voxels) and radius (voxels) of a space-occupying lesion, or none."""
        if not draw.chance(self.config.tumour):
            return None
        shape = torch.tensor(self.config.shape, device=self.device)
        centre = (shape - 1) / 2 + draw.uniform(-1, 1, 3) * shape * 0.28
        return centre, draw.number(10, 28) / self.config.spacing_mm

    def _deform(self, draw: Draw, tumour: tuple[Tensor, float] | None) -> tuple[Tensor, Tensor]:
        """Source positions (D, H, W, zyx mm) from the brain's centre, and the linear part (3, 3)."""
        shape = self.config.shape
        grid = self.grid_mm
        if tumour is not None and draw.chance(0.7):  # mass effect: tissue around the centre is pushed outwards
            centre_mm = (tumour[0] - (torch.tensor(shape, device=self.device) - 1) / 2) * self.config.spacing_mm
            radius_mm = tumour[1] * self.config.spacing_mm * draw.number(1.0, 1.8)
            offset = grid - centre_mm
            push = draw.number(0.2, 0.7) * torch.exp(-(offset.square().sum(-1, keepdim=True) / radius_mm**2))
            grid = grid - offset * push
        a, b, c = (draw.normal(3) * 0.14).tolist()
        skew = torch.tensor([[0, -c, b], [c, 0, -a], [-b, a, 0]], device=self.device)
        linear = torch.linalg.matrix_exp(skew) @ torch.diag(1 + 0.09 * draw.normal(3)) + 0.02 * draw.normal(3, 3)
        if draw.chance(0.5):
            linear = linear * torch.tensor([1.0, 1.0, -1.0], device=self.device)  # mirror left and right
        shift = draw.normal(3) * (4.0 if draw.chance(0.7) else 12.0)
        elastic = draw.field(shape, 5, 3) * draw.number(0, 4.5) + draw.field(shape, 11, 3) * draw.number(0, 2.0)
        return grid @ linear.T + shift + elastic.permute(1, 2, 3, 0), linear

    # ---- brightness ----

    def _contrast(self, draw: Draw) -> tuple[str, Tensor, Tensor]:
        """Name, mean and spread of each group, white matter near 1."""
        kind = draw.number(0, 1)
        flair, dwi = self.config.flair, self.config.flair + self.config.dwi
        contrast = "flair" if kind < flair else "dwi" if kind < dwi else "random"
        means = draw.uniform(0.1, 1.6, len(GROUPS))
        means[0] = 0.0
        table = {"flair": FLAIR, "dwi": DWI, "random": {}}[contrast]
        if table:
            means[GROUP_INDEX["white"]] = 1.0
            for name, (low, high) in table.items():
                means[GROUP_INDEX[name]] = draw.number(low, high)
        head = slice(GROUP_INDEX["outer csf"] + 1, None)
        means[head] = means[head] * (draw.number(0.1, 1.0) if contrast == "dwi" else draw.number(0.3, 1.3))
        spreads = draw.uniform(0, 0.09, len(GROUPS)) * means
        return contrast, means, spreads

    # ---- acquisition ----

    def _acquire(self, draw: Draw, image: Tensor, target: Tensor, brain: Tensor) -> tuple[Tensor, Tensor]:
        """Blur, slices, bias field, noise, stripping, field of view and scaling → image (1, …), target."""
        shape = self.config.shape
        if draw.chance(self.config.coarse_noise):  # structures the decoder must learn to ignore (Kascenas et al. 2022)
            image = image + draw.field(shape, draw.integer(5, 20))[0] * draw.number(0.05, 0.35) * (brain > 0.5)
        image = blur(image, draw.number(0.25, 1.0))
        if draw.chance(self.config.thick_slices):
            axis = 0 if draw.chance(0.7) else draw.integer(1, 3)
            image = thick_slices(image, axis, round(2.0 * draw.integer(2, 4) / self.config.spacing_mm))
        image = image.clamp(min=0) * torch.exp(draw.field(shape, 3)[0] * draw.number(0, 0.3))
        noise = draw.number(0, 0.08)
        image = (image + noise * draw.normal(*shape)).square().add(0.3 * (noise * draw.normal(*shape)).square()).sqrt()
        target, seen = target.clone(), torch.ones(shape, dtype=torch.bool, device=self.device)
        if not draw.chance(self.config.head):
            seen = self._strip(draw, target, brain)
            outside = ~seen
            target[1:] *= ~(outside & (brain < 0.5))
            target[0] = torch.where(outside & (brain < 0.5), 1.0, target[0])
            target[:, outside & (brain >= 0.5)] = 0
        if draw.chance(self.config.truncated):
            view = self._field_of_view(draw)
            target[:, ~view] = 0
            seen = seen & view
        image = image * seen
        inside = image[seen & (target[1:8].sum(0) > 0.5)]
        median = inside.median() if inside.numel() > 100 else torch.tensor(1.0, device=self.device)
        image = image / median.clamp(min=1e-3)
        if draw.chance(0.4):
            image = (image.clamp(0, 3) / 3) ** draw.number(0.7, 1.4)
            inside = image[seen & (target[1:8].sum(0) > 0.5)]
            image = image / (inside.median() if inside.numel() > 100 else image.max()).clamp(min=1e-3)
        image = image * NETWORK_MEDIAN * draw.number(0.85, 1.2)
        return image.clamp(0, NETWORK_MAX)[None], target

    def _strip(self, draw: Draw, target: Tensor, brain: Tensor) -> Tensor:
        """An imperfect brain mask (bool): grown and shrunk by a voxel or two from place to place."""
        whole = (target[1:8].sum(0) > 0.5).float()[None, None]
        tight = closed((brain > 0.5).float()[None, None])
        tight = torch.maximum(tight, target[VENTRICLES][None, None])
        mask = whole if draw.chance(0.5) else torch.minimum(whole, tight)
        level = draw.field(self.config.shape, 8)[0] * draw.number(0, 1.2) + draw.number(-0.6, 0.8)
        mask = ragged(mask, level)
        return mask | (brain > 0.5) if draw.chance(0.6) else mask

    def _field_of_view(self, draw: Draw) -> Tensor:
        """True inside a field of view that misses a slab at one or two sides."""
        view = torch.ones(self.config.shape, dtype=torch.bool, device=self.device)
        for _ in range(draw.integer(1, 3)):
            axis = 0 if draw.chance(0.7) else draw.integer(1, 3)
            length = self.config.shape[axis]
            cut = int(length * draw.number(0.05, 0.35))
            start = 0 if draw.chance(0.5) else length - cut
            view.narrow(axis, start, cut).fill_(False)
        return view
