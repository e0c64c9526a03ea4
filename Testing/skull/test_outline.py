"""Outlines on plane images: there and back between image and network's grid, cleaned, and judged plane by plane."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from MedVAELib.errors import InputError
from MedVAELib.preprocessing.outlines import ellipse_map, moment_ellipse
from MedVAELib.skull.outline import NETWORK_SIZE, clean, image_position, judge, letterbox, unletterbox
from MedVAELib.skull.planes import PlaneImage

sizes = st.tuples(st.integers(60, 700), st.integers(60, 700))


def blob(shape: tuple[int, int], centre: tuple[float, float], radius: float) -> np.ndarray:
    y, x = np.mgrid[: shape[0], : shape[1]]
    return np.clip(radius - np.hypot(y - centre[0], x - centre[1]) + 0.5, 0, 1).astype(np.float32)


@settings(max_examples=25, deadline=None)
@given(shape=sizes, place=st.tuples(st.floats(0.3, 0.7), st.floats(0.3, 0.7)))
def test_there_and_back(shape, place):
    centre = (place[0] * shape[0], place[1] * shape[1])
    picture = blob(shape, centre, 0.25 * min(shape))
    small = letterbox(picture)
    assert small.shape == (NETWORK_SIZE, NETWORK_SIZE)
    found = moment_ellipse(small[None])
    tolerance = 0.6 * max(1.0, max(shape) / NETWORK_SIZE)
    assert image_position(found.centre[0].tolist(), shape) == pytest.approx(centre, abs=tolerance)
    back = unletterbox(small, shape)
    assert back.shape == shape and np.abs(back - picture).mean() < 0.02


@pytest.mark.parametrize("shape", [(540, 800), (298, 800), (800, 302)])
def test_one_scale_for_both_axes(shape):
    """Also where the shorter edge does not come to whole pixels."""
    axes = moment_ellipse(letterbox(blob(shape, (shape[0] / 2, shape[1] / 2), 120))[None]).semi_axes[0]
    assert (axes * 800 / NETWORK_SIZE).tolist() == pytest.approx([120.0, 120.0], abs=0.15)


def test_the_largest_part_is_kept_whole_and_sharp():
    soft = torch.tensor(blob((192, 192), (90, 100), 50))
    soft = torch.nn.functional.avg_pool2d(soft[None, None], 9, 1, 4)[0, 0]  # an unsure network's wide edge
    soft[85:95, 95:105] = 0.1  # a hole
    soft[5:12, 5:12] = 0.9  # a speck
    found = clean(soft, "plane")
    assert float(found.sum()) == pytest.approx(np.pi * 50**2, rel=0.01)
    assert float(found[90, 100]) == 1 and float(found[:15, :15].sum()) == 0
    assert float(((found > 0.02) & (found < 0.98)).sum()) < 2 * np.pi * 50 * 2


def test_a_strand_that_hangs_on_to_the_head_is_none_of_it():
    head = torch.tensor(blob((192, 192), (90, 100), 40))
    torn = head.clone()
    torn[100:106, 20:70] = 1.0  # a bright line that runs up to it
    assert float((clean(torn, "plane") - clean(head, "plane")).abs().sum()) < 0.35 * 6 * 40
    base = head.clone()
    base[110:] = 0  # cut off flat
    assert float((clean(base, "plane") - base).abs().sum()) < 0.01 * float(base.sum())


@pytest.mark.parametrize("probability", [torch.zeros(192, 192), torch.full((192, 192), 0.5),
                                         torch.tensor(blob((192, 192), (50, 50), 5))])  # fmt: skip
def test_nothing_like_a_head(probability):
    with pytest.raises(InputError, match="scan.png"):
        clean(probability, "scan.png (axial)")


def test_a_base_is_no_reason_to_doubt_a_sagittal_plane():
    """A head cut off flat below, as the skull's base does, departs from an ellipse further than an axial one may."""
    image = PlaneImage(np.zeros((192, 192), np.float32), 0.6)
    head = ellipse_map(moment_ellipse(torch.tensor(blob((192, 192), (90, 96), 70))[None]), 192, 192)[0]
    head[126:] = 0
    assert not judge("sagittal", image, head, 1.0).doubts
    assert any("no oval" in doubt for doubt in judge("axial", image, head, 1.0).doubts)


def test_confidence_is_judged():
    image = PlaneImage(np.zeros((192, 192), np.float32), 0.6)
    head = torch.tensor(blob((192, 192), (96, 96), 70))
    assert not judge("axial", image, head, 0.9).doubts
    assert "does not look like" in judge("axial", image, head, 0.2).doubts[0]
