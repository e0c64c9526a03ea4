"""Many scans prepared for models: a folder of images for each, and one table of all in the common format."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from .. import __version__
from ..bundle import DEFAULT_ANOMALY_BUNDLE, Bundle
from ..errors import InputError, UsageError
from ..files.csv_files import refuse_foreign_table, write_csv
from ..files.nifti_files import MNI, write_nifti_gz
from ..outputs import PROVENANCE_FILE, atomic_output, check_writable, plain
from ..preprocessing.mask_files import read_fractions
from ..preprocessing.masked import MaskedScan, masked_scan
from ..preprocessing.published import NAME as PUBLISHED
from ..preprocessing.published import prepare_published
from ..preprocessing.slices import LESION_FRACTION, PIXEL, POSITION, PatchSettings, SliceSettings, patches_of, slices_of
from ..progress import CancelToken, Progress, scaled
from ..scan import Scan
from .cases import OfOneScan, refuse_double_names
from .run import fingerprint, released
from .summary import DONE, NOT_RUN, Row
from .table import Line, read_table

FindBrain = Callable[[Scan, Progress, CancelToken], sitk.Image | None]
"""A brain mask on a scan's grid; None leaves it to `masked_scan`."""
IMAGES_FILE = "images.csv"
_TASK = "prepared images"
_DESCRIPTION = "MedVAE prepared image, 0 to 1"
_IMAGE_COLUMNS = ("file", "case", "patient", "label", "split")
PREPARATIONS = (PUBLISHED, "slices", "patches")
BRAINS = ("detector", "template")
_MOST_OUTSIDE = 0.001  # of the brain in a slice
_NAMED = ("file", "scan", "series", "case", "patient", "label", "split", "lesion", "brain")


@dataclass(frozen=True)
class PrepareCase(OfOneScan):
    """A scan to prepare. lesion, brain: files of masks in its space, where they are known; tags: what else the table
    tells; series: "" means as set for all."""

    name: str
    scan: Path
    patient: str
    label: str = ""
    split: str = ""
    lesion: Path | None = None
    brain: Path | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    series: str = ""

    def resolved(self) -> PrepareCase:
        """With absolute paths, for another machine."""
        files = {name: getattr(self, name).absolute() for name in ("scan", "lesion", "brain") if getattr(self, name)}
        return replace(self, **files)


@dataclass(frozen=True)
class PreparedImages:
    """What was made of a scan. images: a record of each file; warnings: of the scan and of what was made."""

    images: Sequence[Mapping[str, object]]
    warnings: Sequence[str]


@dataclass(frozen=True)
class PrepareRow(Row):
    """A line of the summary. images: how many were made."""

    case: str
    scan: str
    status: str = NOT_RUN
    images: int | None = None
    seconds: float | None = None
    exit_code: int | None = None
    message: str = ""

    @classmethod
    def of_result(cls, case: PrepareCase, result: PreparedImages, seconds: float) -> PrepareRow:
        return cls(case.name, case.listed, DONE, len(result.images), round(seconds, 2), 0, " ".join(result.warnings))

    @classmethod
    def of_folder(cls, case: PrepareCase, folder: Path, provenance: Mapping[str, Any]) -> PrepareRow:
        made = PreparedImages(provenance["images"], provenance["warnings"])
        return cls.of_result(case, made, float(provenance["request"].get("seconds", 0.0)))


@dataclass(frozen=True)
class PrepareSettings:
    """How every scan is prepared. brain: where masks come from that the table does not name: the detector (bundle), or
    the average head, registered; a stripped scan keeps what it shows. series: as in `Scan.read`. What modality a scan
    has decides nothing here."""

    preparation: str
    slices: SliceSettings = SliceSettings()
    patches: PatchSettings = PatchSettings()
    brain: str = "detector"
    bundle: str = DEFAULT_ANOMALY_BUNDLE
    device: str = "auto"
    series: str | None = None

    row = PrepareRow

    def check(self, cases: Sequence[PrepareCase]) -> None:
        if self.preparation not in PREPARATIONS:
            raise UsageError(f"There is no preparation '{self.preparation}': use one of {', '.join(PREPARATIONS)}.")
        if self.brain not in BRAINS:
            raise UsageError(f"Brain masks come from one of {', '.join(BRAINS)}, not '{self.brain}'.")

    def request(self, case: PrepareCase, bundle: Bundle) -> dict[str, Any]:
        slices = asdict(self.slices) | {"pixel_mm": self.slices.edge_mm}
        own = {"slices": slices, "patches": asdict(self.patches)}.get(self.preparation, {})
        masks = {name: fingerprint(getattr(case, name)) for name in ("lesion", "brain") if getattr(case, name)}
        brain = released("brain", bundle) if self.brain == "detector" else {"brain": self.brain}
        return {"medvae_version": __version__, "preparation": self.preparation, **own, "masks": masks,
                "label": case.label, **brain,
                "series": case.series or self.series, "scan": fingerprint(case.scan)}

    def load(self, bundle: Bundle) -> FindBrain:
        if self.brain == "template":
            return lambda scan, progress, cancel: None
        from ..anomaly.brain import detector_brain
        from ..anomaly.detector import Detector

        return partial(detector_brain, Detector.load(bundle, self.device))

    def degraded(self, model: FindBrain) -> bool:
        return isinstance(model, partial) and bool(model.args[0].steps)

    def run(self, case: PrepareCase, directory: Path, bundle: Bundle, model: FindBrain | None, progress: Progress,
            cancel: CancelToken) -> PreparedImages:
        """Writes the images and a provenance with their list and the warnings; returns both."""
        from ..made_with import made_with

        started = time.perf_counter()
        check_writable(directory, [PROVENANCE_FILE], _TASK)
        progress("read", 0.0, f"Reading {case.scan.name}")
        scan = Scan.read(case.scan, series=case.series or self.series)
        request = self.request(case, bundle)
        if case.brain:
            brain = read_fractions(case.brain, scan.image) >= 0.5
        else:
            brain = (model or self.load(bundle))(scan, scaled(progress, 0.05, 0.6), cancel)
        cancel.check()
        with atomic_output(directory) as folder:
            images, doubts = self._write(case, scan, brain, folder, scaled(progress, 0.6, 0.95), cancel)
            warnings = [*scan.warnings, *doubts]
            files = [*(str(image["file"]) for image in images), PROVENANCE_FILE]
            request["seconds"] = round(time.perf_counter() - started, 2)
            record = {"task": _TASK, **made_with(), "request": request, "images": images, "tags": scan.tags,
                      "warnings": warnings, "files": files}
            (folder / PROVENANCE_FILE).write_text(json.dumps(plain(record), indent=1) + "\n", encoding="utf-8")
        progress("done", 1.0, f"{len(images)} images")
        return PreparedImages(images, warnings)

    def _write(self, case: PrepareCase, scan: Scan, brain: sitk.Image | None, folder: Path, progress: Progress,
               cancel: CancelToken) -> tuple[list[dict[str, object]], list[str]]:
        """The records, and warnings."""
        if self.preparation == PUBLISHED:
            made = prepare_published(scan, brain, progress, cancel)
            write_nifti_gz(made.in_mni(), folder / "image.nii.gz", sitk.sitkFloat32, _DESCRIPTION, cancel, space=MNI)
            return [{"file": "image.nii.gz", "case": case.name, "label": case.label}], []
        masked = masked_scan(scan.image, brain, str(case.scan), cancel)
        cancel.check()
        if self.preparation == "slices":
            return _write_slices(case, masked, self.slices, folder, cancel)
        lesion = read_fractions(case.lesion, scan.image) if case.lesion else None
        return _write_patches(case, masked, lesion, self.patches, folder, cancel), []


def _write_slices(
    case: PrepareCase, masked: MaskedScan, settings: SliceSettings, folder: Path, cancel: CancelToken
) -> tuple[list[dict[str, object]], list[str]]:
    images, outside = [], 0.0
    for number, made in enumerate(slices_of(masked, settings)):
        cancel.check()
        name = f"slice_{number:03d}"
        _write_picture(made.image, settings.edge_mm, folder / f"{name}.nii.gz")
        outside = max(outside, made.outside)
        images.append({"file": f"{name}.nii.gz", "case": f"{case.name}_{name}", "label": case.label,
                       POSITION: round(made.position_mm, 2), PIXEL: round(settings.edge_mm, 4)})
    if outside > _MOST_OUTSIDE:
        percent = f"{100 * outside:{'.0f' if outside >= 0.1 else '.2g'}}"
        return images, [f"{case.scan}: up to {percent} % of a slice's brain lie outside its square of "
                        f"{settings.size} pixels of {settings.edge_mm:.3g} mm: take more or larger ones."]
    return images, []


def _write_patches(
    case: PrepareCase, masked: MaskedScan, lesion: sitk.Image | None, settings: PatchSettings, folder: Path,
    cancel: CancelToken,
) -> list[dict[str, object]]:
    if lesion is None and case.label == "healthy":
        lesion = masked.brain * 0
    images = []
    for made in patches_of(masked, lesion, settings):
        cancel.check()
        name = "patch_z{:03d}_y{:03d}_x{:03d}".format(*made.place_zyx)
        _write_picture(made.image, settings.pixel_mm, folder / f"{name}.nii.gz")
        images.append({"file": f"{name}.nii.gz", "case": f"{case.name}_{name}", "label": made.label,
                       LESION_FRACTION: round(made.lesion_fraction, 4)})
    return images


def _write_picture(values: NDArray[np.float32], pixel_mm: float, path: Path) -> None:
    image = sitk.GetImageFromArray(np.ascontiguousarray(values, np.float32))
    image.SetSpacing((pixel_mm, pixel_mm))
    write_nifti_gz(image, path, sitk.sitkFloat32, _DESCRIPTION)


# --- Tables ----------------------------------------------------------------------------------------------------------


def read_prepare_cases(table: Path, lesions: Path | None = None) -> list[PrepareCase]:
    """The cases of a CSV file with the columns case, scan (or file) and, if wanted, series, patient, label, split,
    lesion and brain; others, modality among them, are tags that go with the images. lesions: a second table with the
    columns case and file, as `medvae synthesise cohort` writes. Raises InputError, naming file and line."""
    masks = {line.case_name(): line.path(line.required("file"))
             for line in read_table(lesions, ("case", "file"), (), "lesion")} if lesions else {}
    cases = [_case(line, masks) for line in read_table(table, ("case",), _NAMED, "scan")]
    refuse_double_names(cases, table)
    _refuse_shared_scans(cases, table)
    return cases


def _refuse_shared_scans(cases: Sequence[PrepareCase], table: Path) -> None:
    """Raises InputError for a scan that is two patients': its images could lie in two parts of a split at once."""
    seen: dict[tuple[Path, str | None], PrepareCase] = {}
    for case in cases:
        first = seen.setdefault((case.scan.resolve(), case.series), case)
        if first.patient != case.patient:
            raise InputError(f"{table} has {case.scan} for the patients {first.patient} and {case.patient}, as cases "
                             f"{first.name} and {case.name}: keep one of them, or name one patient.")


def _case(line: Line, masks: Mapping[str, Path]) -> PrepareCase:
    name = line.case_name()
    scan = line.value("scan") or line.required("file")
    files = {kind: line.path(line.value(kind)) if line.value(kind) else None for kind in ("lesion", "brain")}
    tags = {key: value for key, value in line.values.items() if key not in _NAMED}
    return PrepareCase(name, line.path(scan), line.value("patient") or name, line.value("label"), line.value("split"),
                       files["lesion"] or masks.get(name), files["brain"], tags,
                       line.value("series"))


def check_images_table(output: Path, table: Path | None) -> None:
    """Raises UsageError where images.csv could not be written without losing another, or the table of cases itself."""
    path = output / IMAGES_FILE
    if table is not None and table.resolve() == path.resolve():
        raise UsageError(f"{path} lists the scans and would be overwritten: choose another --output.")
    refuse_foreign_table(path, _IMAGE_COLUMNS)


def write_images_table(cases: Sequence[PrepareCase], rows: Sequence[PrepareRow], output: Path) -> Path:
    """`images.csv` of all that was prepared: file, case, patient, label, split, its scan, then tags: the scan's own, of
    which the table of cases may say otherwise, and the images'."""
    records = []
    for case, row in zip(cases, rows, strict=True):
        if row.status != DONE:
            continue
        record = json.loads((output / case.name / PROVENANCE_FILE).read_text(encoding="utf-8"))
        tags = record["tags"] | {name: value or record["tags"].get(name, "") for name, value in case.tags.items()}
        for image in record["images"]:
            own = {key: value for key, value in image.items() if key not in ("file", "case", "label")}
            records.append({"file": f"{case.name}/{image['file']}", "case": image["case"], "patient": case.patient,
                            "label": image["label"], "split": case.split, "scan": case.listed,
                            **tags, **own})
    columns = list(dict.fromkeys(key for record in records for key in record)) or list(_IMAGE_COLUMNS)
    return write_csv(output / IMAGES_FILE, records, columns)
