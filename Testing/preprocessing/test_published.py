"""The published preparation: the same picture from every way a scan can lie and be stored, and exactly back."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from MedVAELib.errors import InputError
from MedVAELib.preprocessing.geometry import physical_points
from MedVAELib.preprocessing.masked import masked_scan
from MedVAELib.preprocessing.mni import WINDOW_CENTER_RAS_MM, load_template, mni_grid, mni_to_brain
from MedVAELib.preprocessing.model_image import model_image
from MedVAELib.preprocessing.published import PublishedPreparation, prepare_published, sample_model_image
from MedVAELib.scan import Scan

BRAIN_SEMI_AXES_MM = np.array([60.0, 80.0, 65.0])


def brightness(mni_ras_mm: np.ndarray) -> np.ndarray:
    """A smooth, positive field without symmetry and nowhere constant, as a written background would be."""
    bumps = (((20, 15, 10), 1.0), ((-25, 10, -15), 0.7), ((5, -60, 20), -0.5), ((-10, -10, 45), 0.6))
    slope = mni_ras_mm @ np.array((0.001, -0.0005, 0.0007))
    return 1.5 + slope + sum(h * np.exp(-((mni_ras_mm - np.array(m)) ** 2).sum(-1) / (2 * 25.0**2)) for m, h in bumps)


def in_brain(mni_ras_mm: np.ndarray) -> np.ndarray:
    return (((mni_ras_mm - WINDOW_CENTER_RAS_MM) / BRAIN_SEMI_AXES_MM) ** 2).sum(-1) < 1


@cache
def fields_in_mni() -> tuple[np.ndarray, np.ndarray]:
    points = physical_points(mni_grid(1.0)).astype(float)
    return brightness(points).astype(np.float32), in_brain(points)


def affine(angles_deg, scales, shift_mm) -> tuple[sitk.AffineTransform, np.ndarray]:
    """From MNI to scan: as SimpleITK's transform (LPS), and as a matrix for RAS."""
    matrix = Rotation.from_euler("xyz", angles_deg, degrees=True).as_matrix() @ np.diag(scales)
    flip = np.diag([-1.0, -1.0, 1.0])
    transform = sitk.AffineTransform(3)
    transform.SetMatrix((flip @ matrix @ flip).ravel().tolist())
    transform.SetTranslation((flip @ shift_mm).tolist())
    return transform, np.column_stack([matrix, shift_mm])


@settings(max_examples=4, deadline=None, phases=(Phase.explicit, Phase.generate))  # shrinking would take minutes
@given(
    oblique=st.tuples(*[st.floats(-25, 25)] * 3), order=st.permutations(range(3)),
    signs=st.tuples(*[st.sampled_from((1, -1))] * 3), spacing=st.tuples(*[st.floats(2.0, 5.0)] * 3),
    pose=st.tuples(*[st.floats(-15, 15)] * 3), scales=st.tuples(*[st.floats(0.85, 1.15)] * 3),
    shift=st.tuples(*[st.floats(-30, 30)] * 3),
)
@example(
    oblique=(-2.2e-311, -15.6, -15.2), order=[1, 2, 0], signs=(1, 1, 1), spacing=(2.2, 2.4, 3.9),
    pose=(8.714842215490343, -3.1544422402064714e-295, 8.729686475928116e-304),
    scales=(1.09, 1.0852207602429176, 1.0641022299981044), shift=(19.2, 5.3, -30.0),
)
def test_any_scan_gives_the_same_image_and_takes_it_back(oblique, order, signs, spacing, pose, scales, shift):
    """Oblique, anisotropic, flipped, permuted, moved: compared with the field itself in MNI space."""
    mni_to_scan, matrix = affine(pose, scales, np.array(shift))
    direction = Rotation.from_euler("xyz", oblique, degrees=True).as_matrix()[:, list(order)] * signs
    size = [int(np.ceil(260 / s)) for s in spacing]
    scan = sitk.Image(size, sitk.sitkFloat32)
    scan.SetSpacing(spacing)
    scan.SetDirection(direction.ravel().tolist())
    centre_lps = (matrix[:, :3] @ WINDOW_CENTER_RAS_MM + matrix[:, 3]) * (-1, -1, 1)
    scan.SetOrigin((centre_lps - direction @ (np.array(spacing) * (np.array(size) - 1) / 2)).tolist())
    mni = (physical_points(scan).astype(float) - matrix[:, 3]) @ np.linalg.inv(matrix[:, :3]).T
    filled = sitk.GetImageFromArray(brightness(mni).astype(np.float32))
    filled.CopyInformation(scan)
    mask = sitk.GetImageFromArray(in_brain(mni).astype(np.uint8))
    mask.CopyInformation(scan)

    made = sample_model_image(masked_scan(filled, mask, "scan"), mni_to_scan)
    expected = model_image(*fields_in_mni(), 4)
    coarse = physical_points(mni_grid(4.0)).astype(float)
    deep = in_brain((coarse - WINDOW_CENTER_RAS_MM) * 1.2 + WINDOW_CENTER_RAS_MM)
    assert np.abs(made - expected)[deep].max() < 0.03
    outside = ~in_brain((coarse - WINDOW_CENTER_RAS_MM) / 1.25 + WINDOW_CENTER_RAS_MM)
    assert not made[outside].any()

    back = PublishedPreparation(made, mni_to_scan, filled).to_scan(made)
    assert (back.GetSize(), back.GetSpacing(), back.GetOrigin(), back.GetDirection()) == (
        filled.GetSize(), filled.GetSpacing(), filled.GetOrigin(), filled.GetDirection())
    field, inside = fields_in_mni()
    top = np.quantile(field[inside], 0.995)
    inner = in_brain((mni - WINDOW_CENTER_RAS_MM) * 1.3 + WINDOW_CENTER_RAS_MM)
    assert np.abs(sitk.GetArrayFromImage(back) - brightness(mni) / top)[inner].max() < 0.06


def template_head() -> sitk.Image:
    """Our average's brain, moved and turned, as a stripped scan on a small grid."""
    template, (moved, _) = load_template(), affine((8, -5, 6), (0.95, 1.04, 0.97), np.array([7.0, -6.0, 9.0]))
    brain = template.intensity * sitk.Cast(template.brain > 0.5, sitk.sitkFloat32)
    grid = sitk.Image(56, 68, 40, sitk.sitkFloat32)
    grid.SetSpacing((3.4, 3.2, 4.6))
    grid.SetDirection((1, 0, 0, 0, -1, 0, 0, 0, 1))
    grid.SetOrigin((-96.0, 126.0, -80.0))
    return sitk.Resample(brain, grid, moved.GetInverse(), sitk.sitkLinear, 0.0)


def test_a_moved_brain_is_brought_to_where_the_average_lies_however_it_is_stored():
    head = template_head()
    made = prepare_published(Scan.from_image(head))
    template = load_template()
    stripped = np.where(sitk.GetArrayFromImage(template.brain) > 0.5, sitk.GetArrayFromImage(template.intensity), 0)
    expected = model_image(stripped, sitk.GetArrayFromImage(template.brain) > 0.5, 2)
    both = (made.image > 0) & (expected > 0)
    assert both.sum() > 0.85 * ((made.image > 0) | (expected > 0)).sum()  # its rim was smeared over a voxel
    assert np.corrcoef(made.image[both], expected[both])[0, 1] > 0.9
    stored = prepare_published(Scan.from_image(sitk.DICOMOrient(head, "IRA")))
    difference = np.abs(stored.image - made.image)  # a registration repeats itself only up to rounding
    assert difference.max() < 0.06 and difference.mean() < 1e-3


def test_values_below_zero_and_masks_of_another_grid():
    head = template_head()
    z_scored = (head - 80.0) / 20.0
    z_scored = sitk.Cast(z_scored, sitk.sitkFloat32)
    masked = masked_scan(z_scored, None, "scan")
    assert sitk.GetArrayFromImage(masked.image).min() >= 0
    brains = [sitk.GetArrayFromImage(made.brain) for made in (masked, masked_scan(head, None, "scan"))]
    assert np.array_equal(*brains)
    for other in (sitk.Image(8, 8, 8, sitk.sitkUInt8), sitk.Flip(head > 0, (False, True, False))):
        with pytest.raises(InputError, match="own grid"):
            masked_scan(head, other, "scan")
    with pytest.raises(InputError, match="only 0 ml"):
        masked_scan(head, head < -1, "scan")


def test_model_images_are_means_clipped_at_a_quantile_of_the_brain():
    values = np.full((8, 8, 8), 2.0, np.float32)
    brain = np.zeros((8, 8, 8), bool)
    brain[:, :, :4] = True
    values[..., 6] = 1e6  # outside the brain: it counts for nothing
    image = model_image(values, brain, 4)
    assert image.shape == (2, 2, 2) and (image[..., 0] == 1).all() and not image[..., 1].any()
    assert not model_image(np.zeros_like(values), brain, 4).any()
    with pytest.raises(ValueError, match="multiples"):
        model_image(values, brain, 3)


def test_a_spacing_must_divide_the_window():
    assert mni_grid(1.0).GetSize() == (160, 192, 160)
    with pytest.raises(ValueError, match="does not divide"):
        mni_grid(3.0)


def test_nothing_to_register_is_said():
    with pytest.raises(RuntimeError):
        mni_to_brain(sitk.Image(16, 16, 16, sitk.sitkFloat32))
