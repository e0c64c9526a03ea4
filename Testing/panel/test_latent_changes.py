"""What changes while the tab Latent space is used: another model, a cohort of another model, replies that come late."""

from __future__ import annotations

import numpy as np
import pytest

from MedVAELib.bundle import save_bundle
from MedVAELib.latent.model import load_latent_model
from Testing.latent.bundles import image_bundle
from Testing.panel.latent_scenes import LATENTS, SHAPE, head, lively_bundle, make_resources, write_table

TWIN, BIG = "twin-latents", "wide-latents"


@pytest.fixture(scope="module")
def resources(tmp_path_factory):
    """With two more models: one of as many latents, other weights and another label, and one of more latents."""
    folder = make_resources(tmp_path_factory.mktemp("resources"))
    made = lively_bundle(folder / "bundles" / TWIN)
    metadata = {key: value for key, value in made.metadata.items() if not key.endswith("_version")}
    labels = metadata["medvae"]["latents"]["labels"]
    labels["Glioma"] = labels.pop("MS")
    state = {name: -value if name.startswith("from_latent") else value for name, value in made.state_dict().items()}
    save_bundle(folder / "bundles" / TWIN, metadata | {"required_packages_version": {}}, state, "# a test")
    image_bundle(folder / "bundles" / BIG, shape=SHAPE, fit="stretch", scaling="percentile", latent=LATENTS + 4,
                 spacing_mm=(10.0, 8.0, 10.0))  # fmt: skip
    return folder


def sha256(volume) -> str:
    return volume.GetAttribute("MedVAE.BundleSHA256")


@pytest.mark.parametrize("other", [TWIN, BIG])
def test_another_model_without_a_scan(latent, other):
    """What was shown stays as it was, and the new model begins with its own mean, in a volume of its own."""
    latent.ui.sampleButton.click()
    latent.settle()
    volume, before = latent.explorer.volume, latent.array()
    latent.choose(other)
    assert latent.explorer.latents is None and latent.explorer.volume is None and not latent.ui.exploreLabel.text
    latent.move(0, 2.0)
    np.testing.assert_array_equal(latent.array(volume), before)
    made, info = latent.explorer.volume, latent.tab.info
    assert made is not volume and made.GetName() == f"{other} decoded" and len(latent.explorer.latents) == info.count
    assert sha256(made) == info.reply["sha256"] != sha256(volume)


def test_another_model_while_encoding(latent):
    latent.ui.scanSelector.setCurrentNode(head()[0])
    latent.wait(lambda: latent.ui.encodeButton.enabled, "ready")
    latent.ui.encodeButton.click()
    latent.choose(TWIN)
    latent.wait(lambda: latent.tab.run.running is None, "over")
    assert latent.ui.messageLabel.text == "The model was changed meanwhile: encode again."
    assert latent.explorer.encoding is None and latent.explorer.volume is None
    assert sha256(latent.encode()) == latent.tab.info.reply["sha256"]


def test_a_cohort_too_small_for_any_plane_but_that_of_the_models_latents(latent, resources, tmp_path):
    import slicer

    source = write_table(tmp_path / "latents.csv", resources / "bundles" / "flair-latents", 3, labelled=False)
    cohort, plots = latent.plot(source), slicer.app.layoutManager().plotWidget(0).plotView()
    latent.ui.resetButton.click()
    shown = plots.series_names()  # a series for each repetition time
    assert len(shown) == 4 and shown[-1] == "what is shown" and "Click a point" in latent.ui.cohortLabel.text
    latent.choose(TWIN)
    assert not plots.series_names() and "encoded with another model" in latent.ui.cohortLabel.text
    latent.ui.resetButton.click()
    latent.settle()
    latent.choose("")
    latent.ui.resetButton.click()
    assert plots.series_names() == shown and not latent.ui.cohortLabel.text

    latent.tab.info.forget()  # as while a scene is loaded before the worker has started
    latent.tab.enter()
    assert not plots.series_names() and "waits for the model" in latent.ui.cohortLabel.text
    latent.wait(lambda: latent.tab.info.ready, "the model known")
    assert plots.series_names()[:3] == shown[:3] and cohort.chart.GetXAxisTitle() == "Latent 1"


def test_a_cohort_of_a_model_with_one_latent_has_no_plot(latent, tmp_path):
    folder = image_bundle(tmp_path / "one", shape=SHAPE, fit="stretch", scaling="percentile", latent=1).path
    latent.choose(str(folder))
    latent.plot(write_table(tmp_path / "table" / "latents.csv", folder, 6))
    assert "6 cases" in latent.ui.cohortLabel.text and "A plot needs two latents" in latent.ui.cohortLabel.text


def test_tables_of_another_model_and_of_an_unknown_one(latent, resources, tmp_path):
    source = write_table(tmp_path / "latents.csv", resources / "bundles" / TWIN, 20)
    latent.tab.set_parameter("cohort", str(source))
    latent.click(latent.ui.plotButton, latent.tab.cohort.run)
    assert TWIN in latent.ui.cohortLabel.text and "not by flair-latents" in latent.ui.cohortLabel.text
    assert "#d9534f" in latent.ui.cohortLabel.styleSheet and latent.tab.cohort.cohort is None
    (tmp_path / "provenance.json").unlink()
    latent.plot(source)
    assert "not known which model made latents.csv" in latent.ui.cohortLabel.text


@pytest.mark.parametrize("label", ["", "MS"])
def test_a_random_sample_is_the_first_that_generate_makes(latent, resources, label):
    latent.tab.parameters.seed = 11
    latent.tab.parameters.label = label
    latent.ui.sampleButton.click()
    assert latent.ui.seedSpin.value == 12, "the seed waits for the worker"
    latent.settle()
    model = load_latent_model(resources / "bundles" / "flair-latents", "cpu")
    np.testing.assert_allclose(latent.array(), model.sample(1, 11, label or None)[0, 0], atol=1e-5)
    assert f"seed 11, {'label MS' if label else 'all training images'}" in latent.ui.exploreLabel.text


def test_what_was_drawn_is_dropped_when_the_user_went_elsewhere(latent):
    latent.tab.parameters.label = "MS"
    latent.ui.sampleButton.click()
    latent.choose(TWIN)
    latent.settle()
    assert latent.explorer.latents is None and latent.explorer.volume is None and not latent.ui.exploreLabel.text
    latent.ui.sampleButton.click()  # this model knows no such label
    latent.settle()
    assert "all training images" in latent.ui.exploreLabel.text
    latent.ui.sampleButton.click()
    latent.move(0, 2.5)
    latent.panel.pump(seconds=0.3)
    moved, (mean, std) = latent.explorer.sliders.indices[0], latent.tab.info.moments()
    assert latent.explorer.latents[moved] == pytest.approx(mean[moved] + 2.5 * std[moved])
    latent.tab.parameters.seed = 20
    for _ in range(5):
        latent.ui.sampleButton.click()
    latent.settle()
    assert "seed 24" in latent.ui.exploreLabel.text and latent.ui.seedSpin.value == 25


def test_where_the_difference_was_measured_is_said(latent):
    reply = {"mean_difference": 0.11, "warnings": ["It looks like DWI."], "provenance": {"device": "cpu"}}
    said = latent.tab._in_words(reply | {"inside_brain": True}, 1.0)
    assert "11.0% of the brightness range on average inside the brain.\nIt looks like DWI." in said
    assert "brain" not in latent.tab._in_words(reply | {"inside_brain": False}, 1.0)
