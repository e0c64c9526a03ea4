"""DICOM folders: which volumes they hold, the choice of one by name, and reading it with its geometry checked.

A volume is one image per slice position. A series with several images per position (b-values of a DWI, echoes) is
several volumes, told apart by the tag that differs; the frames of enhanced DICOM are such images, too.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ..errors import InputError, UsageError
from .dicom_files import Slice, dicom_files, read_slices, spaced
from .file_damage import MAX_SHEAR, unsaid_orientation
from .itk_files import itk_name

MIN_SLICES = 8
"""Series with fewer slices (localisers, screenshots) are not chosen on their own beside one with as many."""
_MOST_LISTED = 20


@dataclass(frozen=True)
class DicomVolume:
    """One volume that a folder offers. `uid` is the series', `detail` what tells it from others of its series, `copies`
    how many files of its series were there once more; apart: whether a series of another description has its uid."""

    uid: str
    description: str
    slices: tuple[Slice, ...] = field(repr=False)
    detail: str = ""
    copies: int = 0
    apart: bool = False

    @property
    def count(self) -> int:
        """Number of slices."""
        return sum(s.size[2] for s in self.slices)

    @property
    def label(self) -> str:
        return f"{self.description}, {self.detail}" if self.detail else self.description

    @property
    def key(self) -> str:
        """What names this volume alone: the series' UID and, where several volumes share it, what tells them apart."""
        return " ".join(filter(None, (self.uid, self.description if self.apart else "", self.detail)))

    @property
    def tags(self) -> dict[str, str | float]:
        """Tags worth keeping, none of which identifies the patient."""
        return dict(self.slices[0].tags)


def find_volumes(path: Path, below: bool = True) -> list[DicomVolume]:
    """All volumes in a folder and, unless not `below`, in its sub-folders, in the order of their descriptions; or those
    of one file."""
    # By the description, too: some programs give all series the same UID or none. Frames that do not say where they lie
    # are a volume by themselves.
    series: dict[tuple[str, str, str], list[Slice]] = defaultdict(list)
    copies: Counter[tuple[str, str]] = Counter()
    seen = set()
    for found in (found for file in dicom_files(path, below) for found in read_slices(file)):
        named = (found.uid, _description(found), found.file if found.size[2] > 1 else "")
        # Not by the instance alone: some programs give all files of a patient the same one.
        key = (found.instance, *named[:2], found.frame, *found.split.values(), *np.round(found.origin_mm, 2))
        if found.instance and key in seen:
            copies[named[:2]] += not found.frame
            continue
        seen.add(key)
        series[named].append(found)
    descriptions = Counter(uid for uid, _ in {named[:2] for named in series})
    volumes = [replace(volume, copies=copies[named[:2]], apart=descriptions[volume.uid] > 1)
               for named, members in series.items() for volume in _split(members)]
    return sorted(volumes, key=lambda v: (v.description.lower(), v.uid, v.detail))


def choose_volume(path: Path, volumes: Sequence[DicomVolume],
                  series: str | int | None) -> tuple[DicomVolume, list[str]]:
    """The volume that `series` names: a key or series UID, a number in the list or a part of its description.

    Without `series` the only volume of at least MIN_SLICES parallel grey slices, no mosaics, is taken. Returns it with
    warnings about what was passed over and what its header leaves open. Raises UsageError, with the list, where the
    choice is not unique, and InputError for mosaics.
    """
    chosen, notes = _chosen(path, volumes, series)
    if _is_mosaic(chosen.slices):
        raise InputError(f"{path} ({chosen.label}) stores its slices as mosaics: convert it to NIfTI, for example with "
                         "dcm2niix.")
    if chosen.copies:
        files = "1 file is a copy" if chosen.copies == 1 else f"{chosen.copies} files are copies"
        notes.append(f"{files} of others in {path.name} and passed over.")
    if not all(s.oriented for s in chosen.slices):
        notes.append(unsaid_orientation(path))
    return chosen, notes


def _chosen(path: Path, volumes: Sequence[DicomVolume], series: str | int | None) -> tuple[DicomVolume, list[str]]:
    numbered = sorted(volumes, key=_rank)
    offered = [v for v in numbered if _rank(v) == _rank(numbered[0])]
    if series is None:
        if len(offered) > 1:
            raise UsageError(f"{path} holds {len(offered)} DICOM series, name one of them (--series): "
                             f"{_listing(offered)}.")
        left = [f"{v.label} ({v.count} slices)" for v in volumes if v is not offered[0]]
        return offered[0], ([f"Taken from {path.name}: {offered[0].label}; passed over: {', '.join(left)}."]
                            if left else [])
    wanted = str(series).strip()
    if wanted.isdecimal() and 1 <= int(wanted) <= len(numbered):
        return numbered[int(wanted) - 1], []
    matches = ([v for v in volumes if wanted in (v.key, v.uid)]
               or [v for v in volumes if wanted.lower() in (v.label.lower(), v.description.lower())]
               or [v for v in volumes if wanted and wanted.lower() in v.label.lower()])
    if len(matches) > 1:
        raise UsageError(f"{path} holds {len(matches)} DICOM series that '{wanted}' can mean, "
                         f"name one of: {_listing(numbered, matches)}.")
    if not matches:
        raise UsageError(f"{path} holds no DICOM series '{wanted}', only: {_listing(offered)}.")
    return matches[0], []


def _rank(volume: DicomVolume) -> int:
    """Which volumes may be chosen on their own, those of the lowest rank in a folder: 0 for what can be a scan, 1 for
    colours, mosaics and localisers of several planes, 2 for few slices."""
    if volume.count < MIN_SLICES:
        return 2
    grey = all(s.components == 1 for s in volume.slices)
    return 0 if grey and _is_parallel(volume.slices) and not _is_mosaic(volume.slices) else 1


def read_volume(path: Path, volume: DicomVolume) -> sitk.Image:
    """The volume as a float32 image, rescale slope and intercept applied.

    Raises InputError if its slices form no regular grid.
    """
    if any(s.components != 1 for s in volume.slices):
        raise InputError(f"{path} ({volume.label}) holds colours: give a series with one intensity per voxel.")
    if len(volume.slices) == 1 and volume.count == 1 and path.is_file():
        raise InputError(f"{path} is a single DICOM slice: give the folder with the whole series.")
    if not all(s.sized for s in volume.slices):
        frames = " or where its frames lie" if len(volume.slices) == 1 else ""
        raise InputError(f"{path} ({volume.label}) does not state the size of a voxel{frames}: export it again.")
    if not all(s.scaled_alike for s in volume.slices):
        raise InputError(f"{path} ({volume.label}) stores its frames on different scales: convert it to NIfTI, for "
                         "example with dcm2niix.")
    if len(volume.slices) == 1:
        return _read_file(volume.slices[0].file)
    ordered, gap_mm = _checked_order(f"{path} ({volume.label})", volume)
    image = _read_frames(ordered) if ordered[0].frame is not None else _read_series(ordered)
    first = ordered[0]
    image.SetSpacing((first.spacing_mm[0], first.spacing_mm[1], gap_mm))
    image.SetOrigin(first.origin_mm.tolist())
    image.SetDirection(_right_handed(first.direction).ravel().tolist())
    return image


def _read_file(file: str) -> sitk.Image:
    return spaced(sitk.ReadImage(itk_name(file), sitk.sitkFloat32, imageIO="GDCMImageIO"))


def _read_series(ordered: Sequence[Slice]) -> sitk.Image:
    reader = sitk.ImageSeriesReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileNames([itk_name(s.file) for s in ordered])
    reader.SetOutputPixelType(sitk.sitkFloat32)
    return reader.Execute()


def _read_frames(ordered: Sequence[Slice]) -> sitk.Image:
    values = {file: sitk.GetArrayFromImage(_read_file(file)) for file in {s.file for s in ordered}}
    return sitk.GetImageFromArray(np.stack([values[s.file][s.frame] for s in ordered]))


def _description(found: Slice) -> str:
    return str(found.tags.get("series_description") or found.tags.get("protocol") or "unnamed")


def _split(slices: list[Slice]) -> list[DicomVolume]:
    """One series as volumes with one image per position; as one volume if no tag tells its images apart."""
    uid, description = slices[0].uid, _description(slices[0])
    whole = DicomVolume(uid, description, tuple(slices))
    if not _has_repeats(slices) or _is_mosaic(slices):
        return [whole]
    for names in (("b-value",), ("echo time",), ("image type",), ("time point",), ("acquisition",),
                  ("b-value", "image type"), ("b-value", "gradient"), ("b-value", "acquisition"), ("file",)):
        groups: dict[str, list[Slice]] = defaultdict(list)
        for found in slices:
            # A file of its own tells frames apart, never single slices.
            told = found.split if found.frame is None else found.split | {"file": os.path.basename(found.file)}
            groups[", ".join(f"{name} {told.get(name) or 'none'}" for name in names)].append(found)
        if len(groups) > 1 and not any(_has_repeats(group) for group in groups.values()):
            return [DicomVolume(uid, description, tuple(group), detail) for detail, group in groups.items()]
    return [whole]


def _is_parallel(slices: Sequence[Slice]) -> bool:
    return all(np.abs(s.direction - slices[0].direction).max() <= 1e-3 for s in slices)


def _is_mosaic(slices: Sequence[Slice]) -> bool:
    """Whether a picture holds all slices of a volume side by side."""
    return any("MOSAIC" in str(s.tags.get("image_type", "")) for s in slices)


def _has_repeats(slices: Sequence[Slice]) -> bool:
    """Whether two images of one orientation lie at one position."""
    keys = [tuple(np.round(np.append(s.origin_mm, s.direction.ravel()), 2)) for s in slices]
    return len(set(keys)) < len(keys)


def _right_handed(direction: np.ndarray) -> np.ndarray:
    """In-plane axes with the normal that slices are ordered along."""
    rows, columns = direction[:, 0], direction[:, 1]
    return np.column_stack([rows, columns, np.cross(rows, columns)])


def _checked_order(name: str, volume: DicomVolume) -> tuple[list[Slice], float]:
    """Slices along their normal and the distance between them in mm. Raises InputError if they form no grid."""
    first = volume.slices[0]
    if any(s.size != first.size for s in volume.slices):
        raise InputError(f"{name} mixes slices of different sizes: export the series on its own.")
    if not _is_parallel(volume.slices):
        raise InputError(f"{name} mixes slices of different orientations, as a localiser does: give a 3D series.")
    if any(not np.allclose(s.spacing_mm[:2], first.spacing_mm[:2], rtol=1e-3) for s in volume.slices):
        raise InputError(f"{name} mixes slices of different pixel spacings: export the series on its own.")
    normal = _right_handed(first.direction)[:, 2]
    ordered = sorted(volume.slices, key=lambda s: float(s.origin_mm @ normal))
    steps = np.diff([s.origin_mm for s in ordered], axis=0)
    gaps = steps @ normal
    gap = float(np.median(gaps))
    if np.any(gaps < 0.01):
        raise InputError(f"{name} holds several images at the same slice position and no tag tells the volumes apart: "
                         "convert it to NIfTI, for example with dcm2niix, and choose one volume.")
    if np.any(np.abs(gaps - gap) > 0.05 * gap + 0.02):
        raise InputError(f"{name} has slices missing, the distance between them varies from {gaps.min():.2f} to "
                         f"{gaps.max():.2f} mm: export the complete series.")
    if np.any(np.linalg.norm(steps - gaps[:, None] * normal, axis=1) > MAX_SHEAR * gap):
        raise InputError(f"{name} was scanned with a tilted gantry, its slices are shifted against each other: "
                         "resample it to a rectangular grid.")
    return ordered, float(gaps.mean())


def _listing(volumes: Sequence[DicomVolume], shown: Sequence[DicomVolume] | None = None) -> str:
    """With their numbers; of some alone, where `shown` is given."""
    entries = [f"{i}: {v.label} ({v.count} slices)" for i, v in enumerate(volumes, 1)
               if shown is None or any(v is one for one in shown)]
    if len(entries) > _MOST_LISTED:
        entries[_MOST_LISTED:] = [f"and {len(entries) - _MOST_LISTED} more"]
    return "; ".join(entries)


__all__ = ["MIN_SLICES", "DicomVolume", "choose_volume", "find_volumes", "read_volume"]
