"""Two processes that share a batch get the loss, the gradients and the batch norms of one."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from MedVAELib.models import MODELS as ALL

from .whole_batches import MODELS, computed


def test_no_model_is_forgotten():
    assert set(MODELS) == set(ALL)


@pytest.mark.timeout(300)
def test_two_processes_give_what_one_does(tmp_path):
    file = tmp_path / "together.pt"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m",
               "Testing.models.whole_batches", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-3000:]
    together = torch.load(file, weights_only=True)
    for name in MODELS:
        alone = computed(name)
        assert alone.keys() == together[name].keys()
        for key, value in alone.items():
            # Next to the largest of its kind: where a gradient is nothing but rounding, so is the difference.
            scale = max(float(value.abs().max()), 1e-2 * float(alone["loss"].abs()), 1e-4)
            assert float((together[name][key] - value).abs().max()) < 2e-3 * scale, f"{name}: {key}"
