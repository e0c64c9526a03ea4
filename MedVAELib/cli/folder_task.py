"""A command that fills a folder, as those of `medvae evaluate` and `latent` and `generate`: its option, how it begins
and how it ends."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import CohortError
from ..files.csv_files import write_rows
from ..listening import cancelled_by_signals
from ..outputs import PROVENANCE_FILE, atomic_output, check_writable, json_text, names_in
from ..progress import CancelToken, Progress
from .listeners import progress_listener
from .options import ProgressKind

if TYPE_CHECKING:
    from ..latent.model import LatentModel

OutputOption = Annotated[Path, typer.Option("--output", "-o", metavar="DIR", show_default=False,
                                            help="Folder for the tables and pictures.")]


@dataclass
class Run:
    """A command while it computes. folder: for its files, None where none are kept, and output: where they will go;
    task: as in `folder_task`; settings: how it was called, for the provenance."""

    progress: Progress
    cancel: CancelToken
    folder: Path | None
    output: Path | None
    task: str
    settings: Mapping[str, object] = field(default_factory=dict)

    def used(self, model: LatentModel, **settings: object) -> None:
        """The settings are this model and these."""
        self.settings = {"bundle": model.bundle.name, "bundle_sha256": model.bundle.sha256, **settings}

    def will_write(self, names: Iterable[str]) -> None:
        """Files that nobody could name at the start, before the work that makes them. Raises UsageError where another's
        files have these names."""
        if self.output is not None:
            check_writable(self.output, names, self.task)

    def write(self, name: str, text: str) -> None:
        """A file of text, where files are kept."""
        if self.folder is not None:
            (self.folder / name).write_text(text, encoding="utf-8")

    def write_rows(self, name: str, rows: Sequence[Mapping[str, object]]) -> None:
        """A table of results, where files are kept."""
        if self.folder is not None:
            write_rows(self.folder / name, rows)


@contextmanager
def folder_task(output: Path | None, kind: ProgressKind, task: str, names: Sequence[str] = ()) -> Iterator[Run]:
    """Signals, progress, and a folder whose files come into `output`, with a provenance, when the block ends without an
    exception. An output that cannot be written, or that holds another's files of these names, is found before hours
    of work, not after; names that the work itself tells go to `Run.will_write` as soon as they are known.

    task: the command, as the provenance states it. A folder holds one result: that of another command is refused.
    Raises UsageError for such an output, Cancelled.
    """
    if output is not None:
        check_writable(output, [*names, PROVENANCE_FILE], task)
    with (
        cancelled_by_signals() as cancel,
        progress_listener(kind) as listener,
        nullcontext() if output is None else atomic_output(output) as folder,
    ):
        run = Run(listener, cancel, folder, output, task)
        yield run
        if folder is not None:
            write_provenance(folder, run.settings, task)


def write_provenance(folder: Path, settings: Mapping[str, object], task: str) -> None:
    """Tells what computed the result, and lists what was written, so that a later run into the same folder may replace
    these files and no others. task: as in `folder_task`."""
    from ..made_with import made_with

    files = sorted([*names_in(folder), PROVENANCE_FILE])
    record = {"task": task, **made_with(), "settings": settings, "files": files}
    (folder / PROVENANCE_FILE).write_text(json_text(record), encoding="utf-8")


def file_names(labels: Iterable[str]) -> dict[str, str]:
    """By label, each another name that a file can have: two may differ in signs that no file name takes, or in
    capitals alone, which are one on many disks."""
    from ..scan import safe_name

    names: dict[str, str] = {}
    for label in dict.fromkeys(labels):
        name = safe_name(label)
        while name.lower() in {taken.lower() for taken in names.values()}:
            name += "_"
        names[label] = name
    return names


def finish(text: str, output: Path | None, progress: ProgressKind, failed: Sequence[str], total: int) -> None:
    """Prints the result, on standard error where standard output carries JSON lines, and where its files are. failed:
    names of cases, of `total`. Raises CohortError, naming them, when there are any."""
    print(text, file=sys.stderr if progress is ProgressKind.json else sys.stdout)
    if output is not None and progress is not ProgressKind.json:
        print(f"Tables and pictures: {output}")
    if failed:
        raise CohortError(f"{len(failed)} of {total} cases failed ({', '.join(failed)}): the table says why.")
