"""One CUDA graph per shape for decoding: launching hundreds of small kernels costs more than computing them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def shape_key(z: Tensor, context: list[Tensor]) -> tuple:
    """What a captured graph depends on."""
    return (z.dtype, z.device, *(tuple(t.shape) for t in (z, *context)))


class GraphedDecoder:
    """`decode(z, context)` captured once; later calls copy their inputs into the graph's own and replay it.

    Capturing also lets cuDNN time its algorithms for these shapes. The logits returned belong to the graph and
    are overwritten by the next call.
    """

    def __init__(self, decode: Callable[[Tensor, list[Tensor]], Tensor], z: Tensor, context: list[Tensor]):
        self._z = z.clone()
        self._context = [tensor.clone() for tensor in context]
        benchmark, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, True
        try:
            stream = torch.cuda.Stream(z.device)
            stream.wait_stream(torch.cuda.current_stream(z.device))
            with torch.cuda.stream(stream):
                for _ in range(3):
                    decode(self._z, self._context)
            torch.cuda.current_stream(z.device).wait_stream(stream)
            self._graph = torch.cuda.CUDAGraph()
            # On the stream of the warm-up, whose workspaces and cached blocks serve again.
            with torch.cuda.device(z.device), torch.cuda.graph(self._graph, stream=stream):
                self._logits = decode(self._z, self._context)
        finally:
            torch.backends.cudnn.benchmark = benchmark

    def load_context(self, context: list[Tensor]) -> None:
        """Take the context of another scan of the same shape."""
        for own, new in zip(self._context, context, strict=True):
            own.copy_(new, non_blocking=True)

    def __call__(self, z: Tensor) -> Tensor:
        """Logits for z of the captured shape, valid until the next call."""
        self._z.copy_(z, non_blocking=True)
        self._graph.replay()
        return self._logits
