"""The module's self-test: the panel and a made result without PyTorch, and a real detection on the sample."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import slicer

from . import library
from .sample_data import load_sample
from .scan_node import own_ijk_to_ras
from .waiting import WorkerFailed

SAMPLES = 4
_FINDING = {"label": 1, "polarity": "bright", "location": "left white matter", "volume_ml": 1.0, "peak": 5.0,
            "mean": 4.0} | {f"{what}_{axis}_mm": 0.0 for what in ("centroid", "peak") for axis in "ras"}


def run_without_torch(test) -> None:
    """`test`: a MedVAETest. Opens the panel, puts a made result into the scene and takes it away."""
    from MedVAE import MedVAELogic

    test.delayDisplay("Opening the panel")
    test.assertIsNotNone(slicer.modules.medvae.widgetRepresentation(), "the panel cannot be opened")
    scan, logic = load_sample(), MedVAELogic()
    test.assertIsNotNone(scan, "the sample cannot be loaded")
    before = slicer.mrmlScene.GetNumberOfNodes()
    with tempfile.TemporaryDirectory(prefix="medvae-test-") as folder:
        given = logic.request(scan, folder)
        np.testing.assert_array_equal(np.load(given["array"]), slicer.util.arrayFromVolume(scan))
        result = logic.addResult(scan, made_reply(np.load(given["array"]), Path(folder)))
    test.assertEqual(result.node("findings").GetNumberOfRows(), 1)
    segmentation = result.node("segmentation").GetSegmentation()
    test.assertEqual(segmentation.GetNumberOfSegments(), 2, "the finding and the brain")
    np.testing.assert_allclose(own_ijk_to_ras(result.node("anomaly")), own_ijk_to_ras(scan))
    test.assertTrue(logic.removeLastResult())
    test.assertEqual(slicer.mrmlScene.GetNumberOfNodes(), before, "removing a result leaves nodes behind")


def made_reply(values_zyx: np.ndarray, folder: Path) -> dict:
    """As the worker's to "detect", with the brightest voxels for the one finding."""
    brain = values_zyx > 0
    found = values_zyx >= np.quantile(values_zyx[brain], 0.99)
    arrays = {name: (5.0 * found).astype(np.float32) for name in ("anomaly", "residual", "reconstruction", "std")}
    arrays |= {"mask": found.astype(np.uint8), "brain": brain.astype(np.uint8), "components": found.astype(np.uint16)}
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return {"arrays": {name: str(folder / f"{name}.npy") for name in arrays}, "findings": [_FINDING], "threshold": 3.0,
            "unit": "-log10(p)", "modality": "flair"}


def run(test) -> None:
    """`test`: a MedVAETest. Skipped, saying so, where PyTorch is not installed."""
    from MedVAE import MedVAELogic

    test.delayDisplay("Loading the sample")
    scan = load_sample()
    test.assertIsNotNone(scan, "the sample cannot be loaded")
    before = slicer.mrmlScene.GetNumberOfNodes()
    logic = MedVAELogic()
    try:
        test.delayDisplay("Detecting anomalies")
        check_result(test, scan, logic.detect(scan, samples=SAMPLES))
    except WorkerFailed as error:
        if error.kind == "MissingPackage":
            test.skipTest(str(error))
        test.fail(str(error))
    finally:
        logic.close()
    test.assertTrue(logic.removeLastResult())
    test.assertEqual(slicer.mrmlScene.GetNumberOfNodes(), before, "removing a result leaves nodes behind")
    test.delayDisplay("Test passed")


def check_result(test, scan, result) -> None:
    """What was put into the sample is found, where it was put, on the sample's own grid."""
    truth = slicer.util.loadLabelVolume(str(library.resource("sample/truth.nii.gz")), {"name": "truth", "show": False})
    truth_zyx = np.array(slicer.util.arrayFromVolume(truth))
    slicer.mrmlScene.RemoveNode(truth)
    anomaly = result.node("anomaly")
    anomaly_zyx = slicer.util.arrayFromVolume(anomaly)
    test.assertEqual(anomaly_zyx.shape, slicer.util.arrayFromVolume(scan).shape)
    test.assertEqual(anomaly_zyx.shape, truth_zyx.shape)
    np.testing.assert_allclose(own_ijk_to_ras(anomaly), own_ijk_to_ras(scan))
    threshold = float(anomaly.GetAttribute("MedVAE.Threshold"))
    found = [label for label in np.unique(truth_zyx)[1:] if (anomaly_zyx[truth_zyx == label] >= threshold).any()]
    test.assertGreaterEqual(len(found), 2, "of the three lesions in the sample")
    test.assertGreater(anomaly_zyx[truth_zyx > 0].mean(), 2 * anomaly_zyx[(truth_zyx == 0) & (anomaly_zyx > 0)].mean())
    table, segmentation = result.node("findings"), result.node("segmentation").GetSegmentation()
    test.assertGreater(table.GetNumberOfRows(), 0)
    test.assertGreater(segmentation.GetNumberOfSegments(), 0)
    test.assertIn("bundle_sha256", result.provenance)

