"""What the panel's tests share: scans in the scene, one real detection for all, a person's way through it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from Testing.warm_python import warm

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "Resources" / "sample" / "flair.nii.gz"


def add_scan(name: str = "FLAIR", image: sitk.Image | None = None):
    """A volume node that was never saved to a file. image: the sample, unless given."""
    import slicer

    image = sitk.ReadImage(str(SAMPLE)) if image is None else image
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    slicer.util.updateVolumeFromArray(node, sitk.GetArrayFromImage(image))
    matrix = np.eye(4)
    matrix[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    matrix[:3, 3] = image.GetOrigin()
    node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(np.diag([-1.0, -1.0, 1.0, 1.0]) @ matrix))
    node.CreateDefaultDisplayNodes()
    return node


def detect_once(folder: Path) -> dict:
    """The worker's reply to a detection on the sample: a real one, in a process of its own."""
    request = {"id": 1, "task": "detect", "scan": {"file": str(SAMPLE)}, "modality": "auto", "device": "cpu",
               "samples": 2, "fpr": 0.01, "score": "zscore", "seed": 0, "output": str(folder / "result")}
    process = subprocess.Popen(warm([sys.executable, "-m", "MedVAELib.worker"]), stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        process.stdin.write(json.dumps(request).encode() + b"\n")
        process.stdin.flush()
        for line in process.stdout:
            reply = json.loads(line)
            if reply["event"] in ("result", "error"):
                assert reply["event"] == "result", reply
                return reply
        raise AssertionError("the worker ended without a reply")
    finally:
        process.kill()
        process.wait()


def node_ids() -> set[str]:
    import slicer

    scene = slicer.mrmlScene
    return {scene.GetNthNode(index).GetID() for index in range(scene.GetNumberOfNodes())}


def alive(pid: int) -> bool:
    """Whether the process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[-1].split()[0] != "Z"
    except OSError:
        return False
