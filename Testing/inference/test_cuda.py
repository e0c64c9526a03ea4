"""On a GPU: the CPU's numbers, graphs equal to eager execution, and the real ladder."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from MedVAELib.inference import Engine

from .networks import before_decoding, small_net

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
WEIGHTS = np.linspace(0, 1, 9, dtype=np.float32)


@pytest.fixture
def scan() -> np.ndarray:
    return np.random.default_rng(0).random((32, 48, 32), dtype=np.float32)


@pytest.mark.parametrize(("precision", "mean_tolerance", "tolerance"),
                         [("float32", 1e-4, 5e-3), ("auto", 0.01, 0.25)])
def test_gpu_agrees_with_cpu(scan, precision, mean_tolerance, tolerance):
    model = small_net()
    cpu, gpu = Engine("cpu", "float32").load(model), Engine("cuda", precision, batch=4).load(model)
    one = cpu.moments(cpu.encode(scan), 20, WEIGHTS)
    two = gpu.moments(gpu.encode(scan), 20, WEIGHTS)
    for name in ("probability", "reconstruction", "std"):
        difference = np.abs(getattr(one, name) - getattr(two, name))
        assert difference.mean() < mean_tolerance and difference.max() < tolerance, name
    assert gpu.describe()["cuda_graphs"]


def test_graph_equals_eager_and_serves_the_next_scan(scan):
    graphed, eager = (Engine("cuda", "float32", batch=4).load(small_net()) for _ in range(2))
    eager._use_graphs = False
    for x in (scan, scan[::-1].copy(), scan):
        one = graphed.moments(graphed.encode(x), 14, WEIGHTS)
        two = eager.moments(eager.encode(x), 14, WEIGHTS)
        np.testing.assert_allclose(one.std, two.std, atol=2e-3)
    assert graphed.describe()["cuda_graphs"] and not eager.describe()["cuda_graphs"]


def test_real_ladder_ends_on_the_cpu(scan):
    def only_on_the_cpu(z: Tensor) -> None:
        if z.is_cuda:
            raise torch.OutOfMemoryError("CUDA out of memory")

    engine = Engine("cuda", "float32", batch=4).load(before_decoding(small_net(), only_on_the_cpu))
    moments = engine.moments(engine.encode(scan), 4, WEIGHTS)
    assert engine.device.type == "cpu" and len(engine.steps) == 4
    cpu = Engine("cpu", "float32").load(small_net())
    np.testing.assert_allclose(moments.std, cpu.moments(cpu.encode(scan), 4, WEIGHTS).std, atol=5e-3)
