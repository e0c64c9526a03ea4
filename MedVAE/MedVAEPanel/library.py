"""Where MedVAELib and its resources are: beside the module in a built extension, one folder up in a clone."""

from __future__ import annotations

import sys
from pathlib import Path

from .translation import tr as _

MODULE_DIR = Path(__file__).resolve().parents[1]
"""The folder of MedVAE.py."""


def library_root() -> Path:
    """The folder that holds `MedVAELib/` and `Resources/bundles/`; the worker gets it as PYTHONPATH.

    Raises ImportError, with a sentence for the user, when there is none.
    """
    for folder in (MODULE_DIR, MODULE_DIR.parent):
        if (folder / "MedVAELib" / "__init__.py").is_file():
            return folder
    raise ImportError(
        _("MedVAELib is neither in {folder} nor beside it: install the extension again, or add the folder MedVAE of a "
          "complete clone to the additional module paths.").format(folder=MODULE_DIR)
    )


def ensure_library_on_path() -> Path:
    """Makes `import MedVAELib` find the library that belongs to this panel, and returns `library_root()`."""
    root = library_root()
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))  # in front: another MedVAE installed with pip must not answer instead
    return root


def resource(name: str) -> Path:
    """A shipped file, e.g. `resource("sample/flair.nii.gz")`. Raises FileNotFoundError when it is not there."""
    file = library_root() / "Resources" / name
    if not file.exists():
        raise FileNotFoundError(
            _("{file} is missing: install the extension again, or use a complete clone.").format(file=file))
    return file
