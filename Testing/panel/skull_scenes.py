"""What the tests of the skull tab share: planes in the scene, small bundles, a person's way through the tab.

The bundles are untrained but do their task: the outline network takes what is bright for the head, the shape model
draws ellipsoids that differ visibly.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from MedVAELib.bundle import Bundle, save_bundle
from MedVAELib.models import build_model
from Testing.panel.detections import ROOT
from Testing.skull.bundles import SMALL_OUTLINE, outline_bundle, shape_bundle

PIXEL_MM = 0.5
AXES_MM = {"axial": (52.0, 42.0), "sagittal": (52.0, 40.0), "coronal": (42.0, 40.0)}
"""Semi-axes of the head on each plane, along rows and along columns."""


def make_resources(folder: Path) -> Path:
    """A folder of resources with the two small bundles under the names of the shipped ones."""
    shape_bundle(folder / "bundles" / "fetal-skull", temperature=10.0)
    bright_head_bundle(folder / "bundles" / "head-outline")
    for name in ("atlas", "sample"):
        (folder / name).symlink_to(ROOT / "Resources" / name)
    return folder


def bright_head_bundle(folder: Path) -> Bundle:
    """An outline network whose weights are set by hand: a pixel brighter than a little over ½ is head."""
    model = build_model("head_outline", SMALL_OUTLINE)
    width = SMALL_OUTLINE["width"]
    stem, last = model.stem[1], model.up[-1]
    with torch.no_grad():
        for name, values in model.named_parameters():
            norm = name.endswith("weight") and values.ndim == 1
            values.fill_(1.0 if norm else 0.0)
        for channel in range(width):
            stem[0].weight[channel, channel, 1, 1] = 10.0
            stem[3].weight[channel, channel, 1, 1] = 1.0
            last[0].weight[channel, last[0].in_channels - width + channel, 1, 1] = 1.0
            last[3].weight[channel, channel, 1, 1] = 1.0
            model.to_outline[0].weight[channel, channel] = 2.0
        model.to_outline[0].bias.fill_(-2.0)
        model.to_head[-1].bias.fill_(4.0)
    metadata = {key: value for key, value in outline_bundle(folder).metadata.items() if not key.endswith("_version")}
    return save_bundle(folder, metadata | {"required_packages_version": {}}, model.state_dict(), "# a test")


def picture(plane: str, size: tuple[int, int] = (280, 300), pixel_mm: float = PIXEL_MM) -> np.ndarray:
    """(rows, columns) uint8: a bright head on a dark ground."""
    half = AXES_MM[plane]
    y, x = ((np.arange(n) - (n - 1) / 2) * pixel_mm for n in size)
    head = (y[:, None] / half[0]) ** 2 + (x / half[1]) ** 2 <= 1
    noise = np.random.default_rng(len(plane)).normal(0, 8, size)
    return np.clip(np.where(head, 205, 30) + noise, 0, 255).astype(np.uint8)


def add_plane(plane: str, name: str = "", pixel_mm: float | None = PIXEL_MM, values: np.ndarray | None = None):
    """An image of one slice in the scene; pixel_mm: None for one that does not state it. values: (H, W[, 3])."""
    import slicer

    values = picture(plane) if values is None else values
    kind = "vtkMRMLVectorVolumeNode" if values.ndim == 3 else "vtkMRMLScalarVolumeNode"
    node = slicer.mrmlScene.AddNewNodeByClass(kind, name or f"Doe {plane}")
    slicer.util.updateVolumeFromArray(node, values[None])
    node.SetSpacing(*((pixel_mm, pixel_mm, 1.0) if pixel_mm else (1.0, 1.0, 1.0)))
    node.CreateDefaultDisplayNodes()
    return node


def add_volume(spacing_mm=(1.0, 1.2, 1.5), name: str = "Volume"):
    """A bright ellipsoid of a head in a volume centred at the world's origin."""
    import slicer

    half_xyz = (42.0, 52.0, 40.0)
    sizes = [int(2.5 * half / step) for half, step in zip(half_xyz, spacing_mm, strict=True)]
    x, y, z = ((np.arange(n) - (n - 1) / 2) * step for n, step in zip(sizes, spacing_mm, strict=True))
    inside = (z[:, None, None] / half_xyz[2]) ** 2 + (y[:, None] / half_xyz[1]) ** 2 + (x / half_xyz[0]) ** 2 <= 1
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    slicer.util.updateVolumeFromArray(node, np.where(inside, 200, 20).astype(np.int16))
    node.SetSpacing(*spacing_mm)
    node.SetOrigin(x[0], y[0], z[0])
    node.CreateDefaultDisplayNodes()
    return node


class SkullTabDriver:
    """Clicks through the tab. `tab` and `ui` are its, `panel` the open panel."""

    def __init__(self, panel):
        self.panel = panel
        self.tab = next(tab for tab in panel.widget.tabs if tab.name == "skull")
        self.ui = self.tab.ui

    def choose(self, plane: str, node) -> None:
        getattr(self.ui, f"{plane}Selector").setCurrentNode(node)

    def choose_view(self, plane: str, view: str) -> None:
        """As a user picks an entry of the box, with the image shown in that view."""
        if view:
            self.show_in(view, getattr(self.ui, f"{plane}Selector").currentNode())
        combo = getattr(self.ui, f"{plane}ViewCombo")
        texts = [combo.itemText(index) for index in range(combo.count)]
        index = texts.index(f"Slice in {view}" if view else "The image")
        combo.setCurrentIndex(index)
        combo.activated.emit(index)

    def show_in(self, view: str, node) -> None:
        self.panel.host.views[view].composite.SetBackgroundVolumeID(node.GetID())

    def ready(self) -> None:
        button = self.ui.predictButton
        assert self.panel.pump(lambda: button.enabled, 60), button.toolTip

    def click_and_wait(self, samples: int = 6) -> str:
        """Clicks Predict skull, waits, returns the message."""
        self.ready()
        self.ui.samplesSpin.value = samples
        self.ui.predictButton.click()
        assert self.tab.running is not None, self.ui.messageLabel.text
        assert self.panel.pump(lambda: self.tab.running is None, 120), "no result in time"
        return self.ui.messageLabel.text

    def predict(self, samples: int = 6):
        """The result of a click, which must succeed."""
        from MedVAEPanel.skull_results import Result

        before = Result.last()
        text = self.click_and_wait(samples)
        result = Result.last()
        assert result is not None and result != before, text
        return result
