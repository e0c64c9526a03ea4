"""A real scan, opened from its file and detected on by a click; the same voxels as from the batch script."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import SimpleITK as sitk

from MedVAELib.preprocessing.geometry import ras_mm_to_ijk
from Testing.warm_python import warm

from .detections import ROOT
from .ticks import INTERVAL_MS, Ticks

CASE = "ms_isbi_02"
SAMPLES = 4


@pytest.fixture
def opened(panel, medvae_data):
    """The panel with the scan loaded as File > Add data does it; nothing was chosen in the panel."""
    import slicer

    panel.file = medvae_data / "brain" / "flair" / CASE / "flair.nii.gz"
    panel.scan = slicer.util.loadVolume(str(panel.file))
    for name in ("Red", "Yellow", "Green"):
        panel.host.views[name].fit()
    assert panel.pump(lambda: panel.tab.parameters.scan is panel.scan, 10), "the scan in the views was not chosen"
    return panel


def _outlined_lesions(panel, view) -> np.ndarray:
    """The experts' outline (either rater's) in the slice that the view shows: one bool per pixel, row 0 on top."""
    import slicer

    masks = [sitk.ReadImage(str(panel.file.with_name(f"mask{rater}.nii.gz"))) for rater in (1, 2)]
    lesions_zyx = np.any([sitk.GetArrayFromImage(mask) > 0 for mask in masks], axis=0)
    height, width = panel.image("Red").shape[:2]
    x, y = np.meshgrid(np.arange(width), height - 1 - np.arange(height))
    xyz = np.stack([x, y, np.zeros_like(x), np.ones_like(x)], -1)
    ras = (xyz @ slicer.util.arrayFromVTKMatrix(view.node.GetXYToRAS()).T)[..., :3]
    index = np.round(ras_mm_to_ijk(masks[0], ras)).astype(int)
    inside = np.all((index >= 0) & (index < lesions_zyx.shape[::-1]), axis=-1)
    shown = np.zeros((height, width), bool)
    i, j, k = index[inside].T
    shown[inside] = lesions_zyx[k, j, i]
    return shown


def _on_files_grid(volume, file) -> np.ndarray:
    """A volume node's values in the file's storage order: Slicer flips an axis of left-handed files when it reads."""
    import slicer

    image = sitk.ReadImage(str(file))
    own = sitk.GetImageFromArray(slicer.util.arrayFromVolume(volume))
    placed = placement_of(volume)
    own.SetSpacing(placed["spacing"])
    own.SetOrigin(placed["origin"])
    own.SetDirection(placed["direction"])
    back = sitk.DICOMOrient(own, sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(image.GetDirection()))
    np.testing.assert_allclose(back.GetOrigin(), image.GetOrigin(), atol=1e-3)
    np.testing.assert_allclose(back.GetDirection(), image.GetDirection(), atol=1e-5)
    return sitk.GetArrayFromImage(back)


def placement_of(volume) -> dict[str, list[float]]:
    from MedVAEPanel.scan_node import placement

    return placement(volume).as_itk()


def test_a_click_on_a_real_scan(opened, record_property, tmp_path):
    opened.ready()
    looked = opened.pump(lambda: opened.ui.statusLabel.text.startswith("FLAIR"), 60)
    assert looked, "\n".join([opened.ui.statusLabel.text, *opened.widget.log.tail(40)])
    with Ticks() as ticks:
        opened.detect(samples=SAMPLES)
    record_property("figure", f"event loop during a detection on {CASE}: {ticks}")
    assert ticks.count > 0.25 * ticks.seconds / (INTERVAL_MS / 1000), str(ticks)

    result = opened.tab.results.result
    table = opened.ui.findingsTable
    assert table.rowCount >= 5
    table.selectRow(0)
    opened.pump(seconds=0.05)
    _check_pixels(opened)
    segmentation = result.node("segmentation").GetSegmentation()
    assert segmentation.GetNumberOfSegments() >= table.rowCount
    provenance = json.loads(result.node("anomaly").GetAttribute("MedVAE.Provenance"))
    assert provenance["samples"] == SAMPLES and len(provenance["bundle_sha256"]) == 64
    assert provenance["settings"]["fpr"] == 0.01 and result.scan is opened.scan

    command = [ROOT / "MedVAE" / "Batch" / "detect.py", opened.file, "--output", tmp_path / "out", "--samples", SAMPLES,
               "--device", "cpu"]
    done = subprocess.run(warm([sys.executable, *map(str, command)]), capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    for role in ("anomaly", "residual", "reconstruction", "std"):
        (file,) = (tmp_path / "out").rglob(f"{role}.nii.gz")
        clicked = _on_files_grid(result.node(role), opened.file)
        assert sitk.GetArrayFromImage(sitk.ReadImage(str(file))).tobytes() == clicked.tobytes(), role


def _check_pixels(opened) -> None:
    """What is coloured in the red view is mostly what experts outlined, and is not there without the map."""
    view = opened.host.views["Red"]
    opened.tab.results.result.node("segmentation").GetDisplayNode().SetVisibility(False)
    for legend in _legends():
        legend.SetVisibility(False)
    image = opened.image("Red").astype(int)
    coloured = np.ptp(image, axis=2) > 60
    lesions = _outlined_lesions(opened, view)
    assert lesions.sum() > 100, "the first finding is in a slice without lesions"
    assert (coloured & lesions).sum() > 0.4 * lesions.sum(), "lesions without colour"
    assert coloured[~lesions].mean() < 0.03, "colour all over"
    opened.ui.opacitySlider.value = 0.0
    plain = opened.image("Red").astype(int)
    assert (np.ptp(plain, axis=2) == 0).all(), "colour without the map"
    opened.ui.opacitySlider.value = 0.8


def _legends():
    import slicer

    return slicer.util.getNodesByClass("vtkMRMLColorLegendDisplayNode")
