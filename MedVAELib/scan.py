"""A scan: a three-dimensional image of a head with what is known about it. Validates, never guesses silently."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk

from .errors import InputError, UsageError
from .files import dicom
from .files.folders import files_below
from .files.image_files import check_file, data_files
from .files.itk_files import accept_rounded_axes, alone, itk_name, placed, quiet
from .lost_slices import fill_lost_slices
from .scan_checks import Header, check_content, check_header, check_size, made_finite, made_signed

if TYPE_CHECKING:
    from numpy.typing import NDArray

MODALITIES = ("auto", "flair", "dwi")
_MOST_LISTED = 12  # volumes of a 4D file, in messages

IMAGE_SUFFIX = re.compile(
    r"\.(nii|nrrd|nhdr|mha|mhd|hdr|img|dcm|ima|mgh|mgz|vtk|tiff?|gipl|h5|hdf5?|mnc|png|jpe?g|bmp)(\.gz)?$", re.I)

# In order of precedence: a "t2_flair" is a FLAIR, a "diff_trace_ADC" an ADC map, a "t1_flair" neither; but BIDS calls a
# FLAIR space-T1w_FLAIR where it lies on another image, and ses-T1_FLAIR by its session.
_FLUID_DARK = r"flair|dark[ -]?fluid|(?<![a-z])da[ -]?fl(?![a-z\d])|(?<![a-z])tirm(?![a-z])"
_NAMES = (
    ("other", rf"(?<![a-z])(e?adc|apparent)(?![a-z])|(?<![a-z])(?<!space-)(?<!ses-)t1[ -]*(\w+[ -]+)?({_FLUID_DARK})"),
    ("flair", rf"{_FLUID_DARK}|fluid[ -]?attenuated"),
    ("dwi", r"diffusion|(?<![a-z])(dwi|diff|trace|isodwi|b[ =-]?(800|900|1000|1200|1500|2000))(?![a-z0-9])"),
    ("other", r"mprage|(?<![a-z])"
              r"(t1w?|t2w?|bravo|spgr|swi|swan|flash|bold|fmri|tof|pdw?|asl|cbf|cbv|perfusion|ct|pet)(?![a-z])"),
    # Small letters or a number beside it are a directory or directions: dicom_dir, dti_64_dir, dir-AP.
    ("other", r"double[ -]*inversion|(?<![a-z\d])(?<!\d )(?-i:DIR)(?![a-z\d-])"),
)


@dataclass(frozen=True, eq=False)
class Scan:
    """A usable scan of a head.

    image: three-dimensional float32 SimpleITK image, all values finite, without patient data. modality: as requested,
    "auto", "flair" or "dwi"; "auto" is decided from the image by the detector. modality_hint: "flair", "dwi", "other"
    or None, as tags or the file's name say, with modality_reason saying which. name: safe in file names. path: where
    it was read from, None for an image in memory. tags: acquisition parameters under plain names with units
    (echo_time_ms, b_value …), nothing that identifies the patient. warnings: sentences the user should see.
    """

    image: sitk.Image
    modality: str = "auto"
    name: str = "scan"
    path: Path | None = None
    tags: dict[str, str | float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    modality_hint: str | None = None
    modality_reason: str = ""

    @classmethod
    def read(cls, path: str | Path, modality: str = "auto", series: str | int | None = None) -> Scan:
        """Reads any file that SimpleITK reads, or a DICOM folder.

        series: which of a DICOM folder's series: its UID, a part of its description (upper and lower case alike) or
        its number in the list that the error message gives; not needed if the folder holds one. Of a 4D file, which of
        its volumes, by number or, if its b-values lie beside it (FILE.bval, FILE.bvals or bvals), as "b-value 1000",
        which takes the geometric mean of all within 5 % of it, the trace-weighted image; one with one volume counts as
        3D.
        Raises InputError (one sentence naming the file and what to do) if the scan cannot be used, UsageError for an
        unknown modality or a series that does not choose one.
        """
        _check_modality(modality)
        path = dicom_folder(Path(path)) or Path(path)
        if os.path.isdir(path) or is_dicom_file(path):  # which never raises, unlike Path.is_dir
            image, label, tags, warnings = _read_dicom(path, series)
        else:
            image, warnings, chosen = _read_file(path, series)
            label, tags = IMAGE_SUFFIX.sub("", path.name), sidecar_tags(path) | chosen
        hint, reason = hint_modality(tags, path.name)
        return _validated(image, str(path), modality, safe_name(label), path, tags, warnings, hint, reason)

    @classmethod
    def from_image(cls, image: sitk.Image, modality: str = "auto", name: str = "scan") -> Scan:
        """A scan from an image in memory, validated like a file of that name. Raises as `read` does, naming `name`."""
        _check_modality(modality)
        check_header(name, Header.of_image(image))
        return _validated(image, name, modality, safe_name(name), None, {}, [], *hint_modality({}, name))

    def array_zyx(self) -> NDArray[np.float32]:
        """A copy of the intensities, (D, H, W) in the scan's own storage order."""
        return sitk.GetArrayFromImage(self.image)


# --- Reading ---------------------------------------------------------------------------------------------------------


def _read_file(path: Path, series: str | int | None) -> tuple[sitk.Image, list[str], dict[str, str | float]]:
    """The image, warnings, and tags of the volume that was chosen from a 4D file."""
    notes = check_file(path)
    if not notes.states_spacing:
        raise InputError(f"The header of {path} does not state the size of a voxel: add it, or export the scan again.")
    reader = sitk.ImageFileReader()
    with alone(path) as file, quiet(), accept_rounded_axes(notes):
        reader.SetFileName(itk_name(file))
        try:
            reader.ReadImageInformation()
        except RuntimeError as error:
            raise _unreadable(path, error) from None
        header = Header.of_reader(reader)
        numbers, tags = _chosen_volumes(path, header.size, series)
        above = header.size[:2:-1]
        if numbers:
            reader.SetExtractSize([*header.size[:3], *(0 for _ in above)])  # without a size: one index is read
            header = replace(header, size=header.size[:3])
        check_header(str(path), header)
        try:
            if numbers:
                image = _geometric_mean(reader, [np.unravel_index(number, above)[::-1] for number in numbers])
            else:
                image = reader.Execute()
        except (RuntimeError, MemoryError) as error:
            raise _unreadable(path, error) from None
    warnings = list(notes.warnings)
    if len(numbers) > 1:
        warnings.append(f"Of {path.name} the mean of {len(numbers)} volumes is used, with b-values near "
                        f"{tags['b_value']:g}, as they are: motion between them is not corrected.")
    image = placed(image, notes)
    if notes.nearest is not None:
        warnings.append(f"The axes of {path.name} are not exactly perpendicular: the nearest rectangular grid is used.")
    return image, warnings, tags


def _geometric_mean(reader: sitk.ImageFileReader, indices: Sequence[Sequence[int]]) -> sitk.Image:
    """Of volumes of a 4D file, one as it is; by directions of diffusion it is the trace-weighted image."""
    logarithms: NDArray[np.float64] | float = 0.0
    for index in indices:
        reader.SetExtractIndex([0, 0, 0, *map(int, index)])
        image = reader.Execute()
        if len(indices) == 1:
            return image
        with np.errstate(divide="ignore"):  # 0 stays 0
            logarithms += np.log(np.maximum(sitk.GetArrayViewFromImage(image), 0.0))
    mean = sitk.GetImageFromArray(np.exp(logarithms / len(indices)).astype(np.float32))
    mean.CopyInformation(image)
    return mean


def _chosen_volumes(path: Path, size: Sequence[int], series: str | int | None
                    ) -> tuple[list[int], dict[str, str | float]]:
    """Which volumes of a 4D file are meant, counted from 0, and their tags; none for a file of one.

    Raises InputError where none is named, UsageError for one that is not there.
    """
    count = math.prod(size[3:])
    if count <= 1 and series is None:
        return [], {}
    if count <= 1:
        raise UsageError(f"{path} is no DICOM folder and holds one volume: leave out the series '{series}'.")
    b_values = _b_values(path, count)
    listed = "; ".join(f"{number}: b-value {value:g}" for number, value in enumerate(b_values[:_MOST_LISTED], 1))
    listed = f" ({listed}{'; ...' if count > _MOST_LISTED else ''})" if listed else ""
    if series is None:
        mean = f", or 'b-value {max(b_values):g}' for the mean of all that have it" if b_values else ""
        raise InputError(f"{path} holds {count} volumes (4D): name one with --series, 1 to {count}, for a DWI "
                         f"with the highest b-value{listed}{mean}.")
    wanted = str(series).strip().lower()
    numbers = [number for number in range(count) if wanted == str(number + 1)]
    if (named := re.fullmatch(r"b-value (\d+(?:\.\d+)?)", wanted)) is not None:
        numbers = [n for n, value in enumerate(b_values) if abs(value - float(named[1])) <= 0.05 * float(named[1])]
    if not numbers:
        raise UsageError(f"{path} holds no volume '{series}': name one by its number, 1 to {count}{listed}.")
    return numbers, {"b_value": float(np.mean([b_values[n] for n in numbers]))} if b_values else {}


def _b_values(path: Path, count: int) -> list[float]:
    """Of a 4D file's volumes, from the file that FSL and dcm2niix put beside it; empty if there is none that fits."""
    for file in _b_value_files(path):
        try:
            values = [float(text) for text in file.read_text(encoding="utf-8-sig").split()]
        except (OSError, ValueError):
            continue
        if len(values) == count:
            return values
    return []


def _b_value_files(path: Path) -> list[Path]:
    """Where a 4D file's b-values can stand, the likeliest first."""
    return [_sidecar(path, ".bval"), _sidecar(path, ".bvals"), path.with_name("bvals")]


def _read_dicom(path: Path, series: str | int | None) -> tuple[sitk.Image, str, dict[str, str | float], list[str]]:
    with quiet():
        try:
            volumes = dicom.find_volumes(path)
            if not volumes:
                raise InputError(f"{path} is a folder without DICOM images: give the scan's file or its DICOM folder."
                                 if path.is_dir() else
                                 f"{path} is a DICOM file without an image that can be read: export it again.")
            volume, warnings = dicom.choose_volume(path, volumes, series)
            first = volume.slices[0]
            size = (*first.size[:2], volume.count)
            if volume.count > 1 or path.is_dir():
                check_size(str(path), size)
            image = dicom.read_volume(path, volume)
        except (RuntimeError, MemoryError) as error:
            raise _unreadable(path, error) from None
    if len(volume.slices) == 1:
        warnings.append(f"{path.name} is a multi-frame DICOM file: its frames are taken as equally spaced slices "
                        "in the order they are stored.")
    check_header(str(path), Header.of_image(image))
    return image, volume.label if volume.description != "unnamed" else path.stem, volume.tags, warnings


def dicom_folder(path: Path) -> Path | None:
    """The folder that `Scan.read` searches for slices when it is given this path; None where that is a file."""
    if path.name.upper() == "DICOMDIR" and os.path.isfile(path):
        return path.parent
    return path if os.path.isdir(path) else None


def is_dicom_file(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _unreadable(path: Path, error: Exception) -> InputError:
    text = str(error)
    if isinstance(error, MemoryError) or "allocate memory" in text:
        return InputError(f"{path} does not fit into memory: crop it to the head or use a machine with more memory.")
    if "Unable to determine ImageIO" in text:
        return InputError(f"{path} is in no known image format: "
                          "give a NIfTI, NRRD or MetaImage file, or a folder of DICOM slices.")
    if "orthonormal" in text or "determinant is 0" in text:
        return InputError(f"{path} has direction cosines that are not orthonormal: resample it to a rectangular grid.")
    return InputError(f"{path} cannot be read, it is probably damaged: copy or export it again.")


# --- Validation ------------------------------------------------------------------------------------------------------


def _check_modality(modality: str) -> None:
    if modality not in MODALITIES:
        raise UsageError(f"There is no modality '{modality}': use one of {', '.join(MODALITIES)}.")


def _validated(image: sitk.Image, source: str, modality: str, name: str, path: Path | None,
               tags: dict[str, str | float], warnings: list[str], hint: str | None, reason: str) -> Scan:
    """The last checks, of the voxels themselves; `source` is what messages call the scan."""
    while image.GetDimension() > 3:
        image = image[(slice(None),) * (image.GetDimension() - 1) + (0,)]
    image = sitk.Cast(image, sitk.sitkFloat32)  # always a new image: the caller's is never changed
    for key in image.GetMetaDataKeys():  # headers may carry the patient's name
        image.EraseMetaData(key)
    image, replaced = made_finite(image, source)
    image, signed = made_signed(image, source)
    check_content(image, source)
    image, lost = fill_lost_slices(image, path.name if path else source)
    notes = [*warnings, *replaced, *signed, *lost]
    if modality != "auto" and hint is not None and hint != modality:
        notes.append(f"{source} is treated as {modality.upper()} as asked, although {reason}.")
    return Scan(image, modality, name, path, tags, tuple(notes), hint, reason)


# --- Names and modality ----------------------------------------------------------------------------------------------


def hint_modality(tags: dict[str, str | float], file_name: str) -> tuple[str | None, str]:
    """("flair", "dwi", "other" or None, the reason) from acquisition parameters first, names second."""
    kind = str(tags.get("modality", "MR")).upper()
    if kind not in ("MR", ""):
        return "other", f"its DICOM modality is {kind}"
    for key in ("series_description", "protocol"):
        if (hint := _hint_of_name(str(tags.get(key, "")))) is not None:
            return hint, f"its {key.replace('_', ' ')} is '{tags[key]}'"
    if (b_value := _number(tags, "b_value")) is not None and b_value >= 500:
        return "dwi", f"its b-value is {b_value:g}"
    inversion, echo = _number(tags, "inversion_time_ms"), _number(tags, "echo_time_ms")
    if inversion is not None and echo is not None and inversion >= 1500 and echo >= 60:
        return "flair", f"its inversion time is {inversion:g} ms and its echo time {echo:g} ms"
    if (hint := _hint_of_name(IMAGE_SUFFIX.sub("", file_name))) is not None:
        return hint, f"its name is '{file_name}'"
    return None, ""


def _hint_of_name(name: str) -> str | None:
    for modality, pattern in _NAMES:
        if re.search(pattern, name.replace("_", " "), re.I):
            return modality
    return None


def _number(tags: dict[str, str | float], key: str) -> float | None:
    value = tags.get(key)
    return value if isinstance(value, float) else None


def files_of(path: Path) -> list[Path]:
    """All files that decide what `Scan.read` makes of a path: a DICOM folder's, or an image file's data, wherever they
    lie, and its side-car."""
    folder = dicom_folder(path)
    if folder is not None:
        return list(files_below(folder))
    beside = [_sidecar(path), *_b_value_files(path)]
    return [*data_files(path), *(file for file in beside if os.path.exists(file))]


def _sidecar(path: Path, suffix: str = ".json") -> Path:
    return path.with_name(IMAGE_SUFFIX.sub("", path.name) + suffix)


def sidecar_tags(path: Path) -> dict[str, str | float]:
    """Acquisition parameters from the BIDS side-car beside an image, in the units of Scan.tags; {} without one."""
    try:
        data = json.loads(_sidecar(path).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return {}
    if not isinstance(data, dict):
        return {}
    texts = {"modality": "Modality", "series_description": "SeriesDescription", "protocol": "ProtocolName",
             "sequence": "ScanningSequence", "manufacturer": "Manufacturer", "model": "ManufacturersModelName"}
    numbers = {"repetition_time_ms": ("RepetitionTime", 1e3), "echo_time_ms": ("EchoTime", 1e3),
               "inversion_time_ms": ("InversionTime", 1e3), "field_strength_t": ("MagneticFieldStrength", 1.0),
               "pixel_bandwidth_hz": ("PixelBandwidth", 1.0)}
    # half a letter, which JSON can spell, is in no file that can be written
    tags: dict[str, str | float] = {name: data[key].encode("utf-8", "replace").decode() for name, key in texts.items()
                                    if isinstance(data.get(key), str)}
    return tags | {name: round(data[key] * unit, 6) for name, (key, unit) in numbers.items()
                   if isinstance(data.get(key), int | float)}


def safe_name(label: str) -> str:
    """At most 64 letters, digits, dots, dashes and underscores that are a file name on every system."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", label).strip("._-")[:64].rstrip("._-")
    return name or "scan"
