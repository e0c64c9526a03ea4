"""The surface: closed, facing outwards, not shrunk, in RAS mm, with the spread of the field it came from."""

from __future__ import annotations

import numpy as np
import pytest
import torch.nn.functional as F
from vtkmodules.vtkFiltersCore import vtkMassProperties
from vtkmodules.vtkIOXML import vtkXMLPolyDataReader

from MedVAELib.skull.surface import head_surface, points_of, std_of, triangles_of, write_surface

from .heads import ellipsoid_sdf, open_edges

AXES_VOX = (28.0, 36.0, 30.0)
SPACING_MM = 1.5


@pytest.fixture(scope="module")
def surface():
    coarse = ellipsoid_sdf(AXES_VOX, 48, 2.0).clamp(-8, 8)
    fine = F.interpolate(coarse[None, None], scale_factor=2, mode="trilinear", align_corners=False)[0, 0].numpy()
    std = np.broadcast_to(np.linspace(0.2, 1.6, 96, dtype=np.float32)[:, None, None], fine.shape)  # rises with z
    return head_surface(fine * SPACING_MM, std, SPACING_MM)


def test_it_is_closed_and_faces_outwards(surface):
    assert open_edges(surface) == 0
    corners = points_of(surface)[triangles_of(surface)]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert ((normals * corners.mean(1)).sum(1) > 0).all()
    assert surface.GetPointData().GetNormals() is not None


def test_smoothing_does_not_shrink_it(surface):
    mass = vtkMassProperties()
    mass.SetInputData(surface)
    true = 4 / 3 * np.pi * np.prod(AXES_VOX) * SPACING_MM**3
    assert mass.GetVolume() == pytest.approx(true, rel=0.01)
    axes_mm = np.array(AXES_VOX[::-1]) * SPACING_MM
    radius = np.linalg.norm(points_of(surface) / axes_mm, axis=1)
    assert np.abs(radius - 1).max() < 0.02
    assert np.abs(points_of(surface)).max(0) == pytest.approx(axes_mm, rel=0.01)


def test_std_is_that_of_the_place(surface):
    z_vox = points_of(surface)[:, 2] / SPACING_MM + 47.5
    assert std_of(surface) == pytest.approx(np.interp(z_vox, [0, 95], [0.2, 1.6]), abs=1e-4)


def test_only_the_largest_part_is_kept_and_the_border_closes():
    field = ellipsoid_sdf((10.0, 12.0, 60.0), 48).clamp(-8, 8).numpy()  # leaves the grid on both sides
    field[2:5, 2:5, 2:5] = 1.0
    surface = head_surface(field, np.ones_like(field), 1.0)
    assert open_edges(surface) == 0
    assert np.linalg.norm(points_of(surface)[:, 1:], axis=1).max() < 14
    with pytest.raises(ValueError, match="nothing"):
        head_surface(-np.ones((8, 8, 8)), np.ones((8, 8, 8)), 1.0)


def test_written_file_says_which_way_it_lies(surface, tmp_path):
    write_surface(surface, str(tmp_path / "skull.vtp"))
    reader = vtkXMLPolyDataReader()
    reader.SetFileName(str(tmp_path / "skull.vtp"))
    reader.Update()
    assert reader.GetOutput().GetFieldData().GetAbstractArray("SPACE").GetValue(0) == "RAS"
    assert np.array_equal(points_of(reader.GetOutput()), points_of(surface))
    assert np.array_equal(std_of(reader.GetOutput()), std_of(surface))


def test_a_broken_disk_is_an_error(surface, tmp_path):
    with pytest.raises(OSError, match="written"):
        write_surface(surface, str(tmp_path / "no" / "such" / "skull.vtp"))
