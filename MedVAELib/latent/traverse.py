"""Ways through a latent space: along one latent, from one image to another, sums and differences, by labels.

Latents are flat, (Z,) in C order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError

if TYPE_CHECKING:
    from .model import LatentModel


def check_latent(index: int, count: int, model: str = "this model") -> None:
    """Raises UsageError unless `model`, of `count` latents, has one of this index."""
    if not 0 <= index < count:
        raise UsageError(f"There is no latent {index}: {model} has latents 0 to {count - 1}.")


def along(start: NDArray, index: int, values: Sequence[float]) -> NDArray[np.float32]:
    """Latents (len(values), Z): `start` (Z,) with latent `index` set to each value. Raises UsageError out of range."""
    start = np.asarray(start, np.float32).reshape(-1)
    check_latent(index, start.size)
    latents = np.repeat(start[None], len(values), 0)
    latents[:, index] = values
    return latents


def traverse(model: LatentModel, start: NDArray, index: int, values: Sequence[float]) -> NDArray[np.float32]:
    """Images (len(values), 1, *shape) while latent `index` takes the values and all others stay as in `start` (Z,)."""
    return model.decode(along(start, index, values))


def spread(mean: float, std: float, steps: int, extent: float) -> NDArray[np.float64]:
    """Evenly spaced values (steps,) from mean − extent·std to mean + extent·std. Raises UsageError for one step."""
    if steps < 2:
        raise UsageError(f"A traversal needs two steps at least, not {steps}.")
    return mean + std * np.linspace(-extent, extent, steps)


def interpolate(first: NDArray, second: NDArray, steps: int) -> NDArray[np.float32]:
    """Latents (steps, Z) on the straight line from first to second (Z,), both included."""
    if steps < 2:
        raise UsageError(f"An interpolation needs two steps at least, not {steps}.")
    share = np.linspace(0, 1, steps, dtype=np.float32)[:, None]
    return (1 - share) * np.asarray(first, np.float32).reshape(1, -1) + share * np.asarray(second).reshape(1, -1)


def arithmetic(plus: Sequence[NDArray], minus: Sequence[NDArray] = ()) -> NDArray[np.float32]:
    """The sum of some latents (Z,) less the sum of others, as in scan − its class's mean + another class's mean.

    Raises UsageError unless one more is added than subtracted: other sums lie off the images, with the mean added
    several times or taken away.
    """
    if len(plus) != len(minus) + 1:
        raise UsageError(f"{len(plus)} added and {len(minus)} subtracted latents do not end in one image's worth: add "
                         "one more than is subtracted.")
    total = np.sum([np.asarray(latent, np.float32).reshape(-1) for latent in plus], axis=0)
    return total - np.sum([np.asarray(latent, np.float32).reshape(-1) for latent in minus], axis=0) if minus else total


def towards(start: NDArray, means: Mapping[str, NDArray], source: str, target: str, amount: float = 1.0) -> NDArray:
    """`start` (Z,) moved by amount × (mean of label target − mean of label source). Raises UsageError for others."""
    unknown = [name for name in (source, target) if name not in means]
    if unknown:
        known = ", ".join(means) or "none"
        raise UsageError(f"The model knows no label '{unknown[0]}' (it knows: {known}).")
    step = np.asarray(means[target], np.float32).reshape(-1) - np.asarray(means[source], np.float32).reshape(-1)
    return np.asarray(start, np.float32).reshape(-1) + np.float32(amount) * step
