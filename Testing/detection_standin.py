"""A small, complete Detection made by hand, for tests of what happens to a result."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from MedVAELib.anomaly.result import Detection, Finding
from MedVAELib.scan import Scan

SIZE_XYZ, SPACING_MM = (30, 34, 26), (4.0, 4.5, 5.5)


def standin_image(seed: int = 0) -> sitk.Image:
    """A bright ellipsoid with noise on an oblique, anisotropic grid away from the origin."""
    random = np.random.default_rng(seed)
    inside_zyx = brain_zyx()
    values_zyx = random.normal(10, 2, inside_zyx.shape) + 100 * inside_zyx * random.uniform(0.8, 1.2, inside_zyx.shape)
    image = sitk.GetImageFromArray(values_zyx.astype(np.float32))
    _place(image)
    return image


def brain_zyx() -> np.ndarray:
    shape = SIZE_XYZ[::-1]
    grid = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    return sum(axis**2 for axis in grid) < 0.5


def standin_detection(scan: Scan | None = None) -> Detection:
    """One bright finding of 2x3x4 voxels, geometry as the scan's."""
    scan = scan or Scan.from_image(standin_image(), name="standin")
    brain = brain_zyx()
    random = np.random.default_rng(1)
    anomaly = np.where(brain, random.normal(0, 1, brain.shape), 0).astype(np.float32)
    mask = np.zeros(brain.shape, np.uint8)
    mask[12:16, 15:18, 14:16] = 1
    anomaly[mask > 0] += 6
    reconstruction = np.where(brain, 100, 0).astype(np.float32)
    residual = np.where(brain, scan.array_zyx() - reconstruction, 0).astype(np.float32)
    centre = scan.image.TransformContinuousIndexToPhysicalPoint((14.5, 16.0, 13.5))
    ras = (-centre[0], -centre[1], centre[2])
    finding = Finding(1, "bright", "left white matter", 24 * float(np.prod(SPACING_MM)) / 1000, 9.2, 6.1, ras, ras,
                      (14, 15, 12), (2, 3, 4))

    def image(values: np.ndarray) -> sitk.Image:
        made = sitk.GetImageFromArray(values)
        made.CopyInformation(scan.image)
        return made

    edges = np.linspace(-5, 10, 31)
    density = np.exp(-((edges[:-1] + 0.25) ** 2) / 2) / np.sqrt(2 * np.pi)
    return Detection(
        scan=scan, modality="flair", anomaly=image(anomaly), residual=image(residual),
        reconstruction=image(reconstruction), std=image(np.where(brain, 2.5, 0).astype(np.float32)),
        mask=image(mask), brain=image(brain.astype(np.uint8)), components=image(mask.astype(np.uint16)),
        findings=[finding], threshold=3.0, fpr=0.01, unit="standard deviations",
        reference_histogram={"edges": edges.tolist(), "density": density.tolist()},
        warnings=["The scan is a stand-in."],
        provenance={"device": "cpu", "seed": np.int64(3), "bundle": {"name": "standin"}, "worst": float("nan"),
                    "timings_s": {"network": np.float32(0.5)}},
    )


def quick_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are tested elsewhere: from now on two small files stand for the report."""

    def write_report(result: Detection, directory: Path) -> None:
        (directory / "report.html").write_text("<html></html>")
        (directory / "overlay.png").write_bytes(b"png")

    monkeypatch.setattr("MedVAELib.report.write_report", write_report)


def _place(image: sitk.Image) -> None:
    cos, sin = np.cos(0.3), np.sin(0.3)
    image.SetSpacing(SPACING_MM)
    image.SetOrigin((-61.5, 47.25, -70.125))
    image.SetDirection((cos, -sin, 0, -sin, -cos, 0, 0, 0, 1))  # oblique and with y running backwards
