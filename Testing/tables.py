"""What the tables that a run writes say."""

from __future__ import annotations

import csv
from pathlib import Path


def summary_rows(output: Path) -> dict[str, dict[str, str]]:
    """The lines of a cohort's summary.csv by case."""
    with (output / "summary.csv").open(newline="", encoding="utf-8") as file:
        return {row["case"]: row for row in csv.DictReader(file)}
