"""From whichever standard planes there are to the 3D skull with its uncertainty: one function for all callers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..bundle import FEW_SKULL_SAMPLES, SKULL_SAMPLES, Bundle
from ..errors import InputError
from ..growth_charts import FIRST_WEEK, LAST_WEEK
from ..made_with import made_with
from ..preprocessing.geometry import like, ras_grid
from ..preprocessing.outlines import MARGIN, SIZE, canonical_map, case_spacing
from ..progress import CancelToken, Progress, no_progress, scaled
from ..standard_planes import PLANES
from ..timing import Timer
from .agreement import OutlineMap, agreement_warnings
from .biometry import AS_FOUND, Drawn, summarise
from .engine import SampledHeads
from .outline import Outline, find_outlines
from .placement import place_plane, section_fit
from .planes import PlaneImage, check_arguments
from .predictor import SkullPredictor
from .repeats import refuse_repeats
from .result import FoundPlane, Measure, SkullPrediction
from .surface import head_surface

__all__ = ["OutlineMap", "SkullPredictor", "predict_from_outlines", "predict_skull"]

LEARNED_WEEKS = (20.0, 36.0)
LEARNED_MM = (52.0, 130.0)
"""Occipitofrontal diameter of the heads that the shape model has learned, of these ages with their spread."""
_SAMPLES_TO_COMPARE = 4
_OFF_THE_CHART = 0.1  # percent of healthy fetuses


def predict_skull(
    planes: Mapping[str, PlaneImage], *, bundle: Bundle | str | Path | None = None, device: str = "auto",
    samples: int = SKULL_SAMPLES, seed: int = 0, ga_weeks: float | None = None, progress: Progress = no_progress,
    cancel: CancelToken | None = None, timer: Timer | None = None, predictor: SkullPredictor | None = None,
) -> SkullPrediction:
    """The skull behind one to three standard planes.

    planes: by name, any non-empty subset of `PLANES`. bundle: name, folder or loaded Bundle of the shape model;
    predictor: one already loaded, instead of bundle and device. samples: of the learned prior. ga_weeks: gestational
    age for percentiles. Raises UsageError for an argument out of range or no plane at all, InputError for a plane
    without anything like a head on it, BundleError, DeviceMemoryError, Cancelled.
    """
    check_arguments(planes, samples, ga_weeks, seed)
    refuse_repeats(planes)
    cancel, timer = cancel or CancelToken(), timer or Timer()
    ordered = [(name, planes[name]) for name in PLANES if name in planes]
    progress("load", 0.0, "Loading the models")
    with timer.stage("load"):
        predictor = predictor or SkullPredictor.load(bundle, device)
        outline_engine = predictor.outline
    cancel.check()
    progress("outline", 0.1, "Finding the head on each plane")
    with timer.stage("outline"):
        outlines = find_outlines(ordered, outline_engine)
    cancel.check()
    maps = {name: (found.map, found.pixel_mm) for (name, _), found in zip(ordered, outlines, strict=True)}
    result = predict_from_outlines(maps, predictor, samples=samples, seed=seed, ga_weeks=ga_weeks,
                                   progress=scaled(progress, 0.15, 1.0), cancel=cancel, timer=timer,
                                   drawn=predictor.drawn)
    result.planes = [_found_plane(name, image, outline, result)
                     for (name, image), outline in zip(ordered, outlines, strict=True)]
    result.warnings[:0] = [
        note for found in result.planes for note in (*found.image.warnings, *found.doubts)
    ]
    result.provenance["input"] = {found.plane: _stated(found) for found in result.planes}
    return result


def predict_from_outlines(
    outlines: Mapping[str, OutlineMap], predictor: SkullPredictor, *, samples: int = SKULL_SAMPLES, seed: int = 0,
    ga_weeks: float | None = None, progress: Progress = no_progress, cancel: CancelToken | None = None,
    timer: Timer | None = None, drawn: Drawn = AS_FOUND,
) -> SkullPrediction:
    """As `predict_skull`, from outlines that are already known; the result's `planes` stay empty. drawn: how
    sonographers would draw, against these outlines, for diameters and circumference."""
    check_arguments(outlines, samples, ga_weeks, seed)
    cancel, timer = cancel or CancelToken(), timer or Timer()
    maps, present, spacing_mm = network_input(outlines)
    temperature = predictor.temperature(outlines)
    with timer.stage("sampling"):
        heads = predictor.shape.sample(maps, present, spacing_mm, samples, seed, temperature,
                                       scaled(progress, 0.0, 0.8), cancel)
    cancel.check()
    progress("surface", 0.85, "Drawing the surface")
    provenance = {
        **made_with(), **predictor.describe(), "samples": samples, "seed": seed, "temperature": temperature,
        "measure_widening": predictor.measure_widening(outlines),
        "planes": [name for name in PLANES if name in outlines], "spacing_mm": spacing_mm,
        "drawn_outside_mm": drawn.outside, "axis_error_mm": {"BPD": drawn.bpd_error, "OFD": drawn.ofd_error},
        "frame": "head frame, RAS mm, origin in the head's centre; not registered to the planes or the scanner",
    }
    measures = summarise(heads.measures, ga_weeks, predictor.measure_widening(outlines), drawn)
    result = _result(heads, measures, spacing_mm, samples, ga_weeks, provenance, timer)
    if samples < FEW_SKULL_SAMPLES:
        result.warnings.append(f"Of {samples} samples, standard deviations and intervals are rough: draw "
                               f"{FEW_SKULL_SAMPLES} or more.")
    misfits = _misfits(outlines, maps, result.distance_mm, spacing_mm)
    provenance["section_misfit"] = {name: round(share, 4) for name, share in misfits.items()}

    def misfits_of(reading: Mapping[str, OutlineMap]) -> dict[str, float]:
        maps, present, spacing_mm = network_input(reading)
        heads = predictor.shape.sample(maps, present, spacing_mm, _SAMPLES_TO_COMPARE, seed,
                                       predictor.temperature(reading), no_progress, cancel)
        return _misfits(reading, maps, heads.moments.distance()[0].cpu().numpy() * spacing_mm, spacing_mm)

    with timer.stage("agreement"):
        result.warnings += _chart_warnings(result.measure("HC"), ga_weeks)
        result.warnings += _size_warnings(next(iter(misfits)), spacing_mm, ga_weeks)
        result.warnings += agreement_warnings(outlines, misfits, misfits_of)
    provenance["timings_s"] = timer.rounded
    progress("done", 1.0, "Skull predicted")
    return result


def network_input(outlines: Mapping[str, OutlineMap]) -> tuple[Tensor, Tensor, float]:
    """Canonical maps (3, 96, 96), which planes are there (3,), and the spacing in mm of the case's grid."""
    if not all(outline.any() for outline, _ in outlines.values()):
        raise InputError("An outline is empty: give a plane that shows the head.")
    spacing_mm = float(case_spacing({name: (outline[None], mm) for name, (outline, mm) in outlines.items()}))
    maps = torch.zeros(len(PLANES), SIZE, SIZE)
    for index, name in enumerate(PLANES):
        if name in outlines:
            outline, pixel_mm = outlines[name]
            maps[index] = canonical_map(outline[None], pixel_mm, name, spacing_mm)[0]
    return maps, torch.tensor([name in outlines for name in PLANES]), spacing_mm


def _result(
    heads: SampledHeads, measures: list[Measure], spacing_mm: float, samples: int, ga_weeks: float | None,
    provenance: dict[str, object], timer: Timer,
) -> SkullPrediction:
    with timer.stage("volumes"):
        probability = heads.moments.probability().cpu().numpy()
        std = heads.moments.occupancy()[1].cpu().numpy()
        distance, distance_std = (volume.cpu().numpy() * spacing_mm for volume in heads.moments.distance())
    if not (distance > 0).any():
        raise InputError("No head could be reconstructed from these planes: check that they show a fetal head.")
    with timer.stage("surface"):
        surface = head_surface(distance, distance_std, spacing_mm)
    frame = ras_grid((0.0, 0.0, 0.0), distance.shape, spacing_mm)
    mask = sitk.BinaryFillhole(like((distance > 0).astype(np.uint8), frame))
    mask = sitk.RelabelComponent(sitk.ConnectedComponent(mask), sortByObjectSize=True) == 1
    return SkullPrediction(
        probability=like(probability, frame), mask=mask, std=like(std, frame), distance_mm=distance,
        distance_std_mm=distance_std, surface=surface, measures=measures, planes=[], spacing_mm=spacing_mm,
        samples=samples, ga_weeks=ga_weeks, provenance=provenance,
    )


def _found_plane(name: str, image: PlaneImage, outline: Outline, result: SkullPrediction) -> FoundPlane:
    centre_px = outline.centre_yx_px
    return FoundPlane(
        plane=name, image=image, outline_yx=outline.on_image(), centre_yx_px=centre_px,
        semi_axes_mm=outline.semi_axes_mm, confidence=outline.confidence, ellipse_misfit=outline.misfit,
        doubts=outline.doubts,
        ijk_to_ras_mm=place_plane(name, outline, image.pixel_mm, centre_px, result.distance_mm, result.spacing_mm),
    )


def _misfits(
    outlines: Mapping[str, OutlineMap], maps: Tensor, distance_mm: NDArray[np.float32], spacing_mm: float
) -> dict[str, float]:
    """By plane, in clinical order: what `agreement_warnings` judges."""
    return {name: section_fit(maps[index].numpy(), name, distance_mm, spacing_mm)[1]
            for index, name in enumerate(PLANES) if name in outlines}


def _size_warnings(first: str, spacing_mm: float, ga_weeks: float | None) -> list[str]:
    """An age or a head unlike those the model has learned."""
    warnings, ofd_mm = [], spacing_mm * SIZE / MARGIN
    if ga_weeks is not None and not LEARNED_WEEKS[0] <= ga_weeks <= LEARNED_WEEKS[1]:
        warnings.append(f"The model has learned heads of {LEARNED_WEEKS[0]:g} to {LEARNED_WEEKS[1]:g} weeks, not of "
                        f"{ga_weeks:g}, so shape and standard deviation may be off.")
    if not LEARNED_MM[0] <= ofd_mm <= LEARNED_MM[1]:
        warnings.append(f"By the {first} plane the head is {ofd_mm:.0f} mm long; the model has learned heads of "
                        f"{LEARNED_MM[0]:g} to {LEARNED_MM[1]:g} mm ({LEARNED_WEEKS[0]:g} to {LEARNED_WEEKS[1]:g} "
                        "weeks), so shape and standard deviation may be off.")
    return warnings


def _chart_warnings(circumference: Measure, ga_weeks: float | None) -> list[str]:
    """An age beyond the charts, or a head that no healthy fetus of that age has: more often the pixels or the age are
    wrong."""
    share = circumference.percentile
    if ga_weeks is not None and share is None:
        return [f"The growth charts cover {FIRST_WEEK:g} to {LAST_WEEK:g} weeks, not {ga_weeks:g}: no percentiles."]
    if share is None or _OFF_THE_CHART <= share <= 100 - _OFF_THE_CHART:
        return []
    side = f"below the {_OFF_THE_CHART:g}" if share < 50 else f"above the {100 - _OFF_THE_CHART:g}"
    return [f"A head circumference of {circumference.value:.0f} mm lies {side}th percentile of {ga_weeks:g} weeks: "
            "check the pixel size and the gestational age."]


def _stated(found: FoundPlane) -> dict[str, object]:
    return {
        "name": found.image.name, "pixel_mm": found.image.pixel_mm, "pixel_size_from": found.image.spacing_source,
        "confidence": round(found.confidence, 3), "ellipse_misfit": round(found.ellipse_misfit, 4),
        "semi_axes_mm": [round(mm, 2) for mm in found.semi_axes_mm],
    }
