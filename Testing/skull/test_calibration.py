"""Coverage is what it says, and the temperature that gives it is found."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from MedVAELib.progress import CancelToken
from MedVAELib.skull.biometry import UNITS
from MedVAELib.skull.calibrate import LEVELS, RANGE, calibrate, coverage, deviations, measure_widening
from MedVAELib.skull.held_back import SEED, HeldBack, _Mixed, agreement
from MedVAELib.training.synthesis.heads import KINDS

from ..models.ellipsoids import ellipsoids
from .heads import ellipsoid_sdf


class Offsets(nn.Module):
    """Predicts the ellipsoid with an error of standard deviation 1 per head, believing it to be `believed`, and half of
    that without the axial plane."""

    def __init__(self, believed: float, truth: torch.Tensor):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.believed, self.truth = believed, truth
        self.error = torch.randn(len(truth), 1, 1, 1, 1, generator=torch.Generator().manual_seed(1))

    def encode_planes(self, planes, present):
        self.sees_axial = bool(present[0, 0])
        return planes.flatten(1)[:, 0].long()

    def sample(self, condition, samples, generator, temperature=1.0):
        centre = (self.truth + self.error)[condition].repeat_interleave(samples, 0)
        noise = torch.randn(len(centre), 1, 1, 1, 1, generator=generator)
        return centre + temperature * self.believed * (1.0 if self.sees_axial else 0.5) * noise


def heads(count: int = 120) -> HeldBack:
    one = ellipsoids(1)[2][:, :, ::6, ::6, ::6]
    planes = torch.zeros(count, 3, 96, 96)
    planes[:, 0, 0, 0] = torch.arange(count)
    return HeldBack(planes, one.expand(count, -1, -1, -1, -1), torch.ones(count), ["typical"] * count)


@pytest.mark.parametrize("believed", [0.5, 1.0])
def test_the_temperature_makes_up_for_a_wrong_belief(believed):
    held_back = heads()
    found = calibrate(Offsets(believed, held_back.sdf), held_back, 16, CancelToken())
    temperatures = found["temperatures"]
    assert len(temperatures) == 7 and all(RANGE[0] <= each <= RANGE[1] for each in temperatures.values())
    for planes, temperature in temperatures.items():
        assert 0.8 <= temperature * believed * (1.0 if "axial" in planes else 0.5) <= 1.25
    assert len(found["coverage"]) == len(found["measures"]) == 7
    for shares in found["coverage"].values():
        assert all(abs(share - level) < 0.12 for share, level in zip(shares, LEVELS, strict=True))


def test_coverage_counts_the_surface_alone():
    truth = torch.full((1, 4, 4, 4), 5.0)
    truth[0, 0] = 0.0
    samples = truth[:, None] + torch.tensor([-1.0, 0.0, 1.0]).view(1, 3, 1, 1, 1)
    wrong = truth.clone()
    wrong[0, 1:] = -5.0
    assert coverage(deviations(samples, wrong)) == (1.0, 1.0, 1.0)
    assert coverage(deviations(samples, truth + 1.5)) == (0.0, 0.0, 1.0)
    assert coverage(deviations(samples, truth + 1.5), 3.0) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("believed", [0.5, 2.0])
def test_measures_get_the_standard_deviations_of_their_errors(believed):
    heads, samples = 24, 8
    head = ellipsoid_sdf((28.0, 36.0, 29.0), 48, 2.0)[None, None]
    held_back = HeldBack(torch.zeros(heads, 3, 96, 96), head.expand(heads, -1, -1, -1, -1), torch.ones(heads), [])
    # Evenly over a normal distribution.
    error, noise = (torch.special.ndtri((torch.arange(n) + 0.5) / n) for n in (heads, samples))
    error, noise = error.view(-1, 1, 1, 1, 1), (noise / noise.std(correction=0)).view(1, -1, 1, 1, 1)
    factors = measure_widening(head + error + believed * noise, held_back)
    assert set(factors) == set(UNITS)
    for name in ("BPD", "OFD", "HC", "volume"):
        assert factors[name] * believed == pytest.approx(1, abs=0.1), name
    alike = head.expand(heads, samples, -1, -1, -1)
    assert set(measure_widening(alike, held_back).values()) == {1.0}


def test_agreement_of_shifted_balls_is_their_shift():
    line = torch.arange(48) * 2 - 47.0
    away = (line.view(-1, 1, 1) ** 2 + line.view(1, -1, 1) ** 2 + line.view(1, 1, -1) ** 2).sqrt()
    ball = (30 - away)[None]
    dice, average, greatest = agreement(ball, ball + 2)
    assert float(average) == pytest.approx(2, abs=0.05) and float(greatest) == pytest.approx(2, abs=0.1)
    assert float(dice) == pytest.approx(2 * 30**3 / (30**3 + 32**3), abs=0.01)
    assert float(agreement(ball, ball)[0]) == 1.0


def test_held_back_heads_are_of_every_atlas_and_of_every_kind():
    drawn = _Mixed(["first", "second"], SimpleNamespace(device=torch.device("cpu")))
    drawn.population = lambda seed, kind: kind
    heads = [drawn(SEED + number) for number in range(36)]
    assert Counter(heads) == {"first": 6, "second": 6, **dict.fromkeys(KINDS, 4)}
