"""Which images there are to learn from: a folder, a table, a glob or idx files, as one record per image.

- Folder: every image file below it, or those of a pattern. Its first level of sub-folders are labels, unless each holds
  one image; sub-folders that are all named train, validation (val, valid) or test, in any case, are the split, and the
  labels lie below them.
- Table (CSV; .tsv and .txt are taken for it): columns `file` (relative to the table) and `patient`, optional `case`,
  `label`, `split`, `scan` (what the image was made from), and where a file holds several images `dicom_series` (UID, or
  the key that `DicomVolume` has) or `idx_index` (row); every further column is a tag, a number where all its values
  are. Blanks around names and values do not count.
- Glob: the files it matches, labelled as in the folder before its first wildcard.
- idx file (MNIST): one record per picture, labels from the file beside it.

Tags are also what DICOM headers in a folder, and the JSON beside a file (BIDS), say of the acquisition: after the
columns of a table, which count where both tell.

DICOM files of one PatientID, or without it of one study, are one patient's, who is called by the first of them. A
PatientID that most of several studies share names nobody.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..errors import InputError
from ..files import dicom
from ..files.csv_files import as_numbers, is_table, read_csv
from ..files.dicom_files import SUFFIXES, Slice, read_slices
from ..files.folders import files_below, files_matching, is_file_or_lost
from ..files.itk_files import quiet
from ..progress import Progress, no_progress
from ..scan import IMAGE_SUFFIX, is_dicom_file, sidecar_tags
from .idx_files import is_idx, read_idx, read_idx_labels

PARTS = ("train", "validation", "test")
SPLIT_WORDS = {"train": "train", "training": "train", "validation": "validation", "valid": "validation",
               "val": "validation", "test": "test", "testing": "test"}
"""What folders and the column split may call a part, in lower case."""
SERIES, INDEX = "dicom_series", "idx_index"
"""Columns of a table that say which image of a file is meant, where it holds several."""
SCAN = "scan"
"""Column of a table that names the whole scan that an image was made from."""
GENERATED_BY = "generated_by"
"""Tag that names the model which made an image up: such images train at most."""
OVERVIEW_FILE = "overview.png"
"""What `medvae generate` draws of its images, beside their table: no image itself."""
_SHARED = 3  # studies, from which on the PatientID of most of all studies counts as a placeholder
_COLUMNS = {"file", "case", "patient", "label", "split", SCAN, SERIES, INDEX}
Tag = float | str


@dataclass(frozen=True)
class ImageRecord:
    """One image. file: where it is, for a DICOM volume the folder; series: of a DICOM volume, its key; index: of an idx
    file, its row; split: one of PARTS or empty; scan: path of the whole scan it was made from, empty if unknown."""

    file: Path
    case: str
    patient: str
    label: str = ""
    split: str = ""
    tags: dict[str, Tag] = field(default_factory=dict)
    series: str = ""
    index: int = -1
    scan: str = ""

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"{self.file} ({self.index})" if self.index >= 0 else str(self.file)


def find_images(
    source: Path, pattern: str = "", labels: Sequence[str] = (), patient: str = "", dimensions: int | None = None,
    progress: Progress = no_progress,
) -> list[ImageRecord]:
    """The records of a source in a stable order.

    pattern: glob within a folder. labels: keep these alone. patient: regular expression whose first group, found in the
    path below the source, is the patient. dimensions: 2 makes every DICOM file an image, 3 every series; None as many
    slices as the series has. progress: hears, as stage "warning", where a PatientID is taken for a placeholder, or
    `patient` sets apart what headers or a table call one patient. Raises InputError where there is nothing, or
    something that does not fit.
    """
    base, heard = source.parent, no_progress if patient else progress
    if any(sign in str(source) for sign in "*?["):
        base = _before_wildcards(source)
        records = _of_files(_matching(base, str(source.relative_to(base))), base, dimensions, heard)
    elif source.is_dir():
        base = source
        records = _of_files(_in_folder(source, pattern), base, dimensions, heard)
    elif not source.exists():
        raise InputError(f"{source} does not exist: give a folder, a CSV table, a glob or an idx file.")
    elif is_table(source):
        records = _of_table(source)
    elif is_idx(source):
        records = _of_idx(source)
    elif IMAGE_SUFFIX.search(source.name) or _is_dicom(source):
        records = _of_files([source], base, dimensions, heard)
    else:
        raise InputError(f"{source} is no image: if it is a table, save it as CSV.")
    labels = [labels] if isinstance(labels, str) else labels
    if labels:
        records = [record for record in records if record.label in set(labels)]
    if patient:
        named = [replace(record, patient=_patient(record, patient, base)) for record in records]
        if doubt := _set_apart(records, named):
            progress("warning", 0.0, doubt)
        records = named
        if all(record.label == record.patient for record in records):
            records = [replace(record, label="") for record in records]  # a folder per patient
    if not records:
        raise InputError(f"{source} holds no images{_wanted(pattern, labels)}: check the path, pattern and labels.")
    _refuse_repeated(records, source)
    return records


def _refuse_repeated(records: Iterable[ImageRecord], source: Path) -> None:
    """Raises InputError for an image that is there twice, or a scan whose images are two patients': it could lie in two
    parts at once."""
    of_scan: dict[str, ImageRecord] = {}
    for record in records:
        first = of_scan.setdefault(record.scan, record) if record.scan else record
        if first.patient != record.patient:
            raise InputError(f"{source} has images of one scan, {record.scan}, for the patients {first.patient} and "
                             f"{record.patient}: keep those of one, or name one patient.")
    places: dict[Path, Path] = {}
    seen: dict[tuple[Path, str, int], ImageRecord] = {}
    for record in records:
        if record.series and not is_table(source):
            continue  # a folder's own volumes
        if record.file not in places:
            places[record.file] = record.file.resolve()
        key = (places[record.file], record.series, record.index)
        first = seen.setdefault(key, record)
        if first is not record:
            patients = f" and patients {first.patient} and {record.patient}" * (first.patient != record.patient)
            raise InputError(f"{source} holds {record.name} twice, as cases {first.case} and {record.case}{patients}: "
                             "keep one of them.")


# --- Files -----------------------------------------------------------------------------------------------------------


def _matching(folder: Path, pattern: str) -> list[Path]:
    return sorted(path for path in files_matching(folder, pattern) if is_file_or_lost(path))


def _before_wildcards(source: Path) -> Path:
    fixed = []
    for part in source.parts[:-1]:
        if any(sign in part for sign in "*?["):
            break
        fixed.append(part)
    return Path(*fixed) if fixed else Path(".")


def _in_folder(folder: Path, pattern: str) -> list[Path]:
    if not pattern:
        return sorted(path for path in files_below(folder)
                      if is_file_or_lost(path) and (IMAGE_SUFFIX.search(path.name) or _is_dicom(path)))
    return _matching(folder, pattern)


def _is_dicom(path: Path) -> bool:
    known = IMAGE_SUFFIX.search(path.name)
    return path.suffix.lower() in SUFFIXES or (not known and is_dicom_file(path))


def _of_files(
    files: Iterable[Path], base: Path, dimensions: int | None, progress: Progress
) -> list[ImageRecord]:
    pictures, folders = [], {}
    for path in files:
        if path.name == OVERVIEW_FILE and path.with_name("images.csv").exists():
            continue
        if _is_dicom(path) and dimensions != 2:
            folders.setdefault(path.parent, []).append(path)
        elif path.suffix.lower() != ".img":  # its header is listed already
            pictures.append(_of_dicom_file(path) if _is_dicom(path) else
                            ImageRecord(path, "", "", tags=sidecar_tags(path)))
    for folder, members in folders.items():
        pictures += _of_series(folder, members)
    split_below = _split_folders(base, pictures)
    placed = [_placed(record, base, split_below) for record in pictures]
    if max(Counter((record.split, record.label) for record in placed).values(), default=0) == 1:
        placed = [replace(record, label="") for record in placed]  # a folder per case
    return _named(_without_placeholder(placed, progress), base)


def _of_dicom_file(path: Path) -> ImageRecord:
    with quiet():
        slices = read_slices(str(path))
    return ImageRecord(path, "", _owner(slices[0]), tags=dict(slices[0].tags)) if slices else ImageRecord(path, "", "")


def _owner(first: Slice) -> str:
    """What `patient` of a record is until `_without_placeholder`."""
    return f"{first.patient} {first.study}".strip()


def _of_series(folder: Path, members: list[Path]) -> list[ImageRecord]:
    """A record per DICOM volume of a folder, or per file where a series has one slice."""
    with quiet():
        volumes = dicom.find_volumes(folder, below=False)  # sub-folders are listed by themselves
    found = [ImageRecord(folder, "", _owner(volume.slices[0]), tags=dict(volume.tags), series=volume.key)
             for volume in volumes if volume.count > 1]
    single = [ImageRecord(Path(volume.slices[0].file), "", _owner(volume.slices[0]), tags=dict(volume.tags))
              for volume in volumes if volume.count == 1]
    return found + [record for record in single if record.file in set(members)]


def _split_folders(base: Path, records: Sequence[ImageRecord]) -> bool:
    """Whether the first level below the source is the split."""
    first = {_below(record, base)[0].lower() for record in records if len(_below(record, base)) > 1}
    return bool(first) and first <= set(SPLIT_WORDS)


def _placed(record: ImageRecord, base: Path, split_below: bool) -> ImageRecord:
    folders = list(_below(record, base)[:-1])
    split = SPLIT_WORDS[folders.pop(0).lower()] if split_below and folders else ""
    return replace(record, split=split, label=folders[0] if folders else "")


def _below(record: ImageRecord, base: Path) -> tuple[str, ...]:
    # A DICOM volume is the folder itself: its own name counts as the file's.
    return record.file.relative_to(base).parts if record.file != base else (record.file.name,)


def _without_placeholder(records: Sequence[ImageRecord], progress: Progress) -> list[ImageRecord]:
    """The patient by the PatientID, or by the study where most studies share one PatientID: hardly anybody has most of
    the scans of a training."""
    owners = [tuple(record.patient.split()) for record in records]  # nobody's are empty
    studies = Counter(owner[0] for owner in set(owners) if len(owner) == 2)
    shared, count = next(iter(studies.most_common(1)), ("", 0))
    if count < _SHARED or 2 * count <= len(set(owners)) + owners.count(()):
        shared = ""
    else:
        progress("warning", 0.0, f"One PatientID stands in the DICOM headers of {count} studies, most of all there "
                 "are: it is taken for a placeholder, and each of them for a patient of its own. If they are of one "
                 "patient, say by data.patient who is who.")
    patients = [owner[-1] if shared in owner else (owner or ("",))[0] for owner in owners]
    return [replace(record, patient=patient) for record, patient in zip(records, patients, strict=True)]


def _named(records: Sequence[ImageRecord], base: Path) -> list[ImageRecord]:
    """Cases by the file's name or, where that is not enough, by its path below the source; each a patient, but that
    DICOM headers say whose it is (in `patient` until here), or else the series of one folder are one patient's."""
    stems = [IMAGE_SUFFIX.sub("", record.file.name) for record in records]
    if len(set(stems)) < len(stems):
        stems = ["-".join((*_below(record, base)[:-1], stem)) for record, stem in zip(records, stems, strict=True)]
    again, seen, named, patients = Counter(stems), Counter(), [], {}
    for record, stem in zip(records, stems, strict=True):
        seen[stem] += 1
        case = f"{stem}-{seen[stem]}" if again[stem] > 1 else stem
        patient = patients.setdefault(record.patient or stem, stem if seen[stem] == 1 else case)
        named.append(replace(record, case=case, patient=patient))
    return named


def _patient(record: ImageRecord, pattern: str, base: Path) -> str:
    below = record.file.relative_to(base) if record.file.is_relative_to(base) else record.file
    try:
        match = re.search(pattern, below.as_posix())
    except re.error as error:
        raise InputError(f"data.patient is no regular expression ({error}): {pattern}") from error
    if match is None or not match.groups() or not match[1]:
        raise InputError(f"{record.file}: data.patient ({pattern}) finds no patient in this name; it needs one group.")
    return match[1]


def _set_apart(stated: Sequence[ImageRecord], named: Sequence[ImageRecord]) -> str:
    """A warning where one patient of headers or table is several by data.patient; "" else."""
    first: dict[str, ImageRecord] = {}
    for before, after in zip(stated, named, strict=True):
        other = first.setdefault(before.patient, after)
        if other.patient != after.patient:
            return (f"Headers or table have {other.name} and {after.name} for one patient, whom data.patient calls "
                    f"{other.patient} and {after.patient} and who may now lie in several parts: change it, or leave it "
                    "out.")
    return ""


def _wanted(pattern: str, labels: Sequence[str]) -> str:
    parts = [f" matching {pattern}"] if pattern else []
    return "".join([*parts, *([f" labelled {' or '.join(labels)}"] if labels else [])])


# --- Tables and idx files --------------------------------------------------------------------------------------------


def _of_table(source: Path) -> list[ImageRecord]:
    columns, rows = read_csv(source, ("file", "patient"), sorted(_COLUMNS - {"file", "patient"}), "image", _spelt)
    tags = {name: _tag_values([row.get(name, "") for _, row in rows]) for name in columns if name not in _COLUMNS}
    records = []
    for place, (number, row) in enumerate(rows):
        line = f"{source}, line {number}"
        if not row.get("file") or not row.get("patient"):
            raise InputError(f"{line}: needs a file and a patient.")
        split = row.get("split", "")
        if split and split.lower() not in SPLIT_WORDS:
            raise InputError(f"{line}: split is '{split}', and must be one of {', '.join(PARTS)} or empty.")
        path = source.parent / row["file"]
        own = {name: tags[name][place] for name in tags}
        case = row.get("case") or IMAGE_SUFFIX.sub("", path.name)
        index = row.get(INDEX) or "-1"
        if not index.removeprefix("-").isdigit():
            raise InputError(f"{line}: {INDEX} is '{index}', and must be a whole number or empty.")
        scan = row.get(SCAN, "")
        records.append(ImageRecord(path, case, row["patient"], row.get("label", ""),
                                   SPLIT_WORDS.get(split.lower(), ""), own | _beside(path, own), row.get(SERIES, ""),
                                   int(index), str((source.parent / scan).absolute()) if scan else ""))
    repeated = [case for case, count in Counter(record.case for record in records).items() if count > 1]
    if repeated:
        raise InputError(f"{source} names the case {repeated[0]} more than once: every image needs a case of its own.")
    return records


def _beside(path: Path, own: Mapping[str, Tag]) -> dict[str, Tag]:
    """What the JSON beside an image tells that its table does not."""
    return {name: value for name, value in sidecar_tags(path).items() if name not in own}


def _spelt(column: str) -> str:
    """A tag's name keeps its case, which those that mean something do not have."""
    return column.lower() if column.lower() in _COLUMNS else column


def _tag_values(texts: Sequence[str]) -> list[Tag]:
    """A column's values: numbers if all that are there are, NaN where there is none."""
    numbers = as_numbers(texts)
    return list(texts) if numbers is None else numbers


def _of_idx(source: Path) -> list[ImageRecord]:
    count, labels = len(read_idx(source)), read_idx_labels(source)
    if labels and len(labels) != count:
        raise InputError(f"{source} holds {count} pictures, and the file of its labels {len(labels)}.")
    stem = source.name.split(".")[0]
    return [ImageRecord(source, f"{stem}-{i:05d}", f"{i:05d}", labels[i] if labels else "", index=i)
            for i in range(count)]
