"""What lies on a scan follows it: under another transform, as after a registration, and when that is hardened."""

from __future__ import annotations

import json

import numpy as np
import slicer

from .scan_node import own_ijk_to_ras

_TRANSFORM, _GRID = "MedVAE.ScanTransform", "MedVAE.ScanGrid"
"""Kept with a node: the scan's transform, size and IJK-to-RAS matrix when it was put on it."""


def put_on(scan, node) -> None:
    """Under the scan's transform. node: on the scan's own grid already."""
    node.SetAndObserveTransformNodeID(scan.GetTransformNodeID())
    node.SetNodeReferenceID(_TRANSFORM, scan.GetTransformNodeID())
    node.SetAttribute(_GRID, json.dumps([scan.GetImageData().GetDimensions(), own_ijk_to_ras(scan).tolist()]))


def follow(scan, node) -> None:
    """Puts it to where the scan is now. It stays where it is if the user put it elsewhere, if the scan has other voxels
    now, and if it comes from an earlier version, which did not keep where it was put."""
    if not node.GetAttribute(_GRID) or scan.GetImageData() is None:
        return
    size, matrix = json.loads(node.GetAttribute(_GRID))
    before, now = np.array(matrix), own_ijk_to_ras(scan)
    if node.GetParentTransformNode() is not node.GetNodeReference(_TRANSFORM) or (
            node.IsA("vtkMRMLVolumeNode") and not _same(own_ijk_to_ras(node), before)):
        return
    unmoved = _same(now, before)
    if list(scan.GetImageData().GetDimensions()) != size or (
            unmoved and scan.GetParentTransformNode() is node.GetParentTransformNode()):
        return
    if not unmoved:
        node.ApplyTransformMatrix(slicer.util.vtkMatrixFromArray(now @ np.linalg.inv(before)))
    put_on(scan, node)


def _same(first: np.ndarray, second: np.ndarray) -> bool:
    return np.allclose(first, second, atol=1e-4)  # files keep fewer digits
