"""Outlines on plane images: there and back between image and network's grid, cleaned, and judged plane by plane."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from MedVAELib.errors import InputError
from MedVAELib.preprocessing.outlines import ellipse_map, moment_ellipse
from MedVAELib.resources import resource_dir
from MedVAELib.skull.outline import (
    NETWORK_SIZE,
    clean,
    find_outlines,
    image_position,
    judge,
    letterbox,
    unletterbox,
)
from MedVAELib.skull.planes import PlaneImage
from MedVAELib.skull.predictor import SkullPredictor

from .bundles import bright_outline
from .heads import plane_with_head

sizes = st.tuples(st.integers(60, 700), st.integers(60, 700))


def blob(shape: tuple[int, int], centre: tuple[float, float], radius: float) -> np.ndarray:
    y, x = np.mgrid[: shape[0], : shape[1]]
    return np.clip(radius - np.hypot(y - centre[0], x - centre[1]) + 0.5, 0, 1).astype(np.float32)


@settings(max_examples=25, deadline=None)
@given(shape=sizes, place=st.tuples(st.floats(0.3, 0.7), st.floats(0.3, 0.7)))
def test_there_and_back(shape, place):
    centre = (place[0] * shape[0], place[1] * shape[1])
    picture = blob(shape, centre, 0.25 * min(shape))
    small = letterbox(picture)
    assert small.shape == (NETWORK_SIZE, NETWORK_SIZE)
    found = moment_ellipse(small[None])
    tolerance = 0.6 * max(1.0, max(shape) / NETWORK_SIZE)
    assert image_position(found.centre[0].tolist(), shape) == pytest.approx(centre, abs=tolerance)
    back = unletterbox(small, shape)
    assert back.shape == shape and np.abs(back - picture).mean() < 0.02


@pytest.mark.parametrize("shape", [(540, 800), (298, 800), (800, 302)])
def test_one_scale_for_both_axes(shape):
    """Also where the shorter edge does not come to whole pixels."""
    axes = moment_ellipse(letterbox(blob(shape, (shape[0] / 2, shape[1] / 2), 120))[None]).semi_axes[0]
    assert (axes * 800 / NETWORK_SIZE).tolist() == pytest.approx([120.0, 120.0], abs=0.15)


def test_the_largest_part_is_kept_whole_and_sharp():
    soft = torch.tensor(blob((192, 192), (90, 100), 50))
    soft = torch.nn.functional.avg_pool2d(soft[None, None], 9, 1, 4)[0, 0]  # an unsure network's wide edge
    soft[85:95, 95:105] = 0.1  # a hole
    soft[5:12, 5:12] = 0.9  # a speck
    found = clean(soft, "plane")
    assert float(found.sum()) == pytest.approx(np.pi * 50**2, rel=0.01)
    assert float(found[90, 100]) == 1 and float(found[:15, :15].sum()) == 0
    assert float(((found > 0.02) & (found < 0.98)).sum()) < 2 * np.pi * 50 * 2


def test_a_strand_that_hangs_on_to_the_head_is_none_of_it():
    head = torch.tensor(blob((192, 192), (90, 100), 40))
    torn = head.clone()
    torn[100:106, 20:70] = 1.0  # a bright line that runs up to it
    assert float((clean(torn, "plane") - clean(head, "plane")).abs().sum()) < 0.35 * 6 * 40
    base = head.clone()
    base[110:] = 0  # cut off flat
    assert float((clean(base, "plane") - base).abs().sum()) < 0.01 * float(base.sum())


@pytest.mark.parametrize("probability", [torch.zeros(192, 192), torch.full((192, 192), 0.5),
                                         torch.tensor(blob((192, 192), (50, 50), 5))])
def test_nothing_like_a_head(probability):
    with pytest.raises(InputError, match="scan.png"):
        clean(probability, "scan.png (axial)")


def test_a_base_is_no_reason_to_doubt_a_sagittal_plane():
    """A head cut off flat below, as the skull's base does, departs from an ellipse further than an axial one may."""
    image = PlaneImage(np.full((192, 192), 0.3, np.float32), 0.6)
    head = ellipse_map(moment_ellipse(torch.tensor(blob((192, 192), (90, 96), 70))[None]), 192, 192)[0]
    head[126:] = 0
    assert not judge("sagittal", image, head, 1.0).doubts
    assert any("no oval" in doubt for doubt in judge("axial", image, head, 1.0).doubts)


class Eye:
    """An engine whose looks are given by a function of the pictures and of how often it looked."""

    def __init__(self, look):
        self.look, self.looks = look, 0

    def find(self, images):
        self.looks += 1
        return self.look(images, self.looks)


def placed(pixel_mm=0.3, shape=(900, 1200)) -> PlaneImage:
    """A ring of 42 and 33 mm semi-axes in the middle of a frame."""
    picture = plane_with_head((42.0, 33.0), pixel_mm, shape)
    return PlaneImage(picture.astype(np.float32) / 255, pixel_mm)


def test_a_small_head_is_looked_at_from_closer_by():
    eye, image = Eye(lambda images, _: bright_outline(images)), placed()
    found = find_outlines([("axial", image)], eye)[0]
    assert eye.looks == 2 and found.window != (slice(0, 900), slice(0, 1200)) and not found.doubts
    assert found.semi_axes_mm == pytest.approx((42.0, 33.0), rel=0.03)
    assert found.centre_yx_px == pytest.approx((449.5, 599.5), abs=2)
    on_image = found.on_image()
    assert on_image.shape == (900, 1200)
    assert np.argwhere(on_image > 0.5).mean(0) == pytest.approx(found.centre_yx_px, abs=1)
    assert float(on_image.sum()) * 0.3**2 == pytest.approx(np.pi * 42 * 33, rel=0.05)


def test_a_large_one_is_not():
    eye, image = Eye(lambda images, _: bright_outline(images)), placed(shape=(320, 440))
    found = find_outlines([("axial", image)], eye)[0]
    assert eye.looks == 1 and found.window == (slice(0, 320), slice(0, 440))


@pytest.mark.parametrize("closer", [torch.tensor(blob((192, 192), (96, 96), 15)), torch.zeros(192, 192)],
                         ids=["another one", "none"])
def test_looks_that_do_not_agree_are_a_doubt(closer):
    first = torch.tensor(blob((192, 192), (96, 96), 30))
    eye = Eye(lambda images, looks: ((first if looks == 1 else closer)[None], torch.tensor([1.0])))
    assert any("more closely" in doubt for doubt in find_outlines([("axial", placed())], eye)[0].doubts)


def test_closer_looks_that_agree_on_another_head_are_a_doubt_too():
    """Half as large as from afar, twice."""
    radii = {1: 30, 2: 25.3, 3: 50.5}  # the windows are 114 and 57 pixels of the first look's grid
    eye = Eye(lambda images, looks: (torch.tensor(blob((192, 192), (96, 96), radii[looks]))[None], torch.tensor([1.0])))
    found = find_outlines([("axial", placed())], eye)[0]
    assert eye.looks == 3 and found.semi_axes_mm[0] == pytest.approx(15 * 1200 / 192 * 0.3, rel=0.05)
    assert any("more closely" in doubt for doubt in found.doubts)


def test_a_screen_shot_gives_the_size_that_the_plane_alone_gives():
    """The shipped network on the sample's axial plane, and on that in the middle of a large black frame."""
    plane = PlaneImage.read(resource_dir() / "sample" / "skull" / "axial.png", 0.28)
    (height, width), shot = plane.grey_yx.shape, np.zeros((1080, 1920), np.float32)
    shot[330 : 330 + height, 680 : 680 + width] = plane.grey_yx
    engine = SkullPredictor.load(device="cpu").outline
    alone, small = find_outlines([("axial", plane), ("axial", PlaneImage(shot, 0.28))], engine)
    assert small.semi_axes_mm == pytest.approx(alone.semi_axes_mm, rel=0.015)


def test_a_print_on_white_is_a_doubt():
    picture = placed(shape=(320, 440)).grey_yx
    head = bright_outline(letterbox(picture)[None])[0][0]
    for grey, inverted in ((picture, False), (1 - picture, True)):
        doubts = judge("axial", PlaneImage(grey, 0.3), head, 1.0).doubts
        assert any("inverted" in doubt for doubt in doubts) is inverted, doubts


def test_a_bright_window_around_a_plane_does_not_look_inverted():
    shot = np.full((700, 900), 0.4, np.float32)
    shot[190:510, 230:670] = placed(shape=(320, 440)).grey_yx
    whole = torch.zeros(700, 900)
    whole[190:510, 230:670] = torch.tensor(blob((320, 440), (160, 220), 120))
    doubts = judge("axial", PlaneImage(shot, 0.3), letterbox(whole.numpy()), 1.0).doubts
    assert not any("inverted" in doubt for doubt in doubts), doubts


def test_confidence_is_judged():
    image = PlaneImage(np.full((192, 192), 0.3, np.float32), 0.6)
    head = torch.tensor(blob((192, 192), (96, 96), 70))
    assert not judge("axial", image, head, 0.9).doubts
    assert "does not look like" in judge("axial", image, head, 0.2).doubts[0]


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("margin, cut", [(0, False), (60, False), (60, True)])
def test_a_head_cut_off_by_black_within_the_frame_is_a_doubt(margin, cut, size):
    """As by the edge of the sector, or in a crop pasted into a black frame; black around a whole head is none. At every
    resolution."""
    picture = placed(shape=(320, 440)).grey_yx + 0.1
    outline = blob(picture.shape, (160, 220), 120)
    if cut:
        picture, outline = picture[:, 130:], outline[:, 130:]
    picture, outline = (np.pad(values, margin)[::size, ::size] for values in (picture, outline))
    doubts = judge("axial", PlaneImage(picture, 0.3 * size), letterbox(outline), 1.0).doubts
    assert any("picture's edge" in doubt for doubt in doubts) is cut, doubts


@pytest.mark.parametrize("pixels, measured", [((70, 60), "left"), ((60, 70), "right"), ((70, 20), "")])
def test_a_second_head_is_a_doubt(pixels, measured):
    """Twins on one picture, side by side; a spot is none."""
    left, right = (torch.tensor(blob((192, 192), (96, column), 0.6 * radius)) for column, radius in
                   zip((50, 142), pixels, strict=True))
    eye = Eye(lambda images, _: ((left + right).expand(len(images), -1, -1), torch.ones(len(images))))
    doubts = find_outlines([("axial", placed(shape=(320, 320)))], eye)[0].doubts
    said = [doubt for doubt in doubts if "two heads" in doubt]
    assert len(said) == bool(measured) and all(f"the {measured} one" in doubt for doubt in said)
