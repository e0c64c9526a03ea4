"""The tab Latent space on a real scan, opened from its file: encoded, dragged through, clicked in a plot, generated."""

from __future__ import annotations

import time

import numpy as np
import pytest
import SimpleITK as sitk

from MedVAELib.resources import resource_dir
from Testing.panel.conftest import open_panel
from Testing.panel.latent_scenes import LatentTabDriver, make_resources, write_table
from Testing.panel.ticks import INTERVAL_MS, Ticks

CASE = "ms_ljubljana_19"


def shipped() -> bool:
    return (resource_dir() / "bundles" / "flair-latents").is_dir()


@pytest.fixture
def opened(host, medvae_data, tmp_path):
    """The tab with the scan loaded as File > Add data does it; with the shipped bundle, where there is one."""
    import slicer

    resources = resource_dir() if shipped() else make_resources(tmp_path / "resources")
    with open_panel(host, resources) as panel:
        latent = LatentTabDriver(panel)
        latent.bundle = resources / "bundles" / "flair-latents"
        latent.file = medvae_data / "brain" / "flair" / CASE / "flair.nii.gz"
        latent.scan = slicer.util.loadVolume(str(latent.file))
        for name in ("Red", "Yellow", "Green"):
            host.views[name].fit()
        yield latent


def test_a_real_scan_is_explored(opened, tmp_path, record_property):
    import slicer

    volume = opened.encode(opened.scan)
    image = sitk.ReadImage(str(opened.file))
    assert volume.GetImageData().GetDimensions() == image.GetSize()
    assert slicer.util.arrayFromVolume(volume).dtype == np.float32
    from MedVAEPanel.scan_node import own_ijk_to_ras

    its = own_ijk_to_ras(opened.scan)
    np.testing.assert_array_equal(own_ijk_to_ras(volume), its)

    before, pixels = opened.array(), opened.panel.image()
    slider, sent, started = opened.explorer.sliders.slider(0), opened.explorer.live.sent, time.monotonic()
    with Ticks() as ticks:
        for step in range(60):
            slider.value = -3 + 0.1 * step
            opened.panel.pump(seconds=0.03)
        opened.settle()
    seconds, updates = time.monotonic() - started, opened.explorer.live.sent - sent
    size = " × ".join(map(str, image.GetSize()))
    record_property("figure", f"{CASE} ({size}): 60 moves of a slider in {seconds:.1f} s became {updates} images, "
                              f"{1000 * seconds / updates:.0f} ms each; event loop meanwhile: {ticks}")
    assert 2 <= updates <= 60 and ticks.count > 0.1 * ticks.seconds / (INTERVAL_MS / 1000), str(ticks)
    assert np.abs(opened.array() - before).max() > 0.02 and (opened.panel.image() != pixels).any()

    cohort = opened.plot(write_table(tmp_path / "latents.csv", opened.bundle))
    label = cohort.column("label")[0]
    slicer.app.layoutManager().plotWidget(0).plotView().click(cohort.result.node(f"series of {label}"), 0)
    opened.wait(lambda: "case0" in opened.ui.exploreLabel.text, "the clicked case", 10)
    opened.settle()
    np.testing.assert_allclose(opened.explorer.latents, cohort.latents_of(0), atol=1e-6)
    opened.ui.countSpin.value = 2
    opened.click(opened.ui.generateButton, opened.tab.generating)
    made = [node for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode") if "sample" in node.GetName()]
    assert len(made) == 2
    for node in made:
        np.testing.assert_array_equal(own_ijk_to_ras(node), its)
