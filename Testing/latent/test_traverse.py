"""Ways through a latent space, on a model whose images are its latents."""

from __future__ import annotations

import numpy as np
import pytest

from MedVAELib.errors import UsageError
from MedVAELib.latent.traverse import along, arithmetic, interpolate, spread, towards, traverse


class Transparent:
    """Decodes a latent (2, 3) to the image that holds its values."""

    latent_shape = (2, 3)

    def decode(self, latent):
        return latent.reshape(-1, 1, *self.latent_shape)


def test_traversal_moves_one_latent():
    start = np.arange(6, dtype=np.float32)
    images = traverse(Transparent(), start, 4, [-1, 0, 9])
    assert images.shape == (3, 1, 2, 3) and images[:, 0, 1, 1].tolist() == [-1, 0, 9]
    images[:, 0, 1, 1] = 4
    assert (images == start.reshape(2, 3)).all()
    with pytest.raises(UsageError, match="0 to 5"):
        along(start, 6, [0])


def test_values_spread_around_the_mean():
    assert spread(2.0, 0.5, 5, 2).tolist() == [1, 1.5, 2, 2.5, 3]
    with pytest.raises(UsageError):
        spread(0, 1, 1, 2)


def test_interpolation_has_both_ends():
    way = interpolate(np.zeros((2, 3)), np.ones(6), 5)
    assert way.shape == (5, 6) and (way[0] == 0).all() and (way[-1] == 1).all() and (way[2] == 0.5).all()


def test_arithmetic():
    a, b, c = np.eye(3, dtype=np.float32)
    assert arithmetic([a, b], [c]).tolist() == [1, 1, -1]
    with pytest.raises(UsageError, match="one more"):
        arithmetic([a], [b])


def test_towards_a_label():
    means = {"healthy": np.zeros(3), "ms": np.array([1.0, 0, 2])}
    assert towards(np.ones(3), means, "healthy", "ms", 0.5).tolist() == [1.5, 1, 2]
    with pytest.raises(UsageError, match="healthy, ms"):
        towards(np.ones(3), means, "healthy", "tumour")
