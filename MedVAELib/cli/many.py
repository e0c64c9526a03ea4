"""Many cases in one command: every case in its own folder, with one model; a failed one does not stop the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..errors import CohortError
from ..progress import CancelToken, Progress


def run_many(
    cases: Sequence[Any], output: Path, settings: Any, scheduler: str | None, listener: Progress, cancel: CancelToken,
    told: Callable[[Any, Any], None], noun: str, *, quiet: bool, resume: bool, debug: bool,
) -> None:  # fmt: skip
    """Runs a cohort here or on a Dask cluster; told: called with each row and its result. Raises CohortError, with the
    number of failed cases, when there are any."""
    from ..cohort import SUMMARY_FILE, run_cohort

    options: dict[str, Any] = {"resume": resume, "progress": listener, "cancel": cancel, "told": told}
    if scheduler:
        from ..cohort.cluster import run_on_cluster

        rows = run_on_cluster(cases, output, settings, scheduler, **options)
    else:
        rows = run_cohort(cases, output, settings, debug=debug, **options)
    failed = sum(row.status == "failed" for row in rows)
    if failed:
        others = "the results of the others and " if failed < len(rows) else ""
        raise CohortError(f"{failed} of {len(rows)} {noun} failed, for the reasons above; "
                          f"{others}{SUMMARY_FILE} {'are' if others else 'is'} in {output}.")  # fmt: skip
    if not quiet:
        print(f"Summary of {len(rows)} {noun}: {output / SUMMARY_FILE}")
