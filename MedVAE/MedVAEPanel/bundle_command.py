"""Imports or verifies bundles in a Python of its own: it needs torch, which is not loaded into Slicer itself.

    PythonSlicer -m MedVAEPanel.bundle_command import FILE_OR_FOLDER
    PythonSlicer -m MedVAEPanel.bundle_command verify NAME...

Prints one JSON object: {"name", "path"} or {"problems": {name: sentence}}; {"error": sentence} when it failed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from .library import ensure_library_on_path

_FOR_THE_COMMAND_LINE = "import under another name with --name"
_FOR_THE_PANEL = "give the file or folder another name and import it again"


def import_one(source: str) -> dict[str, Any]:
    from MedVAELib.bundle_import import import_bundle

    bundle = import_bundle(source)
    return {"name": bundle.name, "path": str(bundle.path)}


def verify(names: Sequence[str]) -> dict[str, Any]:
    """Checksum, format and every number of the weights of each bundle."""
    from MedVAELib.bundle import load_bundle
    from MedVAELib.errors import BundleError

    problems = {}
    for name in names:
        try:
            load_bundle(name).verify()
            problems[name] = ""
        except BundleError as error:
            problems[name] = str(error)
    return {"problems": problems}


def main(arguments: Sequence[str]) -> int:
    command, *rest = arguments
    ensure_library_on_path()
    from MedVAELib.failures import Failure

    try:
        answer = import_one(rest[0]) if command == "import" else verify(rest)
    except Exception as error:
        answer = {"error": Failure.of(error).message.replace(_FOR_THE_COMMAND_LINE, _FOR_THE_PANEL)}
    print(json.dumps(answer), flush=True)
    return int("error" in answer)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
