"""What single image autoencoders add: introspection, codebook, context, ladder."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from MedVAELib.models import gaussians
from MedVAELib.models.cevae import paint_boxes
from MedVAELib.models.vqvae import _nearness
from MedVAELib.networks import autoencoder as networks
from MedVAELib.networks.batch_norm import statistics_kept

from .blobs import SHAPES, blobs
from .test_image_autoencoders import seeded, small


def test_divergences_are_torchs_own():
    torch.manual_seed(0)
    q, p = (torch.randn(5, 3), torch.randn(5, 3)), (torch.randn(5, 3), torch.randn(5, 3))
    of = [Normal(mean, (0.5 * log).exp()) for mean, log in (q, p)]
    assert torch.allclose(gaussians.kl_between(q, p), kl_divergence(of[0], of[1]), atol=1e-5)
    assert torch.allclose(gaussians.kl_to_standard_normal(q), kl_divergence(of[0], Normal(0.0, 1.0)), atol=1e-5)


def test_the_merge_is_the_closed_form():
    """Variances of 4 and 1: 1/σ² = 1/4 + 1 and μ = (2/4 + 7/1) / (1/4 + 1); merging σ instead would give another."""
    log_4 = torch.tensor(4.0).log()
    one, other = (torch.tensor(2.0), log_4), (torch.tensor(7.0), torch.tensor(0.0))
    mean, log_variance = gaussians.precision_weighted(one, other)
    assert float(mean) == pytest.approx(6.0) and float(log_variance.exp()) == pytest.approx(0.8)


def test_folding_is_undone():
    for shape in SHAPES.values():
        image = torch.rand(2, 1, *shape)
        for factor in (1, 2, 4):
            folded = networks.fold(image, factor)
            assert folded.shape[1] == factor ** len(shape) and torch.equal(networks.unfold(folded, factor), image)


def test_statistics_are_kept_only_within():
    norm, image = torch.nn.BatchNorm2d(1), 5 + torch.rand(4, 1, 8, 8)
    with statistics_kept(norm):
        inside = norm(image)
    assert abs(float(inside.detach().mean())) < 1e-5 and float(norm.running_mean) == 0 and norm.num_batches_tracked == 0
    norm(image)
    assert float(norm.running_mean) > 0.4


def test_group_norm_sees_every_image_alone():
    model, images = small("vae", norm="group").train(), blobs(3, SHAPES["2d"])
    together, alone = model.encode(images)[0], model.encode(images[:1])[0]
    assert torch.allclose(together[:1], alone, atol=1e-5)


# ---- introvae ----


@pytest.mark.parametrize("variant", ["soft", "hinge"])
def test_each_objective_reaches_its_own_weights_only(variant):
    """Encoder weights must not learn to please the decoder, nor the decoder's to please the encoder."""
    def gradients(**terms):
        model = small("introvae", variant=variant, warmup=0).train()
        out = model.loss(blobs(4, SHAPES["2d"]), seeded())
        sum(weight * out[key] for key, weight in terms.items()).backward()
        of = {"encoder": (model.encoder, model.to_latent), "decoder": (model.decoder, model.from_latent)}
        return {side: sum(float(weight.grad.abs().sum()) for module in modules for weight in module.parameters()
                          if weight.grad is not None) for side, modules in of.items()}

    by_encoder, by_decoder = gradients(encoder=1.0), gradients(decoder=1.0)
    assert by_encoder["encoder"] > 0 and by_encoder["decoder"] == 0
    assert by_decoder["decoder"] > 0 and by_decoder["encoder"] == 0


@pytest.mark.parametrize("variant", ["soft", "hinge"])
def test_the_encoder_pushes_generated_images_beyond_real_ones_and_no_further(variant):
    """What counts is the divergence relative to that of real images, however many nats these take."""
    model, images = small("introvae", variant=variant).eval(), blobs(4, SHAPES["2d"])
    with torch.no_grad():
        model.to_latent.project.weight *= 1000  # as many nats as a trained encoder gives
        divergence = model.divergence(images).sum(1).mean()

        def term(share):
            """With generated images that have `share` times the divergence of real ones."""
            return float(model._encoder_term(images, divergence / share)[0])

        far, level, deceived, worse = term(6.0), term(1.0), term(0.05), term(0.01)
    assert far < 0.01 < level < deceived < worse


@pytest.mark.parametrize("variant", ["soft", "hinge"])
def test_the_encoder_may_also_pull_real_images_down(variant):
    """Without that, real and generated images would chase each other upwards."""
    model, images = small("introvae", variant=variant), blobs(4, SHAPES["2d"])
    real = torch.tensor(30.0, requires_grad=True)
    model._encoder_term(images, real)[0].backward()
    assert float(real.grad) > 0


def test_the_adversarial_terms_begin_after_the_warm_up():
    model, shares = small("introvae", warmup=3).train(), []
    for step in range(6):
        shares.append(round(float(model.adversarial_share()), 2))
        terms = model.loss(blobs(4, SHAPES["2d"], step), seeded(step))
        bound = (terms["reconstruction"] + min(1, (step + 1) / 3) * terms["kl"]) / (16 * 24)
        assert torch.allclose(terms["loss"], bound) == (step < 3)
    assert shares == [0.0, 0.0, 0.0, 0.33, 0.67, 1.0]


def test_generated_images_leave_no_trace_in_the_statistics():
    one, other = small("introvae", norm="batch").train(), small("vae").train()
    other.load_state_dict(one.state_dict(), strict=False)
    for model in (one, other):
        model.loss(blobs(4, SHAPES["2d"]), seeded())
    assert torch.equal(one.encoder.stem[1].running_mean, other.encoder.stem[1].running_mean)
    assert torch.equal(one.decoder.up[0][1].running_var, other.decoder.up[0][1].running_var)


def test_an_encoder_that_is_deceived_is_named():
    model = small("introvae")
    assert "generated" in model.health({"kl": 20.0, "kl_fake": 10.0})
    assert model.health({"kl": 20.0, "kl_fake": 21.0}) is None


# ---- vqvae ----


def test_dead_codes_go_where_the_data_is():
    model = small("vqvae", dead=0.5)
    quantizer, vectors = model.quantizer, torch.randn(2, 4, 4, 6)
    quantizer.ema_cluster_size.fill_(5.0)
    quantizer.ema_cluster_size[:3] = 0.1
    before = quantizer.embedding.weight.clone()
    assert int(quantizer.revive(vectors, seeded())) == 3
    flat = vectors.movedim(1, -1).reshape(-1, 4)
    assert all((flat == code).all(1).any() for code in quantizer.embedding.weight[:3])
    assert torch.equal(quantizer.embedding.weight[3:], before[3:]) and quantizer.ema_cluster_size.min() >= 0.5


def test_a_trained_codebook_is_in_use():
    model, images = small("vqvae").train(), blobs(16, SHAPES["2d"])
    optimiser = torch.optim.Adam(model.parameters(), 5e-3)
    for step in range(40):
        terms = model.loss(images, seeded(step))
        optimiser.zero_grad()
        terms["loss"].backward()
        optimiser.step()
    assert float(terms["perplexity"]) > 4
    assert model.health(terms) is None and "codebook" in model.health({"perplexity": 1.1})


def test_the_prior_does_not_say_which_weights_are_best():
    """It learns with the rest, and a validation judges images alone: a codebook that comes into use is no loss."""
    model, images = small("vqvae"), blobs(4, SHAPES["2d"])
    for training in (True, False):
        terms = model.train(training).loss(images, seeded())
        of_images = terms["reconstruction"] / (16 * 24) + terms["commitment"]
        assert torch.allclose(terms["loss"], of_images + terms["prior"] * training)


def test_perplexity_counts_the_codes_of_all_processes(monkeypatch):
    other = torch.zeros(16)
    other[4:8] = 0.25
    monkeypatch.setattr("MedVAELib.models.vqvae.mean_over_processes", lambda share: (share + other) / 2)
    assert float(small("vqvae")._perplexity(torch.tensor([[0, 1, 2, 3]]))) == pytest.approx(8.0)


def test_perplexity_counts_codes():
    model = small("vqvae")
    assert float(model._perplexity(torch.tensor([[0, 1, 2, 3]]))) == pytest.approx(4.0)
    assert float(model._perplexity(torch.tensor([[7, 7, 7, 7]]))) == pytest.approx(1.0)


def test_the_prior_sees_no_later_code_and_sends_no_gradient_to_the_codes():
    model = small("vqvae").train()
    codes = torch.randint(16, (2, 24), generator=seeded())
    changed = codes.clone()
    changed[:, 10:] = (changed[:, 10:] + 1) % 16
    with torch.no_grad():
        one, other = model.code_logits(codes), model.code_logits(changed)
    assert torch.allclose(one[:, :11], other[:, :11], atol=1e-5) and not torch.allclose(one[:, 11:], other[:, 11:])
    model.loss(blobs(4, SHAPES["2d"]), seeded())["prior"].backward()
    assert all(weight.grad is None or not weight.grad.any() for weight in model.encoder.parameters())


@pytest.mark.parametrize("depth", [0, 1])
def test_a_restoration_draws_the_unlikely_and_keeps_the_rest(depth):
    model = small("vqvae", prior_depth=depth, unlikely=1.0).eval()
    if depth == 0:
        model.frequency.zero_()
        model.frequency[:, 3] = 1.0
        codes = torch.full((2, 24), 3)
        codes[:, 5] = 9
        with torch.no_grad():
            restored = model._restored(codes, seeded())
        assert torch.equal(restored, torch.full_like(codes, 3))
    else:
        model.prior.to_logits.weight.data.zero_()
        model.prior.to_logits.bias.data.copy_(torch.tensor([20.0] + [0.0] * 15))
        codes = torch.zeros(1, 24, dtype=torch.int64)
        codes[0, 7] = 4
        with torch.no_grad():
            assert not model._restored(codes, seeded()).any()


def test_what_follows_a_code_drawn_anew_is_judged_after_it():
    """A prior for which a code is the one before it: once the first is drawn anew, all that agreed with it are odd."""
    model = small("vqvae", prior_depth=1).eval()
    model.unlikely.fill_(1.0)
    same = torch.eye(16) * 20

    def logits(indices):
        before = torch.cat([torch.zeros_like(indices[:, :1]), indices[:, :-1]], 1)
        return same[before].log_softmax(-1)

    model.code_logits = logits
    codes = torch.zeros(3, 24, dtype=torch.int64)
    codes[1, 5:] = 7
    codes[2, 20] = 3
    assert not model._restored(codes, seeded()).any()


def test_few_of_the_training_images_codes_are_drawn_anew_once_it_is_known_which_are_rare():
    model, images = small("vqvae", rare=0.1).eval(), blobs(20, SHAPES["2d"])
    with torch.no_grad():
        model.settle(images.split(6))
        nats = model.code_nats(model.codes(images))
    assert float((nats > model.unlikely).float().mean()) == pytest.approx(0.1, abs=0.03)  # codes may tie


def test_restorations_nearer_to_the_image_count_more():
    difference = torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1, 1).expand(2, 3, 1, 4, 4)
    weights = _nearness(difference)
    assert weights.shape == (2, 3, 1, 1, 1) and torch.allclose(weights.sum(1), torch.ones(2, 1, 1, 1))
    assert weights[0, 0] > weights[0, 1] > weights[0, 2] > 0
    assert torch.allclose(_nearness(difference * 7), weights)  # whatever the scale


# ---- cevae and lvae ----


def test_boxes_paint_over_some_of_the_image_and_nothing_else():
    model = small("cevae")
    image = torch.full((6, 1, 16, 24), 2.0)
    painted = paint_boxes(image, model.config, seeded())
    changed = painted != 2
    assert 0 < changed[:, 0].flatten(1).float().mean(1).min() and changed.float().mean() < 0.6
    assert not torch.equal(changed[0], changed[1]) and painted[changed].max() <= 1


def test_the_context_branch_learns_from_the_clean_image(monkeypatch):
    """With boxes that cover everything, a branch that had to give the damaged image would give its grey."""
    model, image = small("cevae").eval(), blobs(2, SHAPES["2d"])
    monkeypatch.setattr("MedVAELib.models.cevae.paint_boxes", lambda images, *_: torch.zeros_like(images))
    terms = model.loss(image, seeded())
    expected = model.negative_log_likelihood(image, model.logits(model.encode(torch.zeros_like(image))[0])).mean()
    assert torch.allclose(terms["context"], expected)


@pytest.mark.parametrize(("name", "steps"), [("ae", 0), ("vae", 7), ("lvae", 21), ("introvae", 14)])
def test_a_model_says_when_its_loss_counts_in_full(name, steps):
    """What is paid before and after: the same weights have another loss one step earlier, and none later."""
    model = small(name, **({"warmup": 7} if steps else {})).train()
    assert model.warm_up_steps == steps

    def loss(updates: int) -> float:
        model.updates.fill_(updates)
        return float(model.loss(blobs(4, SHAPES["2d"]), seeded())["loss"].detach())

    if steps:
        assert loss(steps - 2) != loss(steps - 1) == loss(steps + 50)


def test_rungs_warm_up_from_below_and_are_logged():
    model = small("lvae", warmup=10)
    terms = model.loss(blobs(2, SHAPES["2d"]), seeded())
    assert torch.allclose(terms["kl1"] + terms["kl2"] + terms["kl3"], terms["kl"])
    model.updates.fill_(14)
    assert [round(float(beta), 2) for beta in model.level_betas()] == [0.0, 0.5, 1.0]
    model.updates.fill_(40)
    assert [float(beta) for beta in model.level_betas()] == [1.0, 1.0, 1.0]


def test_a_lower_rung_depends_on_those_above_and_the_top_does_not():
    model, image = small("lvae").eval(), blobs(1, SHAPES["2d"])
    with torch.no_grad():
        plain = model._descend(image, lambda posterior: posterior[0])[0]
        moved = model._descend(image, lambda posterior: posterior[0] + 1)[0]
    assert torch.equal(plain[:, :4], moved[:, :4]) and not torch.allclose(plain[:, 4:], moved[:, 4:])
