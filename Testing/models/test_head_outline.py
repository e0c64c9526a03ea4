"""The outline network: shapes, learning, and planes without a head."""

from __future__ import annotations

import torch

from MedVAELib.models import build_model


def discs(count: int, size: int = 64):
    """Bright rings on noise with their filled discs; every third is noise alone."""
    generator = torch.Generator().manual_seed(0)
    line = torch.arange(size) - size / 2
    radius = size * (0.2 + 0.1 * torch.rand(count, 1, 1, generator=generator))
    away = (line[:, None] ** 2 + line[None] ** 2).sqrt()[None] - radius
    head = torch.tensor([float(n % 3 != 2) for n in range(count)])
    image = 0.3 * torch.rand(count, size, size, generator=generator)
    image = image + head.view(-1, 1, 1) * 0.7 * (away.abs() < 2)
    return image[:, None], ((0.5 - away).clamp(0, 1) * head.view(-1, 1, 1))[:, None], head


def test_one_logit_per_pixel_and_one_per_image():
    logits = build_model("head_outline", {"width": 4}).eval()(torch.rand(2, 1, 192, 192))
    assert logits.outline.shape == (2, 1, 192, 192) and logits.head.shape == (2,)


def test_the_loss_falls_on_one_batch():
    torch.manual_seed(0)
    model, batch = build_model("head_outline", {"width": 8}).train(), discs(6)
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    losses = []
    for _ in range(60):
        terms = model.loss(*batch)
        optimiser.zero_grad()
        terms["loss"].backward()
        optimiser.step()
        losses.append(float(terms["loss"].detach()))
    assert losses[-1] < 0.6 * losses[0]
    logits = model(batch[0])
    assert ((logits.head > 0) == (batch[2] > 0.5)).all()


def test_a_batch_without_heads_has_a_finite_loss():
    model, (image, outline, head) = build_model("head_outline", {"width": 4}).train(), discs(3)
    terms = model.loss(image, torch.zeros_like(outline), torch.zeros_like(head))
    assert terms["loss"].isfinite() and terms["overlap"] == 0
