"""A plane goes to the outline network's square and back without moving."""

from __future__ import annotations

import pytest
import torch

from MedVAELib.preprocessing.outline_input import SIDE, fitted, unfitted
from MedVAELib.preprocessing.outlines import MomentEllipse, ellipse_map, moment_ellipse


@pytest.mark.parametrize("shape", [(540, 800), (800, 540), (96, 96), (1200, 300), (150, 191)])
def test_there_and_back_leaves_an_outline_in_place(shape):
    height, width = shape
    ellipse = MomentEllipse(torch.tensor([[0.42 * height, 0.55 * width]]),
                            torch.tensor([[0.3 * min(shape), 0.2 * min(shape)]]), torch.tensor([0.4]), torch.zeros(1))
    outline = ellipse_map(ellipse, *shape)[0]
    square = fitted(outline)
    assert square.shape == (SIDE, SIDE)
    again = moment_ellipse(unfitted(square, *shape)[None])
    assert torch.allclose(again.centre, ellipse.centre, atol=0.01 * max(shape))
    assert torch.allclose(again.semi_axes, ellipse.semi_axes, rtol=0.03)


def test_what_the_plane_does_not_fill_is_zero():
    square = fitted(torch.ones(50, 100))
    assert square.sum() == SIDE * SIDE / 2 and square[0].sum() == 0 and square[:, 0].sum() > 0


def test_a_single_row_of_pixels_is_no_crash():
    assert unfitted(fitted(torch.ones(1, 4000)), 1, 4000).shape == (1, 4000)
