"""What is seen of heads of known shape: planes, outlines and cases."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from MedVAELib.errors import InputError
from MedVAELib.evaluation.mean_head import MeanHead
from MedVAELib.evaluation.skull import MEAN_HEAD, evaluate_heads
from MedVAELib.evaluation.skull_methods import mean_head_method
from MedVAELib.evaluation.skull_planes import Examination, case_of, drawn_cases, held_back_names, mask_cases
from MedVAELib.preprocessing.outlines import MARGIN, moment_ellipse
from MedVAELib.standard_planes import BY_COUNT, PLANES
from MedVAELib.training.synthesis.heads import KINDS, Head

from .test_mean_head import egg

EXTENTS_MM = {"height": 72.0, "ofd": 98.0, "bpd": 76.0}
SHOWN = {"axial": ("ofd", "bpd"), "sagittal": ("ofd", "height"), "coronal": ("bpd", "height")}


def egg_head(name="egg"):
    solid = egg(**EXTENTS_MM, spacing_mm=MARGIN * EXTENTS_MM["ofd"] / 96)
    sdf = torch.from_numpy(solid.field)
    return Head(sdf, sdf - 1.5, solid.spacing_mm, 29.0, "typical", name)


def write_masks(folder, *names):
    for name in names:
        solid = egg(**EXTENTS_MM, spacing_mm=2.0, size=64)
        image = sitk.GetImageFromArray(solid.mask.astype(np.uint8))
        image.SetSpacing((2.0,) * 3)
        image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))  # zyx is inferior-superior, posterior-anterior, left-right
        folder.mkdir(parents=True, exist_ok=True)
        sitk.WriteImage(image, str(folder / f"{name}.nii.gz"))


@pytest.mark.parametrize("plane", PLANES)
def test_well_placed_planes_show_the_heads_extents(plane):
    seen = case_of(egg_head(), "typical", Examination(None, misplacement=0.0), seed=3).see()
    ellipse = moment_ellipse(seen.outlines[plane].map[None])
    axes_mm = (2 * ellipse.semi_axes[0] * seen.outlines[plane].pixel_mm).tolist()
    shown = sorted((EXTENTS_MM[direction] for direction in SHOWN[plane]), reverse=True)
    assert axes_mm == pytest.approx(shown, rel=0.05)  # an egg's taper moves its moments a little
    assert seen.true_outlines[plane].shape == seen.images[plane].grey_yx.shape


def test_planes_depend_on_the_seed_and_the_case_alone():
    def maps(seed, name):
        return case_of(egg_head(), "", Examination(None), seed, name).see().canonical(BY_COUNT[0])[0]

    assert torch.equal(maps(1, "a"), maps(1, "a"))
    assert not torch.equal(maps(1, "a"), maps(2, "a")) and not torch.equal(maps(1, "a"), maps(1, "b"))


def test_found_outlines_come_from_the_network_on_simulated_images():
    class Engine:
        def find(self, images):
            assert images.shape == (3, 192, 192) and 0.05 < float(images.mean()) < 0.9 and float(images.std()) > 0.02
            rows, columns = np.mgrid[:192, :192] - 95.5
            oval = torch.from_numpy(np.hypot(rows / 40, columns / 60) <= 1).float()
            return oval.expand(3, -1, -1), torch.full((3,), 0.9)

    seen = case_of(egg_head(), "", Examination(Engine()), 0).see()
    ellipse = moment_ellipse(seen.outlines["axial"].map[None])
    assert ellipse.semi_axes[0].tolist() == pytest.approx([60, 40], abs=0.5)
    assert seen.outlines["axial"].confidence == pytest.approx(0.9)


def test_an_image_without_a_head_is_refused():
    class Engine:
        def find(self, images):
            return torch.zeros(3, 192, 192), torch.zeros(3)

    with pytest.raises(InputError, match="no outline of a head"):
        case_of(egg_head(), "", Examination(Engine()), 0).see()


def test_the_mean_head_of_one_head_predicts_that_head():
    """From well placed planes: what is left is the outlines' and the grids' error."""
    head = egg_head()
    methods = {MEAN_HEAD: mean_head_method(MeanHead.of([egg(**EXTENTS_MM)]))}
    for misplacement, least in ((0.0, 0.975), (1.0, 0.93)):
        case = case_of(head, "", Examination(None, misplacement), 0)
        scores = evaluate_heads([case], methods, 1)
        assert len(scores) == 7 and all(s.agreement.dice > least for s in scores), misplacement
        for name in ("BPD", "OFD", "HC"):
            estimate, true = scores[0].measures[name]
            assert estimate.value == pytest.approx(true, rel=0.02 if misplacement == 0 else 0.08)


def test_distance_of_points_to_a_plane_that_is_well_placed():
    case = case_of(egg_head(), "", Examination(None, misplacement=0.0), 0)
    points = np.array([[0.0, 0.0, 9.0], [4.0, -7.0, 0.0]])
    assert case.plane_distance_mm["sagittal"](points) == pytest.approx([9, 0], abs=1e-4)
    assert case.plane_distance_mm["coronal"](points) == pytest.approx([0, 7], abs=1e-4)


def test_masks_are_read_named_and_held_back(tmp_path):
    write_masks(tmp_path, "one", "two_SB")
    assert held_back_names(tmp_path, training=["one"]) == ["two_SB"]
    assert held_back_names(tmp_path, training=["one"], wanted=["one"]) == ["one"]
    with pytest.raises(InputError, match="no head mask named three"):
        held_back_names(tmp_path, [], ["three"])
    with pytest.raises(InputError, match="trained on"):
        held_back_names(tmp_path, ["one", "two_SB"])
    cases = list(mask_cases(tmp_path, ["two_SB"], 2, Examination(None), 0))
    assert [(case.name, case.head) for case in cases] == [("two_SB view 1", "two_SB"), ("two_SB view 2", "two_SB")]
    assert cases[0].kind == "mask, spina bifida"
    assert cases[0].measures["OFD"] == pytest.approx(EXTENTS_MM["ofd"], rel=0.03)


def test_drawn_heads_are_of_every_kind_in_turn(tmp_path):
    write_masks(tmp_path, "one")
    cases = list(drawn_cases(tmp_path, ["one"], 4, Examination(None), 0))
    assert [case.kind for case in cases] == [f"drawn, {kind}" for kind in KINDS[:4]]
    assert cases[1].measures["cephalic index"] < 76 and len({case.head for case in cases}) == 4
