"""Image autoencoders in the anomaly table: their maps lie where the image is, and are scored on the same voxels."""

from __future__ import annotations

import csv
import re

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from typer.testing import CliRunner

from MedVAELib.cli import evaluate
from MedVAELib.errors import UsageError
from MedVAELib.evaluation.anomaly import METHODS, evaluate_cases
from MedVAELib.evaluation.anomaly_tables import anomaly_markdown, case_rows, means
from MedVAELib.evaluation.autoencoders import AutoencoderScores
from MedVAELib.evaluation.cases import find_cases
from MedVAELib.latent.model import load_latent_model
from MedVAELib.scan import Scan

from ..latent.bundles import image_bundle
from .standin import image_like
from .test_anomaly import BRAIN, LESION, SHAPE, oracle, write_case

FORM = {"shape": (16, 16, 16), "fit": "stretch", "scaling": "percentile"}


@pytest.fixture
def models(tmp_path):
    vqvae = {"codes": 8, "prior_depth": 1, "prior_width": 16, "restorations": 2}
    image_bundle(tmp_path / "some-vae", "vae", **FORM)
    image_bundle(tmp_path / "some-vqvae", "vqvae", **FORM, **vqvae)
    return [load_latent_model(tmp_path / name, "cpu") for name in ("some-vae", "some-vqvae")]


@pytest.fixture
def cases(tmp_path):
    write_case(tmp_path / "cases" / "one")
    write_case(tmp_path / "cases" / "two")
    return tmp_path / "cases"


def test_every_score_of_every_model_is_a_method(models, cases):
    results = evaluate_cases(find_cases(cases), oracle, others=AutoencoderScores(models))
    names = {"some-vae residual", "some-vae combined", "some-vae kl_gradient", "some-vqvae restoration",
             "intensity, plain"}
    for result in results:
        assert not result.failure and names <= set(result.methods) and tuple(result.methods)[:3] == METHODS
        assert all(0 <= result.methods[name].ap <= 1 for name in names)
    assert {row["method"] for row in case_rows(results)} == set(results[0].methods)
    assert means(results)["some-vae residual"]["ap"][0] == pytest.approx(
        np.mean([r.methods["some-vae residual"].ap for r in results]))
    text = anomaly_markdown(results, ["two"], [])
    assert "| some-vqvae restoration |" in text and "AP two (not in the mean)" in text


def test_without_models_the_tables_are_as_before(cases):
    results = evaluate_cases(find_cases(cases), oracle)
    assert set(results[0].methods) == set(METHODS) and "beside them" not in anomaly_markdown(results, [], [])


def test_a_model_that_removes_the_lesion_finds_it(models, cases, monkeypatch):
    """Its residual is brightest where the lesion is, on the scan's own axes, which these files store swapped."""
    grain = np.random.default_rng(0).random(SHAPE)
    lesion = image_like((LESION + 0.02 * grain).astype(np.float32), Scan.read(cases / "one" / "flair.nii.gz").image)
    sitk.WriteImage(lesion, str(cases / "one" / "flair.nii.gz"))
    monkeypatch.setattr(type(models[0].model), "reconstruct", lambda self, image: torch.zeros_like(image))
    scan = Scan.read(cases / "one" / "flair.nii.gz")
    scores = AutoencoderScores(models[:1])(scan, image_like(BRAIN.astype(np.uint8), scan.image))
    residual = scores["some-vae residual"]
    assert residual.shape == SHAPE and residual[LESION].mean() > 10 * residual[~LESION].mean()
    assert np.array_equal(scores["some-vae excess"], residual)


@pytest.mark.parametrize("form", [
    {"preparation": "slices", "shape": (32, 32)}, {"preparation": "patches", "shape": (8, 8), "spacing_mm": (4.0, 4.0)},
    {"shape": (16, 16), "fit": "stretch", "scaling": "percentile"},
])
def test_models_of_pictures_score_plane_by_plane(cases, tmp_path, monkeypatch, form):
    """What they make of a plane comes back where it was cut out."""
    model = load_latent_model(image_bundle(tmp_path / "flat", **form), "cpu")
    monkeypatch.setattr(type(model.model), "reconstruct", lambda self, image: torch.zeros_like(image))
    grain = np.random.default_rng(0).random(SHAPE)
    scan = Scan.read(cases / "one" / "flair.nii.gz")
    bright = image_like((BRAIN * (0.5 + 0.1 * grain) + 2 * LESION).astype(np.float32), scan.image)
    others = AutoencoderScores([model])
    others.check([cases / "missing.nii.gz", cases / "one" / "flair.nii.gz"])
    scores = others(Scan.from_image(bright), image_like(BRAIN.astype(np.uint8), scan.image))
    residual = scores["flat residual"]
    beside = BRAIN & ~LESION & LESION.any((1, 2))[:, None, None]  # pictures as they are have a scale each
    assert residual.shape == SHAPE and residual[LESION].mean() > 1.5 * residual[beside].mean()
    name = next(name for name in scores if name.startswith("intensity"))
    np.testing.assert_allclose(scores[name], residual, atol=1e-5)


def test_a_model_that_cannot_score_these_cases_is_refused_before_any_is(cases, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate, "_detector", lambda *options: oracle)
    image_bundle(tmp_path / "exact", shape=(8, 8), scaling="percentile")
    image_bundle(tmp_path / "odd", shape=(8, 8, 8), preparation="slices")
    for name, words in ("exact", "8 × 8 are asked for .*Leave this"), ("odd", "odd works on slices"):
        done = CliRunner().invoke(evaluate.app, [
            "anomaly", str(cases), "--output", str(tmp_path / "out"), "--progress", "none", "--device", "cpu",
            "--autoencoder", str(tmp_path / name)])
        assert isinstance(done.exception, UsageError) and re.search(words, str(done.exception)), done.exception
        assert not (tmp_path / "out").exists()


def test_a_scan_of_another_size_does_not_refuse_the_others(tmp_path):
    good, odd = tmp_path / "good.nii.gz", tmp_path / "odd.nii.gz"
    grain = np.random.default_rng(0).random((16, 16, 16)).astype(np.float32)
    for path, shown in (good, grain), (odd, grain[:, :, :12]):
        image = sitk.GetImageFromArray(shown)
        image.SetSpacing((10, 10, 10))
        sitk.WriteImage(image, str(path))
    model = load_latent_model(image_bundle(tmp_path / "fits", shape=(16, 16), scaling="percentile"), "cpu")
    scores = AutoencoderScores([model])
    scores.check([odd, tmp_path / "missing.nii.gz", good])
    scores.check([])
    with pytest.raises(UsageError, match="Leave this --autoencoder out"):
        scores.check([odd] * 5 + [good])


def test_two_bundles_of_one_name_are_refused(models):
    with pytest.raises(UsageError, match="same name"):
        AutoencoderScores([models[0], models[0]])


def test_the_command_takes_bundles(models, cases, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate, "_detector", lambda *options: oracle)
    done = CliRunner().invoke(evaluate.app, [
        "anomaly", str(cases), "--output", str(tmp_path / "out"), "--progress", "none", "--device", "cpu",
        "--autoencoder", str(tmp_path / "some-vae")])
    assert done.exit_code == 0, done.exception
    rows = list(csv.DictReader((tmp_path / "out" / "cases.csv").open()))
    assert ("two", "some-vae combined") in {(row["case"], row["method"]) for row in rows}
