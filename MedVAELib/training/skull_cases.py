"""Training cases of the skull models: made once, kept on disk, and used again in other orders and flips.

Making a case (a head, its planes, their tracing errors) costs a CPU more than training on it, so a run makes a stated
number of cases and goes through them several times. Runs with the same settings can share a store.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from ..errors import InputError
from ..files.whole_files import replaced
from ..progress import CancelToken
from .processes import from_background, heard_alone
from .synthesis.planes import PlaneCaseMaker, Watch, unwatched

CHUNK = 256
"""Cases per file."""
_AT_ONCE = 16
_LEVELS = 255.0  # of an outline map
_STEPS = 10.0  # per voxel of signed distance: 0.1 voxels up to ±12.7, beyond which no loss looks

Case = tuple[Tensor, Tensor, Tensor]
"""planes (B, 3, 96, 96), present (B, 3) bool, sdf (B, 1, 48, 48, 48) in voxels of the 96³ grid: what a loss takes."""


class CaseStore:
    """Cases 0 … chunks·CHUNK of one seed in a folder, made when they are first asked for.

    make(watch): builds the maker, which calls `watch` as `PlaneCaseMaker` does; called once, and only if something is
    missing. settings: what the cases depend on; a folder made with others is refused (InputError). `watch`: told how
    many cases of a chunk are made.
    """

    def __init__(self, folder: Path, make: Callable[[Watch], PlaneCaseMaker], settings: dict[str, object], chunks: int):
        self.folder, self.chunks, self.make, self._maker = folder, chunks, make, None
        self._seed = int(settings["seed"])
        self.watch: Watch = unwatched  # no lambda: where processes do not fork, stores are pickled
        self._made = 0
        folder.mkdir(parents=True, exist_ok=True)
        stated, text = folder / "settings.json", json.dumps(settings, sort_keys=True)
        if not stated.exists():
            with replaced(stated) as partial:  # processes that share a run start at once
                partial.write_text(text, encoding="utf-8")
        elif stated.read_text(encoding="utf-8") != text:
            raise InputError(f"{folder} holds cases made with other settings: delete it or name another store.")
        self._last: tuple[int, dict[str, Tensor]] | None = None

    def chunk(self, number: int) -> dict[str, Tensor]:
        """planes uint8, present bool, sdf int8 in tenths of a voxel, spacing_mm."""
        if self._last is None or self._last[0] != number:
            file = self.folder / f"cases-{number:04d}.safetensors"
            if not file.exists():
                self._write(number, file)
            self._last = number, load_file(file)
        return self._last[1]

    def _write(self, number: int, file: Path) -> None:
        self._made = 0
        self._look(0)
        self._maker = self._maker or self.make(self._look)
        first = self._seed * 10_000_019 + number * CHUNK
        parts = []
        for start in range(first, first + CHUNK, _AT_ONCE):
            self._made = start - first
            parts.append(self._packed(range(start, start + _AT_ONCE)))
        with replaced(file) as partial:
            save_file({name: torch.cat([part[name] for part in parts]) for name in parts[0]}, partial)

    def _look(self, made: int) -> None:
        self.watch(self._made + made)

    def _packed(self, seeds: range) -> dict[str, Tensor]:
        cases = self._maker(seeds)
        return {
            "planes": (cases.planes * _LEVELS).round().to(torch.uint8).cpu(), "present": cases.present.cpu(),
            "sdf": (cases.sdf * _STEPS).round().clamp(-127, 127).to(torch.int8).cpu(),
            "spacing_mm": cases.spacing_mm.cpu(),
        }


def batch_of(store: CaseStore, seed: int, number: int, batch: int) -> Case:
    """Batch `number` of the endless stream `seed`: the same whoever makes it.

    The first pass goes through the store in order, later ones shuffle it. A case is mirrored left to right in half of
    its uses, and every plane flipped along each of its axes, as an image says nothing of its orientation.
    """
    per_chunk = CHUNK // batch
    epoch, place = divmod(number, store.chunks * per_chunk)
    order = torch.randperm(store.chunks, generator=_random(seed, epoch)) if epoch else torch.arange(store.chunks)
    which, part = int(order[place // per_chunk]), place % per_chunk
    rows = torch.randperm(CHUNK, generator=_random(seed, epoch, which))[part * batch : (part + 1) * batch]
    chunk, draw = store.chunk(which), _random(seed, epoch, which, part)
    planes, present, sdf = (chunk[name][rows] for name in ("planes", "present", "sdf"))
    for axis in (2, 3):
        flipped = torch.rand(batch, 3, generator=draw) < 0.5
        planes = torch.where(flipped[:, :, None, None], planes.flip(axis), planes)
    mirrored = torch.rand(batch, generator=draw) < 0.5
    sdf = torch.where(mirrored.view(-1, 1, 1, 1, 1), sdf.flip(4), sdf)
    return planes, present, sdf


def _random(*numbers: int) -> torch.Generator:
    mixed = 0
    for number in numbers:
        mixed = (mixed * 1_000_003 + number + 1) % (1 << 62)
    return torch.Generator().manual_seed(mixed)


class CaseBatches(IterableDataset):
    """Batches start, start + 1, … of a store, still packed. told: memory shared with the training, for the number of
    cases made and, from there, whether to stop."""

    def __init__(self, store: CaseStore, batch: int, start: int, seed: int):
        self.store, self.batch, self.start, self.seed = store, batch, start, seed
        self.told = torch.zeros(2, dtype=torch.int32).share_memory_()

    def __iter__(self) -> Iterator[Case]:
        if get_worker_info():
            self.store.watch = self._watch
        number = self.start
        while True:
            try:
                case = batch_of(self.store, self.seed, number, self.batch)
            except _Stopped:
                return
            yield case
            number += 1

    def _watch(self, made: int) -> None:
        self.told[0] = made
        if self.told[1]:
            raise _Stopped


class _Stopped(Exception):
    """The training ended while cases were being made."""


def case_stream(
    store: CaseStore, batch: int, seed: int, start: int, workers: int, tell: Callable[[str], None] = lambda words: None,
    cancel: CancelToken | None = None,
) -> Iterator[Case]:
    """What the models' losses take, float32, from one background process or (workers 0) none.

    tell: is told in words how far the making of cases is, while a batch waits for it. cancel: ends that by Cancelled
    where there is one process; several have to agree first, which they do between steps.
    """
    if CHUNK % batch:
        raise InputError(f"trainer.batch must divide {CHUNK}, not be {batch}.")
    cancel = heard_alone(cancel)

    def waiting(made: int) -> None:
        tell(f"making training cases, {made} of {CHUNK}")
        cancel.check()

    batches = CaseBatches(store, batch, start, seed)
    if not workers:
        store.watch = waiting
    try:
        for planes, present, sdf in from_background(batches, workers, lambda: waiting(int(batches.told[0]))):
            yield planes.float() / _LEVELS, present, sdf.float() / _STEPS
    finally:
        batches.told[1] = 1
