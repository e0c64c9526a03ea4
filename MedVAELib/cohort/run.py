"""Runs the cases of a cohort one after the other, with one model, and keeps the summary true."""

from __future__ import annotations

import hashlib
import os
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from ..bundle import Bundle, load_bundle
from ..errors import Cancelled, InputError
from ..failures import Failure
from ..progress import CancelToken, Progress, no_progress, scaled
from ..scan import files_of
from .cases import refuse_results_among_slices
from .summary import DONE, Summary, check_summary, read_provenance, write_summary

_PART_BYTES = 64 << 10
Told = Callable[[Any, Any], None]
"""Called after every case with its row, and its result where there is one at hand."""


class NamedCase(Protocol):
    """What all kinds of cases have. name: of their folder, too; listed: what is read, as the summary says it; sources:
    files and folders that are read."""

    @property
    def name(self) -> str: ...

    @property
    def listed(self) -> str: ...

    @property
    def sources(self) -> Sequence[Path]: ...


class Task(Protocol):
    """What is to be done with every case. bundle: name or folder; row: the kind of line in the summary."""

    @property
    def bundle(self) -> str: ...

    @property
    def row(self) -> Any: ...

    def check(self, cases: Sequence[Any]) -> None:
        """Raises UsageError for settings out of range, or that fit none of the cases."""

    def request(self, case: Any, bundle: Bundle) -> dict[str, Any]:
        """All that decides a case's result: a result made with the same need not be made again. Not the device: what
        one computes, another may complete."""

    def load(self, bundle: Bundle) -> Any:
        """The model on its device, kept warm for all cases."""

    def degraded(self, model: Any) -> bool:
        """Whether it ran out of memory and goes on in another way, perhaps on the CPU."""

    def run(self, case: Any, directory: Path, bundle: Bundle, model: Any, progress: Progress,
            cancel: CancelToken) -> Any:
        """Reads a case, computes and writes every file of the contract into `directory`; raises what these raise.
        model: None to load it only when the case was read."""


def run_cohort(
    cases: Sequence[NamedCase], output: Path, settings: Task, *, resume: bool = False, progress: Progress = no_progress,
    cancel: CancelToken | None = None, told: Told = lambda row, result: None, debug: bool = False,
) -> list[Any]:
    """Does the task on every case, into `output/<case>/`, and keeps `output/summary.csv`.

    resume: leave alone what is there, complete, and made from the same input with the same settings. Returns a row
    per case. Raises UsageError for wrong settings or an output that cannot be written or lies in a scan's DICOM folder,
    BundleError, and Cancelled or KeyboardInterrupt with the summary as far as the run came; what goes wrong with one
    case is in its row.
    """
    settings.check(cases)
    cancel = cancel or CancelToken()
    bundle = load_bundle(settings.bundle)
    rows, waiting = start(cases, output, settings, bundle, resume, told, cancel)
    model: Any = None
    with Summary(rows, output, cancel) as summary:
        for number, index in enumerate(waiting):
            cancel.check()
            model = model or settings.load(bundle)
            part = scaled(progress, number / len(waiting), (number + 1) / len(waiting))
            rows[index], result = run_case(cases[index], output, settings, bundle, model, part, cancel, debug)
            summary.changed()
            summary.write_if_due()
            told(rows[index], result)
            if settings.degraded(model):
                model = None  # one large scan shall not keep the others from the device that was asked for
    return rows


def start(
    cases: Sequence[NamedCase], output: Path, settings: Task, bundle: Bundle, resume: bool, told: Told,
    cancel: CancelToken,
) -> tuple[list[Any], list[int]]:
    """The rows before anything is computed, written, and the indices of the cases that are still to be done."""
    sources = [source for case in cases for source in case.sources]
    refuse_results_among_slices(sources, [output / case.name for case in cases])
    check_summary(settings.row, output)
    rows = [settings.row.not_run(case) for case in cases]
    if resume:
        for index, case in enumerate(cases):
            rows[index] = earlier_row(case, output / case.name, settings, bundle) or rows[index]
    write_summary(rows, output, cancel)
    for row in rows:
        if row.status == DONE:
            told(row, None)
    return rows, [index for index, row in enumerate(rows) if row.status != DONE]


def run_case(
    case: NamedCase, output: Path, settings: Task, bundle: Bundle, model: Any, progress: Progress,
    cancel: CancelToken, debug: bool = False,
) -> tuple[Any, Any]:
    """One case, whatever happens: only Cancelled and KeyboardInterrupt get out."""
    started = time.perf_counter()
    try:
        result = settings.run(case, output / case.name, bundle, model, progress, cancel)
    except Cancelled:
        raise
    except Exception as error:
        failure = Failure.of(error)
        if debug:
            traceback.print_exc()
        if read_provenance(output / case.name) is not None:
            failure = replace(failure, message=f"{failure.message} Its folder holds an earlier result.")
        return settings.row.of_failure(case, failure, time.perf_counter() - started), None
    return settings.row.of_result(case, result, time.perf_counter() - started), result


def earlier_row(case: NamedCase, folder: Path, settings: Task, bundle: Bundle) -> Any:
    """The row of a complete result of this very request; None when there is none."""
    provenance, request = read_provenance(folder), settings.request(case, bundle)
    if provenance is None or {key: provenance["request"].get(key) for key in request} != request:
        return None
    try:
        return settings.row.of_folder(case, folder, provenance)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def released(name: str, bundle: Bundle) -> dict[str, str]:
    """For a request: which release of a bundle; a new one may differ in its calibration alone."""
    return {f"{name}_sha256": bundle.sha256, f"{name}_version": bundle.version}


def fingerprint(scan: Path) -> list[int | str] | None:
    """Files, bytes, last change and name of a scan, and a checksum of parts of its largest file: different when it was
    exchanged, the same in a folder that was moved as a whole. None when it is not there or cannot be read."""
    try:
        stats = {file: file.stat() for file in files_of(scan)}
        checksum = _checksum_of_parts(max(stats, key=lambda file: stats[file].st_size)) if stats else ""
    except (OSError, InputError):
        return None
    return [len(stats), sum(stat.st_size for stat in stats.values()),
            max((stat.st_mtime_ns for stat in stats.values()), default=0), "/".join(scan.resolve().parts[-2:]),
            checksum]


def _checksum_of_parts(file: Path) -> str:
    """Of its start, middle and end: files of one size and date differ there, and large ones need not be read."""
    digest = hashlib.blake2b(digest_size=8)
    with file.open("rb") as opened:
        end = opened.seek(0, os.SEEK_END)
        for start in (0, (end - _PART_BYTES) // 2, end - _PART_BYTES):
            opened.seek(max(0, start))
            digest.update(opened.read(_PART_BYTES))
    return digest.hexdigest()
