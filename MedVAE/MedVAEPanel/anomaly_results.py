"""What a detection becomes in the scene: volumes, segmentation, table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from slicer.i18n import tr as _

from . import display, segments
from . import results as runs
from .belonging import run_of
from .findings_node import add_findings_table
from .following import follow, put_on
from .results import all_nodes

VOLUMES = {
    "anomaly": "anomaly", "residual": "difference from healthy", "reconstruction": "healthy reconstruction",
    "std": "uncertainty",
}
"""Role of each volume and what its name ends with."""
_SCAN_REFERENCE = "MedVAE.Scan"


@dataclass(frozen=True)
class Result(runs.Result):
    """One detection's nodes in the scene."""

    @property
    def place(self):
        """The volume that says where the findings lie: the map, or if the user deleted it the scan, or None."""
        return self.node("anomaly") or self.scan

    @property
    def scan(self):
        return _scan_of(self.node)


def _scan_of(node_of: Callable[[str], Any]):
    """node_of: a result's node of a role, or None."""
    for role in ("anomaly", "findings"):
        node = node_of(role)
        if node is not None:
            return node.GetNodeReference(_SCAN_REFERENCE)
    return None


def follow_scans() -> None:
    """Maps and outlines of all results go where their scans are now."""
    for parts in runs.parts(Result.kind):
        scan = _scan_of(parts.get)
        if scan is None:
            continue
        volumes = [parts[role] for role in VOLUMES if role in parts]
        if "segmentation" in parts:  # before the volumes: it has no grid, one of theirs tells where it is
            follow(scan, parts["segmentation"], volumes[0] if volumes else None)
        for volume in volumes:
            follow(scan, volume, volume)


def add_result(scan, reply: Mapping[str, Any], ijk_to_ras: np.ndarray, settings: Mapping[str, Any]) -> Result:
    """Adds a worker's reply to the scene, beneath `scan`; nothing is left behind if that fails.

    ijk_to_ras: 4×4, where the scan lay for the detection (`Placement`). settings: as they were asked for.
    Raises ValueError if the result does not fit the scan any more, OSError if its files cannot be read.
    """
    arrays = {name: np.load(path, mmap_mode="r") for name, path in reply["arrays"].items()}
    shape_zyx = scan.GetImageData().GetDimensions()[::-1]
    if any(array.shape != shape_zyx for array in arrays.values()):
        raise ValueError(_("The scan was changed while the detection ran: run it again."))
    result = Result.new()
    with runs.all_or_nothing(result):
        _add(scan, reply, arrays, ijk_to_ras, settings, result)
    return result


def _add(scan, reply, arrays, ijk_to_ras, settings, result: Result) -> None:
    number = _next_number(scan)
    attributes = runs.provenance_attributes(reply, settings, {
        "Modality": reply.get("modality"), "Threshold": reply.get("threshold"),
        "FalsePositiveRate": settings.get("fpr")})
    made = []

    def register(class_name: str, role: str, ending: str):
        name = f"{scan.GetName()} {ending}" + (f" ({number})" if number > 1 else "")
        made.append(runs.new_node(class_name, result, role, name, attributes, {_SCAN_REFERENCE: scan}))
        return made[-1]

    brain = arrays["brain"] > 0
    for role, ending in VOLUMES.items():
        volume = register("vtkMRMLScalarVolumeNode", role, ending)
        runs.fill_volume(volume, arrays[role], scan)
        put_on(scan, volume)
        volume.SetAttribute("MedVAE.Unit", reply["unit"] if role == "anomaly" else "intensity of the scan")
        display.prepare(volume, role, np.asarray(arrays[role])[brain], float(reply["threshold"]), scan, register)
    segmentation = register("vtkMRMLSegmentationNode", "segmentation", "anomalies")
    segments.fill(segmentation, scan, arrays["components"], brain, reply["findings"])
    table = register("vtkMRMLTableNode", "findings", "findings")
    add_findings_table(table, reply["findings"], ijk_to_ras)
    for node in made:
        if node.IsA("vtkMRMLDisplayableNode") or node.IsA("vtkMRMLTableNode"):
            runs.put_beneath(runs.item_of(scan), node)
        runs.mark_hanging(node, result.run)


def results_of(scan) -> list[Result]:
    """The scan's results, oldest first."""
    its = {run_of(node) for node in all_nodes() if node.GetNodeReference(_SCAN_REFERENCE) is scan}
    return [result for result in Result.all() if result.run in its]


def _next_number(scan) -> int:
    """The number in the names of the next result, so that all its nodes share it and nothing is called the same."""
    names = {node.GetName() for node in all_nodes()}
    number = len(results_of(scan)) + 1
    while f"{scan.GetName()} anomaly" + (f" ({number})" if number > 1 else "") in names:
        number += 1
    return number
