"""Running out of memory: the ladder's steps, the same numbers after them, and an honest end."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
import torch
from torch import Tensor

from MedVAELib.errors import DeviceMemoryError
from MedVAELib.failures import is_out_of_memory
from MedVAELib.inference import Engine
from MedVAELib.inference.memory import Rung, next_rung, samples_at_once
from MedVAELib.networks.healthy_anatomy import HealthyAnatomyNet

from ..fake_cuda import CPU, pretended
from .networks import before_decoding, small_net

WEIGHTS = np.linspace(0, 1, 9, dtype=np.float32)
CUDA = torch.device("cuda", 0)
NO_ROOM = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def hungry(limit: int = 2, error: Exception = NO_ROOM) -> HealthyAnatomyNet:
    """Fails, by default for lack of memory, when more than `limit` samples are decoded at once."""

    def act(z: Tensor) -> None:
        if len(z) > limit:
            raise error

    return before_decoding(small_net(), act)


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    """Several would decode a batch's samples apart."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def scan() -> np.ndarray:
    return np.random.default_rng(0).random((32, 32, 32), dtype=np.float32)


def test_batch_shrinks_until_it_fits_and_the_numbers_stay(scan, caplog):
    caplog.set_level("INFO")
    engine = Engine("cpu", "float32", batch=9).load(hungry())
    fractions: list[float] = []
    moments = engine.moments(
        engine.encode(scan), 10, WEIGHTS, progress=lambda stage, fraction, message: fractions.append(fraction)
    )
    assert len(engine.steps) == 2 and caplog.messages[-2:] == engine.steps  # 9, then 4, then 2
    assert fractions == sorted(fractions)
    wanted = Engine("cpu", "float32", batch=2).load(small_net())
    reference = wanted.moments(wanted.encode(scan), 10, WEIGHTS)
    np.testing.assert_array_equal(moments.std, reference.std)
    engine.moments(engine.encode(scan), 10, WEIGHTS)
    assert len(engine.steps) == 2  # remembered, not rediscovered


def test_end_of_the_ladder_is_one_sentence_with_exit_code_6(scan):
    engine = Engine("cpu", "float32", batch=4).load(hungry(limit=0))
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
        (RuntimeError("Failed to allocate memory for image."), True),
        (RuntimeError("Invalid buffer size: 24.00 GiB"), True),
        (RuntimeError("shape '[3]' is invalid for input of size 4"), False),
        (ValueError("out of memory"), False),
        (ImportError("libXau.so.6: failed to map segment from shared object"), True),
        (OSError(12, "Cannot allocate memory"), True),
        (ImportError("x.so: failed to map segment from shared object: Operation not permitted"), False),
        (ImportError("x.so: failed to map segment from shared object: Permission denied"), False),
        (OSError(28, "No space left on device"), False),
    ],
)
def test_out_of_memory_is_recognised(error, expected):
    assert is_out_of_memory(error) is expected


def test_other_errors_are_not_swallowed(scan):
    engine = Engine("cpu", "float32", batch=4).load(hungry(error=RuntimeError("a bug")))
    with pytest.raises(RuntimeError, match="a bug"):
        engine.moments(engine.encode(scan), 4, WEIGHTS)
    assert engine.steps == []


def test_ladder_from_gpu_to_cpu():
    rungs = [Rung(CUDA, torch.float32, 4)]
    while (rung := next_rung(rungs[-1], torch.bfloat16)) is not None:
        rungs.append(rung)
    assert [(r.device.type, r.precision, r.batch) for r in rungs] == [
        ("cuda", torch.float32, 4),
        ("cuda", torch.float32, 2),
        ("cuda", torch.float32, 1),
        ("cuda", torch.bfloat16, 1),
        ("cpu", torch.float32, 0),
    ]
    assert next_rung(Rung(CUDA, torch.bfloat16, 8), torch.bfloat16, batched=False).device == CPU


def test_samples_at_once_on_the_cpu():
    assert samples_at_once(CPU, 9, 80 * 96 * 80) == 2
    assert samples_at_once(CPU, 9, 40 * 48 * 40) == 7
    assert samples_at_once(CPU, 9, 256**3) == 2
    assert samples_at_once(CPU, 9, 100) == 16
    assert samples_at_once(CPU, 9, 80 * 96 * 80, threads=4) == 8
    assert samples_at_once(CPU, 9, 80 * 96 * 80, threads=64) == 16


def test_samples_at_once_on_cuda_count_what_torch_keeps_and_are_a_power_of_two(monkeypatch):
    voxels = 80 * 96 * 80
    one = 4 * 12 * 9 * voxels * 4  # bytes that have to be free for one sample
    for free, kept, used, expected in ((11, 0, 0, 8), (3, 7, 2, 8), (100, 0, 0, 16), (1, 5, 5, 1), (0, 0, 0, 1)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free * one, 1 << 40))
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device, kept=kept: kept * one)
        monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device, used=used: used * one)
        assert samples_at_once(CUDA, 9, voxels) == expected


class TooLarge(HealthyAnatomyNet):
    """Runs out of memory when it encodes on a device, and when it is placed there in bfloat16."""

    placed: list[tuple[str, torch.dtype]]
    there: weakref.WeakSet

    def to(self, device: str | torch.device, dtype: torch.dtype, **options):
        assert not self.there, "the model of the step before is still there"
        kind = torch.device(device).type
        self.placed.append((kind, dtype))
        if dtype is torch.bfloat16:
            raise torch.OutOfMemoryError("CUDA out of memory")
        if kind != "cpu":
            self.there.add(self)
        return super().to(device=device, dtype=dtype, **options)

    def encode(self, x: Tensor):
        if x.device.type != "cpu":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().encode(x)


@pytest.fixture
def too_large(monkeypatch) -> TooLarge:
    monkeypatch.setattr(TooLarge, "placed", [], raising=False)
    monkeypatch.setattr(TooLarge, "there", weakref.WeakSet(), raising=False)
    return small_net(TooLarge)


def test_the_old_model_is_let_go_before_the_next_is_placed_which_may_run_out_of_memory_too(scan, too_large):
    with pretended("cuda"):
        engine = Engine("cuda", "float32").load(too_large)
        assert engine.encode(scan).grid == scan.shape
    assert TooLarge.placed[0] == ("cpu", torch.float32)  # where it is fused
    assert TooLarge.placed[1:] == [("cuda", torch.float32), ("cuda", torch.bfloat16), ("cpu", torch.float32)]
    assert len(engine.steps) == 2


def test_an_operation_that_the_device_lacks_ends_on_the_cpu_for_good(scan, caplog):
    caplog.set_level("INFO")

    class Lacking(HealthyAnatomyNet):
        places = ("cuda",)

        def encode(self, x: Tensor):
            if x.device.type in self.places:
                raise NotImplementedError("The operator 'aten::slow_conv3d' is not implemented\nfor this device")
            return super().encode(x)

    with pretended("cuda"):
        engine = Engine("cuda", "float32").load(small_net(Lacking))
        caplog.clear()
        engine.encode(scan)
        assert engine.device == CPU and engine.steps == []  # a warm process would start over after steps
        (said,) = caplog.messages
        assert "aten::slow_conv3d" in said and "cpu" in said and "\n" not in said
        assert said in engine.describe()["reasons"]
        Lacking.places = ("cpu",)  # a bug
        with pytest.raises(NotImplementedError, match="slow_conv3d"):
            engine.encode(scan)


def test_encoder_out_of_memory_falls_back_to_the_cpu(scan, too_large):
    """The model on the device raises; the engine goes on with the CPU and gives the CPU's numbers."""
    reference = Engine("cpu", "float32").load(small_net())
    wanted = reference.moments(reference.encode(scan), 3, WEIGHTS)
    with pretended("mps"):  # which has no step of half precision
        engine = Engine("mps", "float32").load(too_large)
        moments = engine.moments(engine.encode(scan), 3, WEIGHTS)
    assert engine.device == CPU and len(engine.steps) == 1
    assert "mps in float32: went on with cpu in float32" in engine.steps[0]
    np.testing.assert_allclose(moments.std, wanted.std, atol=1e-6)
    assert engine.describe()["memory_steps"] == engine.steps
