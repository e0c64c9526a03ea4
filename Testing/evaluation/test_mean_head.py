"""The baseline is exact where it can be: on heads that are the mean head, scaled."""

from __future__ import annotations

import numpy as np
import pytest

from MedVAELib.errors import InputError
from MedVAELib.evaluation.mean_head import MeanHead, extents_mm, visible_extents
from MedVAELib.evaluation.skull_metrics import Solid, agreement
from MedVAELib.resources import resource_dir
from MedVAELib.skull.config import SkullRun
from MedVAELib.training.config import read_config

SPACING = 1.3


def egg(height, ofd, bpd, shift_mm=(0.0, 0.0, 0.0), spacing_mm=SPACING, size=96):
    """A head-like egg, blunter at the back, of these extents in mm: zyx."""
    axes = [(np.arange(size) - (size - 1) / 2) * spacing_mm - s for s in shift_mm]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    y = y / (ofd / 2)
    taper = 1 - 0.15 * np.clip(y, -1, 1)
    radius = np.sqrt((z / (height / 2) / taper) ** 2 + y**2 + (x / (bpd / 2) / taper) ** 2)
    return Solid((1 - radius) * min(height, ofd, bpd) / 2, spacing_mm)


def outlines(head):
    """The three mid-planes of a head as canonical maps, antialiased."""
    field = np.roll(head.field, np.round(47.5 - head.centroid).astype(int), (0, 1, 2))
    cuts = {"axial": field[48], "sagittal": field[:, :, 48], "coronal": field[:, 48]}
    return {plane: np.clip(0.5 + cut / head.spacing_mm, 0, 1) for plane, cut in cuts.items()}


@pytest.fixture(scope="module")
def mean():
    return MeanHead.of([egg(80, 100, 78), egg(84, 110, 80, shift_mm=(3.0, -4.0, 2.0))])


def test_extents_between_voxels():
    assert extents_mm(egg(71.3, 97.7, 69.1)) == pytest.approx([71.3, 97.7, 69.1], abs=1.2)


def test_a_scaled_mean_head_is_found_exactly(mean):
    field = mean.scaled(height=75.0, ofd=108.0, bpd=82.0, spacing_mm=SPACING)
    true = Solid(field, SPACING)
    assert extents_mm(true) == pytest.approx([75, 108, 82], abs=0.4)
    for planes in (("axial", "sagittal", "coronal"), ("axial", "sagittal"), ("axial", "coronal"),
                   ("sagittal", "coronal")):
        seen = {plane: outlines(true)[plane] for plane in planes}
        found = agreement(Solid(mean.predict(seen, SPACING), SPACING), true)
        assert found.dice > 0.985 and found.hausdorff_mm < 1.0 and found.surface_mm < 0.4, planes


def test_one_plane_leaves_the_third_extent_to_the_mean_ratio(mean):
    seen = visible_extents({"axial": outlines(egg(60.0, 105.0, 82.0))["axial"]}, SPACING)
    assert set(seen) == {"ofd", "bpd"} and seen["ofd"] == pytest.approx(105, abs=1.5)
    complete = mean.complete(seen)
    assert complete["ofd"] == seen["ofd"] and complete["height"] > 75  # a flat head's height is not seen
    assert mean.ratios["ofd"] == 1 and mean.ratios["height"] == pytest.approx(0.78, abs=0.03)


def test_an_extent_shown_twice_is_averaged():
    axial, sagittal = np.zeros((2, 96, 96))
    axial[10:60, 20:60] = 1
    sagittal[30:60, 10:50] = 1
    assert visible_extents({"axial": axial, "sagittal": sagittal}, 2.0) == {"ofd": 90, "bpd": 80, "height": 60}


@pytest.mark.parametrize("maps", [{}, {"axial": np.zeros((96, 96))}])
def test_nothing_seen_is_refused(mean, maps):
    with pytest.raises(ValueError, match="no plane"):
        mean.predict(maps, SPACING)


def test_the_shipped_mean_head_is_of_the_training_heads():
    data = read_config(resource_dir() / "configs" / "fetal-skull.yaml", SkullRun).data
    shipped = MeanHead.shipped()
    assert list(shipped.names) == [name for name in data.train if "SB" not in name]
    head = Solid(shipped.scaled(70.0, 100.0, 80.0, SPACING), SPACING)
    assert extents_mm(head) == pytest.approx([70, 100, 80], abs=0.5)
    assert 0.7 < shipped.ratios["height"] < 0.85 and 0.75 < shipped.ratios["bpd"] < 0.9


def test_what_is_no_mean_head_is_said_so(tmp_path, mean):
    mean.write(tmp_path / "mean.safetensors")
    again = MeanHead.read(tmp_path / "mean.safetensors")
    assert again.ratios == mean.ratios and np.abs(again.field - mean.field).max() < 1e-3
    (tmp_path / "other.safetensors").write_bytes(b"something else")
    for name in ("other.safetensors", "missing.safetensors"):
        with pytest.raises(InputError, match="no mean head"):
            MeanHead.read(tmp_path / name)
