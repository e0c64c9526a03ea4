"""Brain extraction measured: the detector's brain mask beside a template's, on cases with head and expert mask."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from ..preprocessing.mask_files import read_mask
from ..progress import CancelToken, Progress, no_progress
from ..scan import Scan
from .anomaly import Detect
from .cases import Case, one_by_one
from .metrics import MIN_RESAMPLED, dice, mean_with_interval
from .tables import figure, markdown_table, percent

NAN = float("nan")
_HEAD_SHARE = 0.05
_OUTSIDE_MM = 6.0


@dataclass
class BrainScores:
    """One case: Dice against the given brain mask, what each mask misses and adds (shares of the given brain)."""

    case: Case
    brain_ml: float = NAN
    dice: float = NAN
    missed: float = NAN
    added: float = NAN
    seconds: float = NAN
    template_dice: float = NAN
    template_missed: float = NAN
    template_added: float = NAN
    template_seconds: float = NAN
    skipped: str = ""

    @property
    def gain(self) -> float:
        return self.dice - self.template_dice


def evaluate_brains(cases: Sequence[Case], detect: Detect, template: Callable[[sitk.Image], sitk.Image],
                    modality: str = "auto", progress: Progress = no_progress,
                    cancel: CancelToken | None = None) -> list[BrainScores]:
    """Scores every case that has a brain mask and a head around it; the others say why not in `skipped`.

    template: called with the scan's image, returns a brain mask on its grid (as `template_brain_mask`).
    Raises Cancelled, and DeviceMemoryError.
    """
    return one_by_one(cases, len(cases), lambda case, part: _evaluate(case, detect, template, modality, part),
                      lambda case, reason: BrainScores(case, skipped=f"failed: {reason}"), progress, cancel)


def _evaluate(case: Case, detect: Detect, template: Callable[[sitk.Image], sitk.Image], modality: str,
              progress: Progress) -> BrainScores:
    if case.brain is None:
        return BrainScores(case, skipped="no brain mask given")
    scan = Scan.read(case.scan, modality=modality)
    given = read_mask(case.brain, scan.image)
    if not has_head(scan.image, given):
        return BrainScores(case, skipped="the scan is already stripped of its head")
    result = BrainScores(case, brain_ml=float(given.sum() * np.prod(scan.image.GetSpacing()) / 1000))
    started = time.perf_counter()
    ours = sitk.GetArrayFromImage(detect(scan, progress).brain) > 0
    result.seconds = time.perf_counter() - started
    started = time.perf_counter()
    theirs = sitk.GetArrayFromImage(template(scan.image)) > 0
    result.template_seconds = time.perf_counter() - started
    result.dice, result.missed, result.added = _agreement(ours, given)
    result.template_dice, result.template_missed, result.template_added = _agreement(theirs, given)
    return result


def _agreement(mask: np.ndarray, given: np.ndarray) -> tuple[float, float, float]:
    total = max(int(given.sum()), 1)
    return dice(mask, given), int((given & ~mask).sum()) / total, int((mask & ~given).sum()) / total


def has_head(scan: sitk.Image, brain: np.ndarray) -> bool:
    """Whether tissue is left around the brain (bool, zyx): bright voxels 6 mm and more away from it."""
    values = sitk.GetArrayViewFromImage(scan)
    if not brain.any():
        return False
    away = ndimage.distance_transform_edt(~brain, sampling=scan.GetSpacing()[::-1]) > _OUTSIDE_MM
    background, typical = float(np.percentile(values, 1)), float(np.median(values[brain]))
    bright = values > background + 0.3 * (typical - background)
    return int((bright & away).sum()) > _HEAD_SHARE * int(brain.sum())


def brain_markdown(results: Sequence[BrainScores], notes: Sequence[str]) -> str:
    """The table as Markdown, with the mean over the cases, the cases left out, and the definitions."""
    scored = [r for r in results if not r.skipped]
    header = ["case", "brain ml", "Dice ours", "Dice template", "missed ours", "missed template", "added ours",
              "added template", "seconds ours (whole detection)", "seconds template"]
    rows = [[r.case.name, f"{r.brain_ml:.0f}", figure(r.dice), figure(r.template_dice), percent(r.missed),
             percent(r.template_missed), percent(r.added), percent(r.template_added), f"{r.seconds:.1f}",
             f"{r.template_seconds:.1f}"] for r in scored]
    if len(scored) > 1:
        ours, theirs = (mean_with_interval(np.array([getattr(r, name) for r in scored]))
                        for name in ("dice", "template_dice"))
        rows.append([f"**mean of {len(scored)}**", "", figure(ours[0], ours[1:]), figure(theirs[0], theirs[1:]),
                     *[""] * 6])
    lines = ["# Brain mask, measured\n", *(f"{note}  " for note in notes), "", markdown_table(header, rows)]
    if len(rows) == 0:
        lines[-1] = "No case has both a head and a brain mask.\n"
    lines += [f"- left out: {r.case.name}, {r.skipped}" for r in results if r.skipped]
    return "\n".join([
        *lines, "", "- Template: brain mask of our average head carried over by affine registration (Mattes mutual "
        "information at the 4 mm level, best of two starts).",
        "- Missed, added: voxels of the given mask that ours lacks, and beyond it, as shares of the given brain.",
        f"- [brackets], of {MIN_RESAMPLED} cases or more: 95% percentile bootstrap over cases.", ""])
