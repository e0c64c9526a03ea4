"""What the results of all tabs have in common: nodes that know their run, are found again by it and go as one.

Every node of a run carries its number and its part in it (`belonging`), so that results are known again after the
scene was saved and loaded.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import slicer
import vtk

from . import colours
from .belonging import ROLE, RUN, mark, run_of

PROVENANCE = "MedVAE.Provenance"
_DIGITS = 20


@dataclass(frozen=True)
class Result:
    """One run's nodes in the scene; any of them may have been deleted by the user (then None).

    A tab derives its own from this and says what its runs' numbers begin with, so that no tab takes another's result
    for one of its own.
    """

    run: str
    kind: ClassVar[str] = ""

    def node(self, role: str):
        for node in nodes_of(self.run):
            if node.GetAttribute(ROLE) == role:
                return node
        return None

    @property
    def provenance(self) -> dict[str, Any]:
        texts = (node.GetAttribute(PROVENANCE) for node in nodes_of(self.run))
        return json.loads(next((text for text in texts if text), "{}"))

    @classmethod
    def of(cls, node):
        """The result that a node belongs to."""
        run = run_of(node) if node is not None else ""
        return cls(run) if run and run[:-_DIGITS] == cls.kind else None

    @classmethod
    def all(cls) -> list:
        """The results in the scene, oldest first."""
        return [cls(run) for run in _runs(cls.kind)]

    @classmethod
    def last(cls):
        """The newest result in the scene."""
        return next(reversed(cls.all()), None)

    @classmethod
    def new(cls):
        """A result without nodes yet, newer than all others."""
        return cls(_new_run(cls.kind))


def _runs(kind: str) -> list[str]:
    """Those in the scene, oldest first."""
    runs = {run_of(node) for node in all_nodes()} - {""}
    return sorted(run for run in runs if run[:-_DIGITS] == kind)


def _new_run(kind: str) -> str:
    last = _runs(kind)[-1:]
    number = max(time.time_ns(), int(last[0][-_DIGITS:]) + 1 if last else 0)
    return f"{kind}{number:0{_DIGITS}d}"


def provenance_attributes(
    reply: Mapping[str, Any], settings: Mapping[str, Any], more: Mapping[str, Any]
) -> dict[str, str]:
    """Where a result came from, as attributes of its nodes: in short, and in full as JSON."""
    provenance = reply.get("provenance", {})
    record = {**provenance, "warnings": reply.get("warnings", []), "settings": dict(settings)}
    short = {
        "Version": provenance.get("medvae_version"), "Bundle": provenance.get("bundle"),
        "BundleSHA256": provenance.get("bundle_sha256"), "Device": provenance.get("device"),
        "Samples": settings.get("samples"), "Seed": provenance.get("seed"), **more,
    }
    attributes = {f"MedVAE.{name}": str(value) for name, value in short.items() if value is not None}
    return attributes | {PROVENANCE: json.dumps(record, ensure_ascii=False)}


def new_node(
    class_name: str, result: Result, role: str, name: str, attributes: Mapping[str, str] = MappingProxyType({}),
    references: Mapping[str, Any] = MappingProxyType({}), hidden: bool = False,
):
    """A node of a result, in the scene. references: nodes; hidden: from selectors and the subject hierarchy. It comes
    into the scene last, so that both see what it is."""
    node = slicer.mrmlScene.CreateNodeByClass(class_name)
    node.UnRegister(None)
    node.SetName(name)
    for key, value in {RUN: result.run, ROLE: role, **attributes}.items():
        node.SetAttribute(key, value)
    for key, other in references.items():
        node.SetNodeReferenceID(key, other.GetID())
    if hidden:
        node.SetHideFromEditors(True)
    node = slicer.mrmlScene.AddNode(node)
    mark(node, result.run)
    return node


def all_nodes() -> list:
    return slicer.util.getNodesByClass("vtkMRMLNode")  # by their numbers it would take quadratic time


def unused(title: str) -> str:
    """The title, numbered if a node of the scene is called so already."""
    names, number, found = {node.GetName() for node in all_nodes()}, 1, title
    while found in names:
        number += 1
        found = f"{title} ({number})"
    return found


def nodes_of(run: str) -> list:
    return [node for node in all_nodes() if run_of(node) == run]


def parts(kind: str) -> list[dict[str, Any]]:
    """Of every run in the scene: its nodes by their roles. One pass, as there may be many."""
    found: dict[str, dict[str, Any]] = {}
    for node in all_nodes():
        run, role = run_of(node), node.GetAttribute(ROLE)
        if run and role and run[:-_DIGITS] == kind:
            found.setdefault(run, {}).setdefault(role, node)
    return list(found.values())


def make_folder(title: str, run: str) -> int:
    """A folder of the subject hierarchy for a run's nodes; it goes with them unless something else lies in it."""
    hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
    item = hierarchy.CreateFolderItem(hierarchy.GetSceneItemID(), title)
    hierarchy.SetItemAttribute(item, RUN, run)
    return item


def _folders() -> dict[int, str]:
    """Items of the runs' folders, with the run of each."""
    hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
    items = vtk.vtkIdList()
    hierarchy.GetItemChildren(hierarchy.GetSceneItemID(), items, True)
    ids = [items.GetId(index) for index in range(items.GetNumberOfIds())]
    return {item: run for item in ids if (run := hierarchy.GetItemAttribute(item, RUN))}


def _remove_folder(run: str) -> None:
    hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
    for item, its_run in _folders().items():
        if its_run == run and not hierarchy.GetNumberOfItemChildren(item):
            hierarchy.RemoveItem(item, True, False)


def item_of(node) -> int:
    """A node's item in the subject hierarchy, which is made if there is none."""
    hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
    return hierarchy.GetItemByDataNode(node) or hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)


def put_beneath(parent_item: int, node) -> None:
    """In the subject hierarchy; Slicer usually made the node's item already."""
    hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
    item = hierarchy.GetItemByDataNode(node)
    if item:
        hierarchy.SetItemParent(item, parent_item)
    else:
        hierarchy.CreateItem(parent_item, node)


def mark_hanging(node, run: str) -> None:
    """What hangs on a node goes with the run, also if the user deletes the node before."""
    for each in hanging(node):
        mark(each, run)


def hanging(node) -> list:
    """A node's displays (with legends) and storage."""
    found = []
    if node.IsA("vtkMRMLDisplayableNode"):
        found += [node.GetNthDisplayNode(index) for index in range(node.GetNumberOfDisplayNodes())]
    if node.IsA("vtkMRMLStorableNode"):
        found += [node.GetNthStorageNode(index) for index in range(node.GetNumberOfStorageNodes())]
    return [each for each in found if each is not None]


@contextlib.contextmanager
def all_or_nothing(result: Result) -> Iterator[None]:
    """Nothing of the run is left behind if what is done within fails."""
    try:
        yield
    except Exception:
        remove(result)
        raise


def fill_volume(volume, array_zyx: np.ndarray, scan=None, ijk_to_ras: np.ndarray | None = None) -> None:
    """Values on the grid of `scan` and beneath its transform; without one where `ijk_to_ras` (4×4) puts them."""
    slicer.util.updateVolumeFromArray(volume, array_zyx)
    if scan is not None:
        volume.CopyOrientation(scan)
        volume.SetAndObserveTransformNodeID(scan.GetTransformNodeID())
    else:
        volume.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(np.asarray(ijk_to_ras)))


def there() -> tuple[dict[str, str], dict[int, str]]:
    """Which run every node of one belongs to, by its ID, and every folder: for `renumber_imported`."""
    return {node.GetID(): run for node in all_nodes() if (run := run_of(node))}, _folders()


def renumber_imported(before: tuple[dict[str, str], dict[int, str]]) -> None:
    """A run that is there already, and came once more with a scene that was added, is one of its own from now on.

    before: what `there` said before the scene was added.
    """
    nodes, folders = before
    hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
    came = [node for node in all_nodes() if node.GetID() not in nodes]
    twice = sorted({run_of(node) for node in came} & set(nodes.values()))
    fresh = {}
    for run in twice:
        fresh[run] = _new_run(run[:-_DIGITS])
        for node in came:
            if run_of(node) == run:
                mark(node, fresh[run])
    for item, run in _folders().items():
        if item not in folders and run in fresh:
            hierarchy.SetItemAttribute(item, RUN, fresh[run])


def remove(result: Result) -> None:
    """Takes away every node of the run, with what hangs on them: displays and storage. Copies that the user made stay,
    with the colours that they are shown in."""
    scene = slicer.mrmlScene
    hierarchy = scene.GetSubjectHierarchyNode()
    for node in sorted(nodes_of(result.run), key=colours.is_table):
        if colours.is_table(node) and node in colours.used():
            node.RemoveAttribute(RUN)
            continue
        item = hierarchy.GetItemByDataNode(node)
        if item:
            hierarchy.RemoveItem(item, False, False)  # what a user put beneath it moves up
        for each in (node, *hanging(node)):
            if scene.IsNodePresent(each):
                scene.RemoveNode(each)
    _remove_folder(result.run)
    colours.remove_unused()
