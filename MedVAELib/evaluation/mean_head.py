"""The trivial baseline of every skull table: one mean head, scaled to the extents that the planes show.

No network but the one that finds the outlines: it sees the same outlines as the models and knows nothing of shape
beyond the mean. On real atlas heads with exactly known extents it reaches a Dice of .97, so a model earns its place
only above it.

    python -m MedVAELib.evaluation.mean_head Resources/configs/fetal-skull.yaml    writes the mean head that ships
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from scipy import ndimage

from ..errors import InputError
from ..preprocessing.outlines import SIZE
from ..resources import resource_dir
from ..skull.config import SkullRun
from ..training.config import data_path, read_config
from ..training.synthesis.head_masks import mask_files, read_mask
from ..training.synthesis.star_shapes import rescaled_to_distance
from .skull_metrics import Solid

FILE = "fetal-mean-head.safetensors"
GRID = 48
GRID_EDGE = 1.3  # of an extent: the grid reaches a little beyond the head
AXES = {"axial": ("ofd", "bpd"), "sagittal": ("height", "ofd"), "coronal": ("height", "bpd")}
"""What the rows and the columns of a plane's canonical map show."""
DIRECTIONS = ("height", "ofd", "bpd")
"""Along z, y and x."""


@dataclass(frozen=True)
class MeanHead:
    """field: (48, 48, 48) zyx, positive inside, extents 1 along each axis, the centroid in the middle of a grid of
    edge 1.3; ratios: mean of each extent over the occipitofrontal diameter, by direction; names: of the heads in it."""

    field: np.ndarray
    ratios: Mapping[str, float]
    names: Sequence[str] = ()

    @classmethod
    def of(cls, heads: Iterable[Solid], names: Sequence[str] = ()) -> MeanHead:
        """The mean of heads, each brought to extents of 1 first. Raises ValueError without any."""
        fields, extents = [], []
        for head in heads:
            extents.append(extents_mm(head))
            field = _sampled(head.field, head.centroid, extents[-1] / head.spacing_mm)
            fields.append(field / float(np.mean(extents[-1])))  # of equal size, so that none counts for more
        if not fields:
            raise ValueError("a mean head needs one head at least")
        mean = np.mean(fields, axis=0)
        # The mean of shapes of extent 1 is a little smaller and not quite centred: brought to 1 again.
        rough = Solid(mean, GRID_EDGE / GRID)
        field = _sampled(mean, rough.centroid, extents_mm(rough) / rough.spacing_mm)
        ratios = np.mean([extent / extent[1] for extent in extents], axis=0)
        return cls(field.astype(np.float32), dict(zip(DIRECTIONS, map(float, ratios), strict=True)), tuple(names))

    @classmethod
    def shipped(cls) -> MeanHead:
        """The mean of the training heads of the shipped models."""
        return cls.read(resource_dir() / "atlas" / FILE)

    @classmethod
    def read(cls, path: Path) -> MeanHead:
        """Raises InputError for a file that is none."""
        try:
            with safe_open(str(path), "np") as file:
                about = file.metadata() or {}
                return cls(file.get_tensor("field").astype(np.float32), json.loads(about["ratios"]),
                           tuple(json.loads(about["heads"])))
        except (OSError, SafetensorError, KeyError, ValueError):
            raise InputError(f"{path} is no mean head: install MedVAE again, or make it anew.") from None

    def write(self, path: Path) -> None:
        """As float16, with what it was made of."""
        about = {"ratios": json.dumps(dict(self.ratios)), "heads": json.dumps(list(self.names))}
        save_file({"field": self.field.astype(np.float16)}, path, about)

    def scaled(self, height: float, ofd: float, bpd: float, spacing_mm: float, size: int = SIZE) -> np.ndarray:
        """The head with these extents in mm on a cubic grid about its centroid: signed distance in mm, positive
        inside, (size,)*3 zyx."""
        extents = np.array([height, ofd, bpd])
        step = spacing_mm / extents * (GRID / GRID_EDGE)
        offset = (GRID - 1) / 2 - step * (size - 1) / 2
        field = ndimage.affine_transform(self.field, step, offset, (size,) * 3, order=1, mode="nearest")
        return rescaled_to_distance(torch.from_numpy(field * extents.mean()), spacing_mm).numpy()

    def complete(self, seen_mm: Mapping[str, float]) -> dict[str, float]:
        """All three extents in mm: those seen, the others by the mean head's ratios to those seen."""
        unit = np.mean([value / self.ratios[direction] for direction, value in seen_mm.items()])
        return {direction: float(seen_mm.get(direction, unit * self.ratios[direction])) for direction in DIRECTIONS}

    def predict(self, maps: Mapping[str, np.ndarray], spacing_mm: float) -> np.ndarray:
        """The baseline's head from the canonical outline maps (96, 96) of the planes there are, on the case's grid.

        Raises ValueError without a plane or with an empty outline.
        """
        return self.scaled(**self.complete(visible_extents(maps, spacing_mm)), spacing_mm=spacing_mm)


def visible_extents(maps: Mapping[str, np.ndarray], spacing_mm: float) -> dict[str, float]:
    """Extents in mm that canonical outline maps show, by direction; the mean where two planes show the same."""
    found: dict[str, list[float]] = {}
    for plane, outline in maps.items():
        for axis, direction in enumerate(AXES[plane]):
            # The largest value in each line, summed: the edge's fractions give the extent to a part of a pixel.
            found.setdefault(direction, []).append(float(outline.max(axis=1 - axis).sum()) * spacing_mm)
    if not found or min(map(min, found.values())) <= 0:
        raise ValueError("no plane shows a head's outline")
    return {direction: float(np.mean(values)) for direction, values in found.items()}


def extents_mm(head: Solid) -> np.ndarray:
    """Extents of a head along z, y and x in mm, between the outermost points of its surface."""
    points = head.points_mm
    return points.max(0) - points.min(0)


def _sampled(field: np.ndarray, centre: np.ndarray, extents: np.ndarray) -> np.ndarray:
    """The field on the normalised grid: `centre` and `extents` in voxels (zyx)."""
    step = extents * (GRID_EDGE / GRID)
    return ndimage.affine_transform(field, step, centre - step * (GRID - 1) / 2, (GRID,) * 3, order=1, mode="nearest")


def mean_training_head(config: Path) -> MeanHead:
    """The mean of the typical heads (none with spina bifida) that a training config trains on."""
    data = read_config(config, SkullRun).data
    files = mask_files(data_path(data.head_masks))
    names = [name for name in data.train if "SB" not in name]
    heads = (read_mask(name, files[name]) for name in names)
    return MeanHead.of((Solid(head.sdf.numpy(), head.spacing_mm) for head in heads), names)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m MedVAELib.evaluation.mean_head CONFIG")
    mean_training_head(Path(sys.argv[1])).write(resource_dir() / "atlas" / FILE)
