"""What is kept warm, and what is not."""

from __future__ import annotations

import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk

from MedVAELib.worker.warm import WarmDetector, WarmLatents, WarmSkull, content_key


@pytest.mark.parametrize("kind", [WarmDetector, WarmSkull, WarmLatents])
def test_what_ran_out_of_memory_is_loaded_anew(kind):
    warm = kind()
    warm.forget_if_degraded()  # nothing is loaded yet
    models = [SimpleNamespace(steps=steps) for steps in ([], ["out of memory on cuda: went on with cpu"], [])]
    waiting = iter(models)
    for expected in (0, 0):
        assert warm._get("model", lambda: next(waiting)) is models[expected]
        warm.forget_if_degraded()
    assert warm._get("other", lambda: next(waiting)) is models[1]
    warm.forget_if_degraded()
    assert warm._get("other", lambda: next(waiting)) is models[2]


def test_telling_scans_apart_copies_none():
    image = sitk.GetImageFromArray(np.zeros((64, 64, 64), np.float32))
    tracemalloc.start()
    key = content_key(image)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**18, "a quarter of its MiB"
    image[1, 2, 3] = 1.0
    assert content_key(image) != key
