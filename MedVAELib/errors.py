"""Every failure a user can meet, each with the exit code of the command-line contract.

A message is one sentence that names the file or option and says what to do; it is all a user sees.
"""

from __future__ import annotations


class MedVAEError(Exception):
    """Base class: `exit_code` is what the `medvae` command and the worker report."""

    exit_code = 1


class UsageError(MedVAEError):
    """Wrong usage: an option that cannot be honoured, or an output folder that cannot be written."""

    exit_code = 2


class InputError(MedVAEError):
    """The input exists but cannot be used, or does not exist."""

    exit_code = 3


class BundleError(MedVAEError):
    """A bundle is missing, damaged, foreign or of a kind that cannot do the task."""

    exit_code = 4


class CohortError(MedVAEError):
    """Some cases of a cohort failed; the rest are done."""

    exit_code = 5


class DeviceMemoryError(MedVAEError):
    """Out of memory on every fallback."""

    exit_code = 6


class Cancelled(MedVAEError):
    """The user cancelled; nothing half-written is left."""

    exit_code = 130

    def __init__(self, message: str = "Cancelled."):
        super().__init__(message)


def check_seed(seed: int) -> None:
    """Raises UsageError for a number that random generators refuse."""
    if not 0 <= seed < 2**32:
        raise UsageError(f"seed must lie between 0 and {2**32 - 1}, not {seed}.")
