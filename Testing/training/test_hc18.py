"""Reading HC18: ellipses whole and cut off, parts by examination, and the real set where it is."""

from __future__ import annotations

import math

import numpy as np
import pytest
import SimpleITK as sitk

from MedVAELib.errors import InputError
from MedVAELib.training.hc18 import DrawnEllipse, fill, fit_ellipse, part_of, plane_names, read_plane


def points(ellipse: DrawnEllipse, count: int = 400) -> np.ndarray:
    t = np.linspace(0, 2 * np.pi, count, endpoint=False)
    along, across = ellipse.semi_axes_px[0] * np.cos(t), ellipse.semi_axes_px[1] * np.sin(t)
    c, s = math.cos(ellipse.angle_rad), math.sin(ellipse.angle_rad)
    return np.stack([ellipse.centre_yx_px[0] + along * c - across * s,
                     ellipse.centre_yx_px[1] + along * s + across * c], 1)


def write_set(folder, name="012_HC", ellipse=None):
    (folder / "images").mkdir(parents=True, exist_ok=True)
    line = np.zeros((120, 160), np.uint8)
    inside = np.round(points(ellipse or DrawnEllipse((60, 80), (50, 35), 1.0))).astype(int)
    keep = ((inside >= 0) & (inside < line.shape)).all(1)
    line[tuple(inside[keep].T)] = 255
    for file, values in ((f"{name}.png", line // 2), (f"{name}_Annotation.png", line)):
        sitk.WriteImage(sitk.GetImageFromArray(values), str(folder / "images" / file))
    (folder / "pixel_size_and_HC.csv").write_text(f"filename,pixel,hc\n{name}.png,0.5,134.4\n")
    return folder


@pytest.mark.parametrize("arc", [1.0, 0.6])
def test_an_ellipse_is_found_from_its_points_even_from_an_arc(arc):
    truth = DrawnEllipse((40.0, 75.0), (50.0, 35.0), 1.0)
    every = points(truth)
    found = fit_ellipse(every[: round(arc * len(every))])
    assert np.allclose(found.centre_yx_px, truth.centre_yx_px, atol=1e-3)
    assert np.allclose(found.semi_axes_px, truth.semi_axes_px, atol=1e-3)
    assert abs(math.remainder(found.angle_rad - truth.angle_rad, math.pi)) < 1e-4


def test_what_is_no_ellipse_is_none():
    line = np.stack([np.arange(50.0), np.arange(50.0) ** 2], 1)
    assert fit_ellipse(line) is None and fit_ellipse(line[:3]) is None


def test_a_plane_comes_with_its_filled_outline(tmp_path):
    plane = read_plane(write_set(tmp_path), "012_HC")
    assert plane.grey_yx.shape == plane.outline_yx.shape == (120, 160) and plane.grey_yx.max() <= 0.5
    assert plane.outline_yx.sum() == pytest.approx(math.pi * 50 * 35, rel=0.02)
    assert (plane.number, plane.pixel_mm, plane.circumference_mm) == (12, 0.5, 134.4)


def test_an_outline_that_leaves_the_image_is_cut_off(tmp_path):
    ellipse = DrawnEllipse((60.0, 140.0), (50.0, 35.0), 1.5)
    outline = read_plane(write_set(tmp_path, ellipse=ellipse), "012_HC").outline_yx
    assert np.abs(outline - fill(ellipse, 120, 160)).mean() < 0.01 and outline[60, -1] == 1


def test_one_examination_is_in_one_part():
    assert [part_of(n) for n in (0, 1, 2, 5, 11, 14)] == ["test", "validation", "train", "test", "validation", "train"]


def test_wrong_folders_are_one_sentence(tmp_path):
    with pytest.raises(InputError, match="HC18"):
        plane_names(tmp_path)
    folder = write_set(tmp_path)
    with pytest.raises(InputError, match="013_HC"):
        read_plane(folder, "013_HC")
    (folder / "pixel_size_and_HC.csv").write_text("filename,pixel,hc\n012_HC.png,abc,1\n")
    with pytest.raises(InputError, match="table"):
        plane_names(folder)


def test_real_planes_have_the_circumference_their_table_says(medvae_data):
    folder = medvae_data / "fetal" / "hc18"
    parts = {part: plane_names(folder, part) for part in ("train", "validation", "test")}
    assert sum(map(len, parts.values())) == len(plane_names(folder)) and min(map(len, parts.values())) > 40
    for name in ("787_HC", "102_2HC", "000_HC"):  # the first leaves its image
        plane = read_plane(folder, name)
        a, b = (axis * plane.pixel_mm for axis in plane.ellipse.semi_axes_px)
        found = math.pi * (3 * (a + b) - math.sqrt((3 * a + b) * (a + 3 * b)))
        assert found == pytest.approx(plane.circumference_mm, abs=0.1)
