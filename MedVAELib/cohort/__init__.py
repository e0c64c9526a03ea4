"""Many scans in one go, each with a folder of its own and a line in one table; a bad one never stops the rest."""

from .cases import Case, cases_of_paths, read_cases
from .detect import CaseRow, Settings
from .run import run_cohort
from .summary import SUMMARY_FILE

__all__ = ["SUMMARY_FILE", "Case", "CaseRow", "Settings", "cases_of_paths", "read_cases", "run_cohort"]
