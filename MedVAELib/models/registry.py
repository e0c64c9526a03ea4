"""Models by name. Adding one is a file in this package and a line here."""

from __future__ import annotations

from dataclasses import fields

from ..errors import BundleError
from .cgan import ConditionalGAN
from .cvae import ConditionalVAE
from .hcvae import HierarchicalCVAE
from .head_outline import HeadOutline
from .healthy_anatomy import HealthyAnatomyVAE
from .tlnet import TLNet

MODELS = {
    "healthy_anatomy": HealthyAnatomyVAE,
    "hcvae": HierarchicalCVAE, "cvae": ConditionalVAE, "tlnet": TLNet, "cgan": ConditionalGAN,
    "head_outline": HeadOutline,
}  # fmt: skip


def build_model(name: str, config: dict[str, object]):
    """A model with random weights from its name and plain config. Raises BundleError on what it does not know."""
    if name not in MODELS:
        raise BundleError(f"Unknown model '{name}'; this version knows {', '.join(sorted(MODELS))}.")
    model = MODELS[name]
    unknown = set(config) - {field.name for field in fields(model.Config)}
    if unknown:
        raise BundleError(f"Model '{name}' has no setting {', '.join(sorted(unknown))}.")
    try:
        return model(model.Config(**config))
    except (TypeError, ValueError) as error:
        raise BundleError(f"Model '{name}' cannot be built from its config: {error}.") from error
