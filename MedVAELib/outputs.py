"""Writing results so that nothing is ever half-written and nothing of anyone else's is lost.

Everything goes into a private folder inside the output folder (so on the same disk) and is moved into place, file
by file, only when all of it is there; an earlier result stays untouched until then.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import UsageError
from .files.csv_files import only_writer
from .files.whole_files import new_folder, put_in_place, writing_to
from .progress import CancelToken, Progress, scaled
from .timing import Timer

if TYPE_CHECKING:
    from .anomaly.result import Detection
    from .skull.result import SkullPrediction

PARTIAL_PREFIX = ".medvae-partial-"
PROVENANCE_FILE = "provenance.json"
UNFINISHED = "unfinished"
"""Key of a provenance whose result is only just being put in place."""
_REPORT_PACKAGES = ("jinja2", "matplotlib")
_EARLIER = "earlier"  # in a partial folder: the files of an earlier result while those of the new one are moved
_ABANDONED_AFTER_S = 24 * 3600  # a partial folder that old belongs to a run that was killed


def written(
    result: Detection | SkullPrediction, directory: str | Path, fill: Callable[[Path, Progress], None],
    draw: Callable[[Path], None], record: Mapping[str, object], progress: Progress, cancel: CancelToken,
    share: float = 0.8,
) -> dict[str, Path]:
    """Writes a result as a folder of files and returns their paths by file name: `fill` all but the report, in this
    share of the progress, `draw` that. Without the packages for it there is no report, and the provenance says so.

    `provenance.json` is the result's own provenance with the times of both, `record`, the warnings and the files.
    Raises UsageError when the folder cannot be written or holds files of these names that MedVAE did not write,
    Cancelled when `cancel` is set; in both cases the folder is as it was before.
    """
    timer, times = Timer(), result.provenance.setdefault("timings_s", {})
    with atomic_output(directory) as partial:
        with timer.stage("write_volumes"):
            fill(partial, scaled(progress, 0.0, share))
        times |= timer.rounded  # as the report tells it
        cancel.check()
        problem = report_problem()
        if problem:
            result.provenance["report"] = problem
        else:
            progress("write", share, "Writing the report")
            with timer.stage("write_report"):
                draw(partial)
            times |= timer.rounded
        cancel.check()
        names = sorted([*names_in(partial), PROVENANCE_FILE])
        text = json_text({**result.provenance, **record, "warnings": list(result.warnings), "files": names})
        (partial / PROVENANCE_FILE).write_text(text, encoding="utf-8")
        cancel.check()
    progress("write", 1.0, f"Results are in {directory}")
    return {name: Path(directory) / name for name in names}


def report_problem() -> str:
    """Why no report can be written here, or an empty string: predicting does without the packages that draw it."""
    missing = [name for name in _REPORT_PACKAGES if find_spec(name) is None]
    return f"not written: the Python packages {' and '.join(missing)} are not installed" if missing else ""


def report_line(provenance: Mapping[str, object], directory: Path) -> str:
    """Where the report of a result is, or why there is none."""
    problem = provenance.get("report")
    return f"The report was {problem}." if problem else f"Report: {directory / 'report.html'}"


def check_writable(directory: str | Path, names: Iterable[str], task: str) -> None:
    """Raises UsageError unless files of these names, results of this task, could be written to `directory` now, and
    InputError where ITK cannot open a name there; leaves nothing behind."""
    names = list(names)
    with atomic_output(directory) as partial:
        _refuse_foreign_files(Path(directory), names, task)
        for name in names:
            if name.endswith(".nii.gz"):
                from .files.itk_files import itk_name  # loads SimpleITK, which tables and pictures do without

                itk_name(partial / name)


@contextmanager
def atomic_output(directory: str | Path) -> Iterator[Path]:
    """A private folder whose files are moved into `directory` when the block ends without an exception.

    An earlier result of the same task goes, with those of its files that the new one lacks. On an exception, or when
    moving fails, `directory` is as it was before (absent, if it was absent); the error says where files of the earlier
    result lie that cannot be put back. An OSError (no permission, disk full, a file where the folder should be) becomes
    a UsageError of one sentence, also when it is about a file being written inside the block.
    """
    directory = Path(directory).absolute()  # whatever becomes of the working directory meanwhile
    made: list[Path] = []
    partial: Path | None = None
    try:
        with writing_to(directory):
            made = _make_folders(directory)
            _remove_abandoned(directory)
            partial = new_folder(directory, PARTIAL_PREFIX)
            yield partial
            with only_writer(directory / PROVENANCE_FILE):  # else two runs could leave files of both
                _move_into_place(partial, directory)
    except UsageError as error:
        if partial is not None and _holds_earlier(partial):
            raise UsageError(f"{error} Files of the earlier result lie in {partial / _EARLIER}.") from error
        raise
    finally:
        if partial is not None and not _holds_earlier(partial):
            shutil.rmtree(partial, ignore_errors=True)
        for folder in reversed(made):
            try:
                folder.rmdir()  # stays when there are results in it
            except OSError:
                break


def _make_folders(directory: Path) -> list[Path]:
    """Makes `directory` and returns the folders that were missing, outermost first."""
    missing = [folder for folder in (directory, *directory.parents) if not folder.exists()][::-1]
    directory.mkdir(parents=True, exist_ok=True)
    return missing


def _remove_abandoned(directory: Path) -> None:
    for folder in directory.glob(f"{PARTIAL_PREFIX}*"):
        with suppress(FileNotFoundError):  # another run has ended meanwhile
            if time.time() - folder.stat().st_mtime > _ABANDONED_AFTER_S and not _holds_earlier(folder):
                shutil.rmtree(folder, ignore_errors=True)


def _holds_earlier(partial: Path) -> bool:
    """Whether a partial folder has the only copy of something."""
    earlier = partial / _EARLIER
    return earlier.is_dir() and any(earlier.iterdir())


def names_in(partial: Path) -> list[str]:
    """The files of a result, sorted. A temporary one that Windows did not let go is none of them."""
    return sorted(entry.name for entry in partial.iterdir() if not entry.name.startswith("."))


def _move_into_place(partial: Path, directory: Path) -> None:
    """Moves the files of `partial` into `directory` and the other files of an earlier result away; puts the earlier
    ones back if one of the moves fails. Until the last has moved, the provenance calls the result unfinished: should
    the process be killed in between, files of two results are not taken for one."""
    names = sorted(names_in(partial), key=lambda name: name == PROVENANCE_FILE)
    task, _ = _earlier_result(partial)
    _refuse_foreign_files(directory, names, task)
    superseded = _superseded_files(directory, task) - set(names)
    earlier, first = partial / _EARLIER, not (directory / PROVENANCE_FILE).exists()
    earlier.mkdir()
    try:
        if PROVENANCE_FILE in names:
            _announce(partial, directory, earlier)
        for name in names:
            if (directory / name).exists() and name != PROVENANCE_FILE:
                put_in_place(directory / name, earlier / name)
            put_in_place(partial / name, directory / name)
        for name in superseded:
            put_in_place(directory / name, earlier / name)
    except BaseException:  # a second Ctrl-C among them
        # An earlier provenance is either still there or put back.
        moved = [name for name in names if (first if name == PROVENANCE_FILE else not (partial / name).exists())]
        _put_back(moved, directory, earlier)
        raise
    with suppress(OSError):  # what Windows does not let go is nobody's only copy any more
        earlier = earlier.rename(partial / "superseded")
    shutil.rmtree(earlier, ignore_errors=True)


def _put_back(moved: Iterable[str], directory: Path, earlier: Path) -> None:
    """Takes the new files away again and brings back the earlier ones, as many as the disk lets."""
    for name in moved:
        with suppress(OSError):
            (directory / name).unlink(missing_ok=True)
    for entry in list(earlier.iterdir()):
        with suppress(OSError):
            put_in_place(entry, directory / entry.name)


def _announce(partial: Path, directory: Path, earlier: Path) -> None:
    """Puts the new result's provenance in the place of the earlier one, with the files of both, as unfinished."""
    coming = json.loads((partial / PROVENANCE_FILE).read_text(encoding="utf-8"))
    _, before = _earlier_result(directory)
    coming |= {UNFINISHED: True, "files": sorted({*coming.get("files", ()), *before})}
    announced = partial / "announced.json"
    announced.write_text(json.dumps(coming), encoding="utf-8")
    if (directory / PROVENANCE_FILE).exists():
        shutil.copyfile(directory / PROVENANCE_FILE, earlier / PROVENANCE_FILE)  # never gone: files would be foreign
    put_in_place(announced, directory / PROVENANCE_FILE)


def _superseded_files(directory: Path, task: str) -> set[str]:
    """The files of an earlier result of this task. Names that lead out of the folder are none of it."""
    earlier, files = _earlier_result(directory)
    if not task or earlier != task:
        return set()
    return {name for name in files if Path(name).name == name and (directory / name).is_file()}


def _refuse_foreign_files(directory: Path, names: Iterable[str], task: str) -> None:
    """A file of these names that no earlier run wrote may be the scan itself, or an expert's mask.nii.gz; one that
    another task wrote belongs to its result."""
    present = {name for name in names if (directory / name).exists()}
    earlier, files = _earlier_result(directory)
    if present & files and earlier and task and earlier != task:
        raise UsageError(f"{directory} holds another result ({earlier}), of which {', '.join(sorted(present & files))} "
                         "would be overwritten: choose another --output.")
    foreign = sorted(present - files)
    if foreign:
        raise UsageError(f"{directory} already holds {', '.join(foreign)}, which MedVAE did not write and would "
                         "overwrite: choose another --output.")


def _earlier_result(directory: Path) -> tuple[str, set[str]]:
    """The task of the result in a folder, "" where none is stated, and its files."""
    try:
        provenance = json.loads((directory / PROVENANCE_FILE).read_text(encoding="utf-8"))
        return str(provenance.get("task", "")), {str(name) for name in provenance["files"]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "", set()


def json_text(record: object) -> str:
    """Indented JSON of what `plain` makes of it."""
    return json.dumps(plain(record), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def plain(value: object) -> object:
    """`value` in JSON's own types; numbers that are none (NaN, infinity) become null."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if hasattr(value, "tolist"):  # arrays and numbers of NumPy, without importing it
        return plain(value.tolist())
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    return str(value)
