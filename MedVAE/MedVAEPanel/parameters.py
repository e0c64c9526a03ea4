"""What the user chose, typed; kept in the scene's parameter node and saved with it."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

from slicer import vtkMRMLScalarVolumeNode
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper


class Modality(Enum):
    """The value is the worker's word, the label the user's."""

    AUTO = "auto"
    FLAIR = "flair"
    DWI = "dwi"

    def label(self) -> str:
        return {"auto": _("Automatic"), "flair": _("FLAIR"), "dwi": _("Diffusion (b ≈ 1000)")}[self.value]


class Map(Enum):
    """The maps of a result; the value is the role of its volume."""

    ANOMALY = "anomaly"
    RESIDUAL = "residual"
    RECONSTRUCTION = "reconstruction"
    STD = "std"

    def label(self) -> str:
        return {"anomaly": _("Anomaly score"), "residual": _("Difference from healthy (signed)"),
                "reconstruction": _("Healthy reconstruction"), "std": _("Uncertainty (standard deviation)")}[self.value]


@parameterNodeWrapper
class AnomalyParameters:
    """scan: what to look at; result: the anomaly map of the result shown. The rest as in `medvae detect`.

    Bundle and device are names that the worker offers; "" is the default bundle.
    """

    scan: vtkMRMLScalarVolumeNode
    result: vtkMRMLScalarVolumeNode
    modality: Modality = Modality.AUTO
    bundle: str = ""
    device: str = "auto"
    samples: Annotated[int, WithinRange(1, 256)] = 16
    falsePositivePercent: Annotated[float, WithinRange(0.001, 50)] = 1.0
    shownMap: Map = Map.ANOMALY
    opacity: Annotated[float, WithinRange(0, 1)] = 0.8
