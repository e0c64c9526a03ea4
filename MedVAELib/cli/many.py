"""Many cases in one command: every case in its own folder, with one model; a failed one does not stop the others."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..errors import CohortError
from ..progress import CancelToken, Progress


def run_many(
    cases: Sequence[Any], output: Path, settings: Any, scheduler: str | None, listener: Progress, cancel: CancelToken,
    told: Callable[[Any, Any], None], noun: str, *, quiet: bool, resume: bool, debug: bool,
) -> None:
    """Runs a cohort here or on a Dask cluster and prints what went wrong with a case; told: called with each other row
    and its result. Raises CohortError, with the number of failed cases, when there are any."""
    from ..cohort import SUMMARY_FILE, run_cohort
    from ..cohort.summary import FAILED, failures

    def tell(row: Any, result: Any) -> None:
        if row.status == FAILED:
            print(f"medvae: {row.case}: {row.message}", file=sys.stderr)
        else:
            told(row, result)

    options: dict[str, Any] = {"resume": resume, "progress": listener, "cancel": cancel, "told": tell}
    if scheduler:
        from ..cohort.cluster import run_on_cluster

        rows = run_on_cluster(cases, output, settings, scheduler, **options)
    else:
        rows = run_cohort(cases, output, settings, debug=debug, **options)
    if failed := failures(rows, noun, output):
        raise CohortError(failed)
    if not quiet:
        print(f"Summary of {len(rows)} {noun}: {output / SUMMARY_FILE}")
