"""A prepared scan gives the same result as a fresh one, to the last bit, however often and with whatever settings."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from MedVAELib.anomaly.detect import Detector, detect_anomalies, prepare_scan
from MedVAELib.preprocessing.geometry import ras_grid, to_grid
from MedVAELib.resources import resource_dir
from MedVAELib.scan import Scan

VOLUMES = ("anomaly", "residual", "reconstruction", "std", "mask", "brain", "components")


@pytest.fixture(scope="module")
def detector():
    return Detector.load(device="cpu")


@pytest.fixture(scope="module")
def scan():
    """The bundled sample on a coarser grid."""
    image = sitk.ReadImage(str(resource_dir() / "sample" / "flair.nii.gz"), sitk.sitkFloat32)
    return Scan.from_image(to_grid(image, ras_grid((0, 0, 0), (80, 96, 80), 2.2)))


def volumes(detection):
    return {name: sitk.GetArrayFromImage(getattr(detection, name)).tobytes() for name in VOLUMES}


def test_every_detection_on_a_prepared_scan_is_that_of_a_fresh_one(detector, scan):
    """More samples overwrite nothing that the next detection reads: one sample comes first and last."""
    prepared = prepare_scan(detector, scan)
    assert not detect_anomalies(scan, detector=detector, samples=1).provenance["reused_stages"]
    for settings in ({"samples": 1}, {"samples": 3, "seed": 5}, {"samples": 3, "seed": 5, "fpr": 0.002},
                     {"samples": 2, "score": "kl_gradient"}, {"samples": 1, "score": "ssim"}, {"samples": 1}):
        again = detect_anomalies(scan, prepared=prepared, **settings)
        fresh = detect_anomalies(scan, detector=detector, **settings)
        assert volumes(again) == volumes(fresh), settings
        assert again.findings == fresh.findings
        assert {"load", "anatomy", "fit"} <= set(again.provenance["reused_stages"])
        assert not set(again.provenance["timings_s"]) & set(again.provenance["reused_stages"])


def test_the_same_samples_and_seed_are_not_drawn_again(detector, scan):
    prepared = prepare_scan(detector, scan)
    first = detect_anomalies(scan, prepared=prepared, samples=2, seed=1)
    assert "sampling" not in first.provenance["reused_stages"]
    same = detect_anomalies(scan, prepared=prepared, samples=2, seed=1, fpr=0.05)
    assert "sampling" in same.provenance["reused_stages"] and same.threshold < first.threshold
    other = detect_anomalies(scan, prepared=prepared, samples=2, seed=2)
    assert "sampling" not in other.provenance["reused_stages"]
    assert volumes(other)["std"] != volumes(first)["std"]


def test_what_is_shared_cannot_be_written_to(detector, scan):
    prepared = prepare_scan(detector, scan)
    for array in (prepared.values, prepared.anatomy.image, prepared.anatomy.probability, prepared.fit.bias):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_another_scan_is_refused(detector, scan):
    prepared = prepare_scan(detector, scan)
    moved = sitk.Image(scan.image)
    moved.SetOrigin([x + 1 for x in moved.GetOrigin()])
    brighter = scan.image * 2
    for image in (moved, brighter):
        with pytest.raises(ValueError, match="is not the scan"):
            detect_anomalies(Scan.from_image(image), prepared=prepared)
    named = Scan.from_image(scan.image, modality="flair", name="another name")
    assert np.isfinite(detect_anomalies(named, prepared=prepared, samples=1).threshold)


@pytest.mark.parametrize("tilt", [0.0, 0.2])
def test_the_last_bits_of_the_geometry_do_not_matter(detector, scan, tilt):
    """A program that keeps the place of a scan as one matrix gives back other last bits, and must get the same maps."""
    turn = np.array(sitk.Euler3DTransform((0, 0, 0), tilt, tilt / 3, -tilt).GetMatrix()).reshape(3, 3)
    image = sitk.Image(scan.image)
    image.SetSpacing((2.2000000476837158, 2.2000000476837158, 2.2999999523162842))
    image.SetDirection((turn @ np.array(image.GetDirection()).reshape(3, 3)).ravel().tolist())
    other = sitk.Image(image)
    other.SetSpacing([np.nextafter(value, 9) for value in image.GetSpacing()])
    other.SetOrigin([np.nextafter(value, 1e9) for value in image.GetOrigin()])
    other.SetDirection([np.nextafter(value, 9) for value in image.GetDirection()])
    assert other.GetSpacing() != image.GetSpacing() and other.GetDirection() != image.GetDirection()
    first, second = (detect_anomalies(Scan.from_image(i), detector=detector, samples=2) for i in (image, other))
    assert volumes(first) == volumes(second) and first.findings == second.findings
    assert second.anomaly.GetDirection() == other.GetDirection() and second.anomaly.GetOrigin() == other.GetOrigin()
