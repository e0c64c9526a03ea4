"""The module's self-test: a real detection on the sample, from the node in the scene to nodes in the scene."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import slicer

from . import library
from .sample_data import load_sample
from .worker_client import WorkerClient, python_command

LIMIT_S = 600
SAMPLES = 4


def run(test) -> None:
    """`test`: a MedVAETest. Skipped, saying so, where PyTorch is not installed."""
    from MedVAE import MedVAELogic

    test.delayDisplay("Loading the sample")
    scan = load_sample()
    test.assertIsNotNone(scan, "the sample cannot be loaded")
    before = slicer.mrmlScene.GetNumberOfNodes()
    logic = MedVAELogic()
    lines: list[str] = []
    worker = WorkerClient(python_command(), library.ensure_library_on_path(), lines.append)
    try:
        info = ask(worker, "info", {})
        if info["missing"]:
            test.skipTest(f"not installed: {', '.join(info['missing'])}; install it in MedVAE's section Setup")
        folder = worker.folder("self-test")
        test.delayDisplay("Detecting anomalies")
        reply = ask(worker, "detect", {"scan": logic.request(scan, folder), "samples": SAMPLES, "device": "auto",
                                       "output": str(folder / "result")})  # fmt: skip
        result = logic.addResult(scan, reply)
        check_result(test, scan, result)
    except WorkerFailed as error:
        test.fail("\n".join([str(error), *lines[-20:]]))
    finally:
        worker.shutdown()
    test.assertTrue(logic.removeLastResult())
    test.assertEqual(slicer.mrmlScene.GetNumberOfNodes(), before, "removing a result leaves nodes behind")
    test.delayDisplay("Test passed")


class WorkerFailed(Exception):
    pass


def ask(worker: WorkerClient, task: str, fields: dict[str, Any]) -> dict[str, Any]:
    """The worker's answer, waited for. Raises WorkerFailed."""
    answers: list[Callable[[], dict[str, Any]]] = []

    def fail(error) -> dict[str, Any]:
        raise WorkerFailed(f"{task}: {error['message']}")

    worker.request(task, fields, lambda reply: answers.append(lambda: dict(reply)),
                   lambda error: answers.append(lambda: fail(error)))  # fmt: skip
    end = time.monotonic() + LIMIT_S
    while not answers:
        slicer.app.processEvents()
        time.sleep(0.01)
        if time.monotonic() > end:
            raise WorkerFailed(f"{task}: no answer within {LIMIT_S} s")
    return answers[0]()


def check_result(test, scan, result) -> None:
    """What was put into the sample is found, where it was put, on the sample's own grid."""
    truth = slicer.util.loadLabelVolume(str(library.resource("sample/truth.nii.gz")), {"name": "truth", "show": False})
    truth_zyx = np.array(slicer.util.arrayFromVolume(truth))
    slicer.mrmlScene.RemoveNode(truth)
    anomaly = result.node("anomaly")
    anomaly_zyx = slicer.util.arrayFromVolume(anomaly)
    test.assertEqual(anomaly_zyx.shape, slicer.util.arrayFromVolume(scan).shape)
    test.assertEqual(anomaly_zyx.shape, truth_zyx.shape)
    np.testing.assert_allclose(ijk_to_ras(anomaly), ijk_to_ras(scan))
    threshold = float(anomaly.GetAttribute("MedVAE.Threshold"))
    found = [label for label in np.unique(truth_zyx)[1:] if (anomaly_zyx[truth_zyx == label] >= threshold).any()]
    test.assertGreaterEqual(len(found), 2, "of the three lesions in the sample")
    test.assertGreater(anomaly_zyx[truth_zyx > 0].mean(), 2 * anomaly_zyx[(truth_zyx == 0) & (anomaly_zyx > 0)].mean())
    table, segmentation = result.node("findings"), result.node("segmentation").GetSegmentation()
    test.assertGreater(table.GetNumberOfRows(), 0)
    test.assertGreater(segmentation.GetNumberOfSegments(), 0)
    test.assertIn("bundle_sha256", result.provenance)


def ijk_to_ras(node) -> np.ndarray:
    import vtk

    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)
