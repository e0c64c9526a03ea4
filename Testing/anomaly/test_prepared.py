"""A prepared scan gives the same result as a fresh one, to the last bit, however often and with whatever settings."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from MedVAELib.anomaly.detect import detect_anomalies
from MedVAELib.anomaly.detector import Detector
from MedVAELib.anomaly.prepare import prepare_scan
from MedVAELib.scan import Scan
from Testing.conftest import coarse_sample

VOLUMES = ("anomaly", "residual", "reconstruction", "std", "mask", "brain", "components")


@pytest.fixture(scope="module")
def detector():
    return Detector.load(device="cpu")


@pytest.fixture(scope="module")
def scan():
    """The bundled sample on a coarser grid."""
    return Scan.from_image(coarse_sample((80, 96, 80), 2.2))


def volumes(detection):
    return {name: sitk.GetArrayFromImage(getattr(detection, name)).tobytes() for name in VOLUMES}


@pytest.fixture(scope="module")
def prepared(detector, scan):
    return prepare_scan(detector, scan)


def test_every_detection_on_a_prepared_scan_is_that_of_a_fresh_one(detector, scan, prepared):
    """More samples overwrite nothing that the next detection reads: one sample comes first and last."""
    settings = ({"samples": 1}, {"samples": 3, "seed": 5}, {"samples": 3, "seed": 5, "fpr": 0.002},
                {"samples": 2, "score": "kl_gradient"}, {"samples": 1, "score": "ssim"})
    fresh = [detect_anomalies(scan, detector=detector, **each) for each in settings]
    assert not fresh[0].provenance["reused_stages"]
    for each, wanted in zip((*settings, settings[0]), (*fresh, fresh[0]), strict=True):
        again = detect_anomalies(scan, prepared=prepared, **each)
        assert volumes(again) == volumes(wanted), each
        assert again.findings == wanted.findings
        assert {"load", "anatomy", "fit"} <= set(again.provenance["reused_stages"])
        assert not set(again.provenance["timings_s"]) & set(again.provenance["reused_stages"])


def test_the_same_samples_and_seed_are_not_drawn_again(scan, prepared):
    first = detect_anomalies(scan, prepared=prepared, samples=2, seed=1)
    assert "sampling" not in first.provenance["reused_stages"]
    same = detect_anomalies(scan, prepared=prepared, samples=2, seed=1, fpr=0.05)
    assert "sampling" in same.provenance["reused_stages"] and same.threshold < first.threshold
    other = detect_anomalies(scan, prepared=prepared, samples=2, seed=2)
    assert "sampling" not in other.provenance["reused_stages"]
    assert volumes(other)["std"] != volumes(first)["std"]


def test_what_is_shared_cannot_be_written_to(prepared):
    for array in (prepared.values, prepared.anatomy.image, prepared.anatomy.probability, prepared.fit.bias):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_another_scan_is_refused(scan, prepared):
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
