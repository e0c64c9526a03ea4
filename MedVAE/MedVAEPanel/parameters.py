"""What the user chose, typed; kept in the scene's parameter node and saved with it."""

from __future__ import annotations

from typing import Annotated

from slicer import vtkMRMLScalarVolumeNode
from slicer.parameterNodeWrapper import Choice, WithinRange, parameterNodeWrapper

MODALITIES = ("auto", "flair", "dwi")
MAPS = ("anomaly", "residual", "reconstruction", "std")


@parameterNodeWrapper
class AnomalyParameters:
    """scan: what to look at; result: the anomaly map of the result shown. The rest as in `medvae detect`.

    Bundle and device are names that the worker offers; "" is the default bundle.
    """

    scan: vtkMRMLScalarVolumeNode
    result: vtkMRMLScalarVolumeNode
    modality: Annotated[str, Choice(list(MODALITIES))] = "auto"
    bundle: str = ""
    device: str = "auto"
    samples: Annotated[int, WithinRange(1, 256)] = 16
    falsePositivePercent: Annotated[float, WithinRange(0.001, 50)] = 1.0
    shownMap: Annotated[str, Choice(list(MAPS))] = "anomaly"
    opacity: Annotated[float, WithinRange(0, 1)] = 0.8
    sideBySide: bool = False
    surfaces: bool = False
