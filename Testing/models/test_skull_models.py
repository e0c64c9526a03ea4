"""The four models from planes to a skull: shapes, learning, missing planes, samples, bundles."""

from __future__ import annotations

import pytest
import torch

from MedVAELib.errors import BundleError
from MedVAELib.models import MODELS, build_model
from MedVAELib.models.hcvae import by_relevance

from ..bundle.bundle_files import saved_and_loaded
from .ellipsoids import PRESENT, ellipsoids

NAMES = ("hcvae", "cvae", "tlnet", "cgan")
SMALL = {"features": 16, "width": 8}


def small(name: str, **settings):
    torch.manual_seed(0)
    return build_model(name, {**SMALL, **settings})


@pytest.mark.parametrize("name", NAMES)
def test_any_subset_of_planes_gives_samples(name):
    model, (planes, _, _) = small(name).eval(), ellipsoids(7)
    condition = model.encode_planes(planes, PRESENT)
    with torch.inference_mode():
        assert model.sample(condition, 2, torch.Generator().manual_seed(0)).shape == (14, 1, 48, 48, 48)
        assert model.sample(condition[:1], 3).shape == (3, 1, 48, 48, 48)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_an_absent_planes_pixels_are_never_read(name, training):
    """Not even through the statistics of a batch, nor where they are not numbers."""
    model, (planes, present, sdf) = small(name).train(training), ellipsoids(7)
    changed = torch.where(present[:, :, None, None], planes, torch.full_like(planes, float("nan")))
    assert torch.equal(model.encode_planes(planes, present), model.encode_planes(changed, present))
    one, other = (model.eval().loss(p, present, sdf, torch.Generator().manual_seed(0)) for p in (planes, changed))
    assert torch.equal(one["loss"], other["loss"])


@pytest.mark.parametrize("name", NAMES)
def test_a_present_planes_pixels_are_read(name):
    model, (planes, _, _) = small(name).eval(), ellipsoids(1)
    everything, changed = torch.ones(1, 3).bool(), planes.clone()
    for plane in range(3):
        changed = planes.clone()
        changed[:, plane] = 1 - changed[:, plane]
        assert not torch.allclose(model.encode_planes(planes, everything), model.encode_planes(changed, everything))


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_falls_on_one_batch(name):
    model, batch = small(name).train(), ellipsoids(4)
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    errors = []
    for step in range(25):
        terms = model.loss(*batch, torch.Generator().manual_seed(step))
        optimiser.zero_grad()
        terms["loss"].backward()
        optimiser.step()
        errors.append(float(terms["rms"].detach()))
    assert errors[-1] < 0.6 * errors[0]


@pytest.mark.parametrize("name", ["hcvae", "cvae", "cgan"])
def test_samples_differ_and_temperature_zero_ends_that(name):
    model, (planes, _, _) = small(name).eval(), ellipsoids(1)
    with torch.inference_mode():
        condition = model.encode_planes(planes, PRESENT[:1])
        drawn = model.sample(condition, 2, torch.Generator().manual_seed(0))
        again = model.sample(condition, 2, torch.Generator().manual_seed(0))
        cold = model.sample(condition, 2, torch.Generator().manual_seed(0), temperature=0.0)
    assert torch.equal(drawn, again) and not torch.equal(drawn[0], drawn[1])
    assert torch.allclose(cold[0], cold[1], atol=1e-5)


def test_a_level_of_the_hierarchy_sees_no_later_plane():
    """p(z₁|axial) must not change with the sagittal plane, p(z₂|z₁, axial, sagittal) must."""
    model, (planes, _, _) = small("hcvae").eval(), ellipsoids(1)
    changed = planes.clone()
    changed[:, 1] = changed[:, 1].roll(5, 1)
    everything = torch.ones(1, 3).bool()
    condition, other = (by_relevance(model.encode_planes(p, everything)) for p in (planes, changed))
    none, first = condition[:, 0, :0], torch.zeros(1, 16)
    assert torch.equal(model._prior(0, none, condition)[0], model._prior(0, none, other)[0])
    assert not torch.equal(model._prior(1, first, condition)[0], model._prior(1, first, other)[0])


def test_the_most_relevant_plane_there_is_comes_first():
    """Else the first level of the hierarchy, which sees one plane, would see none without the axial one."""
    model, (planes, _, _) = small("hcvae").eval(), ellipsoids(7)
    condition = model.encode_planes(planes, PRESENT)
    ordered = by_relevance(condition)
    for before, after, present in zip(condition, ordered, PRESENT, strict=True):
        count = int(present.sum())
        assert torch.equal(after[:count], before[present]) and torch.equal(after[count:], before[~present])


def test_kl_is_logged_per_level_and_warms_up():
    model, batch = small("hcvae", warmup=10).train(), ellipsoids(2)
    terms = model.loss(*batch, torch.Generator().manual_seed(0))
    assert {"kl1", "kl2", "kl3"} <= terms.keys() and all(terms[f"kl{n}"] >= 0 for n in (1, 2, 3))
    divergence = terms["kl1"] + terms["kl2"] + terms["kl3"]
    expected = terms["nll"] + terms["overlap"] + 0.1 * divergence / model.config.voxels + divergence / 48
    assert torch.allclose(terms["loss"], expected) and int(model.updates) == 1


def test_the_gans_two_objectives_do_not_mix():
    """The critic's weights must not learn to please the generator, nor the generator's to please the critic."""
    model, batch = small("cgan", adversarial=0.0).train(), ellipsoids(2)
    without = model.loss(*batch, torch.Generator().manual_seed(0))
    without["loss"].backward()
    critic = [p.grad.clone() for p in model.critic.parameters()]
    strong = small("cgan", adversarial=5.0).train()
    strong.loss(*batch, torch.Generator().manual_seed(0))["loss"].backward()
    assert all(torch.allclose(a, p.grad, atol=1e-6) for a, p in zip(critic, strong.critic.parameters(), strict=True))
    assert not torch.allclose(model.decoder.expand[0].weight.grad, strong.decoder.expand[0].weight.grad)


@pytest.mark.parametrize("name", NAMES)
def test_a_bundle_keeps_the_model(name, tmp_path):
    model = small(name).eval()
    again = saved_and_loaded(tmp_path / "b", name, SMALL, model)
    planes, present, _ = ellipsoids(1)
    with torch.inference_mode():
        one, other = (m.sample(m.encode_planes(planes, present), 1, torch.Generator().manual_seed(0), 0.0)
                      for m in (model, again))
    assert torch.allclose(one, other, atol=0.05)


@pytest.mark.parametrize("name", NAMES)
def test_bad_settings_are_refused_and_the_bundle_stays_small(name):
    with pytest.raises(BundleError, match="positive"):
        build_model(name, {"width": 0})
    state = MODELS[name](MODELS[name].Config()).state_dict()
    assert sum(2 * t.numel() if t.is_floating_point() else 8 * t.numel() for t in state.values()) < 8 * 2**20
