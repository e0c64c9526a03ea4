"""A cohort's latents as a table: one row per image with case, patient, label, split, tags, mean and log-variance.

As CSV or Parquet: columns `case`, `patient`, `label`, `split`, `file` where the images are known, one per tag, then
`mu_0` … and, for models that have a variance, `logvar_0` …; latents with several axes are flattened in C order.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, UsageError
from ..files.csv_files import as_numbers, read_csv

TRAIN, VALIDATION, TEST = "train", "validation", "test"
_NAMED = ("case", "patient", "label", "split", "file", "scan")
_BY_ROW = ("cases", "patients", "labels", "split", "files")
_NUMBERED = re.compile(r"(mu|logvar)_(\d+)")
_PARQUET = (".parquet", ".pq")


@dataclass(frozen=True)
class LatentTable:
    """mean: (N, Z) float32; log_variance: the same or None; the rest has one entry per image, "" where unknown.

    tags: by name, numbers (float64, NaN where unknown) or texts (object). files: paths of the images, or of the whole
    scans that they were made from. Raises InputError where lengths disagree.
    """

    cases: Sequence[str]
    patients: Sequence[str]
    mean: NDArray[np.float32]
    log_variance: NDArray[np.float32] | None = None
    labels: Sequence[str] = ()
    split: Sequence[str] = ()
    tags: Mapping[str, NDArray] = field(default_factory=dict)
    files: Sequence[str] = ()

    def __post_init__(self) -> None:
        count = len(self.cases)
        for name in ("labels", "split", "files"):
            if not len(getattr(self, name)):
                object.__setattr__(self, name, [""] * count)
        object.__setattr__(self, "tags", {name: as_column(values) for name, values in self.tags.items()})
        parts = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("tags", "log_variance")}
        parts |= dict(self.tags)
        uneven = [name for name, values in parts.items() if len(values) != count]
        if uneven or self.mean.ndim != 2:
            raise InputError(f"A table of {count} latents has {', '.join(uneven) or 'mean'} of another length: give "
                             "one entry per image.")
        odd = sorted(set(self.split) - {"", TRAIN, VALIDATION, TEST})
        if odd:
            raise InputError(f"A table of latents has the split '{odd[0]}': it must be {TRAIN}, {VALIDATION}, {TEST} "
                             "or empty.")
        if self.log_variance is not None and self.log_variance.shape != self.mean.shape:
            raise InputError("Means and log-variances of a table of latents differ in shape: encode again.")

    def __len__(self) -> int:
        return len(self.cases)

    @property
    def latents(self) -> int:
        return self.mean.shape[1]

    def column(self, name: str) -> NDArray:
        """The labels, split, patients, cases or a tag. Raises UsageError for a name that is none of these."""
        named = {"label": self.labels, "split": self.split, "patient": self.patients, "case": self.cases}
        if name in named:
            return np.asarray(named[name], object)
        if name in self.tags:
            return self.tags[name]
        known = ", ".join((*named, *self.tags))
        raise UsageError(f"The table has no column '{name}': choose one of {known}.")

    def select(self, rows: NDArray) -> LatentTable:
        """The rows of a mask or of indices, in their order."""
        rows = np.flatnonzero(rows) if np.asarray(rows).dtype == bool else np.asarray(rows, int)
        chosen = {name: [getattr(self, name)[i] for i in rows] for name in _BY_ROW}
        variance = None if self.log_variance is None else self.log_variance[rows]
        return replace(self, mean=self.mean[rows], log_variance=variance,
                       tags={name: values[rows] for name, values in self.tags.items()}, **chosen)

    def labelled(self, target: str = "label") -> tuple[LatentTable, NDArray]:
        """The rows that have a value in a column, and the values as texts. Raises InputError where none has."""
        labels = np.array(_texts(self.column(target)), object)
        if not (labels != "").any():
            raise InputError(f"No image has a value of '{target}': give labels, or choose a column with --label.")
        return self.select(labels != ""), labels[labels != ""]

    # ---- files ----

    def write(self, path: str | Path) -> Path:
        """CSV, or Parquet by the file's suffix. Raises UsageError where Parquet cannot be written."""
        path = Path(path)
        taken = [name for name in self.tags if name in _NAMED or _NUMBERED.fullmatch(name)]
        if taken:
            raise UsageError(f"A tag cannot be called '{taken[0]}' in a table of latents: rename that column.")
        columns = {"case": self.cases, "patient": self.patients, "label": self.labels, "split": self.split}
        columns |= {"file": self.files} if any(self.files) else {}
        columns |= self.tags
        if path.suffix.lower() in _PARQUET:
            _write_parquet(path, columns, self.mean, self.log_variance)
        else:
            _write_csv(path, columns, self.mean, self.log_variance)
        return path

    @classmethod
    def read(cls, path: str | Path) -> LatentTable:
        """Files are looked for from the table's folder; older tables name none, or have a column `scan`. Raises
        InputError, naming the file, for what is no table of latents."""
        path = Path(path)
        if not path.is_file():
            raise InputError(f"{path} does not exist: give a table that 'medvae latent encode' wrote.")
        columns = _read_parquet(path) if path.suffix.lower() in _PARQUET else _read_csv(path)
        mean, variance = (_numbered(path, columns, prefix) for prefix in ("mu", "logvar"))
        if mean is None or "case" not in columns:
            raise InputError(f"{path} is no table of latents (columns case, mu_0, …): make one with "
                             "'medvae latent encode'.")
        cases = _texts(columns["case"])
        tags = {name: values for name, values in columns.items()
                if name not in _NAMED and not _NUMBERED.fullmatch(name)}
        files = [str((path.parent / Path(name).expanduser()).absolute()) if name else ""
                 for name in _texts(columns.get("file", columns.get("scan", ())))]
        return cls(cases, _texts(columns.get("patient", cases)), mean, variance, _texts(columns.get("label", ())),
                   _texts(columns.get("split", ())), tags, files)


def is_latent_table(path: Path) -> bool:
    """Whether a file looks like a table that `LatentTable.write` wrote, and not like one of images."""
    if not path.is_file() or path.suffix.lower() in _PARQUET:
        return path.is_file()
    with path.open(encoding="utf-8", errors="replace") as file:
        return any("mu_0" in line for line in islice(file, 2))  # the first may say what separates values


def as_column(values: Sequence) -> NDArray:
    """Numbers, with NaN for what is missing, as `as_numbers` knows them; texts if they are none."""
    texts = _texts(values)
    numbers = as_numbers(texts)
    known = numbers is not None and np.isfinite(numbers).any()
    return np.array(numbers, np.float64) if known else np.array(texts, object)


def _texts(values: Sequence) -> list[str]:
    """Each as text without spaces around it; "" for None and NaN."""
    return ["" if value is None or value != value else str(value).strip() for value in values]


def _numbered(path: Path, columns: Mapping[str, Sequence], prefix: str) -> NDArray[np.float32] | None:
    """The columns prefix_0, prefix_1, … side by side; None without any."""
    count = sum((m := _NUMBERED.fullmatch(name)) is not None and m[1] == prefix for name in columns)
    if not count:
        return None
    try:
        values = np.array([_floats(columns[f"{prefix}_{i}"]) for i in range(count)]).T
    except (KeyError, ValueError):
        raise InputError(f"{path}: the columns {prefix}_0 to {prefix}_{count - 1} are not all there, or hold "
                         "something other than numbers: encode again.") from None
    if not np.isfinite(values).all():
        raise InputError(f"{path}: some values of {prefix} are not finite: encode again.")
    return np.ascontiguousarray(values)


def _floats(values: Sequence) -> NDArray[np.float32]:
    """Raises ValueError for what are no numbers, with decimal points or commas."""
    try:
        return np.array(values, np.float32)
    except ValueError:
        numbers = as_numbers(_texts(values))
        if numbers is None:
            raise
        return np.array(numbers, np.float32)


def _latent_columns(mean: NDArray, variance: NDArray | None) -> dict[str, NDArray]:
    columns = {f"mu_{i}": mean[:, i] for i in range(mean.shape[1])}
    return columns if variance is None else columns | {f"logvar_{i}": variance[:, i] for i in range(mean.shape[1])}


def _write_csv(path: Path, columns: Mapping[str, Sequence], mean: NDArray, variance: NDArray | None) -> None:
    names = [*columns, *_latent_columns(mean, variance)]
    numbers = mean if variance is None else np.concatenate([mean, variance], 1)
    left = list(zip(*(_texts(values) for values in columns.values()), strict=True))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        for texts, row in zip(left, numbers, strict=True):
            writer.writerow([*texts, *(f"{value:.9g}" for value in row)])  # nine digits: float32 comes back exactly


def _read_csv(path: Path) -> dict[str, list[str]]:
    """As `_write_csv` or a spreadsheet wrote it."""
    names, rows = read_csv(path, ("case",), _NAMED, "image", str)
    return {name: [row.get(name, "") for _, row in rows] for name in names if name}


def pyarrow_module():
    """Raises UsageError where it is not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UsageError('Parquet files need the package pyarrow: install it (in MedVAE\'s folder  pip install '
                         '".[tables]"), or use CSV (--format csv).') from None
    return pyarrow


def _write_parquet(path: Path, columns: Mapping[str, Sequence], mean: NDArray, variance: NDArray | None) -> None:
    pyarrow = pyarrow_module()
    plain = {name: list(values) for name, values in columns.items()}
    pyarrow.parquet.write_table(pyarrow.table(plain | _latent_columns(mean, variance)), path)


def _read_parquet(path: Path) -> dict[str, list]:
    pyarrow = pyarrow_module()
    try:
        return pyarrow.parquet.read_table(path).to_pydict()
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise InputError(f"{path} cannot be read as Parquet ({str(error).splitlines()[0]}): encode again.") from None
