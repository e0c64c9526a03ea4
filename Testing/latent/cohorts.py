"""Tables of latents made up for tests: three classes that latent 1 tells apart, with tags related to them or not."""

from __future__ import annotations

import numpy as np

from MedVAELib.latent.table import LatentTable

CLASSES = ("healthy", "mild", "severe")


def cohort(patients: int = 60, latents: int = 6, seed: int = 0, apart: float = 4.0, confounded: bool = False,
           split: bool = True) -> LatentTable:
    """Two images per patient; `apart` is how many standard deviations lie between the classes in latent 1."""
    random = np.random.default_rng(seed)
    of_patient = np.arange(patients) % len(CLASSES)
    kind = of_patient.repeat(2)
    mean = random.normal(0, 1, (2 * patients, latents))
    mean[:, 1] += apart * kind
    related = kind if confounded else random.permutation(of_patient).repeat(2)
    tags = {"repetition_time_ms": 8000 + 500 * related + random.normal(0, 60, len(kind)),
            "echo_time_ms": random.normal(120, 5, len(kind)),
            "scanner": np.array(["A", "B"], object)[random.integers(0, 2, len(kind))]}
    names = [f"p{i:02d}" for i in range(patients)]
    return LatentTable(
        [f"{name}_{scan}" for name in names for scan in (1, 2)], [name for name in names for _ in (1, 2)],
        mean.astype(np.float32), np.full(mean.shape, -2.0, np.float32), [CLASSES[i] for i in kind],
        ["test" if i % 4 == 3 else "train" for i in range(patients) for _ in (1, 2)] if split else (), tags)
