"""`medvae latent`, `medvae generate` and `medvae evaluate generative` on small models with random weights."""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk

from MedVAELib.bundle import load_bundle
from MedVAELib.cli.app import run
from MedVAELib.cli.folder_task import file_names
from MedVAELib.latent.model import LatentModel, load_latent_model
from MedVAELib.latent.table import LatentTable
from MedVAELib.made_with import made_with
from Testing.conftest import synthetic_head
from Testing.evaluation.test_generative import blobs
from Testing.latent.bundles import image_bundle
from Testing.latent.cohorts import cohort

QUIET = ("--progress", "none")


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    """A 3D bundle, three volumes with a slanted grid, and their table."""
    folder = tmp_path_factory.mktemp("volumes")
    bundle = image_bundle(folder / "tiny", shape=(12, 16, 12), spacing_mm=(4.0, 4.0, 4.0), fit="stretch")
    for index, values in enumerate(blobs(3, (24, 20, 28))):
        image = sitk.GetImageFromArray(values[0])
        image.SetSpacing((5.0, 6.0, 5.5))
        image.SetOrigin((10.0, -20.0, 5.0))
        image.SetDirection((-1, 0, 0, 0, 0.8, -0.6, 0, -0.6, -0.8))
        sitk.WriteImage(image, str(folder / f"scan{index}.nii.gz"))
    return bundle.path, folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A 2D bundle and a table of 80 pictures with labels, patients, a split and a tag."""
    folder = tmp_path_factory.mktemp("pictures")
    bundle = image_bundle(folder / "tiny2", shape=(24, 24), labels=("left", "right"))
    rows = [("file", "patient", "label", "split", "echo_time_ms")]
    for index, image in enumerate(blobs(80, (24, 24))):
        name = f"{index:02d}.nii.gz"
        sitk.WriteImage(sitk.GetImageFromArray(image[0]), str(folder / name))
        right = image[0, :, 12:].sum() > image[0, :, :12].sum()
        rows.append((name, f"p{index // 2}", "right" if right else "left", "test" if index >= 50 else "train",
                     80 + 20 * right))
    with (folder / "images.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return bundle.path, folder / "images.csv"


def test_encode_then_classify_raises_the_alarm(pictures, tmp_path, capsys):
    bundle, table = pictures
    assert run(["latent", "encode", str(table), "--bundle", str(bundle), "--output", str(tmp_path / "z"), *QUIET]) == 0
    latents = LatentTable.read(tmp_path / "z" / "latents.csv")
    assert len(latents) == 80 and latents.latents == 3 and latents.log_variance is not None
    assert set(latents.split) == {"train", "test"} and list(latents.tags) == ["echo_time_ms"]
    made = json.loads((tmp_path / "z" / "provenance.json").read_text(encoding="utf-8"))
    assert set(made_with()) <= set(made) and made["settings"]["bundle_sha256"] == load_bundle(bundle).sha256
    assert run(["latent", "classify", str(tmp_path / "z"), "--output", str(tmp_path / "c"), *QUIET]) == 0
    told = capsys.readouterr()
    assert "CONFOUNDED" in told.err and "echo_time_ms" in told.err
    record = json.loads((tmp_path / "c" / "results.json").read_text())
    assert record["confounding"]["verdict"] == "alarm" and np.sum(record["confusion"]) == 30
    assert {p.name for p in (tmp_path / "c").iterdir()} == {
        "table.md", "predictions.csv", "results.json", "classification.png", "provenance.json"}
    assert "| precision | recall |" in (tmp_path / "c" / "table.md").read_text()


def test_scans_as_they_are(tmp_path, capsys):
    """Encoded and edited with the warning that one of them is a DWI; what is damaged is named, and left out."""
    bundle = image_bundle(tmp_path / "brains", shape=(40, 48, 40), spacing_mm=(4.0, 4.0, 4.0), preparation="mni-4mm",
                          modality="flair")
    scans = tmp_path / "scans"
    scans.mkdir()
    sitk.WriteImage(synthetic_head(modality="dwi"), str(scans / "a_dwi.nii.gz"))
    (scans / "b.nii.gz").write_bytes(b"nothing")
    command = ["--bundle", str(bundle.path), *QUIET, "--output"]
    assert run(["latent", "encode", str(scans), *command, str(tmp_path / "z")]) == 5
    told = capsys.readouterr().err
    assert "warning: a_dwi: " in told and "looks like DWI" in told and "medvae: b: " in told and "1 of 2" in told
    table = LatentTable.read(tmp_path / "z" / "latents.csv")
    assert list(table.files) == [str(scans / "a_dwi.nii.gz")] and not table.tags
    assert run(["latent", "edit", table.files[0], "--move", "0=+1", *command, str(tmp_path / "e")]) == 0
    told = capsys.readouterr()
    assert "looks like DWI" in told.err and "change in the brain 0.0" in told.out


def test_embed_draws_a_picture_per_colour(tmp_path):
    cohort().write(tmp_path / "latents.csv")
    out = tmp_path / "plane"
    assert run(["latent", "embed", str(tmp_path / "latents.csv"), "--method", "pca", "--output", str(out), *QUIET]) == 0
    names = {p.name for p in out.iterdir()}
    assert {"pca_label.png", "pca_repetition_time_ms.png", "pca_scanner.png", "embedding.csv"} <= names
    assert len(list(csv.DictReader((out / "embedding.csv").open()))) == 120


def test_no_tags_is_said_and_no_failure(tmp_path, capsys):
    from dataclasses import replace

    replace(cohort(), tags={}).write(tmp_path / "latents.csv")
    assert run(["latent", "classify", str(tmp_path / "latents.csv"), "--output", str(tmp_path / "c"), *QUIET]) == 0
    assert "no acquisition tag" in (tmp_path / "c" / "table.md").read_text()
    assert run(["latent", "classify", str(tmp_path / "latents.csv"), "--tag", "field", "--output",
                str(tmp_path / "d"), *QUIET]) == 2
    assert "field" in capsys.readouterr().err


def test_traverse_writes_a_series_with_its_geometry(volumes, tmp_path):
    bundle, _ = volumes
    assert run(["latent", "traverse", "--bundle", str(bundle), "--count", "2", "--steps", "5", "--output",
                str(tmp_path / "t"), *QUIET]) == 0
    series = sorted((tmp_path / "t").glob("latent_*.nii.gz"))
    assert len(series) == 2 and (tmp_path / "t" / "traversal.png").exists()
    image = sitk.ReadImage(str(series[0]))
    assert image.GetSize() == (12, 16, 12, 5) and image.GetSpacing()[:3] == (4, 4, 4)
    values = sitk.GetArrayFromImage(image)
    assert 0 <= values.min() and values.max() <= 1 and np.ptp(values, axis=0).max() > 1e-6


def test_traverse_writes_pictures_one_by_one(pictures, tmp_path):
    bundle, _ = pictures
    assert run(["latent", "traverse", "--bundle", str(bundle), "--latent", "1", "--steps", "3", "--output",
                str(tmp_path / "t"), *QUIET]) == 0
    files = sorted((tmp_path / "t").glob("latent_0001_*.nii.gz"))
    assert [file.name[12:15] for file in files] == ["000", "001", "002"]
    assert {sitk.ReadImage(str(file)).GetSize() for file in files} == {(24, 24)}


def test_edit_comes_back_on_the_scans_own_grid(volumes, tmp_path):
    bundle, folder = volumes
    out = tmp_path / "e"
    assert run(["latent", "edit", str(folder / "scan0.nii.gz"), "--bundle", str(bundle), "--move", "1=+2", "--towards",
                "a:b=0.5", "--output", str(out), *QUIET]) == 0
    scan = sitk.ReadImage(str(folder / "scan0.nii.gz"))
    parts = {name: sitk.ReadImage(str(out / f"{name}.nii.gz")) for name in ("reconstruction", "edited", "change")}
    for image in parts.values():
        assert image.GetSize() == scan.GetSize()
        np.testing.assert_allclose(image.GetOrigin(), scan.GetOrigin(), atol=1e-3)
        np.testing.assert_allclose(image.GetDirection(), scan.GetDirection(), atol=1e-5)
    arrays = {name: sitk.GetArrayFromImage(image) for name, image in parts.items()}
    np.testing.assert_allclose(arrays["edited"] - arrays["reconstruction"], arrays["change"], atol=1e-5)
    assert np.abs(arrays["change"]).max() > 1e-6


def test_interpolation_and_arithmetic(volumes, tmp_path):
    bundle, folder = volumes
    scans = [str(folder / f"scan{i}.nii.gz") for i in range(3)]
    assert run(["latent", "interpolate", *scans[:2], "--bundle", str(bundle), "--steps", "3", "--output",
                str(tmp_path / "i"), *QUIET]) == 0
    assert sitk.ReadImage(str(tmp_path / "i" / "interpolation.nii.gz")).GetSize()[3] == 3
    assert run(["latent", "arithmetic", "--plus", scans[0], "--minus", scans[1], "--plus", scans[1], "--bundle",
                str(bundle), "--output", str(tmp_path / "a"), *QUIET]) == 0
    result = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "a" / "result.nii.gz")))
    first = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "i" / "interpolation.nii.gz")))[0]
    np.testing.assert_allclose(result, first, atol=1e-4)  # a + b − b


def test_generate_writes_volumes_and_a_table_to_train_with(volumes, tmp_path):
    from MedVAELib.training.image_sets import read_images

    bundle, _ = volumes
    command = ["generate", "--bundle", str(bundle), "--count", "3", "--label", "a", "--label", "b", "--seed", "5"]
    for name in ("one", "two"):
        assert run([*command, "--output", str(tmp_path / name), *QUIET]) == 0
    images = read_images(tmp_path / "one" / "images.csv", shape=(12, 16, 12))
    assert images.labels == ["a"] * 3 + ["b"] * 3 and set(images.splits) == {"train"} and len(set(images.patients)) == 6
    assert images.spacing_mm == pytest.approx((4, 4, 4))
    again = read_images(tmp_path / "two" / "images.csv", shape=(12, 16, 12))
    assert np.array_equal(images.images, again.images) and not np.array_equal(images.images[0], images.images[1])
    image = sitk.ReadImage(images.files[0])
    assert image.GetDirection() == (-1, 0, 0, 0, -1, 0, 0, 0, 1)  # RAS axes in ITK's LPS
    middle = image.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in image.GetSize()])
    assert middle == pytest.approx((0, 0, 0), abs=1e-4)


def test_generate_writes_images_as_they_are_drawn(volumes, tmp_path, monkeypatch):
    """A hundred thousand would not fit into memory, and it can be cancelled between any two."""
    bundle, _ = volumes
    expected = load_latent_model(bundle, "cpu").sample(20, 5)
    samples, written = LatentModel.samples, []

    def watched(*arguments):
        for made in samples(*arguments):
            yield made
            written.append(len(list(tmp_path.rglob("generated_*.nii.gz"))))

    monkeypatch.setattr(LatentModel, "samples", watched)
    monkeypatch.setattr(LatentModel, "sample", None)
    assert run(["generate", "--bundle", str(bundle), "-n", "20", "--seed", "5", "--output", str(tmp_path / "g"),
                *QUIET]) == 0
    files = sorted((tmp_path / "g").glob("generated_*.nii.gz"))
    assert np.array_equal([sitk.GetArrayFromImage(sitk.ReadImage(str(file))) for file in files], expected[:, 0])
    assert written == [8, 16, 20]


def test_generate_pictures(pictures, tmp_path):
    bundle, _ = pictures
    bytes_ = image_bundle(tmp_path / "bytes", shape=(24, 24), scaling="byte").path
    for model, options, kind in (bundle, [], "nii.gz"), (bytes_, [], "png"), (bytes_, ["--nifti"], "nii.gz"):
        out = tmp_path / f"{model.name}{len(options)}"
        command = ["--bundle", str(model), *QUIET, "--output"]
        assert run(["generate", "-n", "2", *command, str(out), *options]) == 0
        assert len(list(out.glob(f"generated_*.{kind}"))) == 2
        if not options:  # in a form that the model takes again, without the overview
            assert run(["latent", "encode", str(out), *command, str(out / "z")]) == 0
            assert len(LatentTable.read(out / "z" / "latents.csv")) == 2


def test_evaluate_generative_and_compare(pictures, tmp_path):
    bundle, table = pictures
    assert run(["evaluate", "generative", str(bundle), "--images", str(table), "--output", str(tmp_path / "e"),
                *QUIET]) == 0
    text = (tmp_path / "e" / "table.md").read_text()
    assert "| tiny2 |" in text and "random convolutions" in text
    record = json.loads((tmp_path / "e" / "results.json").read_text())
    assert 0 < record["floor"] < record["models"][0]["fid_samples"]
    other = image_bundle(tmp_path / "other", shape=(24, 24), latent=5)
    assert run(["latent", "compare", str(bundle), str(other.path), "--images", str(table), "--output",
                str(tmp_path / "c"), *QUIET]) == 0
    text = (tmp_path / "c" / "table.md").read_text()
    assert "| other |" in text and "LDA accuracy" in text and "CONFOUNDED" in text
    assert {"samples.png", "reconstructions.png", "other_samples.png"} <= {p.name for p in (tmp_path / "c").iterdir()}


def test_a_table_that_cannot_be_written_is_refused_before_anything_is_encoded(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert run(["latent", "encode", "nowhere", "--bundle", "none", "--format", "parquet", "--output",
                str(tmp_path / "z"), *QUIET]) == 2
    assert "pyarrow" in (told := capsys.readouterr().err) and "--format csv" in told


@pytest.mark.parametrize("arguments, code, named", [
    (["latent", "encode", "nowhere", "--bundle", "BUNDLE"], 3, "nowhere"),
    (["latent", "encode", "nowhere", "--bundle", "missing-bundle"], 4, "missing-bundle"),
    (["latent", "encode", "x", "--bundle", "healthy-anatomy"], 4, "healthy"),
    (["latent", "classify", "nothing.csv"], 3, "nothing.csv"),
    (["latent", "traverse", "--bundle", "BUNDLE", "--latent", "99"], 2, "latents 0 to 2"),
    (["latent", "edit", "scan.nii.gz", "--bundle", "BUNDLE"], 2, "--move"),
    (["latent", "edit", "scan.nii.gz", "--bundle", "BUNDLE", "--move", "x=1"], 2, "x=1"),
    (["latent", "edit", "scan.nii.gz", "--bundle", "BUNDLE", "--towards", "a:z"], 2, "'z'"),
    (["latent", "edit", "scan.nii.gz", "--bundle", "BUNDLE", "--move", "0=nan"], 2, "0=nan"),
    (["latent", "edit", "scan.nii.gz", "--bundle", "BUNDLE", "--towards", "a:b=inf"], 2, "a:b=inf"),
    (["generate", "--bundle", "BUNDLE", "--label", "tumour"], 2, "tumour"),
])
def test_failures_are_one_sentence_with_their_code(volumes, tmp_path, capsys, arguments, code, named):
    arguments = [str(volumes[0]) if part == "BUNDLE" else part for part in arguments]
    assert run([*arguments, "--output", str(tmp_path / "o"), *QUIET]) == code
    told = capsys.readouterr().err.strip()
    assert named in told and "\n" not in told and not (tmp_path / "o").exists()


@pytest.mark.parametrize("command, name", [
    (["generate", "-n", "12"], "images.csv"), (["generate", "-n", "12"], "overview.png"),
    (["generate", "-n", "12"], "generated_011.nii.gz"), (["latent", "encode", "IMAGES"], "latents.csv"),
    (["latent", "traverse"], "traversal.png"), (["latent", "traverse", "--latent", "1"], "latent_0001.nii.gz"),
    (["latent", "interpolate", "SCAN", "SCAN"], "interpolation.nii.gz"),
    (["latent", "arithmetic", "--plus", "SCAN"], "result.nii.gz"),
    (["latent", "edit", "SCAN", "--move", "0=+1"], "change.nii.gz"),
])
def test_someone_elses_file_is_found_before_anything_is_computed(volumes, tmp_path, capsys, monkeypatch, command, name):
    bundle, folder = volumes
    for work in ("encode", "decode", "samples"):
        monkeypatch.setattr(LatentModel, work, None)
    (tmp_path / name).write_bytes(b"an expert's work")
    given = {"IMAGES": str(folder), "SCAN": str(folder / "scan0.nii.gz")}
    command = [given.get(word, word) for word in command]
    assert run([*command, "--bundle", str(bundle), "--output", str(tmp_path), *QUIET]) == 2
    assert f"{tmp_path} already holds {name}" in capsys.readouterr().err
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [(name, b"an expert's work")]


def test_pictures_are_named_one_by_one_before_they_are_decoded(tmp_path, capsys, monkeypatch):
    bundle = image_bundle(tmp_path / "bytes", shape=(24, 24), scaling="byte").path
    command = ["latent", "traverse", "--latent", "1", "--steps", "3", "--bundle", str(bundle), *QUIET, "--output"]
    assert run([*command, str(tmp_path / "mine")]) == 0
    names = {file.name for file in (tmp_path / "mine").iterdir()}
    assert {"latent_0001_000.png", "latent_0001_001.png", "latent_0001_002.png"} < names
    monkeypatch.setattr(LatentModel, "decode", None)
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "latent_0001_002.png").touch()
    assert run([*command, str(tmp_path / "theirs")]) == 2
    assert "latent_0001_002.png" in capsys.readouterr().err


@pytest.mark.parametrize("command, work, name", [
    ("classify", "MedVAELib.latent.classify.classify", "predictions.csv"),
    ("embed", "MedVAELib.latent.embed.embed", "embedding.csv"),
    ("embed", "MedVAELib.latent.embed.embed", "tsne_scanner.png"),
])
def test_nor_is_a_table_looked_into(tmp_path, capsys, monkeypatch, command, work, name):
    cohort().write(tmp_path / "latents.csv")
    monkeypatch.setattr(work, None)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).touch()
    assert run(["latent", command, str(tmp_path / "latents.csv"), "--output", str(tmp_path / "out"), *QUIET]) == 2
    assert name in capsys.readouterr().err


def test_nor_are_models_compared(pictures, tmp_path, capsys, monkeypatch):
    bundle, table = pictures
    monkeypatch.setattr("MedVAELib.evaluation.generative_report.compare_models", None)
    (tmp_path / "tiny2_samples.png").touch()
    assert run(["latent", "compare", str(bundle), "--images", str(table), "--output", str(tmp_path), *QUIET]) == 2
    assert "tiny2_samples.png" in capsys.readouterr().err


def test_names_of_files_differ_in_more_than_what_disks_tell_apart():
    assert file_names(["MS", "ms", "a b", "a_b", "a b"]) == {"MS": "MS", "ms": "ms_", "a b": "a_b", "a_b": "a_b_"}


def test_models_of_images_in_another_form_are_not_compared(pictures, tmp_path, capsys):
    bundle, table = pictures
    other = image_bundle(tmp_path / "other", shape=(24, 24), scaling="percentile")
    assert run(["latent", "compare", str(bundle), str(other.path), "--images", str(table), "--output",
                str(tmp_path / "c"), *QUIET]) == 3
    assert "another form" in capsys.readouterr().err and not (tmp_path / "c").exists()


def test_labels_that_cannot_be_classified_do_not_cost_the_other_figures(pictures, tmp_path):
    bundle, table = pictures
    lines = table.read_text().splitlines()
    constant = tmp_path / "constant.csv"
    constant.write_text("\n".join([lines[0], *(f"{table.parent}/{line.rsplit(',', 1)[0]},80" for line in lines[1:])]))
    assert run(["latent", "compare", str(bundle), "--images", str(constant), "--output", str(tmp_path / "c"),
                *QUIET]) == 0
    record = json.loads((tmp_path / "c" / "results.json").read_text())
    assert "no acquisition tag that varies" in record["unchecked"]["tiny2"] and record["models"]
    assert record["classification"]["tiny2"]["accuracy"]["value"] > 0


@pytest.mark.parametrize("part, words", [("", "a split, so one was drawn now"), ("validation", "no test part"),
                                         ("test", "")])
def test_what_was_not_held_back_for_sure_is_told_of(pictures, tmp_path, capsys, part, words):
    bundle, table = pictures
    lines = [f"{table.parent}/{name},{patient},{part and split.replace('test', part)}" for name, patient, _, split, _ in
             csv.reader(table.read_text().splitlines()[1:])]
    (tmp_path / "split.csv").write_text("\n".join(["file,patient,split", *lines]))
    assert run(["evaluate", "generative", str(bundle), "--images", str(tmp_path / "split.csv"), "--output",
                str(tmp_path / "e"), *QUIET]) == 0
    warned, text = capsys.readouterr().err, (tmp_path / "e" / "table.md").read_text()
    assert words in warned and words in text and ("warning" in warned) == bool(words)


def test_columns_whose_names_differ_in_odd_signs_alone_get_a_picture_each(tmp_path):
    table = cohort()
    table = replace(table, tags={"a b": table.tags["echo_time_ms"], "a_b": table.tags["echo_time_ms"]})
    table.write(tmp_path / "latents.csv")
    assert run(["latent", "embed", str(tmp_path / "latents.csv"), "--method", "pca", "--output", str(tmp_path / "e"),
                *QUIET]) == 0
    assert len(list((tmp_path / "e").glob("pca_*.png"))) == 3
