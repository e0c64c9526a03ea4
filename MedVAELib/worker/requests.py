"""Reading a request, and handing a result over: all of its files, or none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from ..progress import Progress
from .volumes import write_array

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .server import Job


def field(request: Mapping[str, Any], name: str, kind: type, default: Any = None) -> Any:
    """A field of the request. Raises UsageError when it is missing or of another type."""
    value = request.get(name, default)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or isinstance(value, bool):
        what = {str: "a text", int: "a whole number", float: "a number", dict: "an object", list: "a list"}[kind]
        raise UsageError(f"The request's field '{name}' must be {what}.")
    return value


def hand_over(
    output: Path, arrays: Iterable[tuple[str, NDArray]], count: int, job: Job, report: Progress
) -> dict[str, str]:
    """Writes `count` arrays as `output/<name>.npy` and returns the paths by name; they appear together.

    Raises UsageError when there is no room, Cancelled.
    """
    from ..outputs import atomic_output

    names = []
    try:
        with atomic_output(output) as partial:
            job.partial = partial
            for name, array in arrays:
                report("write", len(names) / count, "Handing over the result")
                job.cancel.check()
                write_array(partial / f"{name}.npy", array)
                names.append(name)
    except UsageError as error:
        reason = error.__cause__
        if not isinstance(reason, OSError):
            raise
        raise UsageError(f"The result cannot be written to {output} ({reason.strerror or reason}): make room there, "
                         "or choose another folder for temporary files.") from reason
    finally:
        job.partial = None
    return {name: str(output / f"{name}.npy") for name in names}
