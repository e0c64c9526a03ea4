"""A detection as arrays that a picture can be cut from, in the directions a radiologist expects.

Nothing is resampled here: axes are permuted and flipped so that they lie closest to the patient's left, posterior and
superior directions. An oblique scan is thus shown in its own planes, with the angle told.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from ..anomaly.result import DARK, Detection
from ..preprocessing.geometry import ijk_to_ras_mm, ras_mm_to_ijk
from ..preprocessing.morphology import bounding_box
from ..preprocessing.turning import Turn

CROP_MARGIN_MM = 12.0
OBLIQUE_FROM_DEG = 2.0


@dataclass(frozen=True)
class Plane:
    """One of the three viewing planes: where its slices lie in an array (zyx = superior, posterior, left).

    Radiological convention: the patient's right is on the picture's left; in the sagittal plane anterior is.
    """

    name: str
    cut: int  # array axis that the slice index runs along
    rows: int  # array axes of the picture's rows and columns
    columns: int
    flip_rows: bool
    letters: tuple[str, str, str, str]  # left, right, top, bottom edge of the picture
    along: str  # the RAS coordinate that runs along the cut

    def slice(self, array: np.ndarray, index: int) -> np.ndarray:
        """The picture (rows x columns) at `index`, top row first."""
        picture = array[(slice(None),) * self.cut + (index,)]  # a view; take() would copy
        return picture[::-1] if self.flip_rows else picture


AXIAL = Plane("axial", 0, 1, 2, False, ("R", "L", "A", "P"), "S")
CORONAL = Plane("coronal", 1, 0, 2, True, ("R", "L", "S", "I"), "A")
SAGITTAL = Plane("sagittal", 2, 0, 1, True, ("A", "P", "S", "I"), "R")
PLANES = (AXIAL, CORONAL, SAGITTAL)


@dataclass(frozen=True)
class DisplayAxes:
    """How a scan's voxel axes are permuted and flipped to lie closest to left, posterior, superior.

    grid: an image without content on the scan's grid as it is shown.
    """

    turn: Turn
    grid: sitk.Image

    @classmethod
    def of(cls, image: sitk.Image) -> DisplayAxes:
        """The display axes of a 3D image, read from its geometry alone."""
        turn = Turn.to_patient(image)
        return cls(turn, turn.grid(image))

    @property
    def spacing_zyx_mm(self) -> tuple[float, float, float]:
        return self.grid.GetSpacing()[::-1]

    @property
    def tilt_deg(self) -> float:
        """Angle between the scan's axes and the body's."""
        cosine = min(max((sum(self.grid.GetDirection()[::4]) - 1.0) / 2.0, -1.0), 1.0)
        return math.degrees(math.acos(cosine))

    def array(self, image: sitk.Image) -> np.ndarray:
        """The voxels of an image on the scan's grid as a view, axes zyx = superior, posterior, left."""
        return self.turn.view(sitk.GetArrayViewFromImage(image))

    def index_zyx(self, position_ras_mm: tuple[float, float, float]) -> tuple[int, int, int]:
        """Display index (zyx) of the voxel that holds a position, clipped to the image."""
        ijk = np.floor(ras_mm_to_ijk(self.grid, position_ras_mm) + 0.5)
        return tuple(int(at) for at in np.clip(ijk, 0, np.array(self.grid.GetSize()) - 1)[::-1])

    def position_ras_mm(self, index_zyx: tuple[float, float, float]) -> tuple[float, float, float]:
        """RAS position of a display index (zyx)."""
        return tuple(float(at) for at in ijk_to_ras_mm(self.grid, index_zyx[::-1]))

    def extent_mm(self, bbox_size_ijk: tuple[int, int, int]) -> tuple[float, float, float]:
        """Size of a bounding box along the display axes: right-left, anterior-posterior, superior-inferior."""
        return tuple(bbox_size_ijk[axis] * step_mm
                     for axis, step_mm in zip(self.turn.order, self.grid.GetSpacing(), strict=True))


class Display:
    """The detection's volumes cropped to the brain (and a margin), axes zyx = superior, posterior, left.

    scan, anomaly, residual, reconstruction, std: numbers; mask, dark, brain: bool; components: labels. All are views,
    or small, so that a 256³ scan costs no second copy.
    """

    def __init__(self, result: Detection):
        self.axes = DisplayAxes.of(result.scan.image)
        self.spacing_mm = self.axes.spacing_zyx_mm
        brain = self.axes.array(result.brain) > 0
        self.has_brain = bool(brain.any())
        self.origin_zyx, self._box = _crop(brain, self.spacing_mm)
        self.brain = brain[self._box]
        self.scan = self._cropped(result.scan.image)
        self.anomaly = self._cropped(result.anomaly)
        self.residual = self._cropped(result.residual)
        self.reconstruction = self._cropped(result.reconstruction)
        self.std = self._cropped(result.std)
        mask = self._cropped(result.mask)
        self.mask, self.dark = mask > 0, mask == DARK
        self.components = self._cropped(result.components)
        self.window = self._window()

    def _cropped(self, image: sitk.Image) -> np.ndarray:
        return self.axes.array(image)[self._box]

    def in_brain(self, array: np.ndarray, at_most: int | None = None) -> np.ndarray:
        """The finite values of a cropped volume inside the brain (the whole crop if no brain was found).

        `at_most` thins them out evenly, for percentiles.
        """
        step = 1
        if at_most is not None:
            step = max(1, int(math.ceil((array.size / at_most) ** (1 / 3))))
        thin = (slice(None, None, step),) * 3
        values = array[thin][self.brain[thin]] if self.has_brain else array[thin].ravel()
        if values.size == 0 and step > 1:
            return self.in_brain(array)
        return values[np.isfinite(values)]

    def index(self, position_ras_mm: tuple[float, float, float]) -> tuple[int, int, int]:
        """Index (zyx) into the cropped volumes of the voxel nearest to a position."""
        whole = self.axes.index_zyx(position_ras_mm)
        return tuple(min(max(at - start, 0), size - 1)
                     for at, start, size in zip(whole, self.origin_zyx, self.brain.shape, strict=True))

    def centre(self) -> tuple[int, int, int]:
        """Index of the brain's middle."""
        return tuple(size // 2 for size in self.brain.shape)

    def size_mm(self, plane: Plane) -> tuple[float, float]:
        """Width and height of a plane's picture."""
        return (self.brain.shape[plane.columns] * self.spacing_mm[plane.columns],
                self.brain.shape[plane.rows] * self.spacing_mm[plane.rows])

    def slice_position(self, plane: Plane, index: tuple[int, int, int]) -> str:
        """Where the slice through a voxel lies, at that voxel (it matters in oblique scans), e.g. "R -34 mm"."""
        whole = tuple(start + at for start, at in zip(self.origin_zyx, index, strict=True))
        along = self.axes.position_ras_mm(whole)[2 - plane.cut]
        return f"{plane.along} {along:.0f} mm"

    def _window(self) -> tuple[float, float]:
        """Robust grey window in scan units: what the brain spans, a little headroom above for bright lesions."""
        values = self.in_brain(self.scan, at_most=400_000)
        if values.size == 0:
            return (0.0, 1.0)
        low, high = (float(value) for value in np.percentile(values, (0.5, 99.8)))
        return (low, high) if high > low else (low, low + 1.0)


def _crop(brain: np.ndarray, spacing_mm: tuple[float, ...]) -> tuple[tuple[int, ...], tuple[slice, ...]]:
    """Start and slices of the brain's bounding box with a margin; the whole volume if there is no brain."""
    box = bounding_box(brain, [math.ceil(CROP_MARGIN_MM / step_mm) for step_mm in spacing_mm])
    return tuple(part.start for part in box), box
