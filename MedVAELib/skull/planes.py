"""A standard plane of an ultrasound examination as a grey image with square pixels of known size."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from ..bundle import MIN_SKULL_SAMPLES
from ..errors import InputError, UsageError, check_seed
from ..files.file_damage import MAX_NONFINITE_FRACTION
from ..scan import IMAGE_SUFFIX, safe_name
from ..standard_planes import PLANES
from .plane_files import SAME_SIZE, Cut, StoredPlane, parse_cut, plane_of_image, read_stored_plane

FIELD_OF_VIEW_MM = (20.0, 500.0)
"""Of the longer edge: a head of the first trimester fills 50 mm, no probe looks deeper than 400."""
MIN_EDGE_PX = 32
MAX_EDGE_PX = 1200
"""Larger frames are resampled: the outline is found on far fewer pixels."""
MAX_SAMPLES = 10_000
_BRIGHT_PERCENT = 98  # of the pixels that are not black; lettering and grey bars stay above
_USUAL = 0.68
"""Of full scale: that percentile of real planes, the median of HC18's 202 for training and validation."""
_DARK = 1 / 3
"""Of full scale: a picture in which it is lower is brightened until it is usual; on those planes .37 at least."""
PLAUSIBLE_WEEKS = (8.0, 45.0)
_GIVEN = "given"
_W = r"(w|wk|wks|weeks?)"
_WEEKS = re.compile(rf"(?P<weeks>\d+([.,]\d*)?) *{_W}?"
                    rf"|(?P<whole>\d+)( *\+ *| *{_W} *\+? *| +(?=\d */ *7))(?P<days>[0-6])( */ *7| *d| *days?)?", re.I)
_DECIMAL_COMMA = re.compile(r"(?<![.\d])(\d+),(\d+)(?![.\d])")


@dataclass(frozen=True, eq=False)
class PlaneImage:
    """A usable plane image.

    grey_yx: (H, W) float32 in 0…1, finite. pixel_mm: edge of its square pixels. spacing_source: where the size comes
    from, in words. name: safe in file names. path: where it was read from, None for an image in memory. warnings:
    sentences the user should see.
    """

    grey_yx: NDArray[np.float32]
    pixel_mm: float
    spacing_source: str = ""
    name: str = "plane"
    path: Path | None = None
    warnings: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """What messages call it."""
        return str(self.path or self.name)

    @classmethod
    def read(
        cls, path: str | Path, spacing_mm: float | None = None, unstated_mm: float | None = None
    ) -> PlaneImage:
        """Reads PNG, JPEG, DICOM, NIfTI, NRRD and whatever else SimpleITK reads.

        path: a file with one frame, or "volume.nii.gz@40" (or @x40, @y40) for a slice of a volume, counted from 0.
        spacing_mm: pixel size, whatever the file states, or unstated_mm, where it states none; needed there, and never
        guessed. Raises UsageError when it is missing or impossible, InputError (one sentence naming the file and what
        to do) otherwise.
        """
        check_spacing(spacing_mm)
        check_spacing(unstated_mm)
        file, cut = parse_cut(path)
        stored = read_stored_plane(file, cut)
        return _plane(stored, str(path), safe_name(IMAGE_SUFFIX.sub("", file.name)), file, spacing_mm, unstated_mm)

    @classmethod
    def from_image(
        cls, image: sitk.Image, spacing_mm: float | None = None, cut: Cut | None = None, name: str = "plane"
    ) -> PlaneImage:
        """A plane from an image in memory. Its own spacing counts as true, unless spacing_mm is given; for an image
        that came from a PNG or JPEG file it is not. cut: which slice of a volume. Raises as `read`."""
        check_spacing(spacing_mm)
        stored = plane_of_image(image, name, cut, image.GetSpacing(), "image")
        return _plane(stored, name, safe_name(name), None, spacing_mm)

    @classmethod
    def from_array(cls, values: NDArray, spacing_mm: float, name: str = "plane") -> PlaneImage:
        """A plane from grey values (H, W) or colours (H, W, 3 or 4), rows downwards. Raises as `read`."""
        check_spacing(spacing_mm)
        return _plane(StoredPlane(np.asarray(values), None, ""), name, safe_name(name), None, spacing_mm)


def check_spacing(spacing_mm: float | None) -> None:
    """Raises UsageError for a pixel size that is no positive number."""
    if spacing_mm is not None and not (math.isfinite(spacing_mm) and spacing_mm > 0):
        raise UsageError(f"The pixel size must be a positive number of mm, not {spacing_mm:g}: give the one the "
                         "ultrasound machine states (--spacing).")


def _plane(
    stored: StoredPlane, source: str, name: str, path: Path | None, spacing_mm: float | None,
    unstated_mm: float | None = None,
) -> PlaneImage:
    """The checks common to every source; `source` is what messages call the plane."""
    grey, warnings = _grey(stored.values, source)
    spacing_yx, from_where = _spacing(stored, source, spacing_mm, unstated_mm)
    _check_field_of_view(source, grey.shape, spacing_yx)
    warnings = [*stored.warnings, *warnings, *_size_warnings(stored, source, spacing_mm, unstated_mm, from_where)]
    grey, pixel_mm = _square_pixels(grey, spacing_yx)
    return PlaneImage(grey, pixel_mm, from_where, name, path, tuple(warnings))


def _size_warnings(
    stored: StoredPlane, source: str, spacing_mm: float | None, unstated_mm: float | None, from_where: str
) -> list[str]:
    """Where a given pixel size and what the file states do not go together."""
    warnings, given_mm, stated = [], spacing_mm or unstated_mm, stored.spacing_yx_mm
    if given_mm is None:
        return _contradiction(stored, source)
    if from_where == _GIVEN and not math.isclose(stored.pixel_aspect, 1, rel_tol=SAME_SIZE):
        warnings.append(f"{source} says that its pixels are {stored.pixel_aspect:.4g} times as high as wide: the pixel "
                        f"size of {given_mm:g} mm is taken for their width.")
    may_be = [stated, *(stored.other_sizes_yx_mm if from_where == _GIVEN else ())]
    if stated is None or any(math.isclose(size[1], given_mm, rel_tol=SAME_SIZE) for size in may_be):
        return warnings
    said = f"{stored.spacing_source} says {' x '.join(f'{mm:.4g}' for mm in stated)} mm"
    if from_where == _GIVEN:
        return [*warnings, f"The pixel size of {given_mm:g} mm is used for {source} as asked, although the {said}."]
    warnings += _contradiction(stored, source)
    return [*warnings, f"The pixel size of {given_mm:g} mm is not used for {source}, whose {said}: put the plane's "
            f"name before it to override that, as axial={given_mm:g} (--spacing)."]


def _contradiction(stored: StoredPlane, source: str) -> list[str]:
    """Of a file that states other pixel sizes beside the one that is used."""
    if not stored.other_sizes_yx_mm:
        return []
    return [f"{source} states two pixel sizes: {stored.spacing_yx_mm[1]:.4g} mm as pixel spacing, which is used, and "
            f"{_other_sizes(stored)} mm in its ultrasound region: give the true one by the plane's name "
            "(--spacing PLANE=MM)."]


def _other_sizes(stored: StoredPlane) -> str:
    """In words; square ones as one number."""
    return " or ".join(" x ".join(dict.fromkeys(f"{mm:.4g}" for mm in size)) for size in stored.other_sizes_yx_mm)


def _grey(values: NDArray, source: str) -> tuple[NDArray[np.float32], list[str]]:
    """Grey values (H, W) in 0…1 from what a file stored."""
    eight_bit = values.dtype == np.uint8
    if values.ndim == 3 and values.shape[2] in (3, 4):
        values = values[..., :3] @ np.array([0.299, 0.587, 0.114])
    elif values.ndim == 3 and values.shape[2] in (1, 2):  # grey, grey with opacity
        values = values[..., 0]
    if values.ndim != 2:
        raise InputError(f"{source} holds {values.shape[-1]} values per pixel: give a grey or colour image.")
    if min(values.shape) < MIN_EDGE_PX:
        raise InputError(f"{source} has only {values.shape[1]} x {values.shape[0]} pixels: give the whole frame.")
    values = values.astype(np.float32)
    finite = np.isfinite(values)
    warnings = []
    if not finite.all():
        bad = int(values.size - finite.sum())
        if bad > MAX_NONFINITE_FRACTION * values.size:
            raise InputError(f"{source} has {100 * bad / values.size:.2g} % of its pixels without a finite number: "
                             "export the frame again.")
        values = np.where(finite, values, values[finite].min())
        warnings.append(f"{source} has {bad} pixels that are not finite numbers: they were set to black.")
    low, high = float(values.min()), float(values.max())
    if low == high:
        raise InputError(f"{source} is blank, every pixel is {low:g}: export the frame again.")
    full = None if not eight_bit and (low < 0 or high > 1) else 255.0 if eight_bit else 1.0
    low = low if full is None else 0.0
    bright = float(np.percentile(values[values > low], _BRIGHT_PERCENT)) - low
    high = low + bright / _USUAL if full is None or bright < _DARK * full else full
    return np.clip((values - low) / (high - low), 0, 1).astype(np.float32), warnings


def _spacing(
    stored: StoredPlane, source: str, spacing_mm: float | None, unstated_mm: float | None
) -> tuple[tuple[float, float], str]:
    given_mm = spacing_mm or (None if stored.states_size else unstated_mm)
    if given_mm is not None:
        return (given_mm * stored.pixel_aspect, given_mm), _GIVEN
    if stored.spacing_yx_mm is None:
        if stored.other_sizes_yx_mm:
            raise UsageError(f"{source} states several pixel sizes, {_other_sizes(stored)} mm in its ultrasound "
                             "regions: give the one of the head's region with --spacing.")
        raise UsageError(f"{source} does not say how large its pixels are: give their size in mm with --spacing.")
    if not stored.states_size:
        raise InputError(f"{source} states an impossible pixel size: give the true one in mm with --spacing.")
    return stored.spacing_yx_mm, stored.spacing_source


def _check_field_of_view(source: str, shape: tuple[int, ...], spacing_yx_mm: tuple[float, float]) -> None:
    height, width = (n * mm for n, mm in zip(shape, spacing_yx_mm, strict=True))
    least, most = FIELD_OF_VIEW_MM
    if not least <= max(height, width) <= most:
        raise InputError(f"{source} would be {width:.4g} x {height:.4g} mm large with pixels of {spacing_yx_mm[1]:.4g} "
                         f"mm, and no plane of a head is: give the true pixel size (--spacing PLANE=MM).")


def _square_pixels(grey: NDArray[np.float32], spacing_yx_mm: tuple[float, float]) -> tuple[NDArray[np.float32], float]:
    """The image on square pixels, at most MAX_EDGE_PX along an edge."""
    extent_mm = [n * mm for n, mm in zip(grey.shape, spacing_yx_mm, strict=True)]
    pixel_mm = max(min(spacing_yx_mm), max(extent_mm) / MAX_EDGE_PX)
    shape = [max(1, round(mm / pixel_mm)) for mm in extent_mm]
    if tuple(shape) == grey.shape:
        return np.ascontiguousarray(grey), pixel_mm
    import torch  # takes seconds to load: what is wrong with a plane is said before
    import torch.nn.functional as F

    resampled = F.interpolate(torch.from_numpy(np.ascontiguousarray(grey))[None, None], shape, mode="bilinear",
                              antialias=True, align_corners=False)
    return resampled[0, 0].clamp(0, 1).numpy(), pixel_mm


@dataclass(frozen=True)
class PixelSizes:
    """Of planes in mm. unstated: where a file states none; by_plane: whatever the file of that plane states."""

    unstated: float | None = None
    by_plane: Mapping[str, float] = field(default_factory=dict)


def parse_spacings(text: str, given: Collection[str] = PLANES) -> PixelSizes:
    """Pixel sizes from "0.25", "axial=0.25,coronal=0.3" or both; none from an empty text. Commas may be decimal ones.

    given: the planes that there are. Raises UsageError, also for the size of another plane.
    """
    unstated, by_plane = None, {}
    plain = _DECIMAL_COMMA.sub(r"\1.\2", text).replace(";", ",")
    for part in filter(None, (part.strip() for part in plain.split(","))):
        plane, equals, number = part.rpartition("=")
        name = plane.strip().lower()
        try:
            size = float(number)
        except ValueError:
            size = math.nan
        again = name in by_plane if equals else unstated is not None
        if (equals and name not in PLANES) or not math.isfinite(size) or again:
            raise UsageError(f"The pixel size '{text}' cannot be read: give mm for all planes that state none, as "
                             "0.25, or by plane, as axial=0.25,coronal=0.3 (--spacing).")
        check_spacing(size)
        if equals and name not in given:
            raise UsageError(f"The pixel size '{text}' names the {name} plane, which is not given: give that "
                             "plane, too, or leave its size out (--spacing).")
        if equals:
            by_plane[name] = size
        else:
            unstated = size
    return PixelSizes(unstated, by_plane)


def parse_weeks(text: str) -> float | None:
    """A gestational age in weeks from "24.5", "24,5", or weeks and days as "24+3" or "24w3d"; None from an empty text.
    Raises UsageError for anything else; whether such an age can be is for `check_arguments`."""
    if not text.strip():
        return None
    found = _WEEKS.fullmatch(text.strip())
    if found is None:
        raise UsageError(f"The gestational age '{text}' cannot be read: give weeks, as 24.5, or weeks and days, as "
                         "24+3 (--ga).")
    weeks = float((found["weeks"] or found["whole"]).replace(",", "."))
    return round(weeks + int(found["days"] or 0) / 7, 2)


def check_arguments(planes: Mapping[str, object], samples: int, ga_weeks: float | None, seed: int = 0) -> None:
    """Raises UsageError for a value out of range; `predict_skull` does it first."""
    if not planes:
        raise UsageError("Give one plane at least: axial, sagittal or coronal.")
    unknown = sorted(set(planes) - set(PLANES))
    if unknown:
        raise UsageError(f"There is no plane '{unknown[0]}': use {', '.join(PLANES)}.")
    if not MIN_SKULL_SAMPLES <= samples <= MAX_SAMPLES:
        raise UsageError(f"samples must lie between {MIN_SKULL_SAMPLES} and {MAX_SAMPLES}, not {samples}.")
    check_seed(seed)
    if ga_weeks is not None and not PLAUSIBLE_WEEKS[0] <= ga_weeks <= PLAUSIBLE_WEEKS[1]:
        raise UsageError(f"The gestational age must lie between {PLAUSIBLE_WEEKS[0]:g} and {PLAUSIBLE_WEEKS[1]:g} "
                         f"weeks, not {ga_weeks:g}.")
