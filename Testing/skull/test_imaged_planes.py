"""Outlines for training as the network finds them on simulated images."""

from __future__ import annotations

import torch

from MedVAELib.bundle import OUTLINE_BUNDLE, load_bundle
from MedVAELib.preprocessing.outlines import moment_ellipse
from MedVAELib.skull.imaged_planes import OutlineImager
from MedVAELib.skull.predictor import load_outline_engine
from MedVAELib.training.synthesis.planes import MAP_PX
from MedVAELib.training.synthesis.random import Draw
from Testing.training.test_heads import population


def test_the_head_is_found_in_its_true_size_and_the_seed_decides():
    imager = OutlineImager(load_outline_engine(load_bundle(OUTLINE_BUNDLE), "cpu"))
    head = population()(0)
    maps, pixel_mm = imager(Draw(5), head, 0.0)
    assert maps.shape == (3, MAP_PX, MAP_PX) and pixel_mm.shape == (3,)
    again, _ = imager(Draw(5), head, 0.0)
    assert torch.equal(maps, again)
    cavity = head.sdf.amax((1, 2)) > 0, head.sdf.amax((0, 2)) > 0, head.sdf.amax((0, 1)) > 0
    z_mm, y_mm, x_mm = (float(side.sum()) * head.spacing_mm for side in cavity)
    ellipse = moment_ellipse(maps)
    long_mm, short_mm = (2 * ellipse.semi_axes[:, axis] * pixel_mm for axis in (0, 1))
    assert abs(long_mm[0] / y_mm - 1) < 0.1 and abs(short_mm[0] / x_mm - 1) < 0.15
    assert abs(long_mm[1] / y_mm - 1) < 0.15
