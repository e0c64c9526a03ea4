"""Posterior samples drawn side by side on several threads."""

from __future__ import annotations

import threading
from functools import partial

import numpy as np
import pytest
import torch

from MedVAELib.errors import Cancelled, DeviceMemoryError
from MedVAELib.inference import Engine, lanes
from MedVAELib.inference.lanes import side_by_side
from MedVAELib.progress import CancelToken

from .networks import before_decoding, small_net

WEIGHTS = np.linspace(0, 1, 9, dtype=np.float32)


@pytest.fixture
def scan() -> np.ndarray:
    return np.random.default_rng(0).random((32, 48, 32), dtype=np.float32)


def engine_of(threads: int, model: torch.nn.Module, monkeypatch: pytest.MonkeyPatch, **settings) -> Engine:
    monkeypatch.setenv("OMP_NUM_THREADS", str(threads))
    return Engine("cpu", "float32", **settings).load(model)


def _note_fraction(fractions: list[float], stage: str, fraction: float, message: str = "") -> None:
    fractions.append(fraction)


def test_the_wait_for_lanes_can_be_interrupted_on_windows(monkeypatch):
    waited = []

    def wait(working, timeout=None, real=lanes.wait):
        waited.append(timeout)
        return real(working, timeout=timeout)

    monkeypatch.setattr(lanes, "wait", wait)
    assert side_by_side(lambda lane: 2 * lane, 3, 3) == [0, 2, 4]
    assert waited and all(0 < timeout < 1 for timeout in waited)


@pytest.mark.parametrize("samples", [1, 2, 7, 40])
def test_any_number_of_threads_gives_the_same_moments(scan, monkeypatch, samples):
    net = small_net(seed=1)
    alone = engine_of(1, net, monkeypatch, batch=1)
    wanted = alone.moments(alone.encode(scan), samples, WEIGHTS)
    for threads in (2, 3):
        engine = engine_of(threads, net, monkeypatch)
        fractions: list[float] = []
        found = engine.moments(engine.encode(scan), samples, WEIGHTS, progress=partial(_note_fraction, fractions))
        assert found.samples == samples and fractions == sorted(fractions) and fractions[-1] == 1
        for name in ("probability", "reconstruction", "std"):
            np.testing.assert_allclose(getattr(found, name), getattr(wanted, name), atol=1e-5, err_msg=name)
        again = engine.moments(engine.encode(scan), samples, WEIGHTS)
        np.testing.assert_array_equal(again.std, found.std)  # whoever is faster


def test_the_callers_threads_are_as_before(scan, monkeypatch):
    before = torch.get_num_threads()
    engine = engine_of(before + 1, small_net(seed=1), monkeypatch)
    engine.moments(engine.encode(scan), 8, WEIGHTS)
    assert torch.get_num_threads() == before
    seen: list[int] = []
    thread = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert seen == [before]


def test_each_lane_has_its_share_of_the_threads():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(6)
        assert side_by_side(lambda lane: (lane, torch.get_num_threads()), 3, 6) == [(0, 2), (1, 2), (2, 2)]
        assert torch.get_num_threads() == 6
    finally:
        torch.set_num_threads(before)


def test_a_cancellation_ends_every_lane(scan, monkeypatch):
    engine = engine_of(2, small_net(), monkeypatch, batch=2)
    encoded, cancel, done = engine.encode(scan), CancelToken(), []

    def progress(stage: str, fraction: float, message: str = "") -> None:
        done.append(fraction)
        if len(done) == 3:
            cancel.cancel()

    with pytest.raises(Cancelled):
        engine.moments(encoded, 1000, WEIGHTS, progress=progress, cancel=cancel)
    assert len(done) <= 5  # what the lanes had begun
    assert engine.moments(encoded, 4, WEIGHTS).samples == 4


def test_without_room_for_two_one_thread_goes_on(scan, monkeypatch):
    meeting = threading.Barrier(2)

    def act(_: torch.Tensor) -> None:
        try:
            meeting.wait(timeout=0.5)
        except threading.BrokenBarrierError:
            return
        raise MemoryError("no room for two")

    engine = engine_of(2, before_decoding(small_net(), act), monkeypatch)
    assert engine.moments(engine.encode(scan), 2, WEIGHTS).samples == 2
    assert len(engine.steps) >= 1 and engine.describe()["samples_at_once"] == 1


def test_an_error_in_a_lane_reaches_the_caller(scan, monkeypatch):
    def act(_: torch.Tensor) -> None:
        raise MemoryError("never any room")

    engine = engine_of(2, before_decoding(small_net(), act), monkeypatch)
    with pytest.raises(DeviceMemoryError):
        engine.moments(engine.encode(scan), 4, WEIGHTS)
