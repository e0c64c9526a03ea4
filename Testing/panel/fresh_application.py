"""A saved scene read back where nothing is known of it: in a fresh application, a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from .detections import ROOT

_OPEN = """
import json, os, sys, time
from pathlib import Path
from Testing.slicer_host import application
host = application.start()
import numpy as np
import slicer
file, panel_first = sys.argv[1], sys.argv[2] == "panel first"
if panel_first:
    _, _, widget, top = application.loadModule(os.path.join("MedVAE", "MedVAE.py"))
    slicer.app.startupCompleted.emit()
    widget.enter()
slicer.util.loadScene(file)
if not panel_first:
    _, _, widget, top = application.loadModule(os.path.join("MedVAE", "MedVAE.py"))
    widget.enter()
for _ in range(20):
    slicer.app.processEvents()
    time.sleep(0.005)
"""
_TELL = """
widget.cleanup()
print("TOLD" + json.dumps(told))
"""


def reopened(file: Path, order: str, arrays: Path, look: str) -> dict[str, Any]:
    """What `look` puts into `told` once the scene is loaded and the panel open, as `widget` in `host`; order:
    "panel first" or "scene first". `look` writes its arrays into the file `arrays`, named in sys.argv[3]."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([sys.executable, "-c", _OPEN + look + _TELL, str(file), order, str(arrays)], cwd=ROOT,
                          env=environment, capture_output=True, text=True, timeout=240)
    told = [line[4:] for line in done.stdout.splitlines() if line.startswith("TOLD")]
    assert told, done.stdout[-3000:] + done.stderr[-6000:]
    return json.loads(told[0])
