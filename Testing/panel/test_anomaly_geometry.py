"""The same head, stored and placed in other ways: the overlay stays where the lesion is, in the world."""

from __future__ import annotations

import json

import numpy as np
import pytest
import SimpleITK as sitk

from MedVAELib.anomaly.calibration import threshold

from .detections import SAMPLE, add_scan

VOXEL_MM = 1.5
LESION_MM = 10
"""Flagged voxels this near to a pasted lesion's middle are its own: its radius is 6 mm."""


@pytest.fixture(scope="module")
def expected(reply):
    """World RAS of the highest score in the sample as it is."""
    finding = reply["findings"][0]
    return np.array([finding[f"peak_{axis}_mm"] for axis in "ras"])


@pytest.fixture
def panel(desk):
    return desk


def rotation(degrees: float, axis: int) -> np.ndarray:
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    i, j = [other for other in range(3) if other != axis]
    matrix = np.eye(4)
    matrix[i, i], matrix[i, j], matrix[j, i], matrix[j, j] = c, -s, s, c
    return matrix


def put_under(scan, to_world: np.ndarray, keep_place: bool = True):
    """A parent transform; with `keep_place` the scan's own geometry is changed so that it lies where it lay."""
    import slicer
    from MedVAEPanel.scan_node import own_ijk_to_ras

    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "Registration")
    transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(to_world))
    if keep_place:
        own = np.linalg.inv(to_world) @ own_ijk_to_ras(scan)
        scan.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(own))
    scan.SetAndObserveTransformNodeID(transform.GetID())
    return transform


def world(node, ijk) -> np.ndarray:
    """World RAS of a voxel, the node's parent transform included."""
    import slicer
    import vtk
    from MedVAEPanel.scan_node import own_ijk_to_ras

    matrix = vtk.vtkMatrix4x4()
    if node.GetParentTransformNode() is not None:
        node.GetParentTransformNode().GetMatrixTransformToWorld(matrix)
    return (slicer.util.arrayFromVTKMatrix(matrix) @ own_ijk_to_ras(node) @ np.append(ijk, 1.0))[:3]


def peak(node) -> np.ndarray:
    """Index (ijk) of the voxel with the highest score."""
    import slicer

    values = slicer.util.arrayFromVolume(node)
    return np.array(np.unravel_index(values.argmax(), values.shape))[::-1]


def detect(panel, scan):
    from MedVAEPanel.anomaly_results import Result

    panel.ui.inputSelector.setCurrentNode(scan)
    panel.detect(samples=2)
    assert panel.ui.findingsTable.rowCount, panel.ui.messageLabel.text
    return Result.last()


def check_place(panel, result, scan, expected: np.ndarray) -> None:
    """Map, table, views and outlines agree on where the peak is: within a voxel of where it is expected."""
    anomaly = result.node("anomaly")
    assert anomaly.GetParentTransformNode() is scan.GetParentTransformNode()
    assert result.node("segmentation").GetParentTransformNode() is scan.GetParentTransformNode()
    assert np.abs(world(anomaly, peak(anomaly)) - expected).max() <= VOXEL_MM
    panel.ui.findingsTable.selectRow(0)
    for name, axis in (("Red", 2), ("Yellow", 0), ("Green", 1)):
        view = panel.host.views[name]
        assert abs(view.node.GetSliceToRAS().GetElement(axis, 3) - expected[axis]) <= VOXEL_MM
        result.node("segmentation").GetDisplayNode().SetVisibility(False)
        image = view.image().astype(int)
        to_xy = np.linalg.inv(_array(view.node.GetXYToRAS()))
        x, y = (to_xy @ np.append(expected, 1.0))[:2]
        row, column = int(round(image.shape[0] - y)), int(round(x))
        near = image[max(row - 6, 0) : row + 7, max(column - 6, 0) : column + 7]
        assert near.size and np.ptp(near, axis=2).max() > 60, f"no colour at the lesion in {name}"


def _array(matrix) -> np.ndarray:
    import slicer

    return slicer.util.arrayFromVTKMatrix(matrix)


def test_permuted_and_flipped_axes(panel, expected):
    image = sitk.PermuteAxes(sitk.ReadImage(str(SAMPLE)), (2, 0, 1))
    scan = add_scan("FLAIR", sitk.Flip(image, (True, False, True)))
    check_place(panel, detect(panel, scan), scan, expected)


def test_an_oblique_parent_transform_is_folded_into_the_geometry(panel, expected):
    scan = add_scan("FLAIR")
    to_world = rotation(35, 0) @ rotation(-20, 2)
    to_world[:3, 3] = (30, -15, 40)
    put_under(scan, to_world)
    result = detect(panel, scan)
    status = panel.ui.statusLabel
    assert panel.pump(lambda: "taken into account" in status.text, 20), status.text
    check_place(panel, result, scan, expected)


def test_an_oblique_scan(panel):
    """Resampled onto a grid that is turned by 15° and 10°, as an oblique acquisition has it."""
    import slicer

    image = sitk.ReadImage(str(SAMPLE))
    turn = (rotation(15, 0) @ rotation(10, 2))[:3, :3]
    grid = sitk.Image(image.GetSize(), sitk.sitkFloat32)
    grid.SetSpacing(image.GetSpacing())
    direction = turn @ np.array(image.GetDirection()).reshape(3, 3)
    grid.SetDirection(direction.ravel())
    middle = np.array(image.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in image.GetSize()]))
    half = direction @ (np.array(image.GetSpacing()) * [(n - 1) / 2 for n in image.GetSize()])
    grid.SetOrigin((middle - half).tolist())
    scan = add_scan("FLAIR", sitk.Resample(image, grid, sitk.Transform(), sitk.sitkLinear))
    result = detect(panel, scan)
    # Where in a lesion the score is highest depends on the grid; where the flagged voxels have their middle does not.
    anomaly = result.node("anomaly")
    flagged = np.argwhere(slicer.util.arrayFromVolume(anomaly) > threshold(0.01))[:, ::-1]
    places = np.array([world(anomaly, ijk) for ijk in flagged])
    for lesion in json.loads(SAMPLE.with_name("truth.json").read_text())[:2]:
        middle = np.array(lesion["centroid_ras_mm"])
        near = places[np.linalg.norm(places - middle, axis=1) < LESION_MM]
        assert len(near) and np.abs(near.mean(axis=0) - middle).max() <= VOXEL_MM, lesion["name"]


def test_a_shearing_transform_is_left_out_and_said_so(panel, expected):
    scan = add_scan("FLAIR")
    shear = np.eye(4)
    shear[0, 1] = 0.3
    put_under(scan, shear, keep_place=False)
    result = detect(panel, scan)
    status = panel.ui.statusLabel
    assert panel.pump(lambda: "shears" in status.text and "left out" in status.text, 20), status.text
    check_place(panel, result, scan, (shear @ np.append(expected, 1.0))[:3])


def bend():
    import slicer
    import vtk

    bent, points, moved = vtk.vtkThinPlateSplineTransform(), vtk.vtkPoints(), vtk.vtkPoints()
    for point in ((0, 0, 0), (50, 0, 0), (0, 50, 0), (0, 0, 50), (30, 30, 30)):
        points.InsertNextPoint(point)
    moved.DeepCopy(points)
    moved.SetPoint(4, 40, 20, 35)
    bent.SetSourceLandmarks(points)
    bent.SetTargetLandmarks(moved)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode")
    node.SetAndObserveTransformToParent(bent)
    return node


@pytest.mark.parametrize("how", ["moved", "registered", "hardened", "bent"])
def test_a_result_follows_its_scan(panel, reply, expected, how):
    """Registered in another module after the detection, by a transform that may be hardened and deleted then."""
    import slicer
    import vtk

    scan = add_scan("FLAIR")
    transform = put_under(scan, np.eye(4), keep_place=False) if how == "moved" else None
    result = panel.widget.logic.addResult(scan, reply)
    panel.tab.results.show_new(result)
    mine = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "Mine")
    result.node("std").SetAndObserveTransformNodeID(mine.GetID())
    panel.widget.exit()
    to_world = rotation(20, 2)
    to_world[:3, 3] = (30, -15, 40)
    if how == "bent":
        transform = bend()
        scan.SetAndObserveTransformNodeID(transform.GetID())
    elif how == "moved":
        transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(to_world))
    else:
        transform = put_under(scan, to_world, keep_place=False)
    if how == "hardened":
        scan.HardenTransform()
        slicer.mrmlScene.RemoveNode(transform)
    to, place = vtk.vtkGeneralTransform(), np.zeros(3)
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(transform if how == "bent" else None, None, to)
    to.TransformPoint(expected, place)
    place = place if how == "bent" else (to_world @ np.append(expected, 1.0))[:3]
    position, wanted = panel.ui.findingsTable.item(0, 4), [abs(round(value)) for value in place]
    assert panel.pump(lambda: [int(word[1:]) for word in position.text().split()] == wanted, 10), position.text()
    panel.widget.enter()
    assert result.node("std").GetParentTransformNode() is mine
    if how == "bent":
        assert result.node("anomaly").GetParentTransformNode() is transform
    else:
        check_place(panel, result, scan, place)
    check_outlines(result, scan, reply)


def check_outlines(result, scan, reply) -> None:
    """The first finding's are where it is on the scan's grid."""
    import slicer

    node, label = result.node("segmentation"), reply["findings"][0]["label"]
    voxels = slicer.util.arrayFromSegmentBinaryLabelmap(node, node.GetSegmentation().GetNthSegmentID(0), scan)
    np.testing.assert_array_equal(voxels > 0, np.load(reply["arrays"]["components"]) == label)


def test_what_was_hardened_together_with_the_scan_is_moved_once(panel, reply):
    """As Transforms does with a branch of the subject hierarchy."""
    from MedVAEPanel.anomaly_results import VOLUMES, follow_scans
    from MedVAEPanel.scan_node import own_ijk_to_ras

    scan = add_scan("FLAIR")
    result = panel.widget.logic.addResult(scan, reply)
    to_world = np.eye(4)
    to_world[0, 3] = 30.0
    transform = put_under(scan, to_world, keep_place=False)
    branch = [scan, *(result.node(role) for role in (*VOLUMES, "segmentation"))]
    for node in branch:
        node.SetAndObserveTransformNodeID(transform.GetID())
    follow_scans()
    for node in branch:
        node.HardenTransform()
    follow_scans()
    np.testing.assert_allclose(own_ijk_to_ras(result.node("anomaly")), own_ijk_to_ras(scan))
    check_outlines(result, scan, reply)


def dent(scan):
    """A transform that bends the middle of the scan and moves nothing at its border."""
    import slicer
    import vtk
    from vtk.util.numpy_support import vtk_to_numpy

    bounds = np.zeros(6)
    scan.GetRASBounds(bounds)
    field = vtk.vtkImageData()
    field.SetDimensions(9, 9, 9)
    field.SetOrigin(bounds[::2])
    field.SetSpacing((bounds[1::2] - bounds[::2]) / 8)
    field.AllocateScalars(vtk.VTK_DOUBLE, 3)
    moves = vtk_to_numpy(field.GetPointData().GetScalars()).reshape(9, 9, 9, 3)
    moves[:] = 0.0
    moves[4, 4, 4, 0] = 5.0
    bent = vtk.vtkGridTransform()
    bent.SetDisplacementGridData(field)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode")
    node.SetAndObserveTransformToParent(bent)
    return node


@pytest.mark.parametrize("hardened", [True, False])
def test_a_map_leaves_a_bend_only_if_the_scan_keeps_its_voxels(panel, reply, hardened):
    from MedVAEPanel.anomaly_results import follow_scans
    from MedVAEPanel.scan_node import own_ijk_to_ras

    scan = add_scan("FLAIR")
    result, transform = panel.widget.logic.addResult(scan, reply), dent(scan)
    size, own = scan.GetImageData().GetDimensions(), own_ijk_to_ras(scan)
    scan.SetAndObserveTransformNodeID(transform.GetID())
    follow_scans()
    if hardened:
        scan.HardenTransform()
        assert scan.GetImageData().GetDimensions() == size
        np.testing.assert_allclose(own_ijk_to_ras(scan), own, atol=1e-4)
    else:
        scan.SetAndObserveTransformNodeID(None)
    follow_scans()
    for role in ("anomaly", "segmentation"):
        assert result.node(role).GetParentTransformNode() is (transform if hardened else None)


def test_results_follow_in_one_pass_over_the_scene(panel, reply, monkeypatch):
    from MedVAEPanel import anomaly_results, results

    passes, all_nodes = [], results.all_nodes
    for name in ("FLAIR", "Other"):
        panel.widget.logic.addResult(add_scan(name), reply)
    monkeypatch.setattr(results, "all_nodes", lambda: passes.append(1) or all_nodes())
    anomaly_results.follow_scans()
    assert len(passes) == 1


def test_placement_of_every_kind_of_transform(panel):
    from MedVAEPanel.scan_node import own_ijk_to_ras, placement

    scan = add_scan("FLAIR")
    own = own_ijk_to_ras(scan)
    assert placement(scan).note == ""
    np.testing.assert_allclose(placement(scan).ijk_to_ras, own)
    scale = np.diag([1.0, 2.0, 0.5, 1.0])
    put_under(scan, scale, keep_place=False)
    np.testing.assert_allclose(placement(scan).ijk_to_ras, scale @ own)
    np.testing.assert_allclose(placement(scan).as_itk()["spacing"], [1.5, 3.0, 0.75])
    direction = np.array(placement(scan).as_itk()["direction"]).reshape(3, 3)
    np.testing.assert_allclose(direction.T @ direction, np.eye(3), atol=1e-12)
    scan.SetAndObserveTransformNodeID(bend().GetID())
    np.testing.assert_allclose(placement(scan).ijk_to_ras, own)
    assert "bends" in placement(scan).note


def test_the_request_has_simpleitks_geometry(panel, tmp_path):
    """What is sent for a node is what SimpleITK says of the file it was made from."""
    image = sitk.Flip(sitk.PermuteAxes(sitk.ReadImage(str(SAMPLE)), (1, 2, 0)), (False, True, False))
    given = panel.widget.logic.request(add_scan("FLAIR", image), tmp_path)
    np.testing.assert_allclose(given["spacing"], image.GetSpacing())
    np.testing.assert_allclose(given["origin"], image.GetOrigin(), atol=1e-9)
    np.testing.assert_allclose(given["direction"], image.GetDirection(), atol=1e-12)
    np.testing.assert_array_equal(np.load(given["array"]), sitk.GetArrayFromImage(image))
