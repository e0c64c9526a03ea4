"""The population of heads: from the seed alone, true distances, sizes of the growth charts, kinds as named."""

from __future__ import annotations

import shutil
from functools import cache

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from MedVAELib.errors import InputError
from MedVAELib.growth_charts import HC
from MedVAELib.training.synthesis import star_shapes
from MedVAELib.training.synthesis.head_deformations import smooth_field
from MedVAELib.training.synthesis.head_masks import AxialSection, HeadMask, mask_files, radii_of, read_mask
from MedVAELib.training.synthesis.heads import KINDS, WEEKS, HeadPopulation, HeadShape, read_head_shapes
from MedVAELib.training.synthesis.random import Draw

CPU = torch.device("cpu")


def ellipsoid(x: float, y: float, z: float) -> torch.Tensor:
    sphere = torch.ones(star_shapes.ROWS, star_shapes.COLUMNS)
    return star_shapes.transformed(sphere, torch.diag(torch.tensor([float(x), float(y), float(z)])))


def write_mask(path, semi_axes_xyz, spacing=(1.5, 1.5, 1.5), angle=0.0, shift=(0.0, 0.0, 0.0)):
    """An ellipsoid, turned about z and moved, as a NIfTI mask."""
    path.parent.mkdir(parents=True, exist_ok=True)
    z, y, x = (axis.astype(float) for axis in np.mgrid[-40:41, -45:46, -40:41])
    x, y, z = x * spacing[0] - shift[0], y * spacing[1] - shift[1], z * spacing[2] - shift[2]
    x, y = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    a, b, c = semi_axes_xyz
    mask = ((x / a) ** 2 + (y / b) ** 2 + (z / c) ** 2 <= 1).astype(np.uint8)
    image = sitk.GetImageFromArray(mask)
    image.SetSpacing(spacing)
    image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))  # stored along R, A, S
    sitk.WriteImage(image, str(path))


@cache
def population(size: int = 48) -> HeadPopulation:
    return HeadPopulation(_shapes(), size=size)


def _shapes() -> list[HeadShape]:
    """Ellipsoids with a relief of their own, as shapes of four weeks."""
    shapes = []
    for week, ratios in ((22, (0.8, 0.77)), (26, (0.82, 0.75)), (30, (0.81, 0.79)), (34, (0.83, 0.75))):
        relief = smooth_field(Draw(week), 0.5, 0.2) * 0.02
        shapes.append(HeadShape(f"GA{week}", float(week), False, relief, relief, ratios))
    return shapes


def test_moments_recentring_and_turning_of_an_ellipsoid():
    radii = ellipsoid(39, 49, 41)
    found = star_shapes.moments(radii)
    assert abs(found.volume / (4 / 3 * np.pi * 39 * 49 * 41) - 1) < 1e-3
    moved = star_shapes.recentred(radii, torch.tensor([3.0, 6.0, -5.0]))
    assert torch.allclose(star_shapes.moments(moved).centroid, torch.tensor([-3.0, -6.0, 5.0]), atol=0.02)
    angle = torch.tensor(0.3)
    turn = torch.tensor([[angle.cos(), -angle.sin(), 0], [angle.sin(), angle.cos(), 0], [0, 0, 1]])
    back = star_shapes.in_own_frame(star_shapes.transformed(moved, turn))
    assert (back - radii).abs().max() < 0.3


def test_the_distance_is_true_near_the_surface():
    """Of a sphere off the centre, where it is known exactly."""
    radii = star_shapes.recentred(ellipsoid(40, 40, 40), torch.tensor([4.0, -6.0, 3.0]))
    sdf = star_shapes.signed_distance(radii, 64, 1.8)
    axis = (torch.arange(64) - 31.5) * 1.8
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    exact = 40 - ((x + 4) ** 2 + (y - 6) ** 2 + (z + 3) ** 2).sqrt()
    near = exact.abs() < 6
    assert (sdf - exact)[near].abs().max() < 0.15
    assert ((sdf > 0) == (exact > 0))[exact.abs() > 0.1].all()


def test_a_head_depends_on_its_seed_alone():
    first = population()(5)
    population()(6)
    again = population()(5)
    assert torch.equal(first.sdf, again.sdf) and (first.kind, first.ga_weeks) == (again.kind, again.ga_weeks)
    assert not torch.equal(first.sdf, population()(7).sdf)


def test_the_grid_only_sets_the_resolution():
    coarse, fine = population(48)(3), population(96)(3)
    assert abs(coarse.spacing_mm / fine.spacing_mm - 2) < 1e-6
    averaged = torch.nn.functional.avg_pool3d(fine.sdf[None, None], 2)[0, 0]
    near = averaged.abs() < 5
    assert (coarse.sdf - averaged)[near].abs().max() < 0.35


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_is_one_and_the_head_lies_within_its_grid(kind):
    head = population()(11, kind)
    near = head.sdf.abs() < 4
    length = star_shapes.gradient_length(head.sdf)[near] / head.spacing_mm
    assert abs(float(length.mean()) - 1) < 0.03 and float(length.std()) < 0.08
    faces = [head.sdf.select(axis, index).max() for axis in range(3) for index in (0, -1)]
    assert max(faces) < -2
    inside = torch.nonzero(head.sdf > 0).float()
    assert (inside.mean(0) - 23.5).abs().max() < 0.5
    assert 0.4 < float((head.sdf - head.inner_sdf).mean()) < 3.2


def test_sizes_follow_the_growth_charts():
    sections, ages = [], []
    for seed in range(60):
        head = population()(seed, "typical")
        sections.append(AxialSection.of(radii_of(head.sdf, head.spacing_mm)))
        ages.append(head.ga_weeks)
    z = np.array([HC.z_score(s.circumference_mm, age) for s, age in zip(sections, ages, strict=True)])
    assert abs(z.mean()) < 0.6 and 0.6 < z.std() < 1.5 and np.abs(z).max() < 4
    assert WEEKS[0] <= min(ages) < 23 and 33 < max(ages) <= WEEKS[1]


def test_kinds_differ_as_they_are_named():
    def index(kind: str) -> np.ndarray:
        heads = [population()(seed, kind) for seed in range(12)]
        found = [AxialSection.of(radii_of(head.sdf, head.spacing_mm)) for head in heads]
        return np.array([section.bpd_mm / section.ofd_mm for section in found])

    assert index("dolichocephaly").max() < 0.76 < index("typical").mean() < 0.84
    assert index("brachycephaly").min() > 0.82

    def asymmetry(kind: str) -> float:
        heads = [population()(seed, kind) for seed in range(12)]
        return float(np.mean([((h.sdf > 0) ^ (h.sdf.flip(2) > 0)).sum() / (h.sdf > 0).sum() for h in heads]))

    assert asymmetry("asymmetry") > 1.3 * asymmetry("typical")


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="kind must be one of"):
        population()(0, "square")


def only_mask(folder) -> HeadMask:
    ((name, path),) = mask_files(folder).items()
    return read_mask(name, path)


def test_a_mask_of_a_head_keeps_its_size_and_is_turned_into_its_own_frame(tmp_path):
    write_mask(tmp_path / "head.nii.gz", (38, 48, 36), angle=0.25, shift=(8, -10, 5))
    assert list(mask_files(tmp_path)) == ["head"]
    head = only_mask(tmp_path)
    section = AxialSection.of(radii_of(head.sdf, head.spacing_mm))
    assert head.sdf.shape == (96, 96, 96)
    assert abs(section.bpd_mm - 76) < 1 and abs(section.ofd_mm - 96) < 1
    assert abs(float((head.sdf > 0).sum()) * head.spacing_mm**3 / (4 / 3 * np.pi * 38 * 48 * 36) - 1) < 0.03
    assert abs(head.ga_weeks - HC.age_weeks(section.circumference_mm)) < 1e-6


def test_a_mask_of_a_brain_is_given_its_skull(tmp_path):
    write_mask(tmp_path / "GA30" / "mask.nii.gz", (38, 48, 36))
    write_mask(tmp_path / "GA30" / "parcellation.nii.gz", (38, 48, 36))
    head = only_mask(tmp_path)
    section = AxialSection.of(radii_of(head.sdf, head.spacing_mm))
    assert head.ga_weeks == 30 and 77 < section.bpd_mm < 82


def test_unusable_masks_are_named(tmp_path):
    with pytest.raises(InputError, match="no head masks"):
        mask_files(tmp_path)
    for subject in ("one", "two"):
        (tmp_path / subject / "anat").mkdir(parents=True)
        (tmp_path / subject / "anat" / "mask.nii.gz").touch()
    with pytest.raises(InputError, match="one.*two.*both be the head 'anat'"):
        mask_files(tmp_path)
    shutil.rmtree(tmp_path / "one")
    shutil.rmtree(tmp_path / "two")
    (tmp_path / "broken.nii.gz").write_bytes(b"not an image")
    with pytest.raises(InputError, match="broken.nii.gz"):
        read_head_shapes(tmp_path)
    with pytest.raises(InputError, match="no head mask named other"):
        read_head_shapes(tmp_path, ["other"])
    sitk.WriteImage(sitk.Image([20, 20, 20], sitk.sitkUInt8), str(tmp_path / "broken.nii.gz"))
    with pytest.raises(InputError, match="empty"):
        read_head_shapes(tmp_path)
    write_mask(tmp_path / "broken.nii.gz", (38, 48, 36), spacing=(0.01, 0.01, 0.01), shift=(0, 0, 0))
    with pytest.raises(InputError, match="spans .* mm, which no fetal head does"):
        read_head_shapes(tmp_path)


def test_atlas_heads_are_star_shaped_and_their_kinds_known(medvae_data):
    folder = medvae_data / "fetal" / "head_atlases"
    names = ["Chinese28_Study1", "fetal_SB_atlas_GA23_notoperated"]
    shapes = read_head_shapes(folder, names)
    assert [shape.spina_bifida for shape in shapes] == [False, True]
    assert [shape.ga_weeks for shape in shapes] == [28, 23]
    for shape in shapes:
        assert 0.7 < shape.ratios[0] < 0.9 and 0.6 < shape.ratios[1] < 0.9
        assert shape.skull.isfinite().all() and float(shape.skull.std()) < 0.2
