"""Which latents matter: by how much of an image they carry, or by how far they set labels apart."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from .statistics import LatentStatistics


def carried(statistics: LatentStatistics) -> NDArray[np.float64]:
    """Per latent, (Z,): mean KL divergence from the prior in nats; of a model without one, the variance of the mean."""
    return np.asarray(statistics.all.std, np.float64) ** 2 if statistics.kl is None else \
        np.asarray(statistics.kl, np.float64)


def separation(statistics: LatentStatistics) -> NDArray[np.float64]:
    """Per latent, (Z,): share of its variance that lies between the labels (eta squared, 0…1); 0 where it is constant.

    Raises UsageError with fewer than two labels.
    """
    groups = list(statistics.labels.values())
    if len(groups) < 2:
        raise UsageError("Latents can be ordered by separation only where there are two labels at least: order by kl.")
    counts = np.array([group.count for group in groups], np.float64)[:, None]
    means = np.array([group.mean for group in groups], np.float64)
    within = (counts * np.array([group.std for group in groups], np.float64) ** 2).sum(0)
    between = (counts * (means - (counts * means).sum(0) / counts.sum()) ** 2).sum(0)
    total = within + between
    return np.divide(between, total, out=np.zeros_like(total), where=total > 1e-12 * counts.sum())


def order_of_latents(statistics: LatentStatistics, by: str = "kl") -> NDArray[np.int64]:
    """Indices of the latents, the one that matters most first. by: "kl" (see `carried`) or "separation"."""
    measures = {"kl": carried, "separation": separation}
    if by not in measures:
        raise UsageError(f"Latents can be ordered by {' or '.join(measures)}, not by '{by}'.")
    return np.argsort(-measures[by](statistics), kind="stable")
