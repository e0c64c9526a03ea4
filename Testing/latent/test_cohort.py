"""A set of images as a table of latents, and files as latents with their way back."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from MedVAELib.anomaly.brain import Brain
from MedVAELib.errors import Cancelled, InputError
from MedVAELib.latent.cohort import encode_cohort, encode_images, images_for
from MedVAELib.latent.model import load_latent_model
from MedVAELib.latent.placing import encode_file, own_image, series
from MedVAELib.latent.train import _keep_split
from MedVAELib.progress import CancelToken
from MedVAELib.scan import Scan
from MedVAELib.training.image_listing import find_images
from MedVAELib.training.image_sets import read_images
from Testing.conftest import synthetic_head
from Testing.latent.bundles import image_bundle
from Testing.training.image_files import write_idx


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six pictures of 16×16 with a table that names a tag, and a volume on a slanted grid."""
    folder = tmp_path_factory.mktemp("images")
    random, lines = np.random.default_rng(0), ["file,patient,label,split,field_t,site"]
    for i in range(6):
        sitk.WriteImage(sitk.GetImageFromArray(random.random((16, 16), np.float32)), str(folder / f"{i}.nii.gz"))
        lines.append(f"{i}.nii.gz,p{i // 2},{'ab'[i % 2]},{'train' if i < 4 else 'test'},{1.5 * (1 + i % 2)},s{i % 3}")
    (folder / "images.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return load_latent_model(image_bundle(folder / "tiny"), "cpu")


def test_all_that_is_known_of_an_image_goes_into_the_table(folder, model):
    images = images_for(model, folder / "images.csv")
    table = encode_images(model, images)
    assert list(table.patients) == ["p0", "p0", "p1", "p1", "p2", "p2"] and list(table.labels) == list("ababab")
    assert table.tags["field_t"].tolist() == [1.5, 3.0] * 3 and list(table.tags["site"]) == ["s0", "s1", "s2"] * 2
    np.testing.assert_allclose(table.log_variance, model.encode(images.images)[1], atol=1e-6)


def test_a_table_says_where_each_image_or_its_scan_is(folder, model, tmp_path):
    table = encode_images(model, images_for(model, folder / "images.csv"))
    assert list(table.files) == [str(folder / f"{i}.nii.gz") for i in range(6)]
    assert set(table.tags) == {"field_t", "site"}
    lines = ["file,patient,scan", *(f"{folder}/{i}.nii.gz,p{i},{'scans/a.nii.gz' if i else ''}" for i in range(2))]
    (tmp_path / "images.csv").write_text("\n".join(lines))
    images = images_for(model, tmp_path / "images.csv")
    expected = [str(folder / "0.nii.gz"), str(tmp_path / "scans" / "a.nii.gz")]
    assert list(encode_images(model, images).files) == expected and not images.tags
    (tmp_path / "run").mkdir()
    _keep_split(images, tmp_path / "run" / "split.csv", resume=False)
    assert list(encode_images(model, images_for(model, tmp_path / "run" / "split.csv")).files) == expected


def test_a_model_whose_form_is_settled_does_not_advise_to_set_it(folder, tmp_path):
    pictures = load_latent_model(image_bundle(tmp_path / "tiny", shape=(8, 8)), "cpu")
    volumes = load_latent_model(image_bundle(tmp_path / "brains", shape=(12, 16, 12), preparation="mni-4mm"), "cpu")
    for model, advice in ((pictures, "like those it was trained on"), (volumes, "'medvae prepare --prep.* mni-4mm'")):
        with pytest.raises(InputError, match=f"0.nii.gz .* asked for by the model {model.bundle.name}: .*{advice}"):
            images_for(model, folder / "images.csv")


def test_one_bad_picture_does_not_keep_the_others_from_being_encoded(folder, model, tmp_path, monkeypatch):
    """Nor are they read all at once: a picture is let go of before the next one is read."""
    table = folder / "images.csv"
    expected = encode_images(model, images_for(model, table))
    lines = table.read_text().splitlines()
    (tmp_path / "broken.nii.gz").write_bytes(b"nothing")
    (tmp_path / "images.csv").write_text("\n".join(
        [lines[0], f"{tmp_path}/broken.nii.gz,p9,a,train,3.0,s0", *(f"{folder}/{line}" for line in lines[1:])]))
    monkeypatch.setattr("MedVAELib.training.image_sets.load_images", None)
    made = encode_cohort(model, tmp_path / "images.csv")
    assert list(made.failed) == ["broken"] and "broken.nii.gz" in made.failed["broken"]
    np.testing.assert_allclose(made.table.mean, expected.mean, atol=1e-5)
    np.testing.assert_allclose(made.table.log_variance, expected.log_variance, atol=1e-5)
    for column in ("cases", "patients", "labels", "split", "files"):
        assert list(getattr(made.table, column)) == list(getattr(expected, column)), column
    assert {name: list(values) for name, values in made.table.tags.items()} == {
        name: list(values) for name, values in expected.tags.items()}


@pytest.mark.parametrize(("table", "field"), [("", 3.0), ("file,patient,field_strength_t\na.nii.gz,p,1.5\n", 1.5)])
def test_tags_from_the_json_beside_an_image_stay_with_it(model, tmp_path, table, field):
    """From a folder and from a table, whose own columns count, into a training's split and a table of latents."""
    sitk.WriteImage(sitk.GetImageFromArray(np.eye(16, dtype=np.float32)), str(tmp_path / "a.nii.gz"))
    (tmp_path / "a.json").write_text('{"EchoTime": 0.1, "PixelBandwidth": 200, "MagneticFieldStrength": 3}')
    (tmp_path / "images.csv").write_text(table)
    source = tmp_path / "images.csv" if table else tmp_path
    told = {"echo_time_ms": 100, "pixel_bandwidth_hz": 200, "field_strength_t": field}
    assert {name: values[0] for name, values in encode_cohort(model, source).table.tags.items()} == told
    _keep_split(read_images(source, shape=(16, 16)), tmp_path / "split.csv", resume=False)
    assert find_images(tmp_path / "split.csv")[0].tags == told


def test_the_split_of_a_training_keeps_the_tags(folder, tmp_path):
    images = read_images(folder / "images.csv", shape=(16, 16))
    _keep_split(images, tmp_path / "split.csv", resume=False)
    back = read_images(tmp_path / "split.csv", shape=(16, 16))
    assert back.tags == images.tags and back.splits == images.splits and np.array_equal(back.images, images.images)


def test_a_picture_and_its_way_back(folder, model):
    given = encode_file(model, folder / "3.nii.gz")
    assert given.image.shape == (1, 16, 16) and given.mean.shape == (3,)
    back = given.to_scan(given.image[0])
    np.testing.assert_allclose(sitk.GetArrayFromImage(back), given.image[0], atol=1e-6)
    (folder / "broken.png").write_bytes(b"nothing")
    with pytest.raises(InputError, match="broken.png"):
        encode_file(model, folder / "broken.png")


def test_a_prepared_volume_is_not_prepared_again(tmp_path):
    """It has the model's voxels, so it is taken as it is, small as it may be for a scan."""
    model = load_latent_model(image_bundle(tmp_path / "tiny", shape=(12, 16, 12), spacing_mm=(4.0, 4.0, 4.0),
                                           preparation="mni-4mm"), "cpu")
    values = np.random.default_rng(0).random((12, 16, 12), np.float32)
    image = sitk.GetImageFromArray(values)
    image.SetSpacing((4, 4, 4))
    image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
    sitk.WriteImage(image, str(tmp_path / "prepared.nii.gz"))
    assert np.array_equal(encode_file(model, tmp_path / "prepared.nii.gz").image[0], values)


@pytest.fixture(scope="module")
def brains(tmp_path_factory):
    """A model of FLAIR brains, and heads as they are scanned: a FLAIR and a DWI, beside a file that is damaged."""
    folder = tmp_path_factory.mktemp("brains")
    model = load_latent_model(image_bundle(folder / "brains", shape=(40, 48, 40), spacing_mm=(4.0, 4.0, 4.0),
                                           preparation="mni-4mm", modality="flair"), "cpu")
    scans = folder / "scans"
    scans.mkdir()
    for modality in ("flair", "dwi"):
        sitk.WriteImage(synthetic_head(modality=modality), str(scans / f"a_{modality}.nii.gz"))
    (scans / "damaged_flair.nii.gz").write_bytes(b"nothing")
    with pytest.MonkeyPatch.context() as patch:  # a registration takes seconds, and is not the same twice
        patch.setattr("MedVAELib.preprocessing.published.mni_to_brain", lambda *_: sitk.AffineTransform(3))
        yield model, scans


def test_scans_as_they_are_go_into_a_model_of_brains(brains):
    """Each as `encode_file` has it, those that are prepared already as they are."""
    model, scans = brains
    given = encode_file(model, scans / "a_flair.nii.gz")
    sitk.WriteImage(own_image(model, given.image[0]), str(scans / "prepared.nii.gz"))
    made = encode_cohort(model, scans)
    assert list(made.table.cases) == ["a_dwi", "a_flair", "prepared"]
    assert list(made.failed) == ["damaged_flair"] and "damaged_flair.nii.gz" in made.failed["damaged_flair"]
    np.testing.assert_allclose(made.table.mean[1:], [given.mean] * 2, atol=1e-4)
    np.testing.assert_allclose(made.table.log_variance[1], given.log_variance, atol=1e-4)
    assert list(made.table.files) == [str(scans / f"{case}.nii.gz") for case in made.table.cases]
    dwi, flair = made.warnings
    assert dwi.startswith("a_dwi: ") and "looks like DWI" in dwi and "made for FLAIR" in dwi
    assert flair.startswith("a_flair: ") and "neither FLAIR nor DWI" in flair  # of ellipsoids, the detector says so
    with pytest.raises(InputError, match="None of the 1 images .*damaged"):
        encode_cohort(model, scans, "damaged*")


def test_encoding_scans_can_be_cancelled(brains):
    model, scans = brains
    cancel, seen = CancelToken(), []

    def listener(stage, fraction, message=""):
        seen.append(fraction)
        cancel.cancel()

    with pytest.raises(Cancelled):
        encode_cohort(model, scans, progress=listener, cancel=cancel)
    assert len(seen) == 1


@pytest.mark.parametrize("made_for, found, warned", [
    (["flair"], "flair", False), (["flair"], "dwi", True), (["flair"], "other", True), (["flair", "dwi"], "dwi", False),
    (["t1"], "other", False), (["t1"], "flair", True), (["other"], "flair", False),
])
def test_a_scan_of_another_kind_is_warned_of_as_far_as_that_can_be_told(brains, monkeypatch, made_for, found, warned):
    model, scans = brains
    scan = Scan.from_image(synthetic_head(), name="some")
    mask = sitk.Cast(scan.image > 5, sitk.sitkUInt8)
    monkeypatch.setattr("MedVAELib.anomaly.brain.shipped_brain", lambda *_: Brain(mask, found, "a reason"))
    monkeypatch.setitem(model.bundle.metadata["medvae"], "modality", made_for)
    warnings = model.prepare(scan).warnings
    assert bool(warnings) == warned and all("some looks like" in text and "a reason" in text for text in warnings)
    assert model.prepare(scan, brain=mask).warnings == ()


def test_differences_of_brains_are_averaged_in_the_brain(brains, model):
    image = np.zeros((1, 40, 48, 40), np.float32)
    assert brains[0].shown(image).all()
    image[0, 20] = 0.5
    assert brains[0].shown(image).sum() == 48 * 40
    assert model.shown(np.zeros((1, 16, 16), np.float32)).all()


def test_decoded_volumes_have_a_place(tmp_path):
    model = load_latent_model(image_bundle(tmp_path / "tiny", shape=(12, 16, 12), spacing_mm=(4.0, 3.0, 2.0)), "cpu")
    volumes = model.sample(3)
    image = own_image(model, volumes[0, 0])
    assert image.GetSpacing() == (2, 3, 4) and np.array_equal(sitk.GetArrayFromImage(image), volumes[0, 0])
    joined = series(model, volumes)
    assert joined.GetSize() == (12, 16, 12, 3) and joined.GetOrigin()[:3] == image.GetOrigin()


def test_a_prepared_volume_has_its_place_too():
    """What has the voxels of the preparation but lies elsewhere is a scan; the panel asks the same way as the files."""
    model = load_latent_model("flair-latents", "cpu")
    own = own_image(model, model.sample(1)[0, 0])
    assert model.is_prepared(own)
    prepared = model.prepare(Scan.from_image(own, name="generated"))
    assert np.allclose(prepared.image[0], sitk.GetArrayFromImage(own), atol=1e-6)
    elsewhere = sitk.Image(own)
    elsewhere.SetOrigin((0.0, 0.0, 0.0))
    assert not model.is_prepared(elsewhere)


def test_images_of_one_file_are_found_again_from_the_table_of_a_split(tmp_path):
    pictures = write_idx(tmp_path, [3, 1, 3], (24, 24))
    images = read_images(tmp_path / "t-images-idx3-ubyte.gz")
    _keep_split(images, tmp_path / "split.csv", False)
    again = read_images(tmp_path / "split.csv")
    assert np.array_equal(again.images, images.images) and again.cases == images.cases and not again.tags
    model = load_latent_model(image_bundle(tmp_path / "tiny", shape=(24, 24), scaling="byte"), "cpu")
    second = encode_file(model, find_images(tmp_path / "split.csv")[1])
    assert np.allclose(second.image[0] * 255, pictures[1], atol=1e-3)


@pytest.mark.parametrize("fit", ["stretch", "crop"])
def test_a_volume_of_one_slice_is_a_picture_with_a_way_back(tmp_path, fit):
    """As DICOM files of a radiograph are read."""
    image = sitk.GetImageFromArray(np.random.default_rng(0).random((1, 56, 48), np.float32))
    image.SetSpacing((0.5, 0.5, 1.0))
    image.SetOrigin((3.0, -2.0, 7.0))
    sitk.WriteImage(image, str(tmp_path / "one.nii.gz"))
    given = encode_file(load_latent_model(image_bundle(tmp_path / "tiny", shape=(24, 24), fit=fit), "cpu"),
                        tmp_path / "one.nii.gz")
    back = given.to_scan(given.image[0])
    assert back.GetSize() == (48, 56, 1) and back.GetOrigin() == pytest.approx((3.0, -2.0, 7.0))
    inside = (slice(16, 40), slice(12, 36))
    if fit == "crop":
        assert np.allclose(sitk.GetArrayFromImage(back)[0][inside], sitk.GetArrayFromImage(image)[0][inside], atol=1e-5)
