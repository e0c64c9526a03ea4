"""What a batch has in common when several processes compute a part of it each: its mean, and batch norm's statistics.

In one process, and outside of `shared_batch`, all of this is what plain torch does. Gradients are meant to be averaged
over the processes afterwards, as the trainer does; then they are those of one process with the whole batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as distributed
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

_shared = False


@contextmanager
def shared_batch() -> Iterator[None]:
    """Within, every process works on its part of one batch. What one of them computes alone, as a validation, must not
    wait for the others."""
    global _shared
    before, _shared = _shared, distributed.is_available() and distributed.is_initialized()
    try:
        yield
    finally:
        _shared = before


def process_count() -> int:
    """Processes that share the batch, 1 if it is not shared."""
    return distributed.get_world_size() if _shared else 1


def first_row(count: int) -> int:
    """Which row of the whole batch this process's first one is, of `count`."""
    return distributed.get_rank() * count if _shared else 0


class _MeanOverProcesses(torch.autograd.Function):
    @staticmethod
    def forward(context, value: Tensor) -> Tensor:
        return _mean(value)

    @staticmethod
    def backward(context, gradient: Tensor) -> Tensor:
        # Each process's loss depends on each one's value; the average of gradients later divides by their number again.
        return _mean(gradient)


def _mean(value: Tensor) -> Tensor:
    total = value.detach().clone(memory_format=torch.contiguous_format)
    distributed.all_reduce(total)
    return total / process_count()


def mean_over_processes(value: Tensor) -> Tensor:
    """The mean of every process's tensor, all of one shape; differentiable."""
    return _MeanOverProcesses.apply(value) if process_count() > 1 else value


def batch_mean(value: Tensor) -> Tensor:
    """Mean over the first axis of the whole batch, (B, …) → (…); to be used where what follows is not linear."""
    return mean_over_processes(value.mean(0))


def gathered(value: Tensor) -> Tensor:
    """Every process's rows (B, …) in the order of the processes, without gradient: the whole batch's."""
    if process_count() == 1:
        return value
    parts = [torch.empty_like(value, memory_format=torch.contiguous_format) for _ in range(process_count())]
    distributed.all_gather(parts, value.detach().contiguous())
    return torch.cat(parts)


class SyncedBatchNorm(_BatchNorm):
    """Batch norm with the statistics of the whole batch; torch's own such layer needs a GPU."""

    def _check_input_dim(self, input: Tensor) -> None:
        """Any number of axes."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or process_count() == 1:
            return super().forward(input)
        axes, shape = (0, *range(2, input.dim())), (1, -1, *[1] * (input.dim() - 2))
        values = input.float()
        rows = values.new_full((input.shape[1],), input.numel() // input.shape[1], dtype=torch.float64)
        # One exchange instead of two; in double precision, in which the difference of the two means is exact enough.
        # Sums, not means: the parts may differ in size, and one of them be empty.
        sums = torch.stack([values.sum(axes, dtype=torch.float64), values.double().square().sum(axes), rows])
        total, squares, share = mean_over_processes(sums).unbind(0)
        mean, square = (part / share.clamp(min=1 / process_count()) for part in (total, squares))
        variance = (square - mean.square()).clamp(min=0).float()
        mean = mean.float()
        if self.running_mean is not None:
            self._remember(mean, variance, share[0] * process_count())
        scale = (variance + self.eps).rsqrt()
        if self.affine:
            scale = scale * self.weight
        result = (values - mean.view(shape)) * scale.view(shape)
        return (result + self.bias.view(shape) if self.affine else result).to(input.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        """count: values per channel in the whole batch; of none, nothing is learned."""
        there = (count > 0).to(mean.dtype)
        self.num_batches_tracked += there.to(self.num_batches_tracked.dtype)
        share = 1 / float(self.num_batches_tracked.clamp(min=1)) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share * there)
        self.running_var.lerp_(variance * (count / (count - 1).clamp(min=1)).to(mean.dtype), share * there)


def with_synced_norms(module: nn.Module) -> nn.Module:
    """The module with every batch norm replaced by one over all processes, of the same weights and names."""
    for name, child in module.named_children():
        if isinstance(child, _BatchNorm) and not isinstance(child, SyncedBatchNorm):
            synced = SyncedBatchNorm(child.num_features, child.eps, child.momentum, child.affine,
                                     child.track_running_stats)
            synced.weight, synced.bias = child.weight, child.bias
            for buffer in ("running_mean", "running_var", "num_batches_tracked"):
                setattr(synced, buffer, getattr(child, buffer))
            synced.train(child.training)
            setattr(module, name, synced)
        else:
            with_synced_norms(child)
    return module
