"""Where the files that travel with MedVAE are: shipped bundles, the sample scan, the atlas, training configs."""

from __future__ import annotations

import os
from pathlib import Path

from .errors import UsageError

RESOURCES_VARIABLE = "MEDVAE_RESOURCES"


def resource_dir() -> Path:
    """The folder that holds `bundles/`, `sample/`, `atlas/` and `configs/`.

    Looked for in this order: `$MEDVAE_RESOURCES`; `Resources/` beside the package (a clone, or a Slicer module);
    `MedVAELib/bundled/` (an installed wheel). Raises UsageError when none of them is there.
    """
    named = os.environ.get(RESOURCES_VARIABLE)
    if named:
        folder = Path(named).expanduser()
        if not folder.is_dir():
            raise UsageError(f"{RESOURCES_VARIABLE} names {folder}, which is not a folder: correct or unset it.")
        return folder
    package = Path(__file__).resolve().parent
    for folder in (package.parent / "Resources", package / "bundled"):
        if (folder / "bundles").is_dir():  # beside an installed package, any other may have put a folder Resources
            return folder
    raise UsageError(
        f"The folder Resources is not beside {package}: install MedVAE again, or set {RESOURCES_VARIABLE} to it."
    )
