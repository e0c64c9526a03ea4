"""From a scan to its anomaly map: one function, the same for panel, command line, batch and cluster."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..bundle import Bundle
from ..made_with import made_with
from ..preprocessing.intensity import LARGEST_BRAIN_ML
from ..progress import CancelToken, Progress, no_progress
from ..scan import Scan
from ..timing import Timer
from .calibration import UNIT, reference_histogram, threshold
from .detector import Detector
from .findings import DARK_MARGIN, HIGH_STRICTNESS, MIN_VOLUME_ML, STRICTNESS, by_residual, rank_findings
from .modality import decide_modality
from .prepare import PreparedScan, prepare_scan
from .result import DARK, Detection
from .score_maps import ScoreMaps, sample_maps
from .scores import TWO_SIDED, check_arguments

DOUBTFUL_CONFIDENCE = 0.68
"""Below this mean tissue probability the map comes with a warning: 13 real scans measure .72 to .82, resampled, noisy
and cropped ones from .68 on, scans whose header has them upside down or back to front .61 to .68."""
CUT_CM2 = 45.0
"""Brain at a face of the scan from which on it counts as cut off: 13 real scans have up to 36, below, cropped ones 57
to 157."""
MAX_CUT_OFF = 0.01
"""Share of the brain at its highest value from which on its brightness was cut off: 14 scans have up to 0.00001."""


def detect_anomalies(
    scan: Scan, *, bundle: Bundle | str | Path | None = None, device: str = "auto", samples: int = 16,
    fpr: float = 0.01, score: str = "zscore", seed: int = 0, progress: Progress = no_progress,
    cancel: CancelToken | None = None, detector: Detector | None = None, prepared: PreparedScan | None = None,
    timer: Timer | None = None,
) -> Detection:
    """Finds where a scan departs from the healthy brain behind it.

    bundle: name, folder or loaded Bundle; detector: one already loaded, instead of bundle and device; prepared: the
    same scan as `prepare_scan` left it, instead of all three: what it holds is not computed again, and the result is
    the same; timer: one that holds stages done before. samples: posterior samples for the moments; fpr: share of
    healthy brain voxels that may be flagged; score: a name in `SCORES`. Raises UsageError for an argument out of
    range, InputError for a scan without a brain, BundleError, DeviceMemoryError, Cancelled; ValueError if `prepared`
    is another scan.
    """
    check_arguments(samples, fpr, score, seed)
    if prepared is not None and not prepared.is_of(scan):
        raise ValueError(f"the prepared scan {prepared.scan.name} is not the scan {scan.name}")
    cancel = cancel or CancelToken()
    timer = timer or Timer()
    if prepared is None:
        progress("load", 0.0, "Loading the model")
        with timer.stage("load"):
            detector = detector or Detector.load(bundle, device)
        cancel.check()
        prepared = prepare_scan(detector, scan, progress, cancel, timer)
    maps = sample_maps(prepared, samples, seed, progress, cancel, timer)
    cancel.check()
    modality, reason, warnings = decide_modality(scan, maps.fit.mean)
    progress("score", 0.75, "Scoring")
    with timer.stage("score"):
        bright, dark = maps.sides(score, modality, cancel)
    cancel.check()
    progress("findings", 0.9, "Describing findings")
    with timer.stage("findings"):
        limit, residual = threshold(fpr), maps.residual()
        strictness = HIGH_STRICTNESS if modality == "dwi" else STRICTNESS
        mask, components, found = rank_findings(
            bright, dark, limit, strictness, maps.crop, maps.anatomy.probability, maps.anatomy.grid, maps.mirror
        )
        findings = [maps.in_scan(finding) for finding in found]
        if score in TWO_SIDED:
            mask, findings = by_residual(mask, components, findings, residual)
        reference = reference_histogram(float(bright.max(initial=0.0)))
        dark_limit = None if dark is None else limit + DARK_MARGIN
        if dark is not None:
            np.copyto(bright, dark, where=mask == DARK)
            del dark
    warnings = [*scan.warnings, *warnings, *_anatomy_warnings(maps)]
    provenance = {
        **_provenance(maps), "seed": seed, "samples": samples, "fpr": fpr, "score": score, "score_unit": UNIT,
        "threshold": limit, "dark_threshold": dark_limit, "finding_min_ml": MIN_VOLUME_ML,
        "finding_mean_rarer_than_threshold": strictness, "modality": modality, "modality_reason": reason,
        "timings_s": timer.rounded,
        "reused_stages": [name for name in ("load", "anatomy", "fit", "sampling") if name not in timer.seconds],
        "input": {"name": scan.name, "tags": dict(scan.tags)},
    }
    progress("done", 1.0, f"{len(findings)} findings")
    boxes = {"anomaly": bright, "residual": residual, "reconstruction": maps.reconstruction(), "std": maps.std(),
             "mask": mask, "brain": maps.brain_box.astype(np.uint8), "components": components}
    place = maps.place
    # Whole volumes are large: each box goes before the next one is made, and what made them before the first.
    del maps, prepared, bright, residual, mask, components
    images = {name: place.put_back(boxes.pop(name)) for name in list(boxes)}
    return Detection(
        scan=scan, modality=modality, **images, findings=findings, threshold=limit, dark_threshold=dark_limit, fpr=fpr,
        unit=UNIT, reference_histogram=reference, warnings=warnings, provenance=provenance,
    )


def score_inputs(
    detector: Detector, scan: Scan, samples: int = 1, progress: Progress = no_progress,
    cancel: CancelToken | None = None,
) -> ScoreMaps:
    """Everything a score needs, on the scan's own voxels: anatomy, healthy intensities, posterior moments.

    Arguments and errors as in `detect_anomalies`.
    """
    return sample_maps(prepare_scan(detector, scan, progress, cancel), samples, 0, progress, cancel)


def _provenance(maps: ScoreMaps) -> dict[str, object]:
    """What the maps were made with: programs, bundle, device, preprocessing."""
    detector, anatomy, fit = maps.detector, maps.anatomy, maps.fit
    return {
        **made_with(), "bundle": detector.bundle.name, "bundle_sha256": detector.bundle.sha256,
        **detector.engine.describe(),
        "preprocessing": {
            "grid_shape_zyx": list(detector.shape), "grid_spacing_mm": detector.spacing_mm,
            "intensity_offset": anatomy.offset, "intensity_scale": anatomy.scale, "network_passes": anatomy.passes,
            "skull_stripped": maps.stripped,
            "tissue_means": [round(float(v), 4) for v in fit.mean],
            "tissue_spreads": [round(float(v), 4) for v in fit.spread],
            "periventricular_brightness": round(fit.periventricular, 3),
        },
    }


def _anatomy_warnings(maps: ScoreMaps) -> list[str]:
    """What makes the map less trustworthy: a cut field of view, an odd volume or shape, an unsure network."""
    warnings = []
    volume = float(maps.brain_box.sum()) * float(np.prod(maps.scan.image.GetSpacing())) / 1000
    cut = [face for face, area in maps.cut_cm2().items() if area > CUT_CM2]
    if cut:
        warnings.append(f"The brain is cut off {' and '.join(cut)}: what lies beyond was not examined.")
    if not maps.mirror.whole:
        warnings.append("The brain's sides are not alike, as where one is out of view: no finding is given a side, and "
                        "on DWI, what both show alike is not taken for an artefact.")
    if volume < 750:
        warnings.append(f"Only {volume:.0f} ml of brain are in view: the field of view is cut, the head is small, or "
                        "the voxel size in the header is wrong, and with it every volume.")
    if volume > LARGEST_BRAIN_ML:
        warnings.append(f"The brain mask measures {volume:.0f} ml, more than a brain does: check it, and the voxel "
                        "size in the header.")
    shape = maps.proportions()
    if not cut and maps.mirror.whole and not shape.usual:
        warnings.append(f"The brain is {shape.height:.2f} times as high and {shape.width:.2f} times as wide as it is "
                        "long, as no brain is: the header's voxel size, distance between slices or orientation is "
                        "probably wrong, and with it every volume and position; correct it.")
    cut_off = maps.cut_off_brightness()
    if cut_off > MAX_CUT_OFF:
        warnings.append(f"{cut_off:.0%} of the brain has one and the same highest value: its brightness was cut off, "
                        "as where it was saved as seen on a screen, and lesions there cannot be told from other bright "
                        "tissue.")
    if maps.fit.periventricular > 1:
        excess = f"{maps.fit.periventricular - 1:.0%}"
        warnings.append(f"Around the ventricles, white matter is {excess} brighter than under the cortex, more than "
                        "shading explains: it was not taken for healthy, as in diffuse disease, whose volume is found "
                        "roughly only.")
    confidence = maps.anatomy.confidence
    if maps.better_turned:
        warnings.append("The header seems to turn the head the wrong way, as the network is surer of the anatomy after "
                        f"half a turn about the {maps.better_turned} axis: positions and sides of findings would be "
                        "wrong; check the scan's orientation.")
    elif confidence < DOUBTFUL_CONFIDENCE:
        warnings.append(f"The network is unsure of the anatomy (mean tissue probability {confidence:.2f}): the scan is "
                        "unlike those it was trained for, or its header turns it the wrong way.")
    return warnings
