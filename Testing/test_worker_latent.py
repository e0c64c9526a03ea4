"""The worker's tasks of the latent space over real pipes: latents in and out, what stays warm, and refusals."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from MedVAELib.latent.cohort import encode_cohort
from MedVAELib.latent.model import LatentModel, load_latent_model
from MedVAELib.latent.planes import planes_of
from MedVAELib.latent.table import LatentTable
from MedVAELib.preprocessing.published import NAME as MNI_4MM
from MedVAELib.scan import Scan
from MedVAELib.worker.latent import latent_encode
from MedVAELib.worker.server import Job
from Testing.latent.bundles import image_bundle
from Testing.panel.latent_scenes import lively_bundle, write_cohort, write_table
from Testing.worker_process import WorkerProcess, handed_over


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return lively_bundle(tmp_path_factory.mktemp("bundles") / "lively").path


@pytest.fixture(scope="module")
def worker():
    with WorkerProcess() as process:
        yield process


@pytest.fixture
def ask(worker, bundle, tmp_path):
    numbers = iter(range(1000))

    def ask(task, **fields):
        number = f"{tmp_path.name}-{next(numbers)}"
        return worker.ask(id=number, task=task, bundle=str(bundle), device="cpu",
                          output=str(tmp_path / number), **fields)

    return ask


def arrays(reply):
    assert reply["event"] == "result", reply
    return {name: np.load(path) for name, path in reply["arrays"].items()}


def test_a_scan_to_latents_and_back(ask, bundle, head_image, tmp_path):
    image, other = head_image((40, 48, 24), (4.0, 4.0, 7.0)), head_image((40, 48, 24), (4.0, 4.0, 7.0), seed=4)
    scan = handed_over(image, tmp_path)
    reply = ask("latent_encode", scan=scan, other=handed_over(other, tmp_path, "other"))
    found, model = arrays(reply), load_latent_model(bundle, "cpu")
    expected = model.encode(np.stack([model.prepare(Scan.from_image(each)).image for each in (image, other)]))[0]
    np.testing.assert_allclose([found["mean"], found["other"]], expected, atol=1e-5)
    assert found["decoded"].shape == (24, 48, 40) and found["log_variance"].shape == (5,)

    np.save(tmp_path / "z.npy", found["mean"])
    latents = str(tmp_path / "z.npy")
    warm = ask("latent_decode", scan=scan, key=reply["key"], latents=latents)
    np.testing.assert_array_equal(arrays(warm)["decoded"], found["decoded"])
    assert "prepare" not in warm["provenance"]["timings_s"], "the scan was prepared again"
    cold = ask("latent_decode", scan=scan, key="of another worker", latents=latents)
    np.testing.assert_array_equal(arrays(cold)["decoded"], found["decoded"])
    own = ask("latent_decode", latents=latents)
    assert arrays(own)["decoded"].shape == (16, 24, 16) and np.linalg.det(np.array(own["ijk_to_ras"])[:3, :3]) > 0
    np.save(tmp_path / "short.npy", found["mean"][:2])
    wrong = ask("latent_decode", latents=str(tmp_path / "short.npy"))
    assert wrong["kind"] == "UsageError" and "2 latents were given" in wrong["message"]


def test_what_is_generated_depends_on_the_seed(ask):
    three, two = (arrays(ask("latent_generate", count=count, seed=5)) for count in (3, 2))
    assert list(three) == ["sample_1", "sample_2", "sample_3"]
    np.testing.assert_array_equal(three["sample_2"], two["sample_2"])
    assert "1 to 64" in ask("latent_generate", count=65)["message"]
    assert "no label 'x'" in ask("latent_generate", count=1, label="x")["message"]


@pytest.mark.parametrize("label", ["", "MS"])
def test_what_is_drawn_is_the_first_that_is_generated(ask, label):
    drawn = ask("latent_draw", seed=5, label=label)
    again, other = ask("latent_draw", seed=5, label=label), ask("latent_draw", seed=6, label=label)
    assert drawn["latents"] == again["latents"] != other["latents"] and len(drawn["latents"]) == 5
    assert "no label 'x'" in ask("latent_draw", seed=5, label="x")["message"]


@pytest.mark.parametrize("model", ["vae", "svae", "lvae", "ae", "vqvae"])
def test_every_kind_of_model_tells_what_it_drew(model, tmp_path):
    latents = load_latent_model(image_bundle(tmp_path / model, model), "cpu")
    drawn = latents.first_drawn(4)
    assert drawn.shape == (1, *latents.latent_shape)
    np.testing.assert_allclose(latents.decode(drawn), latents.sample(3, 4)[:1], atol=1e-6)
    assert np.abs(latents.decode(drawn) - latents.sample(1, 5)).max() > 1e-4
    assert not latents.model.from_latent._forward_pre_hooks


def test_draws_have_the_covariance_of_the_training_images(bundle):
    """Not each latent on its own."""
    model = load_latent_model(bundle, "cpu")
    model.model.drawn_factor = torch.eye(5)
    model.model.drawn_factor[1, :2] = torch.tensor([0.95, 0.3])
    drawn = np.concatenate([model.first_drawn(seed) for seed in range(300)])
    assert np.corrcoef(drawn.T)[0, 1] > 0.9


@pytest.fixture(scope="module")
def of_brains(tmp_path_factory):
    """A model with a brain preparation, which a volume of its very voxels does not need."""
    return image_bundle(tmp_path_factory.mktemp("brains") / "brains", shape=(16, 24, 16), preparation=MNI_4MM,
                        spacing_mm=(4.0, 4.0, 4.0)).path


def brain() -> sitk.Image:
    values = np.zeros((16, 24, 16), np.float32)
    values[4:12, 6:18, 4:12] = np.random.default_rng(2).uniform(0.2, 0.9, (8, 12, 8))
    image = sitk.GetImageFromArray(values)
    image.SetSpacing((4.0, 4.0, 4.0))
    return image


def test_the_difference_is_that_inside_the_brain(worker, ask, bundle, of_brains, head_image, tmp_path):
    image, model = brain(), load_latent_model(of_brains, "cpu")
    reply = worker.ask(id="brain", task="latent_encode", bundle=str(of_brains), device="cpu",
                       scan=handed_over(image, tmp_path), output=str(tmp_path / "out"))
    prepared = model.prepare(Scan.from_image(image)).image
    away = np.abs(model.reconstruct(prepared[None])[0] - prepared)
    assert reply["inside_brain"] and reply["mean_difference"] == pytest.approx(away[prepared > 0].mean(), abs=1e-4)
    assert abs(away.mean() - away[prepared > 0].mean()) > 0.01
    reply = ask("latent_encode", scan=handed_over(head_image((40, 48, 24), (4.0, 4.0, 7.0)), tmp_path))
    model = load_latent_model(bundle, "cpu")
    prepared = model.prepare(Scan.from_image(head_image((40, 48, 24), (4.0, 4.0, 7.0)))).image
    away = np.abs(model.reconstruct(prepared[None])[0] - prepared)
    assert not reply["inside_brain"] and reply["mean_difference"] == pytest.approx(away.mean(), abs=1e-4)


def test_doubts_of_the_preparation_are_told(of_brains, tmp_path, monkeypatch):
    prepare = LatentModel.prepare
    monkeypatch.setattr(LatentModel, "prepare", lambda self, scan, *how: replace(
        prepare(self, scan, *how), warnings=(f"{scan.name} looks like DWI.",)))
    scans = {role: handed_over(brain() * factor, tmp_path, name)
             for role, name, factor in (("scan", "one", 1.0), ("other", "two", 0.5))}
    request = {"id": 1, "bundle": str(of_brains), "device": "cpu", "output": str(tmp_path / "out"), **scans}
    reply = latent_encode(Job(json.loads(json.dumps(request)), lambda message: None))
    doubts = [warning for warning in reply["warnings"] if "DWI" in warning]
    assert doubts == ["one looks like DWI.", "Second scan: two looks like DWI."]


def test_a_table_is_taken_with_the_model_that_made_it(ask, bundle, of_brains, tmp_path):
    source = write_table(tmp_path / "table" / "latents.csv", bundle, 8)
    assert ask("latent_cohort", source=str(source))["warnings"] == []
    again = lively_bundle(tmp_path / "again" / "lively", norm="group").path
    theirs = write_table(tmp_path / "theirs" / "latents.csv", again, 8)
    reply = ask("latent_cohort", source=str(theirs))
    assert reply["kind"] == "InputError" and reply["message"].count("lively (") == 2, reply
    assert str(theirs) in reply["message"]
    for text in ("{", '{"settings": {}, "files": ["latents.csv"]}', '{"task": "detect", "files": ["anomaly.nii.gz"]}'):
        (theirs.parent / "provenance.json").write_text(text)
        (warning,) = ask("latent_cohort", source=str(theirs))["warnings"]
        assert "not known which model made latents.csv" in warning and "lively" in warning


def test_a_cohort_knows_the_scans_of_its_table(ask, bundle, tmp_path):
    source = write_cohort(tmp_path / "cohort", 4)
    made = encode_cohort(load_latent_model(bundle, "cpu"), source.parent / "scan*.nii.gz")
    (tmp_path / "table").mkdir()
    (source.parent / "scan1_flair.nii.gz").rename(tmp_path / "gone.nii.gz")
    reply = ask("latent_cohort", source=str(made.table.write(tmp_path / "table" / "latents.csv")))
    assert [file.rpartition("/")[2] for file in reply["files"]] == [
        "scan0_flair.nii.gz", "", "scan2_flair.nii.gz", "scan3_flair.nii.gz"]


def test_a_cohort_by_table_file_and_folder(ask, worker, bundle, tmp_path):
    source = write_cohort(tmp_path / "cohort", 4)
    reply = ask("latent_cohort", source=str(source))
    assert reply["event"] == "result", (reply["message"], worker.log)
    assert reply["cases"] == ["case0", "case1", "case2", "case3"] and reply["labels"] == ["healthy", "MS"] * 2
    assert reply["tags"] == {"repetition time": [8000, 8100, 8200, 8300]}
    assert [each["case"] for each in reply["failed"]] == ["broken"]
    folder = ask("latent_cohort", source=str(source.parent))
    np.testing.assert_allclose(arrays(folder)["mean"], arrays(reply)["mean"], atol=1e-6)
    model = load_latent_model(bundle, "cpu")
    scan = Scan.read(source.parent / "scan2_flair.nii.gz")
    np.testing.assert_allclose(arrays(reply)["mean"][2], model.encode(model.prepare(scan).image[None])[0][0], atol=1e-5)

    # What `medvae prepare` writes is not prepared twice.
    prepared = sitk.GetImageFromArray(model.prepare(scan).image[0])
    prepared.SetSpacing((10.0, 8.0, 10.0))
    (tmp_path / "prepared").mkdir()
    sitk.WriteImage(prepared, str(tmp_path / "prepared" / "a.nii.gz"))
    again = arrays(ask("latent_cohort", source=str(tmp_path / "prepared")))["mean"]
    np.testing.assert_allclose(again[0], arrays(reply)["mean"][2], atol=1e-3)

    table = ask("latent_cohort", source=str(write_table(tmp_path / "table.csv", bundle)))
    assert [plane["name"] for plane in table["planes"]] == ["LDA", "PCA", "t-SNE"] and len(table["cases"]) == 40
    (tmp_path / "other.csv").write_text("case,mu_0\na,1\nb,2\n")
    assert "choose the model that made the table" in ask("latent_cohort", source=str(tmp_path / "other.csv"))["message"]
    assert "does not exist" in ask("latent_cohort", source=str(tmp_path / "none.csv"))["message"]


def test_other_bundles_are_refused(worker):
    reply = worker.ask(id="other", task="latent_model", bundle="healthy-anatomy")
    assert reply["kind"] == "BundleError" and "no latent space" in reply["message"]


@pytest.mark.parametrize("labels", [2, 3])
def test_planes_put_new_latents_where_their_like_are(labels):
    random, names = np.random.default_rng(0), ["a", "b", "c"][:labels]
    centres = dict(zip(names, 4 * np.eye(6), strict=False))
    chosen = [names[index % labels] for index in range(60)]
    mean = np.stack([centres[label] + random.normal(size=6) for label in chosen]).astype(np.float32)
    cases = [str(index) for index in range(60)]
    planes = {plane.name: plane for plane in planes_of(LatentTable(cases, cases, mean, labels=chosen))}
    for name in ("LDA", "PCA"):
        plane = planes[name]
        np.testing.assert_allclose(mean @ plane.matrix.T + plane.offset, plane.points, atol=1e-4)
    lda, groups = planes["LDA"], np.array(chosen)
    between = np.linalg.norm(lda.points[groups == "a"].mean(0) - lda.points[groups == "b"].mean(0))
    assert between > 3 * lda.points[groups == "a"][:, 0].std() and planes["t-SNE"].matrix is None
    assert [plane.name for plane in planes_of(LatentTable(cases, cases, mean))] == ["PCA", "t-SNE"]
    assert planes_of(LatentTable(cases[:3], cases[:3], mean[:3])) == []
