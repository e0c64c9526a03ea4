"""A worker, and a scan for it."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from MedVAELib.preprocessing.geometry import ras_grid, to_grid
from MedVAELib.resources import resource_dir
from Testing.worker_process import WorkerProcess, handed_over


@pytest.fixture(scope="module")
def image():
    """The bundled sample on a coarser grid, tilted, so that geometry matters."""
    source = sitk.ReadImage(str(resource_dir() / "sample" / "flair.nii.gz"), sitk.sitkFloat32)
    grid = ras_grid((0, 0, 0), (80, 96, 80), 2.2)
    turn = np.array(sitk.Euler3DTransform((0, 0, 0), 0.05, 0.0, 0.1).GetMatrix()).reshape(3, 3)
    grid.SetDirection((turn @ np.array(grid.GetDirection()).reshape(3, 3)).ravel().tolist())
    grid.SetOrigin((turn @ np.array(grid.GetOrigin())).tolist())
    return sitk.Round(to_grid(source, grid))


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
