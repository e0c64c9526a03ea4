"""Decoding slab by slab gives the whole decoder's numbers, at the grid's borders too."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from MedVAELib.inference.fusion import fuse_for_inference
from MedVAELib.inference.slabs import SlabDecoder

from .networks import small_net


@pytest.mark.parametrize("grid", [(32, 48, 32), (16, 16, 32), (48, 32, 16)])
def test_logits_of_slabs_equal_the_whole_decoders(grid):
    fused = fuse_for_inference(small_net(seed=1))
    scan = np.random.default_rng(0).random(grid, dtype=np.float32)
    with torch.no_grad():
        posterior = fused.encode(torch.from_numpy(scan)[None, None])
        z = torch.cat([posterior.mean, posterior.mean + 1])
        context = fused.prepare_context(posterior.skips)
        whole = fused.decode_folded(z, context)
        decode = SlabDecoder(fused, context)
        samples = [[plane.clone() for plane in sample] for sample in decode(z)]
    assert [len(planes) for planes in samples] == [grid[0] // 2] * 2
    for planes, wanted in zip(samples, whole, strict=True):
        torch.testing.assert_close(torch.cat(planes, 2)[0], wanted, atol=2e-4, rtol=1e-4)
