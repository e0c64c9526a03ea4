"""LatentModel: what goes in and out, that draws depend on the seed alone, and the way back to a scan's grid."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from MedVAELib.errors import BundleError, Cancelled, InputError, UsageError
from MedVAELib.latent.model import load_latent_model
from MedVAELib.latent.placing import encode_file
from MedVAELib.progress import CancelToken
from MedVAELib.scan import Scan
from Testing.training.image_files import write_dicom_series

from .bundles import image_bundle


@pytest.fixture(scope="module")
def latents(tmp_path_factory):
    return load_latent_model(image_bundle(tmp_path_factory.mktemp("bundle") / "tiny"), "cpu")


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    bundle = image_bundle(tmp_path_factory.mktemp("bundle") / "tiny3d", shape=(16, 24, 16), fit="stretch",
                          scaling="percentile")
    return load_latent_model(bundle, "cpu")


def noise(count, shape=(16, 16), seed=0):
    return np.random.default_rng(seed).random((count, 1, *shape), np.float32)


def test_encode_decode(latents):
    images = noise(19)
    mean, log_variance = latents.encode(images)
    assert mean.shape == log_variance.shape == (19, 3)
    assert latents.kl_per_latent(images).shape == (19, 3)
    decoded = latents.decode(mean)
    assert decoded.shape == images.shape and 0 <= decoded.min() < decoded.max() <= 1
    assert np.array_equal(decoded, latents.reconstruct(images))
    assert np.allclose(latents.encode(images[:1])[0], mean[:1], atol=1e-5)


@pytest.mark.parametrize(("value", "said"), [(255.0, "0 to 255"), (-1.0, "-1 to 0"), (np.nan, "nan to nan")])
def test_images_of_another_range_are_refused(latents, value, said):
    images = np.zeros((2, 1, 16, 16), np.float32)
    images[1, 0, 0, 0] = value
    for work in (latents.encode, latents.reconstruct, latents.kl_per_latent):
        with pytest.raises(InputError, match=f"takes images in 0…1, and image 1 goes from {said}: scale them"):
            work(images)
    images[1, 0, 0, 0] = -1e-4  # rounding
    assert np.isfinite(latents.encode(images)[0]).all()


def test_samples_depend_on_the_seed_alone(latents):
    ten = latents.sample(10, seed=3)
    assert ten.shape == (10, 1, 16, 16)
    assert np.array_equal(ten[:4], latents.sample(4, seed=3))
    assert not np.array_equal(ten, latents.sample(10, seed=4))


def test_a_label_draws_around_its_mean(latents, monkeypatch):
    drawn = latents.draw(4000, 0, "b")
    moments = latents.statistics.labels["b"]
    # What the posteriors are wide: before samples are fitted, as much as the prior is wider than all images' means.
    std = np.sqrt(moments.std**2 + 1 - latents.statistics.all.std**2)
    assert np.allclose(drawn.mean(0), moments.mean, atol=4 * std.max() / 4000**0.5)
    assert np.allclose(drawn.std(0), std, rtol=0.1) and std.min() > 1.5 * moments.std.max()
    assert latents.sample(2, 0, "b").shape == (2, 1, 16, 16)
    with pytest.raises(UsageError, match="a, b"):
        latents.sample(2, 0, "c")
    with pytest.raises(UsageError, match="at least 1"):
        latents.sample(0)
    monkeypatch.setitem(latents.statistics.labels, "b", replace(moments, count=1))
    with pytest.raises(UsageError, match="'b' from one image"):
        latents.draw(3, 0, "b")


def test_images_of_two_labels_do_not_come_from_the_same_noise(latents):
    apart = [(latents.draw(200, 0, name) - latents.statistics.labels[name].mean)[:, 0] for name in "ab"]
    assert abs(np.corrcoef(apart)[0, 1]) < 0.3
    assert np.array_equal(latents.draw(2, 0, "a"), latents.draw(5, 0, "a")[:2])


def test_a_labels_latents_go_together_as_in_all_images(tmp_path):
    model = load_latent_model(image_bundle(tmp_path / "b"))
    model.model.drawn_factor = torch.tensor([[2.0, 0, 0], [1.5, 0.5, 0], [0, 0, 1]])
    drawn = model.draw(4000, 1, "a")
    moments = model.statistics.labels["a"]
    drawn_from = np.array([4.0, 2.5, 1.0])  # the factor's rows squared
    np.testing.assert_allclose(drawn.std(0), np.sqrt(moments.std**2 + drawn_from - model.statistics.all.std**2),
                               rtol=0.05)
    assert np.corrcoef(drawn.T)[0, 1] == pytest.approx(1.5 / np.hypot(1.5, 0.5), abs=0.02)
    assert abs(np.corrcoef(drawn.T)[0, 2]) < 0.05


def test_latents_by_label_that_the_model_cannot_draw_are_refused_and_an_ae_draws_them_together(tmp_path):
    quantised = load_latent_model(image_bundle(tmp_path / "v", "vqvae", codes=8, prior_depth=1, prior_width=16))
    with pytest.raises(UsageError, match="a vqvae, cannot be drawn by label"):
        quantised.draw(2, 0, "a")
    model = load_latent_model(image_bundle(tmp_path / "b", "ae"))
    model.model.latent_covariance = torch.tensor([[4.0, 1.6, 0], [1.6, 1, 0], [0, 0, 1]])
    drawn = model.draw(4000, 1, "a")
    moments = model.statistics
    wider = np.array([4.0, 1.0, 1.0]) - moments.all.std**2
    np.testing.assert_allclose(drawn.std(0), np.sqrt(moments.labels["a"].std**2 + wider), rtol=0.05)
    assert np.corrcoef(drawn.T)[0, 1] == pytest.approx(0.8, abs=0.02)


def test_a_scan_and_back(volumes, head_image):
    """What is made of a scan lies on its own grid, however the scan is stored."""
    scan = Scan.from_image(head_image())
    prepared = volumes.prepare(scan)
    assert prepared.image.shape == (1, 16, 24, 16) and prepared.image.max() == 1
    flipped = Scan.from_image(sitk.DICOMOrient(scan.image, "LIP"))
    assert np.allclose(volumes.prepare(flipped).image, prepared.image, atol=1e-4)
    for same in (scan, flipped):
        back = prepared.to_scan(prepared.image[0]) if same is scan else volumes.prepare(same).to_scan(prepared.image[0])
        assert back.GetSize() == same.image.GetSize() and back.GetDirection() == same.image.GetDirection()
        found, true = sitk.GetArrayFromImage(back), sitk.GetArrayFromImage(same.image)
        assert np.corrcoef(found.ravel(), true.ravel())[0, 1] > 0.8


def test_a_model_of_no_special_preparation_takes_volumes_of_anything(tmp_path):
    """Also far too small ones for a head, and a folder of DICOM slices."""
    model = load_latent_model(image_bundle(tmp_path / "cubes", shape=(16, 16, 16), fit="stretch", scaling="percentile"))
    specimen = sitk.GetImageFromArray(np.random.default_rng(0).random((12, 14, 18), np.float32))
    specimen.SetSpacing((0.05, 0.05, 0.1))
    sitk.WriteImage(specimen, str(tmp_path / "specimen.nii.gz"))
    stored = write_dicom_series(tmp_path / "dicom")
    for source, image in ((tmp_path / "specimen.nii.gz", specimen), (tmp_path / "dicom", stored)):
        encoded = encode_file(model, source)
        expected = model.encode(model.form.apply(image, "it")[None, None])[0][0]
        np.testing.assert_allclose(encoded.mean, expected, atol=1e-5)
        assert encoded.to_scan(encoded.image[0]).GetSize() == image.GetSize()
    (tmp_path / "nothing").mkdir()
    with pytest.raises(InputError, match="without DICOM images"):
        encode_file(model, tmp_path / "nothing")


def test_refusals(latents, volumes, head_image, tmp_path):
    with pytest.raises(InputError, match=r"\[16, 16\]"):
        latents.encode(noise(1, (8, 8)))
    with pytest.raises(InputError, match="slices"):
        latents.prepare(Scan.from_image(head_image()))
    with pytest.raises(InputError, match="a.png has 20 × 20 voxels where 16 × 16 .* with data.fit stretch or crop"):
        latents.prepare_image(sitk.Image([20, 20], sitk.sitkFloat32), "a.png")
    token = CancelToken()
    token.cancel()
    with pytest.raises(Cancelled):
        volumes.encode(noise(1, (16, 24, 16)), cancel=token)
    bundle = image_bundle(tmp_path / "other")
    file = bundle.path / "metadata.json"
    metadata = json.loads(file.read_text())
    del metadata["medvae"]["latents"]["mean"]
    file.write_text(json.dumps(metadata))
    with pytest.raises(BundleError, match="statistics"):
        load_latent_model(bundle.path)
    with pytest.raises(BundleError, match="no autoencoder"):
        load_latent_model("healthy-anatomy")
