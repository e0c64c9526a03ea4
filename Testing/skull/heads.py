"""Heads, planes and small untrained bundles made for tests: ellipsoids whose every measure is known."""

from __future__ import annotations

import numpy as np
import torch
from vtkmodules.vtkCommonDataModel import vtkPolyData
from vtkmodules.vtkFiltersCore import vtkFeatureEdges

AXES_MM = (42.0, 55.0, 44.0)
"""Semi-axes (z, y, x)."""


def ellipsoid_sdf(axes_vox: tuple[float, float, float], size: int = 48, step: float = 1.0) -> torch.Tensor:
    """(size, size, size) approximate signed distance in voxels, positive inside; `step` grid units per voxel."""
    place = (torch.arange(size) - (size - 1) / 2) * step
    unit = [place.view([-1 if i == k else 1 for i in range(3)]) / axes_vox[k] for k in range(3)]
    radius = (unit[0] ** 2 + unit[1] ** 2 + unit[2] ** 2).sqrt()
    slope = ((unit[0] / axes_vox[0]) ** 2 + (unit[1] / axes_vox[1]) ** 2 + (unit[2] / axes_vox[2]) ** 2).sqrt()
    return (1 - radius) * radius / slope.clamp(min=1e-6)


def open_edges(surface: vtkPolyData) -> int:
    """Edges that do not have exactly two triangles: 0 for a closed manifold."""
    edges = vtkFeatureEdges()
    edges.SetInputData(surface)
    edges.BoundaryEdgesOn()
    edges.NonManifoldEdgesOn()
    edges.FeatureEdgesOff()
    edges.ManifoldEdgesOff()
    edges.Update()
    return edges.GetOutput().GetNumberOfCells()


def plane_with_head(
    semi_axes_mm: tuple[float, float] = (AXES_MM[1], AXES_MM[2]), pixel_mm: float = 0.4,
    shape: tuple[int, int] = (360, 420), angle: float = 1.2,
) -> np.ndarray:
    """uint8 picture of a bright elliptic skull on dim speckle."""
    y, x = np.mgrid[: shape[0], : shape[1]] * pixel_mm
    y, x = y - y.mean(), x - x.mean()
    along, across = y * np.cos(angle) + x * np.sin(angle), x * np.cos(angle) - y * np.sin(angle)
    radius = np.hypot(along / semi_axes_mm[0], across / semi_axes_mm[1])
    speckle = np.random.default_rng(0).rayleigh(12, shape)
    echo = 160 * np.exp(-(((radius - 0.98) / 0.025) ** 2))
    return np.clip(speckle + echo + 25 * (radius < 0.96), 0, 255).astype(np.uint8)
