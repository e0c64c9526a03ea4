"""Runs the two networks of a skull prediction on whatever the machine has."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..inference.ladder import PlacedModel, never_back
from ..inference.memory import MAX_BATCH
from ..inference.moments import seed_of
from ..progress import CancelToken, Progress, no_progress
from .biometry import COARSE, measure_heads
from .moments import HeadMoments

_CPU_BATCH = 4  # larger ones leave the caches: measured slower
_MERGED_AT_ONCE = 32


@dataclass(frozen=True, eq=False)
class SampledHeads:
    """What is kept of the samples: moments on the 96³ grid, and the measures of each, in mm, ml and %."""

    moments: HeadMoments
    measures: dict[str, Tensor]


class ShapeEngine(PlacedModel):
    """Draws heads from a model of planes to skulls: encodes once, decodes in batches, streams moments and measures."""

    def sample(
        self, planes: Tensor, present: Tensor, spacing_mm: float, samples: int, seed: int = 0,
        temperature: float = 1.0, progress: Progress = no_progress, cancel: CancelToken | None = None,
    ) -> SampledHeads:
        """planes: (3, 96, 96) canonical outline maps; present: (3,) bool. The draws depend on the seed alone, so batch
        size and device do not change them. Raises Cancelled between two batches, DeviceMemoryError."""
        cancel, progress = cancel or CancelToken(), never_back(progress)

        def work() -> SampledHeads:
            wanted = self._batch or (_CPU_BATCH if self.device.type == "cpu" else MAX_BATCH)
            batch = min(wanted, self._batch_limit, samples)
            self._rung = replace(self._rung, batch=batch)
            with self._autocast():
                condition = self._model.encode_planes(planes[None].to(self.device), present[None].to(self.device))
                generator = torch.Generator().manual_seed(seed_of(seed))
                code = self._model.draw(condition, samples, generator, temperature).float()
            heads: _Gathered | None = None
            for start in range(0, samples, batch):
                cancel.check()
                part = code[start : start + batch]
                with self._autocast():
                    sdf = self._model.decode(part, condition.expand(len(part), -1, -1))[:, 0].float()
                heads = heads or _Gathered(tuple(sdf.shape[1:]), self.device, spacing_mm)
                heads.add(sdf)
                done = start + len(part)
                progress("sampling", done / samples, f"{done} of {samples} samples")
            return heads.result()

        return self._attempt(work, batched=True)

    def _autocast(self) -> torch.autocast:
        half = self.precision is not torch.float32
        return torch.autocast(self.device.type, self.precision if half else None, enabled=half)


class OutlineEngine(PlacedModel):
    """Finds the head on grey images."""

    _may_halve = False  # float32 everywhere: a small network, its outlines measured to a fraction of a pixel

    def __init__(self, device: str = "auto"):
        super().__init__(device, "float32")

    def find(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """images: (B, H, W) grey 0…1, edges multiples of 32 pixels. Returns the probability of head per pixel
        (B, H, W), and that of being a head plane (B,), on the CPU. Raises DeviceMemoryError."""

        def work() -> tuple[Tensor, Tensor]:
            logits = self._model(images[:, None].to(self.device))
            return logits.outline[:, 0].sigmoid().cpu(), logits.head.sigmoid().cpu()

        return self._attempt(work, batched=False)


class _Gathered:
    """Heads as they come, merged many at a time because that is faster."""

    def __init__(self, shape: tuple[int, ...], device: torch.device, spacing_mm: float):
        self.moments = HeadMoments(shape, device)
        self._spacing_mm = spacing_mm
        self._waiting: list[Tensor] = []
        self._measures: list[dict[str, Tensor]] = []

    def add(self, sdf: Tensor) -> None:
        self._waiting.append(sdf)
        if sum(len(part) for part in self._waiting) >= _MERGED_AT_ONCE:
            self._merge()

    def _merge(self) -> None:
        if self._waiting:
            sdf = torch.cat(self._waiting)
            self._waiting.clear()
            self.moments.update(sdf)
            self._measures.append(measure_heads(sdf / COARSE, self._spacing_mm * COARSE))

    def result(self) -> SampledHeads:
        self._merge()
        names = self._measures[0]
        return SampledHeads(self.moments, {n: torch.cat([m[n] for m in self._measures]).cpu() for n in names})
