"""Running out of memory: the ladder's steps, the same numbers after them, and an honest end."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from MedVAELib.errors import DeviceMemoryError
from MedVAELib.inference import Engine
from MedVAELib.inference.memory import Rung, is_out_of_memory, next_rung, samples_at_once

from .standin import FoldedStandIn, make_standin

WEIGHTS = np.linspace(0, 1, 9, dtype=np.float32)
CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


class Hungry(FoldedStandIn):
    """Runs out of memory when more than `limit` samples are decoded at once."""

    limit = 2
    error: BaseException = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    def decode_folded(self, z: Tensor, context) -> Tensor:
        if len(z) > self.limit:
            raise self.error
        return super().decode_folded(z, context)


@pytest.fixture
def scan() -> np.ndarray:
    return np.random.default_rng(0).random((32, 32, 32), dtype=np.float32)


def test_batch_shrinks_until_it_fits_and_the_numbers_stay(scan):
    log: list[str] = []
    engine = Engine("cpu", "float32", log=log.append, batch=9).load(make_standin(Hungry))
    fractions: list[float] = []
    moments = engine.moments(
        engine.encode(scan), 10, WEIGHTS, progress=lambda stage, fraction, message: fractions.append(fraction)
    )
    assert len(engine.steps) == 2 and all(step in log for step in engine.steps)  # 9, then 4, then 2
    assert fractions == sorted(fractions)
    wanted = Engine("cpu", "float32", batch=2).load(make_standin(FoldedStandIn))
    reference = wanted.moments(wanted.encode(scan), 10, WEIGHTS)
    np.testing.assert_array_equal(moments.std, reference.std)
    engine.moments(engine.encode(scan), 10, WEIGHTS)
    assert len(engine.steps) == 2  # remembered, not rediscovered


def test_end_of_the_ladder_is_one_sentence_with_exit_code_6(scan):
    model = make_standin(Hungry)
    model.limit = 0
    engine = Engine("cpu", "float32", batch=4).load(model)
    with pytest.raises(DeviceMemoryError, match="every fallback") as error:
        engine.moments(engine.encode(scan), 4, WEIGHTS)
    assert error.value.exit_code == 6 and "\n" not in str(error.value)
    assert len(engine.steps) == 2


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 5 GB)"), True),
        (RuntimeError("shape '[3]' is invalid for input of size 4"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_out_of_memory_is_recognised(error, expected):
    assert is_out_of_memory(error) is expected


def test_other_errors_are_not_swallowed(scan):
    model = make_standin(Hungry)
    model.error = RuntimeError("a bug")
    engine = Engine("cpu", "float32", batch=4).load(model)
    with pytest.raises(RuntimeError, match="a bug"):
        engine.moments(engine.encode(scan), 4, WEIGHTS)
    assert engine.steps == []


def test_ladder_from_gpu_to_cpu():
    rungs = [Rung(CUDA, torch.float32, 4)]
    while (rung := next_rung(rungs[-1], torch.bfloat16)) is not None:
        rungs.append(rung)
    assert [(r.device.type, r.precision, r.batch) for r in rungs] == [
        ("cuda", torch.float32, 4), ("cuda", torch.float32, 2), ("cuda", torch.float32, 1),
        ("cuda", torch.bfloat16, 1), ("cpu", torch.float32, 0),
    ]
    assert next_rung(Rung(CUDA, torch.bfloat16, 8), torch.bfloat16, batched=False).device == CPU


def test_samples_at_once_on_the_cpu():
    assert samples_at_once(CPU, 9, 80 * 96 * 80) == 1
    assert samples_at_once(CPU, 9, 40 * 48 * 40) == 7
    assert samples_at_once(CPU, 9, 256**3) == 1
    assert samples_at_once(CPU, 9, 100) == 16



def test_encoder_out_of_memory_falls_back_to_the_cpu(scan, monkeypatch):
    """The model on the 'GPU' raises; the engine goes on with the CPU and gives the CPU's numbers."""
    reference = Engine("cpu", "float32").load(make_standin(FoldedStandIn))
    wanted = reference.moments(reference.encode(scan), 3, WEIGHTS)

    engine = Engine("cpu", "float32").load(make_standin(FoldedStandIn))
    engine._rung = Rung(torch.device("meta"), torch.float32, 0)
    real = engine._on_device

    def on_device(tensor: Tensor) -> Tensor:
        if engine.device.type == "meta":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(tensor)

    monkeypatch.setattr(engine, "_on_device", on_device)
    moments = engine.moments(engine.encode(scan), 3, WEIGHTS)
    assert engine.device == CPU and len(engine.steps) == 1
    assert "meta in float32: went on with cpu in float32" in engine.steps[0]
    np.testing.assert_allclose(moments.std, wanted.std, atol=1e-6)
    assert engine.describe()["memory_steps"] == engine.steps
