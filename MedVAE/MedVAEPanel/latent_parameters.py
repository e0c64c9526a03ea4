"""What the user chose in the tab Latent space; kept in the scene's parameter node and saved with it."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

from slicer import vtkMRMLPlotChartNode, vtkMRMLScalarVolumeNode
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper

MOST_SLIDERS = 16


class Order(Enum):
    """Which latents come first; the value is the worker's word."""

    KL = "kl"
    SEPARATION = "separation"

    def label(self) -> str:
        return {"kl": _("How much of an image they carry"),
                "separation": _("How far they set the labels apart")}[self.value]


@parameterNodeWrapper
class LatentParameters:
    """scan: what is explored; other: the scan to interpolate to. decoded: the volume that the sliders change. bundle: a
    name that the worker offers, or a folder; "" is the default. label: what new images are drawn from, "" for all.
    cohort: table or folder; chart: its plot. plane, colour: what the plot shows, by name.
    """

    scan: vtkMRMLScalarVolumeNode
    other: vtkMRMLScalarVolumeNode
    decoded: vtkMRMLScalarVolumeNode
    chart: vtkMRMLPlotChartNode
    bundle: str = ""
    device: str = "auto"
    order: Order = Order.KL
    sliders: Annotated[int, WithinRange(1, MOST_SLIDERS)] = 6
    opacity: Annotated[float, WithinRange(0, 1)] = 1.0
    label: str = ""
    count: Annotated[int, WithinRange(1, 64)] = 4
    seed: Annotated[int, WithinRange(0, 999999)] = 0
    cohort: str = ""
    plane: str = ""
    colour: str = ""
    loadClicked: bool = False
