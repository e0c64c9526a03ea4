"""Streamed moments of heads equal those of all samples at once, whatever the batches."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from MedVAELib.skull.moments import SOFTNESS, HeadMoments

from .heads import ellipsoid_sdf


def drawn(count: int, size: int = 20) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    axes = 14 * (1 + 0.05 * torch.randn(count, 3, generator=generator))
    return torch.stack([ellipsoid_sdf(tuple(a.tolist()), size, 2.0) for a in axes]).clamp(-8, 8)


@pytest.mark.parametrize("batches", [(12,), (5, 7), (1,) * 12])
def test_streamed_moments_are_those_of_all_samples(batches):
    samples = drawn(12)
    moments = HeadMoments((20, 20, 20))
    for batch in samples.split(list(batches)):
        moments.update(batch)
    fine = F.interpolate(samples[:, None], scale_factor=2, mode="trilinear", align_corners=False)[:, 0].double()
    occupancy = (fine / SOFTNESS).sigmoid()
    mean, std = moments.occupancy()
    assert (mean - occupancy.mean(0)).abs().max() < 2e-4
    assert (std - occupancy.std(0, correction=0)).abs().max() < 2e-4
    distance, spread = moments.distance()
    assert (distance - fine.mean(0)).abs().max() < 1e-4
    near = fine.mean(0).abs() < 3  # the spread is interpolated; it is smooth near the surface
    assert (spread - fine.std(0, correction=0)).abs()[near].max() < 0.06
    assert float(mean.min()) == 0 and float(mean.max()) == 1


def test_one_sample_has_no_spread():
    moments = HeadMoments((20, 20, 20))
    moments.update(drawn(1))
    assert float(moments.occupancy()[1].max()) == 0 and float(moments.distance()[1].max()) == 0
    assert set(moments.probability().unique().tolist()) <= {0.0, 0.5, 1.0}


def test_probability_is_the_share_of_heads_that_hold_a_place():
    """Of many balls whose radius is normal: the distance's moments give the share to a few percent, the mean soft
    occupancy would not."""
    generator = torch.Generator().manual_seed(1)
    radii = 14 + 0.5 * torch.randn(400, generator=generator)
    samples = torch.stack([ellipsoid_sdf((float(r),) * 3, 20, 2.0) for r in radii]).clamp(-8, 8)
    moments = HeadMoments((20, 20, 20))
    moments.update(samples)
    fine = F.interpolate(samples[:, None], scale_factor=2, mode="trilinear", align_corners=False)[:, 0]
    share, probability = (fine > 0).float().mean(0), moments.probability()
    unsure = (share > 0.02) & (share < 0.98)
    off = (probability - share)[unsure].abs().mean()
    assert off < 0.03 and (moments.occupancy()[0] - share)[unsure].abs().mean() > 3 * off
    assert ((probability > 0.5) == (moments.distance()[0] > 0)).all()
