"""The network's shortcuts must be exact: folding, upsampling at the low resolution, split convolutions."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from MedVAELib.models import build_model
from MedVAELib.networks.healthy_anatomy import HealthyAnatomyNet, UpsampleConv, fold, unfold


def test_unfold_inverts_fold():
    x = torch.rand(2, 3, 4, 6, 8)
    assert torch.equal(unfold(fold(x)), x)


def test_upsample_conv_equals_upsampling_then_convolution():
    torch.manual_seed(0)
    layer, x = UpsampleConv(5, 7), torch.randn(2, 5, 4, 3, 5)
    plain = F.conv3d(F.interpolate(x, scale_factor=2, mode="nearest"), layer.weight, padding=1)
    assert torch.allclose(layer(x), plain, atol=1e-5)


def test_context_is_the_latent_free_half_of_the_decoder():
    torch.manual_seed(0)
    net = HealthyAnatomyNet(width=8, latent=4).eval()
    posterior = net.encode(torch.rand(1, 1, 32, 32, 32))
    z = torch.randn(3, *posterior.mean.shape[1:])
    batch = net.decode_with_context(z, net.prepare_context(posterior.skips))
    single = torch.cat([net.decode(one[None], posterior.skips) for one in z])
    assert batch.shape == (3, 9, 32, 32, 32)
    assert torch.allclose(batch, single, atol=1e-4)


def test_loss_ignores_voxels_without_a_target():
    torch.manual_seed(0)
    model = build_model("healthy_anatomy", {"width": 8, "latent": 4}).eval()
    image, target = torch.rand(1, 1, 32, 32, 32), torch.zeros(1, 9, 32, 32, 32)
    target[:, 1, :16] = 1
    half = model.loss(image, target, torch.Generator().manual_seed(1))
    probability = model.decode(_sample(model, image), model.encode(image).skips).log_softmax(1)
    assert torch.allclose(half["cross_entropy"], -probability[:, 1, :16].mean(), atol=1e-5)


def _sample(model: HealthyAnatomyNet, image: torch.Tensor) -> torch.Tensor:
    posterior = model.encode(image)
    noise = torch.randn(posterior.mean.shape, generator=torch.Generator().manual_seed(1))
    return posterior.mean + noise * (0.5 * posterior.logvar).exp()
