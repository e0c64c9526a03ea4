"""What a skull prediction gives back: volumes, surface and measures in one head frame, and the planes behind them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from ..standard_planes import PLANES
from .planes import PlaneImage

if TYPE_CHECKING:
    from vtkmodules.vtkCommonDataModel import vtkPolyData


@dataclass(frozen=True, eq=False)
class FoundPlane:
    """A plane as it was used: the head's outline on it, and where it lies in the head frame.

    outline_yx: (H, W) float32 on the image's pixels, fraction of head 0…1. centre_yx_px: the outline's centroid, row
    and column. semi_axes_mm: major and minor of its moment ellipse. confidence: 0…1, how sure the network is that this
    is a head plane. ellipse_misfit: share of the outline's area by which it departs from its ellipse. doubts: sentences
    on why it may be no usable head plane. ijk_to_ras_mm: (4, 4), from the image's pixels (column, row, 0) to the head
    frame. The plane is put through the head's centre, since nothing says where it truly lay, and flipped as fits best.
    """

    plane: str
    image: PlaneImage
    outline_yx: NDArray[np.float32]
    centre_yx_px: tuple[float, float]
    semi_axes_mm: tuple[float, float]
    confidence: float
    ellipse_misfit: float
    doubts: tuple[str, ...] = ()
    ijk_to_ras_mm: NDArray[np.float64] = field(default_factory=lambda: np.eye(4))


@dataclass(frozen=True)
class Measure:
    """A measure with its standard deviation: that over the samples times the bundle's factor, and on images at least
    the error with which outlines are found on real planes (`biometry.summarise`). interval: of 95 %. unit: "mm", "ml"
    or "%". percentile: expected at the given gestational age, 0…100, or None without an age or a chart."""

    name: str
    value: float
    std: float
    interval: tuple[float, float]
    unit: str
    percentile: float | None = None


@dataclass(eq=False)
class SkullPrediction:
    """Result of `predict_skull`, all in one head frame: RAS mm, origin in the middle of the 96³ grid.

    The planes are not registered to anything, so the frame is the skull's own: x right, y anterior, z superior, and
    nothing in it says how the fetus lay in the uterus. probability: float32, of lying inside the skull's outer table;
    mask: uint8, where the mean surface encloses it; std: float32, standard deviation over samples of the soft
    occupancy, which falls from 1 within the outer table to 0 outside over about two voxels.
    distance_mm, distance_std_mm: (z, y, x) float32, mean and standard deviation of the signed distance, > 0 inside,
    meaningful near the surface. surface: closed triangle mesh in RAS mm, its points with `std_mm` (standard deviation
    along the normal) and normals. measures: biometry in the order to be shown.
    """

    probability: sitk.Image
    mask: sitk.Image
    std: sitk.Image
    distance_mm: NDArray[np.float32]
    distance_std_mm: NDArray[np.float32]
    surface: vtkPolyData
    measures: list[Measure]
    planes: list[FoundPlane]
    spacing_mm: float
    samples: int
    ga_weeks: float | None = None
    warnings: list[str] = field(default_factory=list)
    provenance: dict[str, object] = field(default_factory=dict)

    @property
    def planes_used(self) -> list[str]:
        return [found.plane for found in self.planes]

    @property
    def planes_missing(self) -> list[str]:
        return [plane for plane in PLANES if plane not in self.planes_used]

    @property
    def notes(self) -> list[str]:
        """What could not be checked."""
        if len(self.planes) != 1:
            return []
        return [f"That this is the {self.planes[0].plane} plane was not checked: one plane alone does not tell."]

    def measure(self, name: str) -> Measure:
        """The measure of that name. Raises KeyError."""
        for measure in self.measures:
            if measure.name == name:
                return measure
        raise KeyError(name)


def where_drawn(outside_mm: float) -> str:
    """The end of a sentence on conventions: where diameters and circumference lie."""
    if not outside_mm:
        return ""
    side = "outside" if outside_mm > 0 else "inside"
    return (f"; diameters and circumference lie {abs(outside_mm):.2g} mm {side} of the surface, where sonographers "
            "draw on real planes")
