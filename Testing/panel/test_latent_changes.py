"""What changes while the tab Latent space is used: another model, a cohort of another model, replies that come late."""

from __future__ import annotations

import time

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
                 spacing_mm=(10.0, 8.0, 10.0))
    return folder


@pytest.fixture(scope="module")
def table(resources, tmp_path_factory):
    return write_table(tmp_path_factory.mktemp("table") / "latents.csv", resources / "bundles" / "flair-latents")


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


def large_cohort(folder, cases: int = 2000, latents: int = 128):
    """As the worker's reply makes it, without the worker."""
    from MedVAEPanel import latent_plot

    random, arrays = np.random.default_rng(0), {}
    for name, columns in (("mean", latents), ("points_0", 2)):
        arrays[name] = str(folder / f"{name}.npy")
        np.save(arrays[name], random.normal(size=(cases, columns)))
    reply = {"arrays": arrays, "cases": [f"case{index}" for index in range(cases)], "labels": ["healthy", "MS"] * (
        cases // 2), "files": [""] * cases, "tags": {"age": random.normal(50, 9, cases).tolist()},
        "planes": [{"name": "PCA", "axes": ["PC 1", "PC 2"]}], "provenance": {}}
    return latent_plot.add_cohort(reply, "large", {})


def test_a_large_cohort_does_not_slow_down_the_sliders(latent, tmp_path, record_property):
    """Every tick of the opacity slider updates the tab: what a plot shows is not read of its table again for that."""
    parameters, section = latent.tab.parameters, latent.tab.cohort

    def seconds() -> float:
        times = []
        for tick in range(30):
            start = time.perf_counter()
            parameters.opacity = (tick % 10 + 1) / 20
            times.append(time.perf_counter() - start)
        return float(np.median(times))

    without = seconds()
    parameters.chart = large_cohort(tmp_path).chart
    assert section.cohort is section.cohort is not None and section.cohort.has_latents
    with_plot = seconds()
    record_property("figure", f"tick of a slider with 2,000 cases plotted: {1000 * with_plot:.1f} ms, without a plot "
                    f"{1000 * without:.1f} ms")
    assert with_plot < 5 * without
    chosen = section.cohort
    chosen.table.GetTable().GetColumnByName("label").SetValue(0, "Glioma")
    chosen.table.GetTable().Modified()
    assert chosen.column("label")[0] == "Glioma", "a table that was changed is read again"


def test_clicks_on_the_plot_in_another_module_are_not_this_ones(latent, table, monkeypatch):
    import slicer

    cohort, clicked, panel = latent.plot(table), [], latent.panel
    latent.pick(latent.ui.planeCombo, "t-SNE")  # where no point covers another
    monkeypatch.setattr(latent.tab.cohort, "show_case", clicked.append)
    plots, label = slicer.app.layoutManager().plotWidget(0).plotView(), cohort.column("label")[7]
    series, row = cohort.result.node(f"series of {label}"), cohort.column("label")[:7].count(label)
    panel.widget.exit()
    latent.tab.on_layout_changed()
    plots.click(series, row)
    panel.pump(seconds=0.1)
    assert clicked == []
    plots.RemovePlotSelections()
    panel.widget.enter()
    plots.click(series, row)
    panel.pump(seconds=0.1)
    assert clicked == [7]


class DeletedView:
    """What PythonQt leaves of a view that Slicer has deleted, as when a script clears the scene with all its views."""

    def __bool__(self):
        return False

    def __getattr__(self, name):
        raise ValueError(f"Trying to call '{name}' on a destroyed qMRMLPlotView object")


def test_a_plot_view_that_slicer_deleted_keeps_nobody_in_the_panel(latent, table):
    latent.plot(table)
    latent.tab.cohort._view = DeletedView()
    latent.tab.cohort._on_click()
    latent.panel.widget.exit()
    assert not latent.panel.widget.entered


def test_a_plot_that_is_ready_while_another_module_is_in_use_comes_into_view_later(latent, table):
    import slicer

    manager, four_up = slicer.app.layoutManager(), slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView
    manager.setLayout(four_up)
    latent.tab.parameters.cohort = str(table)
    latent.wait(lambda: latent.ui.plotButton.enabled, "ready")
    latent.ui.plotButton.click()
    latent.panel.widget.exit()
    latent.wait(lambda: latent.tab.running is None)
    assert latent.tab.cohort.cohort is not None and manager.layout == four_up
    latent.panel.widget.enter()
    assert manager.layout != four_up


def test_a_scan_that_another_module_changes_is_forgotten_at_the_return(latent):
    import slicer

    scan = head()[0]
    latent.encode(scan)
    latent.panel.widget.exit()
    slicer.util.updateVolumeFromArray(scan, slicer.util.arrayFromVolume(scan) * 2)
    latent.panel.pump(seconds=0.3)
    assert latent.explorer.encoding is not None
    latent.panel.widget.enter()
    assert latent.explorer.encoding is None and "encode it again" in latent.ui.messageLabel.text
