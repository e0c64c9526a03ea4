"""Label maps of heads brought into MNI space the way scans are, so that synthetic and real images lie alike."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from torch import Tensor

from ...preprocessing.geometry import like, ras_grid
from ...preprocessing.mni import mni_to_brain
from ...progress import CancelToken, Progress, no_progress
from .anatomy import GROUP_INDEX, Anatomy, label_map_files, read_anatomy

_GREY = {"white": 100, "cortex": 125, "hippocampus": 125, "thalamus": 110, "striatum": 110, "cerebellar white": 100,
         "cerebellar cortex": 125, "brainstem": 100, "ventricles": 10}


@dataclass(frozen=True)
class MniHead:
    """A label map and the way to it: voxel index (zyx) in `anatomy.groups` = linear @ MNI mm (zyx) + offset."""

    anatomy: Anatomy
    linear: Tensor
    offset: Tensor

    @property
    def name(self) -> str:
        return self.anatomy.name


def read_heads(label_maps: Path, progress: Progress = no_progress, cancel: CancelToken | None = None) -> list[MniHead]:
    """All label maps (*.nii.gz) of a folder, registered one after the other; a few seconds each.

    Raises InputError where there are none.
    """
    files = label_map_files(label_maps)
    heads = []
    for number, file in enumerate(files):
        (cancel or CancelToken()).check()
        progress("heads", number / len(files), f"Aligning {file.name}")
        heads.append(align(read_anatomy(file)))
    return heads


def align(anatomy: Anatomy) -> MniHead:
    """Registers a FLAIR-like picture of the label map's brain to the average head in MNI space."""
    grey = np.zeros(len(GROUP_INDEX), np.float32)
    for name, value in _GREY.items():
        grey[GROUP_INDEX[name]] = value
    picture = like(grey[anatomy.groups.numpy()], ras_grid((0.0, 0.0, 0.0), anatomy.groups.shape, 1.0))
    to_head = mni_to_brain(sitk.BinShrink(picture, [2, 2, 2]))
    corners_lps = np.vstack([np.zeros(3), np.eye(3)]) * 100.0
    index = np.array([picture.TransformPhysicalPointToContinuousIndex(to_head.TransformPoint(p))
                      for p in corners_lps.tolist()])
    linear = (index[1:] - index[0]).T / 100.0 * [-1.0, -1.0, 1.0]  # from RAS mm to i, j, k
    return MniHead(anatomy, torch.tensor(linear[::-1, ::-1].copy(), dtype=torch.float32),
                   torch.tensor(index[0][::-1].copy(), dtype=torch.float32))
