"""What the scores are computed from and on: maps on the scan's own voxels, turned to the patient, around the brain."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from ..errors import BundleError
from ..preprocessing.geometry import channels_from_grid, from_grid, like
from ..preprocessing.intensity import Foreground
from ..preprocessing.morphology import bounding_box, filled
from ..preprocessing.turning import Turn
from ..progress import CancelToken, Progress, no_progress, scaled
from ..timing import Timer
from ..tissues import OUTER_CSF, VENTRICLES, WHITE
from .anatomy import Anatomy, brain_mask
from .calibration import ScoreCalibration
from .prepare import PreparedScan
from .proportions import Proportions
from .result import Finding
from .scores import SCORES, Emphasis, ScoreInputs

_MARGIN_VOXELS = 3
_STRIPPED_SHARE = 0.81  # of what a stripped scan shows lies in our brain mask: .82 and more in real ones
_FLUID = 0.4  # × white matter


def sample_maps(
    prepared: PreparedScan, samples: int = 1, seed: int = 0, progress: Progress = no_progress,
    cancel: CancelToken | None = None, timer: Timer | None = None,
) -> ScoreMaps:
    """Posterior moments of a prepared scan, and everything a score needs of them on the scan's own voxels.

    Maps of the same samples and seed that were computed just before are returned again. Raises DeviceMemoryError,
    Cancelled.
    """
    cancel, timer = cancel or CancelToken(), timer or Timer()
    if (samples, seed) in prepared._maps:
        return prepared._maps[samples, seed]
    anatomy = prepared.anatomy
    with timer.stage("sampling"):
        moments = prepared.detector.engine.moments(
            anatomy.encoded, samples, prepared.fit.mean, seed, scaled(progress, 0.45, 0.65), cancel)
        if samples > 1:
            anatomy = replace(anatomy, probability=moments.probability)
    cancel.check()
    progress("restore", 0.65, "Back onto the scan's grid")
    with timer.stage("restore"):
        maps = ScoreMaps(prepared, anatomy, moments.std, cancel)
    prepared._maps.clear()  # one at a time: they are as large as the scan, several times over
    prepared._maps[samples, seed] = maps
    return maps


@dataclass(frozen=True, eq=False)
class Place:
    """Where the box of `ScoreMaps` lies. image: the scan's; box: slices (zyx) of it, turned."""

    image: sitk.Image
    turn: Turn
    box: tuple[slice, ...]

    def put_back(self, values: NDArray) -> sitk.Image:
        """The box's values (zyx) in a volume with exactly the scan's grid, 0 elsewhere."""
        whole = np.zeros(self.image.GetSize()[::-1], values.dtype)
        self.turn.view(whole)[self.box] = values
        return like(whole, self.image)


class ScoreMaps:
    """Everything on the scan's own voxels, turned, inside a box around the brain to save time; `place` puts it back."""

    def __init__(
        self, prepared: PreparedScan, anatomy: Anatomy, recon_std: NDArray[np.float32], cancel: CancelToken
    ):
        """anatomy: the prepared scan's own, or with the mean probability over posterior samples; recon_std: standard
        deviation over them, (D, H, W)."""
        self.scan, self.turn, self.space = prepared.scan, prepared.turn, prepared.space
        self.fit, self.detector, self.mirror = prepared.fit, prepared.detector, prepared.mirror
        self.better_turned = prepared.better_turned
        self.anatomy, fit, detector = anatomy, prepared.fit, prepared.detector
        expected, variance = fit.expected(anatomy.probability)
        z = (anatomy.image / fit.bias - expected) / np.sqrt(variance) * anatomy.support
        weights = detector.bundle.calibration["tissue_weight"]
        sigma = detector.bundle.calibration["coarse_sigma_mm"] / detector.spacing_mm
        weight = np.tensordot(np.asarray(weights, np.float32), anatomy.probability, 1)
        brain = brain_mask(anatomy)
        self._grid_brain = brain > 0.5
        self._mirrored: dict[str, NDArray[np.float32]] = {}
        cancel.check()
        channels = np.stack(
            [expected, variance, fit.bias, weight, ndimage.gaussian_filter(z, sigma), recon_std]
        ).astype(np.float32)
        crop, box = self._box(brain)
        cancel.check()
        on_scan = channels_from_grid(channels, anatomy.grid, crop, [0, 1, 1, 0, 0, 0])
        self.crop, self.box, self.place = crop, box, Place(self.scan.image, self.turn, box)
        self.expected, self.variance, self.bias, self.weight, self.coarse_z, self.recon_std = on_scan
        self.values = prepared.values[box]
        self.stripped, self.brain_box = self._brain(brain, prepared.foreground)

    def _box(self, brain: NDArray[np.float32]) -> tuple[sitk.Image, tuple[slice, ...]]:
        """An empty image and slices (zyx) of the part of the scan that can be brain."""
        grid_brain = like((brain > 0).astype(np.float32), self.anatomy.grid)
        # A copy: SimpleITK's array views do not keep a temporary image alive.
        inside = sitk.GetArrayFromImage(from_grid(grid_brain, self.space)) > 0
        z, y, x = bounding_box(inside, (_MARGIN_VOXELS,) * 3)
        return self.space[x, y, z], (z, y, x)

    def _brain(self, brain: NDArray[np.float32], foreground: Foreground) -> tuple[bool, NDArray[np.bool_]]:
        """Whether the scan is skull-stripped, and its brain: a stripped scan brings its own mask, followed up to one
        voxel of the model's grid beyond ours, as some leave a rim around the brain; others get ours. brain: ours,
        (D, H, W) on that grid."""
        predicted = channels_from_grid(brain[None], self.anatomy.grid, self.crop, [0])[0] > 0.5
        if not foreground.constant_background:
            return False, predicted
        shown = foreground.support[self.box]
        if (shown & predicted).sum() < _STRIPPED_SHARE * foreground.support.sum():
            return False, predicted & shown
        wider = ndimage.grey_dilation(brain, footprint=ndimage.generate_binary_structure(3, 1))
        near = channels_from_grid(wider[None], self.anatomy.grid, self.crop, [0])[0] > 0.5
        return True, filled(shown) & near

    def proportions(self) -> Proportions:
        """The brain's, for one that is whole."""
        return Proportions.of(self._grid_brain)

    def cut_cm2(self) -> dict[str, float]:
        """Area of brain at the scan's faces, by face: how much of it is cut off there. The brain, found on the model's
        grid, may end a voxel of that short of the face."""
        whole = np.zeros(sitk.GetArrayViewFromImage(self.space).shape, bool)
        whole[self.box] = self.brain_box
        spacing_mm, areas = self.space.GetSpacing()[::-1], {}
        for axis, names in enumerate((("below", "above"), ("in front", "behind"), ("on the right", "on the left"))):
            layers = np.moveaxis(whole, axis, 0)
            near = 1 + math.ceil(self.detector.spacing_mm / spacing_mm[axis])
            pixel_cm2 = np.prod(spacing_mm) / spacing_mm[axis] / 100
            areas |= {name: float(part.sum((1, 2)).max() * pixel_cm2)
                      for name, part in zip(names, (layers[:near], layers[-near:]), strict=True)}
        return areas

    def cut_off_brightness(self) -> float:
        """Share of the brain that has its highest value."""
        brain = self.values[self.brain_box]
        return float((brain == brain.max(initial=-np.inf)).mean()) if brain.size else 0.0

    @cached_property
    def probability(self) -> NDArray[np.float32]:
        """Of each tissue, in the box, (K, z, y, x); background where the model's grid does not reach."""
        outside = [1] + [0] * (len(self.anatomy.probability) - 1)
        return channels_from_grid(self.anatomy.probability, self.anatomy.grid, self.crop, outside)

    @cached_property
    def _kl_gradient(self) -> NDArray[np.float32]:
        gradient = np.abs(self.detector.engine.kl_gradient(self.anatomy.image.copy()))[None].astype(np.float32)
        return channels_from_grid(gradient, self.anatomy.grid, self.crop, [0])[0]

    def inputs(self, score: str, modality: str) -> ScoreInputs:
        """What the named score reads on a modality; the costly extras only for the scores that need them."""
        image = (self.values - self.anatomy.offset) / self.anatomy.scale / self.bias
        return ScoreInputs(
            image, self.expected, self.variance, self.weight, self.coarse_z,
            self.space.GetSpacing()[::-1], self.detector.bundle.calibration["fine_sigma_mm"], self.fit.mean,
            self.fit.spread, Emphasis(**self.detector.bundle.calibration["emphasis"][_calibrated_as(modality)]),
            self.probability if score == "reconstruction_probability" else None,
            self._kl_gradient if score == "kl_gradient" else None,
        )

    def raw(self, score: str, modality: str, sign: int) -> NDArray[np.float32]:
        """The raw score in the box (zyx), 0 outside the brain. score: a name in `SCORES`; sign: +1 of what is brighter
        than healthy tissue, -1 of what is darker."""
        return self._raw(self.inputs(score, modality), score, modality, sign)

    def sides(
        self, score: str, modality: str, cancel: CancelToken
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """The score in the box (zyx), in `calibration.UNIT` by the bundle's healthy scans, of what is brighter than
        healthy tissue and of what is darker, where that counts: as z-score on FLAIR. Raises BundleError for a score or
        modality that the bundle is not calibrated for."""
        inputs = self.inputs(score, modality)
        bright = self._calibrated(inputs, score, modality, +1)
        if (score, modality) != ("zscore", "flair"):
            return bright, None
        cancel.check()
        dark = self._calibrated(inputs, score, modality, -1)
        dark *= self._fluid_out_of_place(inputs)
        return bright, dark

    def _raw(self, inputs: ScoreInputs, score: str, modality: str, sign: int) -> NDArray[np.float32]:
        raw = SCORES[score](inputs, sign)
        raw *= self.brain_box
        if score == "zscore" and sign > 0 and inputs.emphasis.symmetry:
            if modality not in self._mirrored:
                self._mirrored[modality] = self.mirror.share(raw, self._grid_brain, self.crop) ** 2
            raw *= 1 - inputs.emphasis.symmetry * self._mirrored[modality]
        return raw

    def _calibrated(self, inputs: ScoreInputs, score: str, modality: str, sign: int) -> NDArray[np.float32]:
        tables = self.detector.bundle.calibration["score"]
        table = tables.get(score, {}).get(_calibrated_as(modality))
        if table is None:
            raise BundleError(f"Bundle '{self.detector.bundle.name}' is not calibrated for '{score}' on {modality}.")
        side = ScoreCalibration.from_json(table["bright" if sign > 0 else "dark"])
        calibrated = np.zeros(self.brain_box.shape, np.float32)
        raw = self._raw(inputs, score, modality, sign)[self.brain_box]
        calibrated[self.brain_box] = side.apply(side.standardise(raw))
        return calibrated

    def _fluid_out_of_place(self, inputs: ScoreInputs) -> NDArray[np.bool_]:
        """True where the scan is less than 0.4 times as bright as white matter, as in a cavity, a cyst or an old
        infarct, and the healthy brain has no fluid: cisterns and ventricles are darker than the mean of all CSF, which
        has the partial volume of the sulci in it.

        Healthy tissue hardly ever is: iron darkens the pallidum on FLAIR to 0.45 to 0.7 × white matter, frontal white
        matter lies at 0.75 to 0.85, CSF near 0.1.
        """
        dark = ndimage.gaussian_filter(inputs.image, inputs.smoothing) < _FLUID * self.fit.mean[WHITE]
        fluid = self.anatomy.probability[[VENTRICLES, OUTER_CSF]].sum(0)[None]
        return dark & (channels_from_grid(fluid, self.anatomy.grid, self.crop, [0])[0] < 0.5)

    def reconstruction(self) -> NDArray[np.float32]:
        """Healthy brain in scan units, 0 outside the brain."""
        return (self.expected * self.bias * self.anatomy.scale + self.anatomy.offset) * self.brain_box

    def residual(self) -> NDArray[np.float32]:
        """Scan − reconstruction in the box (zyx), scan units, 0 outside the brain."""
        return (self.values - self.reconstruction()) * self.brain_box

    def std(self) -> NDArray[np.float32]:
        """Standard deviation of the reconstruction over posterior samples, scan units."""
        return self.recon_std * self.bias * self.anatomy.scale * self.brain_box

    def boxed(self, image: sitk.Image) -> NDArray:
        """What an image on the scan's grid holds in the box, as everything here lies."""
        return self.turn.view(sitk.GetArrayViewFromImage(image))[self.box].copy()

    def in_scan(self, finding: Finding) -> Finding:
        """A finding whose bounding box counts the voxels of the box, with one that counts the scan's."""
        first = [low + part.start for low, part in zip(finding.bbox_ijk, reversed(self.box), strict=True)]
        first, size = self.turn.box_back(first, finding.bbox_size_ijk, self.space.GetSize())
        return replace(finding, bbox_ijk=first, bbox_size_ijk=size)


def _calibrated_as(modality: str) -> str:
    """Scans that are neither FLAIR nor DWI are scored as FLAIR, with a warning elsewhere."""
    return "flair" if modality == "other" else modality
