"""Standard planes: exact cuts, poses within their limits, cases for the networks."""

from __future__ import annotations

import math

import pytest
import torch

from MedVAELib.preprocessing.outlines import SIZE, moment_ellipse
from MedVAELib.standard_planes import PLANES
from MedVAELib.training.synthesis.heads import Head
from MedVAELib.training.synthesis.planes import (
    MAP_PX,
    PlaneCaseMaker,
    PlaneConfig,
    PlanePose,
    cut,
    draw_pose,
    outline_map,
    with_tracing_error,
)
from MedVAELib.training.synthesis.random import Draw

from .test_heads import population


def sphere(radius_mm: float, size: int = 64, spacing_mm: float = 2.0) -> torch.Tensor:
    axis = (torch.arange(size) - (size - 1) / 2) * spacing_mm
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    return radius_mm - (x.square() + y.square() + z.square()).sqrt()


@pytest.mark.parametrize("plane", PLANES)
def test_a_sphere_is_cut_in_a_circle_of_the_right_radius_and_place(plane):
    pose = PlanePose(plane, (8.0, -5.0, 9.0), offset_mm=15.0, shift_px=(3.0, -6.0))
    pixel_mm = 0.8
    outline = outline_map(cut(sphere(40.0), 2.0, pose, (128, 140), pixel_mm), pixel_mm)
    found = moment_ellipse(outline[None])
    radius = math.sqrt(40**2 - 15**2) / pixel_mm
    assert (found.semi_axes - radius).abs().max() < 0.15
    assert abs(float(found.area) / (math.pi * radius**2) - 1) < 0.01
    shift = torch.tensor(pose.shift_px) * (64 * 2.0 / SIZE / pixel_mm)
    middle = torch.tensor([(128 - 1) / 2, (140 - 1) / 2])
    assert (found.centre[0] - middle - shift).abs().max() < 0.1


def test_axes_of_the_planes():
    """A box longer in y than in z than in x shows its sides where rows and columns say."""
    axis = (torch.arange(64) - 31.5) * 2.0
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    box = torch.stack([20 - x.abs(), 40 - y.abs(), 30 - z.abs() + 0.2 * z]).amin(0)
    for plane, (rows, columns) in {"axial": (80, 40), "sagittal": (62.5, 80), "coronal": (62.5, 40)}.items():
        inside = cut(box, 2.0, PlanePose(plane), (128, 128), 1.0) > 0
        assert abs(int(inside.any(1).sum()) - rows) <= 2 and abs(int(inside.any(0).sum()) - columns) <= 2
    upright = torch.nonzero((cut(box, 2.0, PlanePose("coronal"), (128, 128), 1.0) > 0).any(1))
    assert upright.float().mean() > 64  # rows rise with z, and the box reaches higher than low


def test_poses_stay_within_the_misplacement():
    head = population()(0)
    poses = [draw_pose(Draw(seed), "sagittal", head) for seed in range(100)]
    turns = torch.tensor([pose.rotation_deg for pose in poses])
    shifts = torch.tensor([pose.shift_px for pose in poses])
    assert 9 < turns.abs().max() <= 10 and 6 < shifts.abs().max() <= 7
    assert draw_pose(Draw(1), "sagittal", head, 0.0) == PlanePose("sagittal")


def test_tracing_errors_are_small_and_vary():
    sdf_mm = cut(sphere(40.0), 2.0, PlanePose("axial"), (128, 128), 1.0)
    exact = outline_map(sdf_mm, 1.0)
    traced = [with_tracing_error(Draw(seed), sdf_mm, 1.0, 1.3) for seed in range(30)]
    dice = torch.stack([2 * (t * exact).sum() / (t.sum() + exact.sum()) for t in traced])
    assert dice.min() > 0.9 and dice.max() > 0.985 and dice.std() > 0.003


def test_cases_depend_on_their_seed_alone_and_have_the_form_the_networks_expect():
    make = PlaneCaseMaker(population())
    cases = make([3, 4, 5])
    assert cases.planes.shape == (3, 3, SIZE, SIZE) and cases.sdf.shape == (3, 1, 48, 48, 48)
    assert cases.present.any(1).all() and float(cases.planes.min()) >= 0 and float(cases.planes.max()) <= 1
    assert torch.equal(cases.planes.sum((2, 3)) > 0, cases.present)
    alone = make([4])
    assert torch.allclose(alone.planes[0], cases.planes[1], atol=1e-4) and torch.equal(alone.sdf[0], cases.sdf[1])


def test_the_watch_is_called_before_each_head_and_may_end_the_making():
    seen = []

    def watch(made):
        seen.append(made)
        if len(seen) == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        PlaneCaseMaker(population(), watch=watch)(range(8))
    assert seen == [0, 1, 2]


class Lopsided:
    """One head for all seeds, with a lump to one side and another above."""

    device = torch.device("cpu")

    def __call__(self, seed: int) -> Head:
        axis = (torch.arange(64) - 31.5) * 2.0
        z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
        balls = [r - ((x - at_x) ** 2 + y**2 + (z - at_z) ** 2).sqrt()
                 for at_x, at_z, r in ((0, 0, 36.0), (32, 0, 16.0), (10, 34, 10.0))]
        sdf = torch.stack(balls).amax(0)
        return Head(sdf, sdf, 2.0, 30.0, "lopsided")


def test_every_plane_is_flipped_along_each_of_its_axes_in_half_of_the_cases():
    """An image says nothing of its orientation."""
    config = PlaneConfig(misplacement=0.0, traced=0.0, sagittal=1.0, coronal=1.0, without_axial=0.0, repeated=0.0)
    coronal = PlaneCaseMaker(Lopsided(), config)(range(24)).planes[:, 2]
    ways = torch.stack([coronal[0].flip(axes) for axes in ((), (0,), (1,), (0, 1))])
    nearest = (coronal[:, None] - ways).abs().sum((2, 3)).argmin(1)
    assert nearest.bincount(minlength=4).min() >= 2


def test_without_misplacement_planes_and_volume_agree():
    config = PlaneConfig(misplacement=0.0, traced=0.0, sagittal=1.0, coronal=1.0, without_axial=0.0, repeated=0.0)
    cases = PlaneCaseMaker(population(), config)([seed for seed in range(30) if population()(seed).kind == "typical"])
    volume = torch.nn.functional.interpolate(cases.sdf, scale_factor=2, mode="trilinear")[:, 0]
    for index, section in ((1, volume[:, :, :, 47:49].mean(3)), (2, volume[:, :, 47:49].mean(2))):
        inside, plane = (section > 0).float(), cases.planes[:, index]
        # The plane is centred on its own centroid and turned, the volume on the head's: nearly the same, but for flips.
        both = torch.stack([(inside * plane.flip(axes)).sum((1, 2)) for axes in ((), (1,), (2,), (1, 2))]).amax(0)
        dice = 2 * both / (inside.sum((1, 2)) + plane.sum((1, 2)))
        assert len(dice) > 5 and dice.min() > 0.9
    widths = 2 * moment_ellipse(cases.planes[:, 0]).semi_axes[:, 0]
    assert (widths * 1.3 / SIZE - 1).abs().max() < 0.02


def test_the_share_of_missing_planes_follows_the_configuration():
    make = PlaneCaseMaker(population(), PlaneConfig(sagittal=1.0, coronal=0.0, without_axial=1.0))
    assert torch.equal(make([0, 1]).present, torch.tensor([[False, True, False]] * 2))
    with pytest.raises(ValueError, match="probability"):
        PlaneConfig(sagittal=1.5)


def test_imaged_cases_take_the_outlines_that_are_found_and_are_traced_where_none_is():
    disc = outline_map(cut(sphere(40.0), 2.0, PlanePose("axial"), (MAP_PX, MAP_PX), 0.8), 0.8)
    found = torch.stack([disc] * 3), torch.full((3,), 0.8)
    config = PlaneConfig(imaged=1.0, traced=0.0, misplacement=0.0)
    cases = PlaneCaseMaker(population(), config, lambda draw, head, misplacement: found)(range(3))
    radius = moment_ellipse(cases.planes[:, 0]).semi_axes * cases.spacing_mm[:, None]
    assert (radius[cases.present[:, 0]] - 40).abs().max() < 0.5
    missed = PlaneCaseMaker(population(), config, lambda draw, head, misplacement: None)(range(3))
    assert not torch.allclose(missed.spacing_mm, cases.spacing_mm)
    with pytest.raises(ValueError, match="imaged"):
        PlaneCaseMaker(population(), config)
