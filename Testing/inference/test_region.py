"""Decoding box by box gives the whole decoder's numbers, at the grid's borders too."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from MedVAELib.inference import Engine
from MedVAELib.inference.fusion import fuse_for_inference
from MedVAELib.inference.region import SlabDecoder, slabs_of
from MedVAELib.networks.healthy_anatomy import HealthyAnatomyNet

from .standin import FoldedStandIn, make_standin, randomise

GRID = (32, 48, 32)
WEIGHTS = np.array([0.0, 0.5, 0.7, 0.6, 0.1, 0.15, 0.5, 0.65, 0.3], np.float32)


@pytest.fixture(scope="module")
def model() -> HealthyAnatomyNet:
    return randomise(HealthyAnatomyNet(width=8, latent=4), seed=1)


@pytest.fixture(scope="module")
def scan() -> np.ndarray:
    return np.random.default_rng(0).random(GRID, dtype=np.float32)


def regions() -> dict[str, np.ndarray]:
    z, y, x = np.ogrid[:32, :48, :32]
    single, corner = np.zeros(GRID, bool), np.zeros(GRID, bool)
    single[17, 20, 9] = True
    corner[28:, 40:, :7] = True
    return {
        "everything": np.ones(GRID, bool),
        "ellipsoid": ((z - 15) / 11) ** 2 + ((y - 22) / 17) ** 2 + ((x - 17) / 10) ** 2 < 1,
        "one voxel": single,
        "corner": corner,
        "two parts": single | corner,
    }


@pytest.mark.parametrize("name", regions())
def test_boxes_cover_the_region_without_overlap(name):
    region = regions()[name]
    covered = np.zeros(GRID, int)
    for box in slabs_of(region):
        covered[box.slices(scale=2)] += 1
    assert covered.max() == 1 and (covered[region] == 1).all()


@pytest.mark.parametrize("name", regions())
def test_logits_of_boxes_equal_the_whole_decoders(name, model, scan):
    fused = fuse_for_inference(model)
    boxes = slabs_of(regions()[name])
    with torch.no_grad():
        posterior = fused.encode(torch.from_numpy(scan)[None, None])
        z = torch.cat([posterior.mean, posterior.mean + 1])
        context = fused.prepare_context(posterior.skips)
        whole = fused.decode_folded(z, context)
        parts = list(SlabDecoder(fused, boxes)(z, context))
    assert len(parts) == len(boxes)
    for box, part in zip(boxes, parts, strict=True):
        torch.testing.assert_close(part, whole[(..., *box.slices())], atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("network", ["real", "stand-in"])
def test_region_has_the_whole_moments_inside_and_the_posterior_mean_outside(network, model, scan):
    engine = Engine("cpu", "float32").load(model if network == "real" else make_standin(FoldedStandIn))
    encoded = engine.encode(scan)
    mean = engine.decode_mean(encoded).copy()
    region = regions()["two parts"]
    whole = engine.moments(encoded, 3, WEIGHTS)
    found = engine.moments(encoded, 3, WEIGHTS, region=region)
    np.testing.assert_allclose(found.probability[:, region], whole.probability[:, region], atol=1e-5)
    np.testing.assert_allclose(found.reconstruction[region], whole.reconstruction[region], atol=1e-5)
    np.testing.assert_allclose(found.std[region], whole.std[region], atol=1e-5)
    np.testing.assert_array_equal(found.probability[:, ~region], mean[:, ~region])
    np.testing.assert_allclose(found.reconstruction[~region], np.tensordot(WEIGHTS, mean, 1)[~region], atol=1e-6)
    assert found.std[~region].max() == 0 and found.std[region].min() > 0 and found.samples == 3
    np.testing.assert_array_equal(engine.decode_mean(encoded), mean)  # the kept one is not written to


def test_a_region_off_the_grid_or_empty_is_refused(model, scan):
    engine = Engine("cpu", "float32").load(model)
    encoded = engine.encode(scan)
    for region in (np.zeros(GRID, bool), np.ones((8, 8, 8), bool)):
        with pytest.raises(ValueError, match="region"):
            engine.moments(encoded, 1, WEIGHTS, region=region)
