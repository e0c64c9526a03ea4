"""Small bundles without training that still do their task on clean pictures: for tests of all that is around them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from MedVAELib.bundle import Bundle, save_bundle
from MedVAELib.models import build_model
from MedVAELib.standard_planes import SUBSETS, named
from Testing.bundle.bundle_files import metadata_of

SMALL_SHAPE = {"features": 8, "width": 4, "latent": 4}
SMALL_OUTLINE = {"width": 4}


def shape_bundle(folder: Path, temperature: float = 1.0, measures: object = None, **grid: object) -> Bundle:
    """An untrained hierarchical model: it draws ellipsoids that hardly differ. measures: factors on the measures'
    standard deviations, for every subset of planes."""
    torch.manual_seed(0)
    model = build_model("hcvae", SMALL_SHAPE).eval()
    with torch.no_grad():
        model.decoder.grow[-1].weight.mul_(100)  # so that samples differ visibly
    calibration = {"temperatures": dict.fromkeys(map(named, SUBSETS), temperature)}
    if measures is not None:
        calibration["measures"] = dict.fromkeys(map(named, SUBSETS), measures)
    return _saved(folder, "hcvae", SMALL_SHAPE, model, calibration, grid)


def outline_bundle(folder: Path) -> Bundle:
    torch.manual_seed(0)
    return _saved(folder, "head_outline", SMALL_OUTLINE, build_model("head_outline", SMALL_OUTLINE), {}, {})


def _saved(folder: Path, name: str, config: dict, model: nn.Module, calibration: dict, grid: dict) -> Bundle:
    grid = {"shape_zyx": [96, 96, 96], "edge_over_ofd": 1.3, **grid}
    metadata = metadata_of(name, config, modality=["ultrasound"], grid=grid, calibration=calibration)
    return save_bundle(folder, metadata, model.state_dict(), "# a test")


def bright_outline(images: Tensor) -> tuple[Tensor, Tensor]:
    """Stands in for the outline network's `find` on pictures of a bright ring: everything within the ring."""
    found = []
    for image in images:
        ring = image > 0.35
        rows, columns = ring.nonzero().unbind(1) if ring.any() else (torch.zeros(0), torch.zeros(0))
        inside = torch.zeros_like(image)
        for row in rows.unique():
            across = columns[rows == row]
            inside[int(row), int(across.min()) : int(across.max()) + 1] = 1.0
        found.append(inside)
    return torch.stack(found), torch.tensor([float(f.any()) for f in found])
