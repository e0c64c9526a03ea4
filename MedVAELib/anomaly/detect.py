"""From a scan to its anomaly map: one function, the same for panel, command line, batch and cluster."""

from __future__ import annotations

import platform
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from numpy.typing import NDArray
from scipy import ndimage

from ..bundle import DEFAULT_ANOMALY_BUNDLE, Bundle, load_bundle
from ..errors import BundleError, InputError, UsageError
from ..inference import Engine
from ..models import build_model
from ..preprocessing.geometry import channels_from_grid, from_grid
from ..preprocessing.intensity import Foreground, find_foreground
from ..progress import CancelToken, Progress, no_progress
from ..scan import Scan
from ..tissues import TISSUES
from .anatomy import Anatomy, brain_mask, read_anatomy
from .calibration import UNIT, ScoreCalibration, reference_histogram, threshold
from .findings import describe, find_components
from .modality import decide_modality
from .result import Detection, Finding
from .scores import SCORES, ScoreInputs
from .tissue_fit import TissueFit, fit_tissues

DARK_STRICTNESS = 10.0
"""Dark findings on FLAIR need a score that is this many times rarer than the false-positive rate asked for."""
MIN_TISSUE_CONTRAST = 1.0
MIN_CONFIDENCE, DOUBTFUL_CONFIDENCE = 0.5, 0.6
"""A network asked for a brain sees one in anything. Real scans measured 0.65–0.70 mean tissue probability and a
contrast of 2.5 spreads or more, noise 0.39 and 0.9–1.8."""
_MARGIN_VOXELS = 3


@dataclass
class Detector:
    """A bundle on a device, kept warm: one engine, one model, many scans."""

    bundle: Bundle
    engine: Engine
    shape: tuple[int, int, int]
    spacing_mm: float

    @classmethod
    def load(cls, bundle: Bundle | str | Path | None = None, device: str = "auto") -> Detector:
        """Raises BundleError for a bundle that is missing, damaged or made for another task."""
        bundle = load_bundle(bundle or DEFAULT_ANOMALY_BUNDLE)
        try:
            grid = bundle.metadata["medvae"]["grid"]
            shape, spacing_mm = tuple(int(n) for n in grid["shape_zyx"]), float(grid["spacing_mm"])
            settings = bundle.calibration
            usable = len(shape) == 3 and all(n > 0 and n % 16 == 0 for n in shape) and spacing_mm > 0
            usable = usable and len(settings["tissue_weight"]) == len(TISSUES) and isinstance(settings["score"], dict)
            usable = usable and settings["fine_sigma_mm"] >= 0 and settings["coarse_sigma_mm"] >= 0
        except (KeyError, TypeError, ValueError):
            usable = False
        if not usable:
            raise BundleError(f"Bundle '{bundle.name}' is no anomaly detector: its grid or calibration is incomplete.")
        model = build_model(bundle.model, bundle.config)
        state = bundle.state_dict()
        bundle.require_fit(state, model.state_dict())
        model.load_state_dict(state)
        return cls(bundle, Engine(device).load(model), shape, spacing_mm)


@dataclass
class Timer:
    """Seconds per stage, in order."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str):
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begin


def detect_anomalies(
    scan: Scan, *, bundle: Bundle | str | Path | None = None, device: str = "auto", samples: int = 16,
    fpr: float = 0.01, score: str = "zscore", seed: int = 0, progress: Progress = no_progress,
    cancel: CancelToken | None = None, detector: Detector | None = None,
) -> Detection:  # fmt: skip
    """Finds where a scan departs from the healthy brain behind it.

    bundle: name, folder or loaded Bundle; detector: one already loaded, instead of bundle and device. samples:
    posterior samples for the moments; fpr: share of healthy brain voxels that may be flagged; score: a name in
    `SCORES`. Raises UsageError for an argument out of range, InputError for a scan without a brain, BundleError,
    DeviceMemoryError, Cancelled.
    """
    _check_arguments(samples, fpr, score)
    cancel = cancel or CancelToken()
    timer = Timer()
    progress("load", 0.0, "Loading the model")
    with timer.stage("load"):
        detector = detector or Detector.load(bundle, device)
    cancel.check()
    maps = score_inputs(detector, scan, samples, seed, progress, cancel, timer)
    anatomy, fit = maps.anatomy, maps.fit
    modality, reason, warnings = decide_modality(scan, fit.mean)
    progress("score", 0.75, "Scoring")
    with timer.stage("score"):
        bright = maps.calibrated(score, modality, +1)
        dark = maps.calibrated(score, modality, -1) if modality == "flair" and score == "zscore" else None
    cancel.check()
    progress("findings", 0.9, "Describing findings")
    with timer.stage("findings"):
        limit = threshold(fpr)
        mask, components, findings = _findings(scan, maps, bright, dark, limit, anatomy)
    warnings = [*scan.warnings, *warnings, *_anatomy_warnings(anatomy, maps.brain_box, scan)]
    provenance = {
        "medvae_version": _version(), "python": platform.python_version(), "torch": torch.__version__,
        "simpleitk": sitk.Version_VersionString(), "numpy": np.__version__,
        "bundle": detector.bundle.name, "bundle_sha256": detector.bundle.sha256,
        **detector.engine.describe(), "seed": seed, "samples": samples, "fpr": fpr, "score": score, "score_unit": UNIT,
        "threshold": limit, "modality": modality, "modality_reason": reason,
        "preprocessing": {
            "grid_shape_zyx": list(detector.shape), "grid_spacing_mm": detector.spacing_mm,
            "intensity_offset": anatomy.offset, "intensity_scale": anatomy.scale, "network_passes": anatomy.passes,
            "skull_stripped": maps.stripped,
            "tissue_means": [round(float(v), 4) for v in fit.mean],
            "tissue_spreads": [round(float(v), 4) for v in fit.spread],
        },
        "timings_s": {name: round(seconds, 3) for name, seconds in timer.seconds.items()},
        "input": {"name": scan.name, "tags": dict(scan.tags)},
    }  # fmt: skip
    progress("done", 1.0, f"{len(findings)} findings")
    return Detection(
        scan=scan, modality=modality, anomaly=maps.image(bright), residual=maps.image(maps.residual()),
        reconstruction=maps.image(maps.reconstruction()), std=maps.image(maps.std()),
        mask=maps.image(mask), brain=maps.image(maps.brain_box.astype(np.uint8)), components=maps.image(components),
        findings=findings, threshold=limit, fpr=fpr, unit=UNIT,
        reference_histogram=reference_histogram(float(bright.max(initial=0.0))), warnings=warnings,
        provenance=provenance,
    )  # fmt: skip


def score_inputs(
    detector: Detector, scan: Scan, samples: int = 1, seed: int = 0, progress: Progress = no_progress,
    cancel: CancelToken | None = None, timer: Timer | None = None,
) -> ScoreMaps:  # fmt: skip
    """Everything a score needs, on the scan's own voxels: anatomy, healthy intensities, posterior moments.

    Arguments and errors as in `detect_anomalies`.
    """
    cancel, timer = cancel or CancelToken(), timer or Timer()
    progress("anatomy", 0.05, "Reading the healthy anatomy")
    with timer.stage("anatomy"):
        values = scan.array_zyx()
        foreground = find_foreground(values)
        values = np.where(foreground.support, values, np.float32(foreground.offset))
        anatomy = read_anatomy(scan, values, foreground, detector.engine, detector.shape, detector.spacing_mm, cancel)
    progress("fit", 0.4, "Fitting healthy intensities")
    with timer.stage("fit"):
        inside = (brain_mask(anatomy) > 0.5) & anatomy.support
        fit = fit_tissues(anatomy.image, anatomy.probability, inside, detector.spacing_mm)
        if anatomy.confidence < MIN_CONFIDENCE or fit.tissue_contrast < MIN_TISSUE_CONTRAST:
            raise InputError(
                f"{scan.path or scan.name}: no brain was found in it (nothing in it looks like brain tissue); choose a "
                "brain scan whose header gives its true orientation and voxel size."
            )
    cancel.check()
    with timer.stage("sampling"):
        moments = detector.engine.moments(
            anatomy.encoded, samples, fit.mean, seed,
            lambda stage, fraction, message="": progress(stage, 0.45 + 0.2 * fraction, message), cancel,
        )  # fmt: skip
        if samples > 1:
            anatomy.probability = moments.probability
    progress("restore", 0.65, "Back onto the scan's grid")
    with timer.stage("restore"):
        return ScoreMaps(scan, values, foreground, anatomy, fit, moments.std, detector)


def _check_arguments(samples: int, fpr: float, score: str) -> None:
    if samples < 1 or samples > 10_000:
        raise UsageError(f"samples must lie between 1 and 10000, not {samples}.")
    if not 1e-5 <= fpr <= 0.5:
        raise UsageError(f"fpr must lie between 0.00001 and 0.5, not {fpr}.")
    if score not in SCORES:
        raise UsageError(f"Unknown score '{score}': choose one of {', '.join(SCORES)}.")


class ScoreMaps:
    """Everything on the scan's own voxels, inside a box around the brain to save time; `image` puts it back."""

    def __init__(
        self, scan: Scan, values: NDArray[np.float32], foreground: Foreground, anatomy: Anatomy, fit: TissueFit,
        recon_std: NDArray[np.float32], detector: Detector,
    ):  # fmt: skip
        self.scan, self.anatomy, self.fit, self.detector = scan, anatomy, fit, detector
        expected, variance = fit.expected(anatomy.probability)
        variance = variance + recon_std**2
        z = (anatomy.image / fit.bias - expected) / np.sqrt(variance) * anatomy.support
        weights = detector.bundle.calibration["tissue_weight"]
        sigma = detector.bundle.calibration["coarse_sigma_mm"] / detector.spacing_mm
        weight = np.tensordot(np.asarray(weights, np.float32), anatomy.probability, 1)
        brain = brain_mask(anatomy)
        channels = np.stack(
            [expected, variance, fit.bias, weight, ndimage.gaussian_filter(z, sigma), recon_std, brain]
        ).astype(np.float32)
        crop, box = self._box(values.shape, brain)
        on_scan = channels_from_grid(channels, anatomy.grid, crop, [0, 1, 1, 0, 0, 0, 0])
        self.crop, self.box = crop, box
        self.expected, self.variance, self.bias, self.weight, self.coarse_z, self.recon_std, brain = on_scan
        self.values = values[box]
        self.stripped, self.brain_box = self._brain(brain > 0.5, foreground)

    def _box(self, shape, brain) -> tuple[sitk.Image, tuple[slice, ...]]:
        """An empty image and slices (zyx) of the part of the scan that can be brain."""
        grid_brain = sitk.GetImageFromArray((brain > 0).astype(np.float32))
        grid_brain.CopyInformation(self.anatomy.grid)
        # A copy: SimpleITK's array views do not keep a temporary image alive.
        inside = sitk.GetArrayFromImage(from_grid(grid_brain, self.scan.image)) > 0
        box = []
        for axis in range(3):
            used = np.flatnonzero(inside.any(tuple(a for a in range(3) if a != axis)))
            low, high = (used.min(), used.max()) if used.size else (0, shape[axis] - 1)
            box.append(slice(max(0, int(low) - _MARGIN_VOXELS), min(shape[axis], int(high) + 1 + _MARGIN_VOXELS)))
        z, y, x = box
        return self.scan.image[x, y, z], tuple(box)

    def _brain(self, predicted: NDArray[np.bool_], foreground: Foreground) -> tuple[bool, NDArray[np.bool_]]:
        """Whether the scan is skull-stripped, and its brain: a stripped scan brings its own mask, others get ours."""
        if not foreground.constant_background:
            return False, predicted
        shown = foreground.support[self.box]
        if (shown & predicted).sum() < 0.75 * foreground.support.sum():
            return False, predicted & shown
        return True, ndimage.binary_fill_holes(shown) & ndimage.binary_dilation(predicted, iterations=2)

    @cached_property
    def _probability(self) -> NDArray[np.float32]:
        outside = [1] + [0] * (len(self.anatomy.probability) - 1)
        return channels_from_grid(self.anatomy.probability, self.anatomy.grid, self.crop, outside)

    @cached_property
    def _kl_gradient(self) -> NDArray[np.float32]:
        gradient = np.abs(self.detector.engine.kl_gradient(self.anatomy.image))[None].astype(np.float32)
        return channels_from_grid(gradient, self.anatomy.grid, self.crop, [0])[0]

    def inputs(self, score: str) -> ScoreInputs:
        """What the named score reads; the costly extras only for the scores that need them."""
        image = (self.values - self.anatomy.offset) / self.anatomy.scale / self.bias
        spacing_zyx = self.scan.image.GetSpacing()[::-1]
        smoothing_mm = self.detector.bundle.calibration["fine_sigma_mm"]
        return ScoreInputs(
            image, self.expected, self.variance, self.weight, self.coarse_z,
            tuple(smoothing_mm / s for s in spacing_zyx), self.fit.mean, self.fit.spread,
            self._probability if score == "reconstruction_probability" else None,
            self._kl_gradient if score == "kl_gradient" else None,
        )  # fmt: skip

    def raw(self, score: str, sign: int) -> NDArray[np.float32]:
        """The raw score inside the brain, 0 outside."""
        return SCORES[score](self.inputs(score), sign) * self.brain_box

    def calibrated(self, score: str, modality: str, sign: int) -> NDArray[np.float32]:
        tables = self.detector.bundle.calibration["score"]
        table = tables.get(score, {}).get("flair" if modality == "other" else modality)
        if table is None:
            raise BundleError(f"Bundle '{self.detector.bundle.name}' is not calibrated for '{score}' on {modality}.")
        side = table["bright" if sign > 0 else "dark"]
        return ScoreCalibration.from_json(side).apply(self.raw(score, sign)) * self.brain_box

    def reconstruction(self) -> NDArray[np.float32]:
        """Healthy brain in scan units, 0 outside the brain."""
        return (self.expected * self.bias * self.anatomy.scale + self.anatomy.offset) * self.brain_box

    def residual(self) -> NDArray[np.float32]:
        return (self.values - self.reconstruction()) * self.brain_box

    def std(self) -> NDArray[np.float32]:
        """Standard deviation of the reconstruction over posterior samples, scan units."""
        return self.recon_std * self.bias * self.anatomy.scale * self.brain_box

    def image(self, values: NDArray) -> sitk.Image:
        """The box put back into a volume with exactly the scan's grid."""
        whole = np.zeros(self.scan.image.GetSize()[::-1], values.dtype)
        whole[self.box] = values
        image = sitk.GetImageFromArray(whole)
        image.CopyInformation(self.scan.image)
        return image


def _findings(
    scan: Scan, maps: ScoreMaps, bright: NDArray[np.float32], dark: NDArray[np.float32] | None, limit: float,
    anatomy: Anatomy,
) -> tuple[NDArray[np.uint8], NDArray[np.uint16], list[Finding]]:  # fmt: skip
    """Mask (1 bright, 2 dark), component labels and findings, worst first; labels are ranks."""
    voxel_ml = float(np.prod(scan.image.GetSpacing())) / 1000
    first = tuple(part.start for part in reversed(maps.box))
    mask = (bright > limit).astype(np.uint8)
    components = find_components(mask > 0, voxel_ml)
    ranked = [(b, f, components, f.label) for b, f in
              describe(components, bright, maps.crop, "bright", anatomy.probability, anatomy.grid, first)]  # fmt: skip
    if dark is not None:
        hypo = find_components((dark > limit + np.log10(DARK_STRICTNESS)) & (mask == 0), voxel_ml)
        mask[hypo > 0] = 2
        ranked += [(b, f, hypo, f.label) for b, f in
                   describe(hypo, dark, maps.crop, "dark", anatomy.probability, anatomy.grid, first)]  # fmt: skip
    ranked.sort(key=lambda row: -row[0])
    tables = {id(components): np.zeros(int(components.max()) + 1, np.uint16)}
    if dark is not None:
        tables[id(hypo)] = np.zeros(int(hypo.max()) + 1, np.uint16)
    findings = []
    for rank, (_, finding, source, old) in enumerate(ranked, 1):
        tables[id(source)][old] = rank
        findings.append(Finding(**{**finding.__dict__, "label": rank}))
    labels = tables[id(components)][components]
    if dark is not None:
        labels = labels + tables[id(hypo)][hypo]
    return mask, labels, findings


def _anatomy_warnings(anatomy: Anatomy, brain: NDArray[np.bool_], scan: Scan) -> list[str]:
    """What makes the map less trustworthy: a cut field of view, an odd brain volume, an unsure network."""
    warnings = []
    volume = float(brain.sum()) * float(np.prod(scan.image.GetSpacing())) / 1000
    if volume < 750:
        warnings.append(f"Only {volume:.0f} ml of brain are in view: the field of view is cut or the head is small.")
    if volume > 2200:
        warnings.append(f"The brain mask measures {volume:.0f} ml, more than a brain does: check it.")
    if anatomy.confidence < DOUBTFUL_CONFIDENCE:
        warnings.append(f"The network is unsure of the anatomy (mean tissue probability {anatomy.confidence:.2f}): "
                        "the scan is unlike those it was trained for.")  # fmt: skip
    return warnings


def _version() -> str:
    from .. import __version__

    return __version__
