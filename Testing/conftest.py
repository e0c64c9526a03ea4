"""Fixtures for all tests: the real data, where there is any, and a head made from ellipsoids, where there is none."""

from __future__ import annotations

import contextlib
import locale
import os
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: a cluster's workers have one, too

import numpy as np
import pytest
import SimpleITK as sitk

from MedVAELib.preprocessing.geometry import ras_grid, to_grid
from MedVAELib.resources import resource_dir

with contextlib.suppress(ImportError):  # comes with torch for CUDA: loaded after Mesa's LLVM, which draws the panel's
    import triton  # noqa: F401  # views, it ends the process as soon as an optimiser asks for it

_TEXT = locale.setlocale(locale.LC_CTYPE)


@pytest.fixture(autouse=True)
def text_stays_text():
    """SimpleITK's DICOM writer, which only tests use, leaves the process in the C locale, where text is ASCII."""
    locale.setlocale(locale.LC_CTYPE, _TEXT)
    yield
    locale.setlocale(locale.LC_CTYPE, _TEXT)


ROOT = Path(__file__).resolve().parents[1]

# Semi-axes in mm (left-right, posterior-anterior, inferior-superior) from outside in; the last painted wins.
_SHELLS = {"scalp": (78, 98, 88), "skull": (72, 92, 82), "csf": (67, 87, 77), "cortex": (64, 84, 74),
           "white": (58, 78, 68), "ventricle": (14, 30, 14)}
_INTENSITIES = {
    "flair": {"scalp": 160, "skull": 25, "csf": 10, "cortex": 130, "white": 100, "ventricle": 8},
    "dwi": {"scalp": 20, "skull": 8, "csf": 40, "cortex": 140, "white": 100, "ventricle": 38},
}


LONGEST = (
    "test_cohort.py", "panel/test_setup_panel.py", "worker/test_worker_failures.py",
    "test_batch.py", "worker/test_worker.py", "panel/test_anomaly_failures.py", "panel/test_anomaly_panel.py",
)


def pytest_collection_modifyitems(items):
    """The files that take longest come first: of several processes none then ends long after the others."""
    places = {ROOT / "Testing" / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


def pytest_terminal_summary(terminalreporter):
    """What tests measured (`record_property("figure", text)`) stands below their results; nothing depends on it."""
    figures = [text for report in terminalreporter.stats.get("passed", ()) for name, text in report.user_properties
               if name == "figure"]
    if figures:
        terminalreporter.section("measured")
        for text in figures:
            terminalreporter.write_line(text)


@pytest.fixture(scope="session")
def medvae_data() -> Path:
    """The folder of real scans: MEDVAE_DATA, else ../shared/data; without it the test is skipped."""
    folder = Path(os.environ.get("MEDVAE_DATA") or ROOT.parent / "shared" / "data")
    if not (folder / "brain").is_dir():
        pytest.skip(f"no real data at {folder}: set MEDVAE_DATA to run this test")
    return folder


def coarse_sample(size_xyz: Sequence[int], spacing_mm: float, turn: Sequence[float] = (0.0, 0.0, 0.0)) -> sitk.Image:
    """The bundled sample on a coarser grid around the same point, turned by angles about the axes."""
    source = sitk.ReadImage(str(resource_dir() / "sample" / "flair.nii.gz"), sitk.sitkFloat32)
    grid = ras_grid((0, 0, 0), size_xyz, spacing_mm)
    turned = np.array(sitk.Euler3DTransform((0, 0, 0), *turn).GetMatrix()).reshape(3, 3)
    grid.SetDirection((turned @ np.array(grid.GetDirection()).reshape(3, 3)).ravel().tolist())
    grid.SetOrigin((turned @ np.array(grid.GetOrigin())).tolist())
    return to_grid(source, grid)


def synthetic_head(size_ijk: Sequence[int] = (60, 72, 36), spacing_mm: Sequence[float] = (3.0, 3.0, 5.0),
                   direction: Sequence[Sequence[float]] = ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
                   center_ras_mm: Sequence[float] = (0.0, 0.0, 0.0), modality: str = "flair",
                   lesion_ras_mm: Sequence[float] | None = None, noise: float = 3.0, seed: int = 0) -> sitk.Image:
    """A float32 head of ellipsoids centred at RAS (0, 0, 0), sampled on any grid; `center_ras_mm` is the grid's.

    direction: LPS direction cosines as SimpleITK has them, one row per world axis. lesion_ras_mm: where a bright
    sphere of 10 mm radius lies, if at all. noise: standard deviation; white matter is 100.
    """
    size, spacing, cosines = np.array(size_ijk), np.array(spacing_mm, float), np.array(direction, float)
    middle_lps = np.array(center_ras_mm, float) * (-1, -1, 1)
    origin = middle_lps - cosines @ (spacing * (size - 1) / 2)
    index = np.stack(np.meshgrid(*(np.arange(n) for n in size), indexing="ij"), -1)
    ras = ((index * spacing) @ cosines.T + origin) * (-1, -1, 1)
    values = np.zeros(size, np.float32)
    for tissue, axes in _SHELLS.items():
        values[((ras / axes) ** 2).sum(-1) <= 1] = _INTENSITIES[modality][tissue]
    if lesion_ras_mm is not None:
        values[((ras - np.array(lesion_ras_mm)) ** 2).sum(-1) <= 100] = 220
    values += np.random.default_rng(seed).normal(0, noise, values.shape).astype(np.float32)
    image = sitk.GetImageFromArray(np.ascontiguousarray(values.transpose(2, 1, 0)))
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(origin.tolist())
    image.SetDirection(cosines.ravel().tolist())
    return image


@pytest.fixture(scope="session")
def head_image() -> Callable[..., sitk.Image]:
    """`synthetic_head`, to be called with the grid and modality that a test needs."""
    return synthetic_head
