"""What the tests of the tab Latent space share: a small bundle, cohorts of scans, a person's way through the tab.

The bundle is untrained, but its latents change the image visibly and its statistics say so.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from MedVAELib.bundle import Bundle, save_bundle
from MedVAELib.cli.folder_task import write_provenance
from MedVAELib.latent.model import load_latent_model
from Testing.conftest import synthetic_head
from Testing.latent.bundles import image_bundle
from Testing.panel.detections import ROOT, add_scan

LATENTS = 5
SHAPE = (16, 24, 16)
LOUDNESS = 40.0  # of the decoder's first layer: random weights alone hardly change an image


def make_resources(folder: Path) -> Path:
    """A folder of resources with the bundle under the name of the shipped one, and a bundle of flat images."""
    lively_bundle(folder / "bundles" / "flair-latents")
    image_bundle(folder / "bundles" / "digits")
    for name in ("atlas", "sample"):
        (folder / name).symlink_to(ROOT / "Resources" / name)
    return folder


def lively_bundle(folder: Path, **settings: object) -> Bundle:
    made = image_bundle(folder, shape=SHAPE, fit="stretch", scaling="percentile", latent=LATENTS,
                        labels=("healthy", "MS"), spacing_mm=(10.0, 8.0, 10.0), **settings)
    metadata = {key: value for key, value in made.metadata.items() if not key.endswith("_version")}
    latents = metadata["medvae"]["latents"]
    rows = np.arange(LATENTS)
    latents |= {"mean": [0.0] * LATENTS, "std": [1.0] * LATENTS, "kl": [float(k) for k in (0.1, 2.0, 0.3, 1.0, 0.01)]}
    for sign, name in ((-1, "healthy"), (1, "MS")):
        latents["labels"][name] |= {"mean": [sign * float(row == 3) for row in rows], "std": [0.7] * LATENTS}
    state = made.state_dict()
    first = next(name for name in state if name.startswith("from_latent") and name.endswith("weight"))
    state[first] = state[first] * LOUDNESS
    return save_bundle(folder, metadata | {"required_packages_version": {}}, state, "# a test")


def write_cohort(folder: Path, count: int = 6) -> Path:
    """Heads of two kinds as files, and a CSV of them with a tag; one file is damaged."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for index in range(count):
        lesion = (20.0, 10.0, 5.0) if index % 2 else None
        image = synthetic_head((40, 48, 24), (4.0, 4.0, 7.0), lesion_ras_mm=lesion, seed=index)
        sitk.WriteImage(image, str(folder / f"scan{index}_flair.nii.gz"))
        name = f"case{index}"
        rows.append((name, name, f"scan{index}_flair.nii.gz", "MS" if index % 2 else "healthy", 8000 + 100 * index))
    (folder / "damaged_flair.nii.gz").write_bytes(b"no image")
    rows.append(("broken", "broken", "damaged_flair.nii.gz", "MS", 0))
    return _written(folder / "cohort.csv", ("case", "patient", "file", "label", "repetition time"), rows)


def head(name="Doe FLAIR", **settings):
    """A tilted scan: its node and its image."""
    turn = sitk.Euler3DTransform((0, 0, 0), 0.1, 0.0, 0.2).GetMatrix()
    image = synthetic_head((40, 48, 24), (4.0, 4.0, 7.0), np.array(turn).reshape(3, 3), **settings)
    return add_scan(name, image), image


def write_table(file: Path, bundle: str | Path, count: int = 40, labelled: bool = True) -> Path:
    """A table of latents as `medvae latent encode` leaves it, drawn from the spread of the bundle's labels in turn."""
    from MedVAELib.latent.table import LatentTable

    model, random = load_latent_model(bundle, "cpu"), np.random.default_rng(5)
    names = list(model.statistics.labels)
    labels = [names[index % len(names)] for index in range(count)]
    latents = np.concatenate([model.draw(1, index, label) for index, label in enumerate(labels)]).reshape(count, -1)
    cases = [f"case{index}" for index in range(count)]
    file.parent.mkdir(exist_ok=True)
    LatentTable(cases, cases, latents.astype(np.float32), np.zeros_like(latents), labels if labelled else (),
                tags={"repetition time": random.normal(8000, 500, count)}).write(file)
    write_provenance(file.parent, {"bundle": model.bundle.name, "bundle_sha256": model.bundle.sha256},
                     "latent encode")
    return file


def _written(file: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> Path:
    with file.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([header, *rows])
    return file


class LatentTabDriver:
    """Clicks through the tab. `tab` and `ui` are its, `panel` the open panel."""

    def __init__(self, panel):
        self.panel = panel
        self.tab = next(tab for tab in panel.widget.tabs if tab.name == "latent")
        self.ui = self.tab.ui
        self.explorer = self.tab.explorer

    def wait(self, condition, what: str = "in time", seconds: float = 240) -> None:
        if not self.panel.pump(condition, seconds):
            said = [self.ui.encodeButton.toolTip, self.ui.messageLabel.text, self.ui.exploreLabel.text]
            raise AssertionError("\n".join([f"not {what}", *said, *list(self.panel.widget.log.lines)[-8:]]))

    def click(self, button, run) -> None:
        """Clicks a button that computes and waits for the end."""
        self.wait(lambda: button.enabled, "enabled")
        button.click()
        assert run.running is not None, "nothing was started"
        self.wait(lambda: run.running is None)

    def encode(self, scan=None, other=None):
        """Encodes and returns the volume that shows the result."""
        if scan is not None:
            self.ui.scanSelector.setCurrentNode(scan)
        self.ui.otherSelector.setCurrentNode(other)
        self.click(self.ui.encodeButton, self.tab.run)
        assert self.explorer.encoding is not None, self.ui.messageLabel.text
        return self.explorer.volume

    def settle(self) -> None:
        """Until the volume shows what the sliders say."""
        self.wait(lambda: not (self.explorer.drawing.busy or self.explorer.live.busy))

    def move(self, row: int, value: float) -> None:
        self.explorer.sliders.slider(row).value = value
        self.settle()

    def choose(self, bundle: str) -> None:
        """Another model, and waits until it is known."""
        self.tab.set_parameter("bundle", bundle)
        self.wait(lambda: self.tab.info.ready, "the model known")

    def array(self, volume=None) -> np.ndarray:
        import slicer

        return slicer.util.arrayFromVolume(volume or self.explorer.volume).copy()

    def plot(self, source: Path):
        """Plots a cohort and returns it."""
        self.tab.parameters.cohort = str(source)
        self.click(self.ui.plotButton, self.tab.cohort.run)
        cohort = self.tab.cohort.cohort
        assert cohort is not None, self.ui.cohortLabel.text
        return cohort

    def pick(self, combo, text: str) -> None:
        """As a user picks an entry of a box."""
        texts = [combo.itemText(index) for index in range(combo.count)]
        combo.setCurrentIndex(texts.index(text))
        combo.activated.emit(texts.index(text))
