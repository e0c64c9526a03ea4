"""One training loop for one process or several: resumable to the step, with progress, validation, averaged weights,
early stop and checks of its health as it goes."""

from __future__ import annotations

import json
import logging
import math
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..bundle_weights import packed
from ..errors import BundleError, Cancelled, DeviceMemoryError, InputError, UsageError
from ..failures import is_out_of_memory
from ..files.whole_files import replaced, writing_to
from ..inference.device import cpu_bfloat16_problem, cpu_flags, cuda_half_precision, has_bfloat16_instructions
from ..networks.across_processes import shared_batch, with_synced_norms
from ..progress import CancelToken, Progress
from .early_stop import EarlyStop
from .health import HealthChecks
from .log_file import LOG_FILE, read_log
from .processes import Processes, SharedNoise


@dataclass(frozen=True)
class TrainerConfig:
    """steps: optimiser steps in all; warmup and decay: shares of the steps over which the learning rate rises and
    falls (in between it is constant, so a run can be prolonged); average: decay of the weights' moving average;
    validate_every and checkpoint_every: steps; patience: validations without a gain after which a run ends with its
    best weights, 0 for never; gain: what counts as one, relative to the best; watch: the validation's value that has to
    fall; precision: "auto" (bfloat16 where it is fast), "float32" or "bfloat16"."""

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
    patience: int = 0
    gain: float = 0.001
    watch: str = "loss"
    precision: str = "auto"

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1 or self.learning_rate <= 0:
            raise ValueError("steps, batch and learning_rate must be positive")
        if self.validate_every < 1 or self.checkpoint_every < 1:
            raise ValueError("validate_every and checkpoint_every must be positive")
        if self.clip <= 0 or self.weight_decay < 0 or not 0 <= self.average < 1:
            raise ValueError("clip must be positive, weight_decay not negative, average from 0 to below 1")
        if min(self.warmup, self.decay) < 0 or self.warmup + self.decay > 1:
            raise ValueError("warmup and decay must be shares of the steps, together 1 at most")
        if self.patience < 0 or self.gain < 0 or self.precision not in ("auto", "float32", "bfloat16"):
            raise ValueError("patience and gain must not be negative, precision auto, float32 or bfloat16")

    def rate(self, step: int) -> float:
        """Learning rate at a step: linear rise, plateau, linear fall to 2 %."""
        rise, fall = max(1.0, self.warmup * self.steps), max(1.0, self.decay * self.steps)
        left = (self.steps - step) / fall
        return self.learning_rate * min(1.0, (step + 1) / rise, max(0.02, left))


MAY_CHANGE = {"steps", "checkpoint_every", "validate_every", "patience", "gain", "watch", "learning_rate"}
"""Settings of the trainer that a run may be resumed with others of: they say how long and how fast it goes on, and what
is told after a divergence is to lower the learning rate and resume."""

Validate = Callable[[dict[str, Tensor], int], dict[str, float]]
"""validate(averaged weights, step) measures them, and draws what it wants to."""

Batches = Callable[[int], Iterator[tuple[Tensor, ...]]]
"""batches(start_step) yields what the model's loss takes, for start_step, start_step + 1, …"""


def _format(tensor: Tensor) -> Tensor:
    """Channels last, which convolutions are fastest with; 5 dimensions are a volume's, 4 an image's."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    return tensor.contiguous(memory_format=formats.get(tensor.dim(), torch.contiguous_format))


class Trainer:
    """Trains a model that has `loss(*batch, generator) -> {"loss": …}`.

    Writes into `directory`: checkpoint.pt (everything needed to go on exactly where it stopped), log.jsonl (one
    line per validation or ten steps) and whatever `validate` adds. Of several processes (see `processes`) the first
    alone writes and validates. warm_up: steps before which neither early stop nor health judges the run.
    """

    def __init__(
        self, model: nn.Module, config: TrainerConfig, directory: Path, device: torch.device, warm_up: int = 0
    ):
        self.config, self.directory, self.device = config, Path(directory), device
        self.processes = Processes.current()
        if config.batch % self.processes.count:
            raise InputError(f"trainer.batch is {config.batch}, which {self.processes.count} processes cannot share "
                             "equally: make it a multiple.")
        if self.processes.first:
            with writing_to(self.directory):
                self.directory.mkdir(parents=True, exist_ok=True)
        self.record: dict[str, dict[str, object]] = {}
        self.model = (model if self.processes.count == 1 else with_synced_norms(model)).to(device)
        for weight in self.model.parameters():
            weight.data = _format(weight.data)
        self.averaged = {name: value.detach().clone() for name, value in model.state_dict().items()}
        self.optimiser = torch.optim.AdamW(model.parameters(), config.learning_rate, weight_decay=config.weight_decay)
        self.step = 0
        self.seconds = 0.0
        self.early = EarlyStop(config.patience, config.gain, warm_up)
        self.health: HealthChecks | None = None
        self._unlogged, self._has_written = "", False
        self.autocast = bool(self.processes.from_first(self._half_is_fast(), device))

    def describe(self, record: dict[str, dict[str, object]]) -> None:
        """The settings, by section, that a resumed run must share with this one; to be called before `resume`."""
        self.record = record

    def watch_health(self, grace: int) -> None:
        """From now on a diverging or collapsed run ends; to be called before `resume`."""
        self.health = HealthChecks(self.model, grace)

    def precision(self) -> torch.autocast:
        """The number format of the run, as a context."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast)

    def _half_is_fast(self) -> bool:
        # bf16 doubles the speed of a CPU that has its instructions, and is a hundred times slower on one that has not;
        # GPUs before Ampere emulate it, too.
        if self.config.precision != "auto":
            return self.config.precision == "bfloat16"
        if self.device.type == "cuda":
            return cuda_half_precision(self.device) is torch.bfloat16
        return self.device.type == "cpu" and not cpu_bfloat16_problem()

    # ---- checkpoints ----

    @property
    def checkpoint(self) -> Path:
        return self.directory / "checkpoint.pt"

    @property
    def weights_step(self) -> int:
        """The step that the weights in `averaged` are of after `run`: with patience the best one's, not the last."""
        return self.early.step if self.early.weights else self.step

    @property
    def log(self) -> Path:
        return self.directory / LOG_FILE

    def save(self) -> None:
        if not self.processes.first:
            return
        state = {
            "model": self.model.state_dict(), "averaged": self.averaged, "optimiser": self.optimiser.state_dict(),
            "step": self.step, "seconds": self.seconds, "config": asdict(self.config),
            "early": self.early.state(), "health": self.health.state() if self.health else None,
            "autocast": {self.device.type: self.autocast}, "run": self.record,
        }
        try:
            with replaced(self.checkpoint) as partial:
                torch.save(state, partial)
            self._has_written = True
        except (OSError, RuntimeError) as error:  # PyTorch's writer reports a full disk as a RuntimeError
            if is_out_of_memory(error):
                raise
            reason = getattr(error, "strerror", None) or "is the disk full?"
            raise UsageError(f"The checkpoint cannot be written to {self.directory} ({reason}): make room there, or "
                             "choose another --output.") from error

    def _save_or_go_on(self) -> None:
        try:
            self.save()
        except UsageError as error:
            if not self._may_write_later(error):
                raise
            logging.getLogger(__name__).warning("%s The next checkpoint is written again.", error)

    def _may_write_later(self, error: UsageError) -> bool:
        """Whether a program, such as a virus scanner on Windows, just holds a file that could be written before: that
        ends no training of days before its last step."""
        over = self.step >= self.config.steps or self.early.over
        return self._has_written and not over and isinstance(error.__cause__, PermissionError)

    def resume(self) -> None:
        """Goes on from checkpoint.pt. Raises InputError where there is none, or one of another model, of other settings
        or of more steps."""
        if not self.checkpoint.exists():
            raise InputError(f"{self.checkpoint}: nothing to resume from; start without --resume.")
        if not zipfile.is_zipfile(self.checkpoint):
            raise InputError(f"{self.checkpoint}: is damaged; start anew without --resume.")
        # Onto the CPU: what counts Adam's steps has to stay there, or every step would wait for the GPU.
        state = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        try:
            self._check_same_run(state)
            self.model.load_state_dict(state["model"])
            self.optimiser.load_state_dict(state["optimiser"])
        except (RuntimeError, ValueError, KeyError) as error:
            raise InputError(f"{self.checkpoint}: is of another model than the config's; use the config it was started "
                             "with, or start anew without --resume.") from error
        self.averaged = self._here(state["averaged"])
        self.step, self.seconds = state["step"], state["seconds"]
        if self.config.patience and self.config.watch == state["config"]["watch"]:
            self.early.load_state(state["early"] | {"weights": self._here(state["early"]["weights"])})
        if self.health and state["health"]:
            self.health.load_state(state["health"])
        self._keep_precision(state["autocast"])
        self._forget_log_after(self.step)

    def _check_same_run(self, state: dict[str, object]) -> None:
        """A bundle must not state settings that only the end of its training had."""
        ours = self.record | {"trainer": asdict(self.config)}
        theirs = state["run"] | {"trainer": state["config"]}
        for section, settings in theirs.items():
            for name, earlier in settings.items():
                now = ours.get(section, {}).get(name, earlier)  # missing: a setting that is no more
                if _plain(now) != _plain(earlier) and not (section == "trainer" and name in MAY_CHANGE):
                    raise InputError(f"{section}.{name} is {now!r}, but the run in {self.directory} was started with "
                                     f"{earlier!r}: resume with the config it was started with, or start anew in "
                                     "another --output.")
        if self.config.steps < state["step"]:
            raise InputError(f"trainer.steps is {self.config.steps}, but the run in {self.directory} has done "
                             f"{state['step']} steps already: give as many at least.")

    def _here(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: value.to(self.device) for name, value in weights.items()}

    def _keep_precision(self, used: dict[str, bool]) -> None:
        """The number format of the run so far: the choice by speed may fall otherwise today, and numbers would too."""
        possible = self.device.type != "cpu" or has_bfloat16_instructions(cpu_flags())
        if self.config.precision == "auto" and self.device.type in used and (possible or not used[self.device.type]):
            self.autocast = used[self.device.type]

    # ---- the loop ----

    def run(
        self,
        batches: Batches,
        validate: Validate,
        progress: Progress,
        cancel: CancelToken,
    ) -> None:
        """Trains to `config.steps`, or until the early stop, after which `averaged` holds the best weights.

        batches: the whole batch, in every process. Cancelling keeps the checkpoint and raises Cancelled.
        """
        self.model.train()
        if self.step == 0 and self.processes.first:
            self.log.unlink(missing_ok=True)  # of an earlier run in the same folder
        stream, stopped_before = batches(self.step), self.early.over
        try:
            self._train(stream, validate, progress, cancel)
        finally:
            if hasattr(stream, "close"):  # a generator's, which ends the processes that make its data
                stream.close()
        if self.early.over:
            self._tell_early_stop(progress, log=not stopped_before)
        if self.early.weights:
            self.averaged = self.early.weights
        self._check_storable()

    def _check_storable(self) -> None:
        """A run of few steps may diverge and end before its loss is no number; its bundle could not be written."""
        try:
            packed(self.averaged)
        except BundleError as error:
            raise InputError("Training diverged: the weights have grown beyond what a bundle holds; lower "
                             "learning_rate and start anew.") from error

    def _train(
        self, stream: Iterator[tuple[Tensor, ...]], validate: Validate, progress: Progress, cancel: CancelToken
    ) -> None:
        begin, first, recent, spent = time.monotonic(), self.step, [], self.seconds
        while self.step < self.config.steps and not self.early.over:
            if self.processes.any(cancel.cancelled, self.device):
                self.save()
                raise Cancelled
            try:
                batch = next(stream)
            except Cancelled:  # while the data were being made
                self.save()
                raise
            except RuntimeError as error:
                if not cancel.cancelled:
                    raise
                self.save()  # processes that make data and were not forked hear the signal, too, and end
                raise Cancelled from error
            recent.append(self._update([_format(self.processes.share(t).to(self.device)) for t in batch]))
            self.step += 1
            elapsed = time.monotonic() - begin
            self.seconds = spent + elapsed
            last = self.step == self.config.steps
            if self.step % 10 == 0 or last:
                left = elapsed / (self.step - first) * (self.config.steps - self.step)
                self._report(recent, left, progress)
                recent = []
            if self.step % self.config.validate_every == 0 or last:
                self._validate(validate)
            if self.step % self.config.checkpoint_every == 0 or last or self.early.over:
                self._save_or_go_on()

    def _tell_early_stop(self, progress: Progress, log: bool) -> None:
        if log:
            self._log({"step": self.step, "seconds": round(self.seconds), "stopped_early_weights_of": self.early.step})
        progress("training", 1.0, f"stopped early at step {self.step}, weights of step {self.early.step}")

    def _report(self, recent: list[dict[str, float]], left: float, progress: Progress) -> None:
        mean = {key: sum(t[key] for t in recent) / len(recent) for key in recent[0]}
        self._log({"step": self.step, "seconds": round(self.seconds), **mean})
        progress("training", self.step / self.config.steps,
                 f"step {self.step}, loss {mean['loss']:.4f}, {_clock(left)} left")
        if self.health:
            self.health.training(self.step, mean)

    def _validate(self, validate: Validate) -> None:
        watched = math.nan
        if self.processes.first:
            values = validate(self.averaged, self.step)
            self._log({"step": self.step, "seconds": round(self.seconds), "validation": values})
            if self.config.patience and self.config.watch not in values:
                raise InputError(f"trainer.watch names '{self.config.watch}', but a validation gives "
                                 f"{', '.join(values)}.")
            watched = values.get(self.config.watch, math.nan)
            if self.health:
                self.health.validation(self.step, values)
        self.early.see(self.step, self.processes.from_first(watched, self.device), self.averaged)

    def _update(self, batch: list[Tensor]) -> dict[str, float]:
        for group in self.optimiser.param_groups:
            group["lr"] = self.config.rate(self.step)
        # The noise of a step depends on its number alone, so a resumed run draws what the unbroken one would have.
        noise = torch.Generator(self.device).manual_seed(self.config.seed * 1_000_003 + self.step)
        self.optimiser.zero_grad(set_to_none=True)
        try:
            with shared_batch():
                with self.precision(), SharedNoise(self.processes, noise, len(batch[0])):
                    terms = self.model.loss(*batch, noise)
                terms["loss"].backward()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise DeviceMemoryError("Out of memory while training: lower trainer.batch or the model's width.") \
                from error
        norm = self._shared_gradient()
        values = self._shared_values({key: value.detach() for key, value in terms.items()} | {"gradient": norm})
        if not math.isfinite(values["loss"]) or not math.isfinite(values["gradient"]):
            then = "resume" if self.checkpoint.exists() else "start anew"
            raise InputError(
                f"Training diverged at step {self.step}: the loss is not a number; lower learning_rate and {then}."
            )
        self.optimiser.step()
        self.processes.average(buffer for buffer in self.model.buffers() if buffer.dtype.is_floating_point)
        self._average_weights()
        return values

    def _shared_gradient(self) -> Tensor:
        """Averages gradients over the processes, clips them, and returns their norm before that."""
        self.processes.average(p.grad for p in self.model.parameters() if p.grad is not None)
        return nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)

    def _shared_values(self, terms: dict[str, Tensor]) -> dict[str, float]:
        values = torch.stack([value.float().reshape(()).to(self.device) for value in terms.values()])
        self.processes.average([values])
        return dict(zip(terms, values.tolist(), strict=True))

    @torch.no_grad()
    def _average_weights(self) -> None:
        decay = min(self.config.average, (1 + self.step) / (10 + self.step))
        now = self.model.state_dict()
        weights = [name for name, value in now.items() if value.dtype.is_floating_point]
        # All at once: on a GPU, launching an operation per tensor takes longer than the operations.
        torch._foreach_lerp_([self.averaged[name] for name in weights], [now[name] for name in weights], 1 - decay)
        for name in now.keys() - weights:
            self.averaged[name].copy_(now[name])

    # ---- the log ----

    def _log(self, line: dict[str, object]) -> None:
        if not self.processes.first:
            return
        self._unlogged += json.dumps(line) + "\n"
        try:
            with writing_to(self.directory), open(self.log, "a", encoding="utf-8") as file:
                file.write(self._unlogged)
            self._unlogged, self._has_written = "", True
        except UsageError as error:
            if not self._may_write_later(error):
                raise

    def _forget_log_after(self, step: int) -> None:
        """What a killed run wrote after its last checkpoint comes again, and half a line may be the last."""
        if not (self.processes.first and self.log.exists()):
            return
        kept = "".join(json.dumps(line) + "\n" for line in read_log(self.directory) if line["step"] <= step)
        if kept != self.log.read_text(encoding="utf-8"):
            with replaced(self.log) as partial:
                partial.write_text(kept, encoding="utf-8")


def _plain(value: object) -> object:
    """For comparing: what YAML gives as a list may be declared as a tuple."""
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return {str(key): _plain(item) for key, item in value.items()} if isinstance(value, dict) else value


def _clock(seconds: float) -> str:
    minutes = int(seconds // 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min {int(seconds % 60):02d} s"
