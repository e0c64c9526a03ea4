"""What computed a result, for its provenance."""

from __future__ import annotations

import platform

import numpy as np
import SimpleITK as sitk
import torch

from . import __version__


def versions() -> dict[str, str]:
    """The versions of MedVAE, Python and the packages that the numbers come from."""
    return {"medvae_version": __version__, "python": platform.python_version(), "torch": torch.__version__,
            "simpleitk": sitk.Version_VersionString(), "numpy": np.__version__}
