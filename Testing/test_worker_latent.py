"""The worker's tasks of the latent space over real pipes: latents in and out, what stays warm, and refusals."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from MedVAELib.latent.model import load_latent_model
from MedVAELib.latent.planes import planes_of
from MedVAELib.latent.table import LatentTable
from MedVAELib.scan import Scan
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
                          output=str(tmp_path / number), **fields)  # fmt: skip

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
