"""Runs an anatomy network on whatever the machine has: encode once, decode many posterior samples, stream moments."""

from __future__ import annotations

import copy
import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..failures import is_out_of_memory
from ..models.gaussians import kl_to_standard_normal
from ..networks.healthy_anatomy import HealthyAnatomyNet
from ..progress import CancelToken, Progress, no_progress
from .graphs import GraphedDecoder, shape_key
from .ladder import PlacedModel, never_back
from .lanes import side_by_side
from .memory import samples_at_once
from .moments import Moments, RunningMoments, posterior_noise
from .slabs import SlabDecoder

_BATCHES_WORTH_A_GRAPH = 3  # capturing decodes four times, and launches are a small part of a large batch's time


@dataclass
class Encoded:
    """A scan behind the encoder: its grid (D, H, W), posterior mean and logvar (1, Z, d, h, w) in float32 on the CPU,
    and the skips on the device that encoded it. Keep it to decode again without encoding."""

    grid: tuple[int, int, int]
    mean: Tensor
    logvar: Tensor
    skips: list[Tensor]
    _mean_probability: NDArray[np.float32] | None = field(default=None, repr=False)
    _context: tuple[torch.device, torch.dtype, list[Tensor]] | None = field(default=None, repr=False)


class Engine(PlacedModel):
    """One place for device, precision, memory layout, batching and CUDA graphs of a `HealthyAnatomyNet`.

    device, precision: as in `select_device`. batch: posterior samples decoded at once, on a CPU shared out among its
    threads; chosen by device and memory when None. Probabilities agree between batch sizes to 1e-5 and between devices
    to 1e-3 in float32, which on CUDA is computed without TF32's shorter mantissa; bfloat16 and float16 agree with
    float32 to 0.1 at single voxels and 0.01 on average.
    """

    _model: HealthyAnatomyNet
    _graph: tuple[tuple, GraphedDecoder] | None = None  # of the last shape: each holds its own memory
    _use_graphs = True

    # --------------------------------------------------------------------------------------------------- set-up

    def describe(self) -> dict[str, object]:
        """Device, precision, threads, reasons and ladder steps, for the provenance."""
        return {**super().describe(), "cuda_graphs": self._graph is not None}

    def _forget(self) -> None:
        self._graph = None

    def _place_model(self) -> None:
        # Tensors made in inference mode would have no gradients, which `kl_gradient` needs.
        with torch.inference_mode(False), torch.no_grad():
            model = copy.deepcopy(self._fused)
            self._model = model.to(device=self.device, dtype=self.precision, memory_format=self._memory_format)

    # ------------------------------------------------------------------------------------------------ computing

    def encode(self, x: NDArray[np.float32]) -> Encoded:
        """x: one scan, (D, H, W). Raises DeviceMemoryError when no step of the ladder fits."""

        def work() -> Encoded:
            posterior = self._model.encode(self._on_device(torch.from_numpy(x)[None, None]))
            return Encoded(x.shape, posterior.mean.float().cpu(), posterior.logvar.float().cpu(), posterior.skips)

        return self._attempt(work, batched=False)

    def kl_gradient(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """∂ KL(q(z|x) ‖ N(0, 1)) / ∂x, float32 (D, H, W) (Zimmerer et al. 2019). x as in `encode`."""

        def work() -> NDArray[np.float32]:
            with torch.inference_mode(False), torch.enable_grad():
                batch = self._on_device(torch.from_numpy(x)[None, None]).clone().requires_grad_(True)
                posterior = self._model.encode(batch)
                mean, logvar = posterior.mean.float(), posterior.logvar.float()
                kl = kl_to_standard_normal((mean, logvar)).sum()
                (gradient,) = torch.autograd.grad(kl, batch)
            return gradient[0, 0].float().cpu().numpy()

        return self._attempt(work, batched=False)

    def decode_mean(self, encoded: Encoded) -> NDArray[np.float32]:
        """Class probabilities at z = posterior mean, float32 (K, D, H, W); kept with `encoded`, so leave them as
        they are."""

        def work() -> NDArray[np.float32]:
            logits = self._model.decode_with_context(self._on_device(encoded.mean), self._context(encoded))
            return torch.softmax(logits, 1, dtype=torch.float32)[0].cpu().numpy()

        if encoded._mean_probability is None:
            encoded._mean_probability = self._attempt(work, batched=False)
        return encoded._mean_probability

    def moments(
        self,
        encoded: Encoded,
        samples: int,
        weights: NDArray[np.floating],
        seed: int = 0,
        progress: Progress = no_progress,
        cancel: CancelToken | None = None,
    ) -> Moments:
        """Moments over `samples` ≥ 1 draws of z ~ q(z|x) of the probabilities and of Σₖ weightsₖ pₖ.

        weights: intensity of each class (K,). The draws depend on the seed and the sample's index only, so batch size
        and device do not change them. Raises Cancelled between two batches, DeviceMemoryError when no step of the
        ladder fits.
        """
        cancel, progress = cancel or CancelToken(), never_back(progress)
        intensities = torch.as_tensor(weights, dtype=torch.float32)

        def work() -> Moments:
            return self._all_samples(encoded, samples, intensities, seed, progress, cancel)

        return self._attempt(work, batched=True)

    def _all_samples(
        self, encoded: Encoded, samples: int, weights: Tensor, seed: int, progress: Progress, cancel: CancelToken
    ) -> Moments:
        threads = self.threads if self.device.type == "cpu" else 1
        wanted = self._batch or samples_at_once(self.device, len(weights), int(np.prod(encoded.grid)), threads)
        at_once = min(wanted, self._batch_limit, samples)
        self._rung = replace(self._rung, batch=at_once)
        lanes = min(threads, at_once)
        batch = at_once // lanes
        std, shape = (0.5 * encoded.logvar).exp(), tuple(encoded.mean.shape[1:])
        self._context(encoded)  # before the lanes ask for it
        lock, done, grid = threading.Lock(), 0, tuple(side // 2 for side in encoded.grid)  # that of folded logits

        def work(lane: int) -> RunningMoments:
            """Every lanes-th batch: which samples meet in one sum does not depend on who is faster."""
            nonlocal done
            decode = self._piecewise_decoder(encoded, batch, samples // at_once)
            running = RunningMoments(int(np.prod(grid)), weights, self.device)
            for first in range(lane * batch, samples, lanes * batch):
                cancel.check()
                size = min(batch, samples - first)
                noise = torch.stack([posterior_noise(shape, seed, first + i) for i in range(size)])
                z = self._on_device(encoded.mean + std * noise)
                for pieces in decode(z):
                    running.update(pieces)
                with lock:
                    done += size
                    progress("sampling", done / samples, f"{done} of {samples} posterior samples")
            return running

        first, *others = side_by_side(work, lanes, threads)
        for other in others:
            first.merge(other)
        return first.result(grid)

    def _piecewise_decoder(
        self, encoded: Encoded, batch: int, full_batches: int
    ) -> Callable[[Tensor], Iterable[Iterable[Tensor]]]:
        """How to decode z into the folded logits of some of its samples after others, each piece after piece along the
        grid's first axis."""
        context = self._context(encoded)
        if self.device.type == "cpu":
            return SlabDecoder(self._model, context)
        decode, graph = self._model.decode_folded, None

        def decode_whole(z: Tensor) -> Iterable[Iterable[Tensor]]:
            nonlocal graph
            if len(z) == batch and graph is None:
                graph = self._graphed(z, context, worth_it=full_batches >= _BATCHES_WORTH_A_GRAPH)
            return [[graph(z) if graph is not None and len(z) == batch else decode(z, context)]]

        return decode_whole

    def _context(self, encoded: Encoded) -> list[Tensor]:
        """What the decoder needs of this scan beside z, on the present device; computed once."""
        if encoded._context is None or encoded._context[:2] != (self.device, self.precision):
            encoded._context = None
            encoded.skips = [self._on_device(skip) for skip in encoded.skips]
            encoded._context = (self.device, self.precision, self._model.prepare_context(encoded.skips))
        return encoded._context[2]

    def _graphed(self, z: Tensor, context: list[Tensor], worth_it: bool) -> GraphedDecoder | None:
        """The CUDA graph of this shape, or None where there are no graphs, or none yet and it is not worth one."""
        if z.device.type != "cuda" or not self._use_graphs:
            return None
        key = shape_key(z, context)
        if self._graph is not None and self._graph[0] == key:
            self._graph[1].load_context(context)
            return self._graph[1]
        if not worth_it:
            return None
        self._graph = None  # before, so that there is room for it
        try:
            self._graph = (key, GraphedDecoder(self._model.decode_folded, z, context))
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            # Not every operation can be captured; the numbers are the same without, only slower.
            self._use_graphs = False
            logging.getLogger(__name__).info("CUDA graphs are off: %s", str(error).splitlines()[0][:160])
            return None
        return self._graph[1]

    def _on_device(self, tensor: Tensor) -> Tensor:
        """On the present device, in the present precision and memory format; pinned and asynchronous for CUDA."""
        # Asynchronous this way only: other copies, as back to the CPU, may be read before they have arrived.
        pinned = self.device.type == "cuda" and tensor.device.type == "cpu"
        if pinned:
            tensor = tensor.to(self.precision).pin_memory()
        tensor = tensor.to(device=self.device, dtype=self.precision, non_blocking=pinned)
        return tensor.contiguous(memory_format=self._memory_format)
