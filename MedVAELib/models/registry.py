"""Models by name. A model is one file of this package: its class carries `@register("name")`, nothing else lists it.

Files are imported when one of their names is asked for, because some need packages that take seconds to import; a
file named as its model is found without importing the others.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from importlib import import_module
from typing import TypeVar

from torch import nn

from ..errors import BundleError
from ..failures import is_out_of_memory

Model = TypeVar("Model", bound=type[nn.Module])


class ModelConfigError(BundleError):
    """A name or setting with which no model can be built."""


_registered: dict[str, type[nn.Module]] = {}


def register(name: str) -> Callable[[Model], Model]:
    """Class decorator: makes a model known under `name`, the name that configs and bundles use.

    The class has a frozen dataclass as `Config` and is built from one.
    """

    def remember(model: Model) -> Model:
        known = _registered.get(name)
        if known is not None and (known.__module__, known.__qualname__) != (model.__module__, model.__qualname__):
            raise ValueError(f"two models are named '{name}': {known.__module__} and {model.__module__}")
        _registered[name] = model
        return model

    return remember


class _Models(Mapping):
    """Every model of the package, and whatever else was registered, by name."""

    def __getitem__(self, name: str) -> type[nn.Module]:
        if name not in _registered and name in _files():
            import_module(f"{__package__}.{name}")
        if name not in _registered:
            self._import_all()
        return _registered[name]

    def __iter__(self) -> Iterator[str]:
        self._import_all()
        return iter(sorted(_registered))

    def __len__(self) -> int:
        self._import_all()
        return len(_registered)

    @staticmethod
    def _import_all() -> None:
        for name in _files():
            import_module(f"{__package__}.{name}")


def _files() -> set[str]:
    return {module.name for module in pkgutil.iter_modules(import_module(__package__).__path__)}


MODELS: Mapping[str, type[nn.Module]] = _Models()


def build_model(name: str, config: Mapping[str, object]):
    """A model with random weights from its name and plain config. Raises ModelConfigError on what it does not know."""
    if name not in MODELS:
        raise ModelConfigError(f"Unknown model '{name}'; this version knows {', '.join(MODELS)}.")
    model = MODELS[name]
    unknown = set(config) - {field.name for field in fields(model.Config)}
    if unknown:
        raise ModelConfigError(f"Model '{name}' has no setting {', '.join(sorted(map(str, unknown)))}.")
    try:
        return model(model.Config(**config))
    except (TypeError, ValueError, RuntimeError, ArithmeticError) as error:
        if is_out_of_memory(error):
            raise
        raise ModelConfigError(f"Model '{name}' cannot be built from its config: {error}.") from error
