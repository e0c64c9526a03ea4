"""One training loop: resumable to the step, with progress, validation, averaged weights and pictures as it goes."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..inference.device import cpu_bfloat16_problem
from ..progress import CancelToken, Progress


@dataclass(frozen=True)
class TrainerConfig:
    """steps: optimiser steps in all; warmup and decay: shares of the steps over which the learning rate rises and
    falls (in between it is constant, so a run can be prolonged); average: decay of the weights' moving average;
    validate_every and checkpoint_every: steps."""

    steps: int = 20000
    batch: int = 4
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    warmup: float = 0.02
    decay: float = 0.3
    average: float = 0.995
    clip: float = 1.0
    validate_every: int = 200
    checkpoint_every: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1 or self.learning_rate <= 0:
            raise ValueError("steps, batch and learning_rate must be positive")

    def rate(self, step: int) -> float:
        """Learning rate at a step: linear rise, plateau, linear fall to 2 %."""
        rise, fall = max(1.0, self.warmup * self.steps), max(1.0, self.decay * self.steps)
        left = (self.steps - step) / fall
        return self.learning_rate * min(1.0, (step + 1) / rise, max(0.02, left))


Batches = Callable[[int], Iterator[tuple[Tensor, ...]]]
"""batches(start_step) yields what the model's loss takes, for start_step, start_step + 1, …"""


def _format(tensor: Tensor) -> Tensor:
    """Channels last, which convolutions are fastest with; 5 dimensions are a volume's, 4 an image's."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    return tensor.contiguous(memory_format=formats.get(tensor.dim(), torch.contiguous_format))


class Trainer:
    """Trains a model that has `loss(*batch, generator) -> {"loss": …}`.

    Writes into `directory`: checkpoint.pt (everything needed to go on exactly where it stopped), log.jsonl (one
    line per validation or ten steps) and whatever `on_validation` adds.
    """

    def __init__(self, model: nn.Module, config: TrainerConfig, directory: Path, device: torch.device):
        self.config, self.directory, self.device = config, Path(directory), device
        self.directory.mkdir(parents=True, exist_ok=True)
        self.model = model.to(device)
        for weight in self.model.parameters():
            weight.data = _format(weight.data)
        self.averaged = {name: value.detach().clone() for name, value in model.state_dict().items()}
        self.optimiser = torch.optim.AdamW(model.parameters(), config.learning_rate, weight_decay=config.weight_decay)
        self.step = 0
        self.seconds = 0.0
        # bf16 doubles the speed of a CPU that has its instructions, and is a hundred times slower on one that has not.
        self.autocast = device.type == "cuda" or (device.type == "cpu" and not cpu_bfloat16_problem())

    # ---- checkpoints ----

    @property
    def checkpoint(self) -> Path:
        return self.directory / "checkpoint.pt"

    def save(self) -> None:
        state = {
            "model": self.model.state_dict(), "averaged": self.averaged, "optimiser": self.optimiser.state_dict(),
            "step": self.step, "seconds": self.seconds, "config": asdict(self.config),
        }  # fmt: skip
        partial = self.checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self.checkpoint)

    def resume(self) -> None:
        """Goes on from checkpoint.pt. Raises InputError where there is none."""
        if not self.checkpoint.exists():
            raise InputError(f"{self.checkpoint}: nothing to resume from; start without --resume.")
        state = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.averaged = state["averaged"]
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.seconds = state["step"], state["seconds"]

    # ---- the loop ----

    def run(
        self,
        batches: Batches,
        validate: Callable[[dict[str, Tensor]], dict[str, float]],
        progress: Progress,
        cancel: CancelToken,
    ) -> None:
        """Trains to `config.steps`; cancelling keeps the checkpoint and raises Cancelled."""
        self.model.train()
        stream, begin, first, recent = batches(self.step), time.monotonic(), self.step, []
        spent = self.seconds
        while self.step < self.config.steps:
            if cancel.cancelled:
                self.save()
                cancel.check()
            terms = self._update([_format(tensor.to(self.device)) for tensor in next(stream)])
            recent.append(terms)
            self.step += 1
            elapsed = time.monotonic() - begin
            self.seconds = spent + elapsed
            if self.step % 10 == 0 or self.step == self.config.steps:
                mean = {key: sum(t[key] for t in recent) / len(recent) for key in recent[0]}
                recent = []
                left = elapsed / (self.step - first) * (self.config.steps - self.step)
                self._log({"step": self.step, "seconds": round(self.seconds), **mean})
                progress("training", self.step / self.config.steps,
                         f"step {self.step}, loss {mean['loss']:.4f}, {_clock(left)} left")  # fmt: skip
            if self.step % self.config.checkpoint_every == 0 or self.step == self.config.steps:
                self.save()
            if self.step % self.config.validate_every == 0 or self.step == self.config.steps:
                self._log({"step": self.step, "seconds": round(self.seconds), "validation": validate(self.averaged)})

    def _update(self, batch: list[Tensor]) -> dict[str, float]:
        for group in self.optimiser.param_groups:
            group["lr"] = self.config.rate(self.step)
        # The noise of a step depends on its number alone, so a resumed run draws what the unbroken one would have.
        noise = torch.Generator(self.device).manual_seed(self.config.seed * 1_000_003 + self.step)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            terms = self.model.loss(*batch, noise)
        self.optimiser.zero_grad(set_to_none=True)
        terms["loss"].backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        values = {key: float(value.detach()) for key, value in terms.items()} | {"gradient": float(norm)}
        if not math.isfinite(values["loss"]) or not math.isfinite(values["gradient"]):
            raise InputError(
                f"Training diverged at step {self.step}: the loss is not a number; lower learning_rate and resume."
            )
        self.optimiser.step()
        decay = min(self.config.average, (1 + self.step) / (10 + self.step))
        for name, value in self.model.state_dict().items():
            if value.dtype.is_floating_point:
                self.averaged[name].lerp_(value, 1 - decay)
            else:
                self.averaged[name].copy_(value)
        return values

    def _log(self, line: dict[str, object]) -> None:
        with open(self.directory / "log.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def _clock(seconds: float) -> str:
    minutes = int(seconds // 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min {int(seconds % 60):02d} s"
