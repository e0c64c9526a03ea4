"""What lies on a scan follows it: under another transform, as after a registration, and when that is hardened."""

from __future__ import annotations

import json

import numpy as np
import slicer

from .scan_node import own_ijk_to_ras

_TRANSFORM, _GRID = "MedVAE.ScanTransform", "MedVAE.ScanGrid"
"""Kept with a node: the scan's transform when it was put on it; and its size, its IJK-to-RAS matrix and when its voxels
were changed last, which no other session knows."""


def put_on(scan, node) -> None:
    """Under the scan's transform. node: on the scan's own grid already."""
    node.SetAndObserveTransformNodeID(scan.GetTransformNodeID())
    node.SetNodeReferenceID(_TRANSFORM, scan.GetTransformNodeID())
    node.SetAttribute(_GRID, json.dumps(_grid(scan)))


def follow(scan, node, volume=None) -> None:
    """Puts it to where the scan is now. It stays where it is if the user put it elsewhere, if the scan has other voxels
    now, and if it comes from an earlier version, which did not keep where it was put.

    volume: whose own grid tells whether the user hardened a transform of it: the node, or one that lies beside it.
    """
    if not node.GetAttribute(_GRID) or scan.GetImageData() is None:
        return
    transform, kept = node.GetNodeReference(_TRANSFORM), json.loads(node.GetAttribute(_GRID))
    if node.GetParentTransformNode() is not transform or (volume is not None and _moved(volume)):
        return
    beneath, grid = scan.GetParentTransformNode() is transform, _grid(scan)
    before, now = np.array(kept[1]), np.array(grid[1])
    # A bending transform that moves nothing at the border leaves the grid as it was when it is hardened.
    bent = not beneath and transform is not None and not transform.IsTransformToWorldLinear()
    if grid[0] != kept[0] or (bent and grid[2:] != kept[2:]) or (beneath and grid == kept):
        return
    if not _same(now, before):
        node.ApplyTransformMatrix(slicer.util.vtkMatrixFromArray(now @ np.linalg.inv(before)))
    put_on(scan, node)


def _grid(scan) -> list:
    image = scan.GetImageData()
    return [list(image.GetDimensions()), own_ijk_to_ras(scan).tolist(), image.GetMTime()]


def _moved(volume) -> bool:
    """Whether its own grid is another one than where it was put."""
    kept = volume.GetAttribute(_GRID)
    return kept is not None and not _same(own_ijk_to_ras(volume), np.array(json.loads(kept)[1]))


def _same(first: np.ndarray, second: np.ndarray) -> bool:
    return np.allclose(first, second, atol=1e-4)  # files keep fewer digits
