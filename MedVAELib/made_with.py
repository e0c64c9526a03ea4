"""What computed a result, and when, for its provenance."""

from __future__ import annotations

import platform
from datetime import datetime

import numpy as np
import SimpleITK as sitk
import torch

from . import __version__


def made_with() -> dict[str, str]:
    """The time (ISO 8601, with this place's offset from UTC), and the versions of MedVAE, Python and the packages that
    the numbers come from."""
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    return {"made": now, "medvae_version": __version__, "python": platform.python_version(), "torch": torch.__version__,
            "simpleitk": sitk.Version_VersionString(), "numpy": np.__version__}
