"""Simulated ultrasound: from the seed alone, bone bright across the beam, shadows behind it, the outline in place."""

from __future__ import annotations

import pytest
import torch

from MedVAELib.standard_planes import PLANES
from MedVAELib.training.synthesis import ultrasound
from MedVAELib.training.synthesis.planes import draw_image_pose
from MedVAELib.training.synthesis.random import Draw
from MedVAELib.training.synthesis.ultrasound import PictureMaker, simulate_bmode
from MedVAELib.training.synthesis.ultrasound_screen import annotate

from .test_heads import population


@pytest.fixture(scope="module")
def make() -> PictureMaker:
    return PictureMaker(population())


def test_a_picture_depends_on_its_seed_alone(make):
    first = make(7)
    make(8)
    again = make(7)
    assert torch.equal(first.image, again.image) and torch.equal(first.outline, again.outline)
    assert not torch.equal(first.image, make(9).image)


def test_pictures_of_all_planes_and_their_outlines_have_the_networks_form(make, monkeypatch):
    planes = set()

    def simulated(draw, head, pose, *size):
        planes.add(pose.plane)
        return simulate_bmode(draw, head, pose, *size)

    monkeypatch.setattr(ultrasound, "simulate_bmode", simulated)
    for seed in range(18):
        picture = make(seed)
        assert picture.image.shape == picture.outline.shape == (192, 192)
        for values in (picture.image, picture.outline):
            assert values.isfinite().all() and values.min() >= 0 and values.max() <= 1
        assert picture.image.std() > 0.01 and 0.01 < picture.outline.mean() < 0.8
    assert planes == set(PLANES)


def test_the_skull_is_brighter_than_the_brain_and_lies_on_the_outline():
    """Over many pictures the mean grey profile across the outline peaks just inside it."""
    profile = []
    for seed in range(24):
        head, draw = population()(seed), Draw(seed)
        pose = draw_image_pose(draw, "axial", head)
        image, outline = (values[None, None] for values in simulate_bmode(draw, head, pose, (160, 192),
                                                                          head.ofd_mm / 130))
        grown = [torch.nn.functional.max_pool2d(outline, 2 * n + 1, 1, n) for n in (0, 3)]
        shrunk = [1 - torch.nn.functional.max_pool2d(1 - outline, 2 * n + 1, 1, n) for n in (0, 4, 12)]
        bands = [grown[1] - grown[0], shrunk[0] - shrunk[1], shrunk[1] - shrunk[2]]
        profile.append([float((image * band).sum() / band.sum()) for band in bands])
    outside, skull, brain = torch.tensor(profile).mean(0)
    assert skull > 1.3 * brain and skull > 1.1 * outside


def test_sound_is_lost_behind_bone():
    bone = torch.zeros(8, 100)
    bone[:4, 20:26] = 1
    passed = ultrasound._passed(Draw(0), bone, 0.5)
    assert (passed[:4, 40:] < passed[4:, 40:]).all() and torch.allclose(passed[:4, :20], passed[4:, :20])


def test_surfaces_across_the_beam_face_it():
    radius = torch.linspace(50, 100, ultrasound.DEPTHS)
    across = radius.expand(ultrasound.BEAMS, -1)  # distance grows along every beam
    along = torch.arange(ultrasound.BEAMS, dtype=torch.float32)[:, None].expand(-1, ultrasound.DEPTHS)
    step_mm = 50 / (ultrasound.DEPTHS - 1)
    assert ultrasound._facing(across, radius, step_mm, 0.5).min() > 0.99
    assert ultrasound._facing(along, radius, step_mm, 0.5).max() < 0.01


def test_most_of_the_head_is_in_the_sector(make):
    seen = [float(((p.image > 0) * p.outline).sum() / p.outline.sum()) for p in map(make, range(20))]
    assert sorted(seen)[4] > 0.6


def test_marks_change_the_picture_and_keep_it_a_picture():
    image, outline = torch.full((120, 192), 0.3), torch.zeros(120, 192)
    outline[30:90, 50:140] = 1
    outline[29, 50:140] = 0.5
    marked = [annotate(Draw(seed), image, outline) for seed in range(30)]
    assert sum(not torch.equal(picture, image) for picture in marked) > 25
    assert all(picture.min() >= 0 and picture.max() <= 1 for picture in marked)
    assert torch.equal(image, torch.full_like(image, 0.3))


def test_any_size_of_picture_can_be_asked_for(make):
    head = population()(2)
    pose = make._pose(Draw(0), head, "axial", 100, 160, 0.9)
    image, outline = simulate_bmode(Draw(1), head, pose, (100, 160), 0.9)
    assert image.shape == outline.shape == (100, 160)
    area = float(outline.sum()) * 0.9**2
    section = float((head.sdf[24] > 0).sum()) * head.spacing_mm**2
    assert 0.6 < area / section < 1.2
