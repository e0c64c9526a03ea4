"""What the other side shows, on an ellipsoid of tissue with bright spots, straight and turned in the window."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from MedVAELib.anomaly.anatomy import Anatomy
from MedVAELib.anomaly.mirror import Mirror
from MedVAELib.inference import Encoded
from MedVAELib.preprocessing.geometry import physical_points, ras_grid
from MedVAELib.tissues import TISSUES, WHITE

SHAPE, SPACING_MM = (48, 64, 48), 4.0
RADII = np.array([19.0, 26.0, 17.0])  # voxels, z y x
LATERAL, DEEP, MIDDLE = (-12.0, 2.0, 13.0), (4.0, 2.0, 8.0), (2.0, 23.0, 0.0)


@pytest.fixture(params=[0.0, 9.0], ids=["straight", "turned"])
def head(request):
    """(anatomy, brain, spot): of a head that may be turned about the vertical axis and off the window's middle."""
    angle = np.radians(request.param)
    shift = np.array([1.0, 2.0, 1.5]) * (request.param > 0)
    z, y, x = np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in SHAPE), indexing="ij")
    z, y, x = z - shift[0], y - shift[1], x - shift[2]
    own = np.stack([z, y * np.cos(angle) + x * np.sin(angle), x * np.cos(angle) - y * np.sin(angle)])
    # A brain narrower in front, so that its pose can be told.
    width = RADII[2] * (1 - 0.25 * own[1] / RADII[1])
    radius = np.sqrt((own[0] / RADII[0]) ** 2 + (own[1] / RADII[1]) ** 2 + (own[2] / width) ** 2)
    probability = np.zeros((len(TISSUES), *SHAPE), np.float32)
    probability[WHITE] = ndimage.gaussian_filter((radius < 1).astype(np.float32), 0.7)
    probability[0] = 1 - probability[WHITE]
    grid = ras_grid((0, 0, 0), SHAPE, SPACING_MM)
    nothing = Encoded(SHAPE, torch.zeros(0), torch.zeros(0), [])
    anatomy = Anatomy(probability[WHITE], np.ones(SHAPE, bool), probability, nothing, grid, 1.0, 0.0, 1)

    def spot(place, side: int) -> np.ndarray:
        middle = np.array(place) * (1, 1, side)
        return np.sqrt(((own - middle[:, None, None, None]) ** 2).sum(0)) < 2

    return anatomy, radius < 1, spot


def share(head, *spots) -> list[float]:
    """The mirrored share in the middle of each spot, its brightness given with it."""
    anatomy, brain, _ = head
    score = np.full(SHAPE, 0.1, np.float32)
    for where, brightness in spots:
        score[where] = brightness
    found = Mirror(anatomy).share(score, brain, anatomy.grid)
    return [float(found[where].mean()) for where, _ in spots]


def test_bright_on_both_sides_near_the_surface_counts_as_symmetric(head):
    spot = head[2]
    assert min(share(head, (spot(LATERAL, 1), 5.0), (spot(LATERAL, -1), 5.0))) > 0.7
    weak, strong = share(head, (spot(LATERAL, 1), 2.0), (spot(LATERAL, -1), 5.0))
    assert weak > 0.7 and 0.2 < strong < 0.45


def test_what_lies_on_one_side_deep_or_in_the_middle_does_not(head):
    spot = head[2]
    assert share(head, (spot(LATERAL, 1), 5.0))[0] < 0.1
    assert max(share(head, (spot(DEEP, 1), 5.0), (spot(DEEP, -1), 5.0))) < 0.05
    assert share(head, (spot(MIDDLE, 1), 5.0))[0] < 0.05


def test_sides_are_told_from_the_turned_midplane(head):
    anatomy, _, spot = head
    mirror, places = Mirror(anatomy), physical_points(anatomy.grid)
    assert mirror.whole
    for side in (1, -1):
        assert mirror.side_mm(places[spot(LATERAL, side)]).mean() == pytest.approx(side * 52, abs=2)
    assert abs(mirror.side_mm(places[spot(MIDDLE, 1)]).mean()) < 2, "23 voxels in front of the middle"


def test_one_side_alone_is_no_mirror_image_of_itself(head):
    anatomy, brain, spot = head
    there = np.where(Mirror(anatomy).side_mm(physical_points(anatomy.grid)) > 0, 1.0, 0.0).astype(np.float32)
    half = replace(anatomy, probability=anatomy.probability * there)
    mirror = Mirror(half)
    assert not mirror.whole and mirror.alike < 0.8
    assert not mirror.share(np.where(spot(LATERAL, 1), 5.0, 0).astype(np.float32), brain, anatomy.grid).any()


def test_without_tissue_there_is_no_other_side(head):
    anatomy, brain, _ = head
    empty = Mirror(replace(anatomy, probability=np.zeros_like(anatomy.probability)))
    assert not empty.whole and not empty.share(np.ones(SHAPE, np.float32), brain, anatomy.grid).any()
