"""What the user chose in the tab Fetal skull; kept in the scene's parameter node and saved with it."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

from slicer import vtkMRMLModelNode, vtkMRMLScalarVolumeNode
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper

DEFAULT_RANGE_MM = (0.2, 1.6)


class Overlay(Enum):
    """What lies over the planes in the slice views; the value is the role of its volume."""

    NONE = ""
    PROBABILITY = "probability"
    STD = "std"

    def label(self) -> str:
        return {"": _("Nothing"), "probability": _("Probability of lying inside the skull"),
                "std": _("Standard deviation over the samples")}[self.value]


@parameterNodeWrapper
class SkullParameters:
    """axial …: the image or volume; axialView …: the slice view whose slice of it is the plane, "" for the image
    itself. gaWeeks: gestational age, 0 if not known. result: the surface of the result shown. Bundle and device are
    names that the worker offers; "" is the default bundle. stdLow, stdHigh: colours of the surface, mm.
    """

    axial: vtkMRMLScalarVolumeNode
    sagittal: vtkMRMLScalarVolumeNode
    coronal: vtkMRMLScalarVolumeNode
    result: vtkMRMLModelNode
    axialView: str = ""
    sagittalView: str = ""
    coronalView: str = ""
    gaWeeks: Annotated[float, WithinRange(0, 40)] = 0.0
    bundle: str = ""
    device: str = "auto"
    samples: Annotated[int, WithinRange(2, 1024)] = 256
    overlay: Overlay = Overlay.STD
    overlayOpacity: Annotated[float, WithinRange(0, 1)] = 0.6
    surfaceOpacity: Annotated[float, WithinRange(0, 1)] = 1.0
    stdLow: Annotated[float, WithinRange(0, 50)] = DEFAULT_RANGE_MM[0]
    stdHigh: Annotated[float, WithinRange(0, 50)] = DEFAULT_RANGE_MM[1]
    showPlanes: bool = True
