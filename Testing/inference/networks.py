"""The network that the engine runs, small and with weights as after training."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from MedVAELib.networks.healthy_anatomy import HealthyAnatomyNet


def small_net(kind: type[HealthyAnatomyNet] = HealthyAnatomyNet, seed: int = 0) -> HealthyAnatomyNet:
    torch.manual_seed(seed)
    return randomise(kind(width=8, latent=4), seed)


def before_decoding(model: HealthyAnatomyNet, act: Callable[[Tensor], None]) -> HealthyAnatomyNet:
    """The same network, which does this with every z before it decodes it."""
    model.from_latent.register_forward_pre_hook(lambda _, given: act(*given))
    return model


def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """Weights and BatchNorm statistics as far from the identity as after training, logits that vary with z."""
    torch.manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm3d):
            nn.init.uniform_(module.weight, 0.7, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
            nn.init.normal_(module.running_mean, 0, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
        elif getattr(module, "weight", None) is not None and module.weight.ndim == 5:
            nn.init.normal_(module.weight, 0, (2.0 / module.weight[0].numel()) ** 0.5)
    return model.eval()
