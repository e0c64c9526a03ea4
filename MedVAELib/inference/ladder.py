"""A model on a device: placed, described for the provenance, and kept going when memory runs out."""

from __future__ import annotations

import contextlib
import copy
import gc
import logging
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import nn

from ..errors import DeviceMemoryError
from ..failures import is_out_of_memory
from ..progress import Progress
from .device import one_if_forked, select_device
from .fusion import fuse_for_inference
from .memory import LAST_RUNG, MAX_BATCH, Rung, next_rung

_LOG = logging.getLogger(__name__)
T = TypeVar("T")
Placed = TypeVar("Placed", bound="PlacedModel")


class PlacedModel:
    """What every engine shares. device, precision: as in `select_device`. batch: samples computed at once, chosen by
    device and memory when None. Every decision and every step down the memory ladder is logged in one sentence."""

    _may_halve = True
    """Whether the ladder may go on in a half format."""

    def __init__(self, device: str = "auto", precision: str = "auto", batch: int | None = None):
        self.choice = select_device(device, precision)
        self.steps: list[str] = []
        """The steps down the memory ladder so far, one sentence each, for the provenance."""
        self._rung = Rung(self.choice.device, self.choice.precision, 0)
        self._batch, self._batch_limit = batch, MAX_BATCH
        self._fused: nn.Module | None = None
        self._model: Any = None
        for reason in self.choice.reasons:
            _LOG.info(reason)

    def load(self: Placed, model: nn.Module) -> Placed:
        """Take a fused copy of the model (the model itself stays as it is) and place it. Returns self."""
        self._model = None
        self._forget()
        self._fused = fuse_for_inference(model)
        self._attempt(lambda: None, batched=False)
        return self

    @property
    def device(self) -> torch.device:
        """Where it computes now; after running out of memory this can differ from `choice.device`."""
        return self._rung.device

    @property
    def precision(self) -> torch.dtype:
        """The number format it computes in now."""
        return self._rung.precision

    @property
    def threads(self) -> int:
        """Of torch's pool: those chosen, unless it was loaded before this process was forked."""
        return one_if_forked(self.choice.threads)

    def describe(self) -> dict[str, object]:
        """Device, precision, threads, reasons and ladder steps, for the provenance."""
        on_cpu_instead = self._rung.device.type == "cpu" and self.choice.device.type != "cpu"
        return {
            "device": str(self._rung.device),
            "device_name": "CPU" if on_cpu_instead else self.choice.name,
            "precision": str(self._rung.precision).removeprefix("torch."),
            "threads": self.threads,
            "samples_at_once": self._rung.batch or None,
            "reasons": list(self.choice.reasons),
            "memory_steps": list(self.steps),
        }

    def _place_model(self) -> None:
        """The fused model on the present device; weights stay in float32, and autocast chooses the format."""
        self._model = copy.deepcopy(self._fused).to(device=self.device)
        for weight in self._model.parameters():
            if weight.ndim == 5:  # the layout spreads from the weights to what they are applied to
                weight.data = weight.data.contiguous(memory_format=self._memory_format)

    def _forget(self) -> None:
        """Lets go of whatever holds device memory beside the model and can be made again."""

    @property
    def _memory_format(self) -> torch.memory_format:
        # Measured: 1.3 to 5 times faster on CPUs and tensor cores; MPS has no such layout.
        last = self.device.type in ("cpu", "cuda")
        return torch.channels_last_3d if last else torch.contiguous_format

    def _attempt(self, work: Callable[[], T], batched: bool) -> T:
        """Place the model if it has to be, and do the work, stepping down the memory ladder and starting over for as
        long as memory runs out, and on the CPU where the device lacks an operation."""
        if self._fused is None:
            raise RuntimeError("load(model) must come first.")
        while True:
            missing = ""
            try:
                with torch.inference_mode(), _threads(self.threads), _float32_of(self._rung):
                    if self._model is None:
                        self._place_model()
                    return work()
            except (RuntimeError, TypeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    if not self._lacks_what_raised(error):
                        raise
                    missing = str(error).splitlines()[0][:160] if str(error) else "an operation"
            # Outside the handler: the exception's traceback holds the tensors of the failed attempt.
            if missing:
                self._leave_device(missing)
            else:
                self._step_down(batched)

    def _lacks_what_raised(self, error: Exception) -> bool:
        """Whether the device, not the work, may be at fault. Metal has errors of every kind for what it lacks; what is
        the work's own is raised on the CPU again."""
        return self.device.type == "mps" or (self.device.type != "cpu" and isinstance(error, NotImplementedError))

    def _leave_device(self, missing: str) -> None:
        """On to the CPU for good. A reason and no step: the device would lack the operation again next time."""
        old, self._rung, self._batch_limit = self._rung, LAST_RUNG, MAX_BATCH
        self._model = None
        self._free(old.device)
        self.choice.reasons.append(f"{old.device} lacks an operation ({missing}): went on with {self._rung}.")
        _LOG.info(self.choice.reasons[-1])

    def _free(self, device: torch.device) -> None:
        """Gives back to the device what nobody holds any more."""
        self._forget()
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()

    def _step_down(self, batched: bool) -> None:
        old = self._rung
        new = next_rung(old, self.choice.half_precision if self._may_halve else None, batched)
        if new is not None and (old.device, old.precision) != (new.device, new.precision):
            self._model = None  # there would hardly be room for both; the next attempt places it
        self._free(old.device)
        if new is None:
            tried = "; ".join(self.steps) or f"out of memory on {old}"
            raise DeviceMemoryError(
                f"Out of memory on every fallback ({tried}): close other programs or use a machine with more memory."
            )
        self._rung, self._batch_limit = new, new.batch or MAX_BATCH
        self.steps.append(f"out of memory on {old}: went on with {new}")
        _LOG.info(self.steps[-1])


def never_back(progress: Progress) -> Progress:
    """After a step down the ladder the samples start over; the fraction waits instead of falling."""
    highest = 0.0

    def report(stage: str, fraction: float, message: str = "") -> None:
        nonlocal highest
        highest = max(highest, fraction)
        progress(stage, highest, message)

    return report


@contextlib.contextmanager
def _float32_of(rung: Rung) -> Iterator[None]:
    """Within, float32 on CUDA keeps its 23 bits: since Ampere cuDNN would convolve in TF32, which has 10."""
    if rung.device.type != "cuda" or rung.precision is not torch.float32:
        yield
        return
    cudnn = torch.backends.cudnn
    if hasattr(cudnn, "conv"):  # a switch for each kind of operation: the old one can't be read where they differ
        switch, name, exact = cudnn.conv, "fp32_precision", "ieee"
    else:
        switch, name, exact = cudnn, "allow_tf32", False
    before = getattr(switch, name)
    setattr(switch, name, exact)
    try:
        yield
    finally:
        setattr(switch, name, before)


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    """torch's thread count within the block; the caller's own comes back after it."""
    before = torch.get_num_threads()
    if before == count:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
