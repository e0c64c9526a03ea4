"""What is kept warm, and what is not."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from MedVAELib.worker.warm import WarmDetector, WarmLatents, WarmSkull


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
