"""What a detection becomes in the scene: volumes, segmentation, table; found again by attributes, removed as one.

Every node of a run carries its number (`RUN`) and its part in it (`ROLE`), so that results are known again after the
scene was saved and loaded.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer

from . import display, segments
from .findings_node import add_findings_table
from .scan_node import ROLE, RUN

PROVENANCE = "MedVAE.Provenance"
VOLUMES = {
    "anomaly": "anomaly", "residual": "difference from healthy", "reconstruction": "healthy reconstruction",
    "std": "uncertainty",
}  # fmt: skip
"""Role of each volume and what its name ends with."""
_SCAN_REFERENCE = "MedVAE.Scan"


@dataclass(frozen=True)
class Result:
    """One run's nodes in the scene; any of them may have been deleted by the user (then None)."""

    run: str

    def node(self, role: str):
        for node in nodes_of(self.run):
            if node.GetAttribute(ROLE) == role:
                return node
        return None

    @property
    def scan(self):
        for role in ("anomaly", "findings"):
            node = self.node(role)
            if node is not None:
                return node.GetNodeReference(_SCAN_REFERENCE)
        return None

    @property
    def provenance(self) -> dict[str, Any]:
        node = self.node("anomaly") or self.node("findings")
        return json.loads(node.GetAttribute(PROVENANCE) or "{}") if node is not None else {}

    @classmethod
    def of(cls, node) -> Result | None:
        """The result that a node belongs to."""
        run = node.GetAttribute(RUN) if node is not None else None
        return cls(run) if run else None

    @classmethod
    def last(cls) -> Result | None:
        """The newest result in the scene."""
        runs = {node.GetAttribute(RUN) for node in _all_nodes() if node.GetAttribute(RUN)}
        return cls(max(runs)) if runs else None


def add_result(scan, reply: Mapping[str, Any], ijk_to_ras: np.ndarray, settings: Mapping[str, Any]) -> Result:
    """Adds a worker's reply to the scene, beneath `scan`; nothing is left behind if that fails.

    ijk_to_ras: 4×4, where the scan lay for the detection (`Placement`). settings: as they were asked for.
    Raises ValueError if the result does not fit the scan any more, OSError if its files cannot be read.
    """
    arrays = {name: np.load(path, mmap_mode="r") for name, path in reply["arrays"].items()}
    shape_zyx = scan.GetImageData().GetDimensions()[::-1]
    if any(array.shape != shape_zyx for array in arrays.values()):
        raise ValueError("The scan was changed while the detection ran: run it again.")
    last = Result.last()
    run = f"{max(time.time_ns(), int(last.run) + 1 if last else 0):020d}"
    try:
        _add(scan, reply, arrays, ijk_to_ras, settings, run)
    except Exception:
        remove(Result(run))
        raise
    return Result(run)


def _add(scan, reply, arrays, ijk_to_ras, settings, run: str) -> None:
    number = _next_number(scan)
    attributes = _attributes(reply, settings)
    made = []

    def register(node, role: str, ending: str):
        node.SetName(f"{scan.GetName()} {ending}" + (f" ({number})" if number > 1 else ""))
        node.SetAttribute(RUN, run)
        node.SetAttribute(ROLE, role)
        node.SetNodeReferenceID(_SCAN_REFERENCE, scan.GetID())
        for name, value in attributes.items():
            node.SetAttribute(name, value)
        made.append(node)
        return node

    brain = arrays["brain"] > 0
    for role, ending in VOLUMES.items():
        volume = register(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode"), role, ending)
        _fill(volume, arrays[role], scan)
        volume.SetAttribute("MedVAE.Unit", reply["unit"] if role == "anomaly" else "intensity of the scan")
        display.prepare(volume, role, np.asarray(arrays[role])[brain], float(reply["threshold"]), scan, register)
    segmentation = register(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode"), "segmentation", "anomalies")
    segments.fill(segmentation, scan, arrays["components"], brain, reply["findings"])
    table = register(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode"), "findings", "findings")
    add_findings_table(table, reply["findings"], ijk_to_ras)
    for node in made:
        if node.IsA("vtkMRMLDisplayableNode") or node.IsA("vtkMRMLTableNode"):
            _put_beneath(scan, node)
        for each in _hanging(node):
            each.SetAttribute(RUN, run)  # it goes with the run, also if the user deletes the node before


def _put_beneath(scan, node) -> None:
    """In the subject hierarchy; Slicer usually made the items already."""
    hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
    parent = hierarchy.GetItemByDataNode(scan) or hierarchy.CreateItem(hierarchy.GetSceneItemID(), scan)
    item = hierarchy.GetItemByDataNode(node)
    if item:
        hierarchy.SetItemParent(item, parent)
    else:
        hierarchy.CreateItem(parent, node)


def _fill(volume, array_zyx: np.ndarray, scan) -> None:
    slicer.util.updateVolumeFromArray(volume, array_zyx)
    volume.CopyOrientation(scan)
    volume.SetAndObserveTransformNodeID(scan.GetTransformNodeID())


def _attributes(reply: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, str]:
    provenance = reply.get("provenance", {})
    record = {**provenance, "warnings": reply.get("warnings", []), "settings": dict(settings)}
    short = {
        "Version": provenance.get("medvae_version"), "Bundle": provenance.get("bundle"),
        "BundleSHA256": provenance.get("bundle_sha256"), "Device": provenance.get("device"),
        "Modality": reply.get("modality"), "Threshold": reply.get("threshold"),
        "FalsePositiveRate": settings.get("fpr"), "Samples": settings.get("samples"), "Seed": provenance.get("seed"),
    }  # fmt: skip
    attributes = {f"MedVAE.{name}": str(value) for name, value in short.items() if value is not None}
    return attributes | {PROVENANCE: json.dumps(record, ensure_ascii=False)}


def results_of(scan) -> list[Result]:
    """The scan's results, oldest first."""
    runs = {node.GetAttribute(RUN) for node in _all_nodes()
            if node.GetAttribute(RUN) and node.GetNodeReference(_SCAN_REFERENCE) is scan}  # fmt: skip
    return [Result(run) for run in sorted(runs)]


def _next_number(scan) -> int:
    """The number in the names of the next result, so that all its nodes share it and nothing is called the same."""
    names = {node.GetName() for node in _all_nodes()}
    number = len(results_of(scan)) + 1
    while f"{scan.GetName()} anomaly" + (f" ({number})" if number > 1 else "") in names:
        number += 1
    return number


def nodes_of(run: str) -> list:
    return [node for node in _all_nodes() if node.GetAttribute(RUN) == run]


def _all_nodes() -> list:
    scene = slicer.mrmlScene
    return [scene.GetNthNode(index) for index in range(scene.GetNumberOfNodes())]


def remove(result: Result) -> None:
    """Takes away every node of the run, with what hangs on them: displays, storage, colours."""
    scene = slicer.mrmlScene
    hierarchy = scene.GetSubjectHierarchyNode()
    for node in nodes_of(result.run):
        item = hierarchy.GetItemByDataNode(node)
        if item:
            hierarchy.RemoveItem(item, False, True)
        for each in (node, *_hanging(node)):
            if scene.IsNodePresent(each):
                scene.RemoveNode(each)


def _hanging(node) -> list:
    """A node's displays (with legends) and storage."""
    found = []
    if node.IsA("vtkMRMLDisplayableNode"):
        found += [node.GetNthDisplayNode(index) for index in range(node.GetNumberOfDisplayNodes())]
    if node.IsA("vtkMRMLStorableNode"):
        found += [node.GetNthStorageNode(index) for index in range(node.GetNumberOfStorageNodes())]
    return [each for each in found if each is not None]
