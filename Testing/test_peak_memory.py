"""The memory that `make bench` reports is the detection's own."""

import subprocess
import sys
from pathlib import Path

import numpy as np

from Testing.benchmarks.peak_memory import peak_bytes

ROOT = Path(__file__).resolve().parents[1]


def test_memory_of_the_parent_does_not_count():
    held = np.ones(64 * 2**20)
    code = "from Testing.benchmarks.peak_memory import peak_bytes; print(peak_bytes())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert peak_bytes() > held.nbytes > 4 * int(done.stdout)
