"""One file per model: a typed config, the network it builds, its objective; found by name in the registry."""

from .registry import MODELS, build_model

__all__ = ["MODELS", "build_model"]
