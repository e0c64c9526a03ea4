"""Batch norm where several kinds of images pass one network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def statistics_kept(*modules: nn.Module) -> Iterator[None]:
    """Within, batch norms use the batch's statistics as ever in training, but do not remember them.

    What is masked or generated must not enter the statistics that real images are judged with later.
    """
    norms = [norm for module in modules for norm in module.modules() if isinstance(norm, _BatchNorm)]
    remembered = [norm.track_running_stats for norm in norms]
    buffers = [(norm.running_mean, norm.running_var) for norm in norms]
    for norm in norms:
        if norm.training:
            norm.running_mean = norm.running_var = None
            norm.track_running_stats = False
    try:
        yield
    finally:
        for norm, tracked, (mean, variance) in zip(norms, remembered, buffers, strict=True):
            norm.running_mean, norm.running_var, norm.track_running_stats = mean, variance, tracked
