"""What the commands of `medvae evaluate` have in common: their options, and how they begin and end."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import CohortError
from ..listening import cancelled_by_signals
from ..outputs import PROVENANCE_FILE, atomic_output, check_writable, json_text, names_in
from ..progress import CancelToken, Progress
from .listeners import progress_listener
from .options import ProgressKind

if TYPE_CHECKING:
    from ..latent.model import LatentModel

OutputOption = Annotated[Path, typer.Option("--output", "-o", metavar="DIR", show_default=False,
                                            help="Folder for the tables and pictures.")]
BundleOption = Annotated[str | None, typer.Option(
    metavar="NAME|DIR", show_default=False, help="Model to use; by default the one shipped with MedVAE.")]


@dataclass
class Run:
    """A command while it computes. folder: for its files; settings: how it was called, for the provenance."""

    progress: Progress
    cancel: CancelToken
    folder: Path | None
    settings: Mapping[str, object] = field(default_factory=dict)

    def used(self, model: LatentModel, **settings: object) -> None:
        """The settings are this model and these."""
        self.settings = {"bundle": model.bundle.name, "sha256": model.bundle.sha256, **settings}


@contextmanager
def evaluation_task(output: Path | None, kind: ProgressKind, task: str, names: Sequence[str] = ()) -> Iterator[Run]:
    """Signals, progress, and a folder whose files come into `output`, with a provenance, when the block ends without an
    exception. An output that cannot be written, or that holds another's files of these names, is found before hours
    of work, not after.

    task: the command, as the provenance states it. A folder holds one result: that of another command is refused.
    """
    if output is not None:
        check_writable(output, [*names, PROVENANCE_FILE], task)
    with (
        cancelled_by_signals() as cancel,
        progress_listener(kind) as listener,
        nullcontext() if output is None else atomic_output(output) as folder,
    ):
        run = Run(listener, cancel, folder)
        yield run
        if folder is not None:
            write_provenance(folder, run.settings, task)


def write_provenance(folder: Path, settings: Mapping[str, object], task: str) -> None:
    """Lists what was written, so that a later run into the same folder may replace these files and no others. task: as
    in `evaluation_task`."""
    from .. import __version__

    files = sorted([*names_in(folder), PROVENANCE_FILE])
    record = {"task": task, "medvae": __version__, "settings": settings, "files": files}
    (folder / PROVENANCE_FILE).write_text(json_text(record), encoding="utf-8")


def finish(text: str, output: Path | None, progress: ProgressKind, failed: Sequence[str], total: int) -> None:
    print(text, file=sys.stderr if progress is ProgressKind.json else sys.stdout)
    if output is not None and progress is not ProgressKind.json:
        print(f"Tables and pictures: {output}")
    if failed:
        raise CohortError(f"{len(failed)} of {total} cases failed ({', '.join(failed)}): the table says why.")
