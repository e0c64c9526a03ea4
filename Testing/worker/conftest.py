"""A worker, and a scan for it."""

from __future__ import annotations

import pytest
import SimpleITK as sitk

from Testing.conftest import coarse_sample
from Testing.worker_process import WorkerProcess, handed_over


@pytest.fixture(scope="module")
def image():
    """The bundled sample on a coarser grid, tilted, so that geometry matters."""
    return sitk.Round(coarse_sample((80, 96, 80), 2.2, turn=(0.05, 0.0, 0.1)))


@pytest.fixture(scope="module")
def worker():
    """One worker for all tests that leave it alive; it has said that it is ready."""
    with WorkerProcess() as process:
        assert process.receive()["event"] == "ready"
        yield process


@pytest.fixture
def fresh():
    with WorkerProcess() as process:
        yield process


@pytest.fixture
def scan(image, tmp_path):
    return handed_over(image, tmp_path)
