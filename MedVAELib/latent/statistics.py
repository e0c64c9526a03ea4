"""What the latents of a model look like over its training images: the part of a bundle that makes sense of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError

ACTIVE_VARIANCE = 0.01
"""A latent is active if the posterior's mean varies more than this over the images (Burda et al. 2016)."""
_DIGITS = 5


@dataclass(frozen=True, eq=False)
class LatentMoments:
    """count: images; mean, std: of the posterior's mean over them, (Z,), latents flattened in C order."""

    count: int
    mean: NDArray[np.float32]
    std: NDArray[np.float32]

    @classmethod
    def of(cls, means: NDArray[np.float32]) -> LatentMoments:
        """means: (N, Z)."""
        return cls(len(means), means.mean(0), means.std(0))

    @property
    def active(self) -> NDArray[np.bool_]:
        """Which latents say something about the image, (Z,)."""
        return self.std**2 > ACTIVE_VARIANCE

    def plain(self) -> dict[str, object]:
        return {"count": self.count, "mean": _rounded(self.mean), "std": _rounded(self.std)}

    @classmethod
    def of_plain(cls, raw: dict[str, object]) -> LatentMoments:
        return cls(int(raw["count"]), np.array(raw["mean"], np.float32), np.array(raw["std"], np.float32))


@dataclass(frozen=True, eq=False)
class LatentStatistics:
    """all: over every training image; kl: mean KL divergence from the prior in nats, (Z,), None for a model without a
    posterior; labels: over the images of each label."""

    all: LatentMoments
    kl: NDArray[np.float32] | None = None
    labels: dict[str, LatentMoments] = field(default_factory=dict)

    @property
    def active(self) -> NDArray[np.bool_]:
        """As `LatentMoments.active`, over every training image."""
        return self.all.active

    def plain(self) -> dict[str, object]:
        """In JSON's own types."""
        kl = None if self.kl is None else _rounded(self.kl)
        return self.all.plain() | {"kl": kl, "labels": {name: part.plain() for name, part in self.labels.items()}}

    @classmethod
    def of_plain(cls, raw: object, where: str) -> LatentStatistics:
        """Raises BundleError, naming `where`, for anything but what `plain` gave."""
        try:
            kl = None if raw["kl"] is None else np.array(raw["kl"], np.float32)
            labels = {str(name): LatentMoments.of_plain(part) for name, part in raw["labels"].items()}
            return cls(LatentMoments.of_plain(raw), kl, labels)
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise BundleError(f"{where} has no usable statistics of its latents: get the bundle again.") from error


def latent_statistics(
    means: NDArray[np.float32], kl: NDArray[np.float32] | None, labels: Sequence[str]
) -> LatentStatistics:
    """means: (N, *latent_shape); kl: the same or None; labels: N of them, "" for none."""
    flat = means.reshape(len(means), -1)
    groups = {name: np.array([label == name for label in labels]) for name in sorted(set(labels) - {""})}
    moments = {name: LatentMoments.of(flat[rows]) for name, rows in groups.items()}
    return LatentStatistics(LatentMoments.of(flat), None if kl is None else kl.reshape(len(kl), -1).mean(0), moments)


def _rounded(values: NDArray[np.float32]) -> list[float]:
    return [float(f"{value:.{_DIGITS}g}") for value in values]
