"""One CUDA graph per shape for decoding: launching hundreds of small kernels costs more than computing them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Tree = Tensor | list | tuple | dict
"""What a decoder needs beside z: tensors in any nesting of lists, tuples and dicts."""


def map_tensors(function: Callable[[Tensor], Tensor], tree: Tree) -> Tree:
    """The same nesting with `function` applied to every tensor; anything else stays as it is."""
    if isinstance(tree, Tensor):
        return function(tree)
    if isinstance(tree, dict):
        return {key: map_tensors(function, value) for key, value in tree.items()}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(map_tensors(function, value) for value in tree))
    if isinstance(tree, (list, tuple)):
        return type(tree)(map_tensors(function, value) for value in tree)
    return tree


def tensors_of(tree: Tree) -> list[Tensor]:
    """Every tensor of the nesting, in order."""
    found: list[Tensor] = []

    def collect(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    map_tensors(collect, tree)
    return found


def shape_key(z: Tensor, context: Tree) -> tuple:
    """What a captured graph depends on."""
    return (z.dtype, z.device, *(tuple(t.shape) for t in (z, *tensors_of(context))))


class GraphedDecoder:
    """`decode(z, context)` captured once; later calls copy their inputs into the graph's own and replay it.

    Capturing also lets cuDNN time its algorithms for these shapes. The logits returned belong to the graph and
    are overwritten by the next call.
    """

    def __init__(self, decode: Callable[[Tensor, Tree], Tensor], z: Tensor, context: Tree):
        self._z = z.clone()
        self._context = map_tensors(torch.clone, context)
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

    def load_context(self, context: Tree) -> None:
        """Take the context of another scan of the same shape."""
        for own, new in zip(tensors_of(self._context), tensors_of(context), strict=True):
            own.copy_(new, non_blocking=True)

    def __call__(self, z: Tensor) -> Tensor:
        """Logits for z of the captured shape, valid until the next call."""
        self._z.copy_(z, non_blocking=True)
        self._graph.replay()
        return self._logits
