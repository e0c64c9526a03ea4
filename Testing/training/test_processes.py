"""Waiting for the processes that make a training's data can be cancelled."""

from __future__ import annotations

import time
from functools import partial
from itertools import count

import numpy as np
import pytest
import torch

from MedVAELib.errors import Cancelled
from MedVAELib.latent import train
from MedVAELib.progress import CancelToken
from MedVAELib.skull import outline_cases
from MedVAELib.training import brains, processes
from MedVAELib.training.processes import from_background


class Late:
    """Batches that take longer than a look at whether to go on waiting."""

    def __getitem__(self, number: int) -> int:
        time.sleep(1)
        return number


@pytest.fixture
def cancelled() -> CancelToken:
    token = CancelToken()
    token.cancel()
    return token


def test_waiting_for_a_batch_can_be_cancelled(monkeypatch, cancelled):
    monkeypatch.setattr(processes, "LOOK_S", 0.1)
    assert next(from_background(Late(), 1, lambda: None, count(3))) == 3
    with pytest.raises(Cancelled):
        next(from_background(Late(), 1, cancelled.check, count()))


@pytest.mark.parametrize(("module", "stream"), [
    (train, lambda cancel: train.image_batches(np.zeros((4, 1, 8, 8), np.float32), 2, 0, None, 1, cancel)(0)),
    (outline_cases, partial(outline_cases.outline_stream, None, 3, 0, 0, 1)),
    (brains, partial(brains.stream, None, torch.device("cpu"), 1, 0, 0, 1)),
])
def test_every_stream_lets_its_waiting_be_cancelled(monkeypatch, cancelled, module, stream):
    """That of skull cases tells how far they are, too: see the tests of its training."""

    def waits(batches, workers, waiting, *_, **__):
        waiting()
        yield "a batch"

    monkeypatch.setattr(module, "from_background", waits)
    with pytest.raises(Cancelled):
        next(stream(cancelled))
