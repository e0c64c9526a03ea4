"""Plane images: grey values and square pixels, the pixel size stated or asked for, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from MedVAELib.errors import InputError, UsageError
from MedVAELib.skull.plane_files import Cut, parse_cut
from MedVAELib.skull.planes import MAX_EDGE_PX, PixelSizes, PlaneImage, parse_spacings, parse_weeks


def frame(height: int = 120, width: int = 160) -> np.ndarray:
    """uint8 with a bright ring, brighter to the right so that an exchange of axes is seen."""
    y, x = np.mgrid[:height, :width]
    ring = np.abs(np.hypot((y - height / 2) / 0.7, x - width / 2) - 50) < 4
    return (30 + 60 * x / width + 120 * ring).astype(np.uint8)


@pytest.fixture
def png(tmp_path) -> Path:
    Image.fromarray(frame()).save(tmp_path / "plane.png", dpi=(96, 96))
    return tmp_path / "plane.png"


def written(image: sitk.Image, path: Path, spacing=(0.5, 0.5, 3.0)) -> Path:
    image.SetSpacing(spacing[: image.GetDimension()])
    sitk.WriteImage(image, str(path))
    return path


def test_png_and_jpeg_need_a_spacing_and_keep_their_grey(png, tmp_path):
    Image.fromarray(frame()).save(tmp_path / "plane.jpg", quality=98)
    for path in (png, tmp_path / "plane.jpg"):
        with pytest.raises(UsageError, match=f"{path.name}.*--spacing"):
            PlaneImage.read(path)
        plane = PlaneImage.read(path, 0.5)
        assert plane.pixel_mm == 0.5 and plane.spacing_source == "given" and plane.name == "plane"
        assert np.abs(plane.grey_yx * 255 - frame()).mean() < 2
        assert not plane.warnings


@pytest.mark.parametrize("suffix", [".tiff", ".bmp", ".jp2"])
def test_other_screen_formats_have_no_spacing_either(tmp_path, suffix):
    Image.fromarray(frame()).save(tmp_path / f"plane{suffix}", dpi=(254, 254))
    with pytest.raises(UsageError, match="--spacing"):
        PlaneImage.read(tmp_path / f"plane{suffix}")


def test_a_png_under_another_name_has_no_spacing_either(png, tmp_path):
    png.rename(tmp_path / "plane.dcm")
    with pytest.raises((UsageError, InputError), match=r"plane\.dcm"):
        PlaneImage.read(tmp_path / "plane.dcm")


def test_colour_palette_and_opacity_become_grey(tmp_path):
    grey = frame()
    colours = np.stack([grey, grey, grey], -1)
    for name, picture in {
        "la": Image.fromarray(grey).convert("LA"), "rgb": Image.fromarray(colours),
        "rgba": Image.fromarray(np.dstack([colours, np.full_like(grey, 255)])),
        "palette": Image.fromarray(colours).quantize(256),
    }.items():
        picture.save(tmp_path / f"{name}.png")
        plane = PlaneImage.read(tmp_path / f"{name}.png", 0.5)
        assert np.abs(plane.grey_yx * 255 - grey).mean() < 3, name


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_medical_files_state_their_spacing(tmp_path, suffix):
    flat = sitk.GetImageFromArray(frame())
    for image in (flat, sitk.JoinSeries(flat)):
        plane = PlaneImage.read(written(image, tmp_path / f"plane{image.GetDimension()}{suffix}"))
        assert plane.pixel_mm == pytest.approx(0.5) and plane.spacing_source == "file header"
        assert np.abs(plane.grey_yx * 255 - frame()).max() < 0.01


def test_float_and_16_bit_intensities_are_scaled(tmp_path):
    for kind in (np.float32, np.uint16, np.int16):
        values = frame().astype(kind) * 7 - (100 if kind != np.uint16 else 0)
        plane = PlaneImage.read(written(sitk.GetImageFromArray(values), tmp_path / "plane.nrrd"))
        assert plane.grey_yx.min() == 0 and 0.6 < plane.grey_yx.max() <= 1
        assert np.corrcoef(plane.grey_yx.ravel(), frame().ravel())[0, 1] > 0.99


@pytest.mark.parametrize("full", [255, 1.0])
def test_a_dark_picture_is_brightened_and_another_is_not(full):
    """Low gain leaves the ring at a few grey levels; lettering and a grey bar beside it are of no matter."""
    def shown(gain: float, lettering: bool) -> np.ndarray:
        picture = frame() * gain * full / 255
        picture[5:15, 5 : 25 if lettering else 5] = full
        return PlaneImage.from_array(picture.astype(np.uint8 if full == 255 else np.float32), 0.5).grey_yx

    for lettering in (False, True):
        dark, normal = shown(0.15, lettering), shown(1.0, lettering)
        assert np.percentile(dark, 98) == pytest.approx(np.percentile(normal, 98), rel=0.2)
        assert np.corrcoef(dark.ravel(), normal.ravel())[0, 1] > 0.99
    assert shown(1.0, False) == pytest.approx(frame() / 255, abs=0.01)


def test_a_black_frame_around_a_picture_does_not_brighten_it():
    wide = np.zeros((600, 800), np.uint8)
    wide[200:320, 300:460] = frame()
    assert PlaneImage.from_array(wide, 0.5).grey_yx.max() == pytest.approx(frame().max() / 255)


def test_lettering_at_the_top_of_16_bits_is_no_tissue():
    values = frame().astype(np.uint16) * 8
    values[5:15, 5:25] = 65535
    grey = PlaneImage.from_array(values, 0.5).grey_yx
    assert grey[60, 30] == pytest.approx(PlaneImage.from_array(frame(), 0.5).grey_yx[60, 30], abs=0.15)


def test_a_volume_is_no_plane_but_its_slices_are(tmp_path):
    stack = np.stack([np.roll(frame(), 5 * i, axis=1) for i in range(40)])
    path = written(sitk.GetImageFromArray(stack), tmp_path / "volume.nii.gz", (0.5, 0.5, 1.5))
    with pytest.raises(InputError, match=r"volume \(160 x 120 x 40\).*volume\.nii\.gz@20"):
        PlaneImage.read(path)
    plane = PlaneImage.read(f"{path}@7")
    assert np.abs(plane.grey_yx * 255 - stack[7]).max() < 0.01 and plane.pixel_mm == pytest.approx(0.5)
    tall = PlaneImage.read(f"{path}@x80")  # (z, y): 1.5 mm rows become 0.5 mm ones
    assert tall.grey_yx.shape == (120, 120) and tall.pixel_mm == pytest.approx(0.5)
    with pytest.raises(InputError, match="no slice 40"):
        PlaneImage.read(f"{path}@z40")


def test_a_slice_is_parsed_from_the_path(tmp_path):
    assert parse_cut("a/b.nii@12") == (Path("a/b.nii"), Cut(2, 12))
    assert parse_cut("a/b.nii@x3") == (Path("a/b.nii"), Cut(0, 3))
    assert parse_cut("me@home.png") == (Path("me@home.png"), None)
    odd = tmp_path / "frame@12"
    odd.write_bytes(b"x")
    assert parse_cut(odd) == (odd, None)


def test_given_spacing_wins_over_the_file_and_says_so(tmp_path):
    path = written(sitk.GetImageFromArray(frame()), tmp_path / "plane.nii.gz")
    plane = PlaneImage.read(path, 0.7)
    assert plane.pixel_mm == 0.7 and "0.5" in plane.warnings[0]
    assert not PlaneImage.read(path, 0.5).warnings


def test_a_size_for_all_fills_in_and_one_by_plane_overrides(tmp_path, png):
    path = written(sitk.GetImageFromArray(frame()), tmp_path / "plane.nii.gz")
    filled = PlaneImage.read(path, unstated_mm=0.7)
    assert filled.pixel_mm == 0.5 and filled.spacing_source == "file header" and "not used" in filled.warnings[0]
    assert not PlaneImage.read(path, unstated_mm=0.5).warnings
    assert PlaneImage.read(path, 0.6, 0.7).pixel_mm == 0.6
    bare = PlaneImage.read(png, unstated_mm=0.7)
    assert bare.pixel_mm == 0.7 and bare.spacing_source == "given" and not bare.warnings


def test_a_size_that_overrides_keeps_the_pixels_shape(tmp_path):
    path = written(sitk.GetImageFromArray(frame()), tmp_path / "plane.nrrd", (0.5, 1.0))
    plane = PlaneImage.read(path, 0.7)
    assert plane.grey_yx.shape == (240, 160) and plane.pixel_mm == 0.7
    assert "2 times as high" in plane.warnings[0] and "0.5" not in plane.warnings[0] and "1 x 0.5" in plane.warnings[1]


def test_oblong_pixels_become_square(tmp_path):
    path = written(sitk.GetImageFromArray(frame()), tmp_path / "plane.nrrd", (0.5, 1.0))
    plane = PlaneImage.read(path)
    assert plane.grey_yx.shape == (240, 160) and plane.pixel_mm == 0.5


def test_a_huge_frame_is_resampled(tmp_path):
    big = np.kron(frame(125, 125), np.ones((32, 32), np.uint8))
    Image.fromarray(big).save(tmp_path / "big.png")
    plane = PlaneImage.read(tmp_path / "big.png", 0.04)
    assert plane.grey_yx.shape == (MAX_EDGE_PX, MAX_EDGE_PX) and plane.pixel_mm == pytest.approx(0.04 * 4000 / 1200)
    assert abs(plane.grey_yx.mean() * 255 - big.mean()) < 0.5


@pytest.mark.parametrize("spacing", [0.0, -0.3, float("nan"), float("inf")])
def test_an_impossible_given_spacing_is_refused(png, spacing):
    with pytest.raises(UsageError, match="pixel size"):
        PlaneImage.read(png, spacing)


@pytest.mark.parametrize("spacing", [0.001, 20.0])
def test_an_absurd_field_of_view_is_refused(png, spacing):
    with pytest.raises(InputError, match=r"plane\.png.*mm"):
        PlaneImage.read(png, spacing)


def test_blank_tiny_and_broken_frames_are_refused(tmp_path, png):
    Image.fromarray(np.full((90, 90), 17, np.uint8)).save(tmp_path / "blank.png")
    Image.fromarray(frame(20, 20)).save(tmp_path / "tiny.png")
    (tmp_path / "cut.png").write_bytes(png.read_bytes()[:300])
    Image.fromarray(frame()).convert("LA").save(tmp_path / "la.png")
    (tmp_path / "la.png").write_bytes((tmp_path / "la.png").read_bytes()[:300])
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "empty.png").write_bytes(b"")
    for name, said in {
        "blank": "blank", "tiny": "20 x 20", "cut": "damaged", "text": "damaged", "empty": "empty", "none": "not exist",
        "la": "damaged",
    }.items():
        with pytest.raises(InputError, match=rf"{name}\.png.*{said}"):
            PlaneImage.read(tmp_path / f"{name}.png", 0.5)
    with pytest.raises(InputError, match="folder"):
        PlaneImage.read(tmp_path, 0.5)


def test_nan_pixels():
    values = frame().astype(np.float32)
    values[3, 4] = np.nan
    plane = PlaneImage.from_array(values, 0.5)
    assert np.isfinite(plane.grey_yx).all() and plane.grey_yx[3, 4] == 0 and "1 pixels" in plane.warnings[0]
    values[:10] = np.nan
    with pytest.raises(InputError, match="finite"):
        PlaneImage.from_array(values, 0.5)
    with pytest.raises(InputError, match="finite"):
        PlaneImage.from_array(np.full((64, 64), np.nan), 0.5)


def test_arrays_with_odd_axes_are_refused():
    with pytest.raises(InputError, match="5 values per pixel"):
        PlaneImage.from_array(np.zeros((64, 64, 5)), 0.5)
    with pytest.raises(InputError):
        PlaneImage.from_array(np.zeros(64), 0.5)


def test_from_image_trusts_the_image():
    image = sitk.GetImageFromArray(frame())
    image.SetSpacing((0.3, 0.3))
    assert PlaneImage.from_image(image).pixel_mm == pytest.approx(0.3)
    assert PlaneImage.from_image(image, 0.4).pixel_mm == 0.4
    volume = sitk.JoinSeries([image] * 9)
    assert PlaneImage.from_image(volume, cut=Cut(2, 3), name="here").name == "here"
    with pytest.raises(InputError, match="here is a volume"):
        PlaneImage.from_image(volume, name="here")


@pytest.mark.parametrize(("suffix", "start"), [(".nrrd", "space directions"), (".mha", "ElementSpacing")])
def test_a_pixel_size_that_a_header_leaves_out_is_never_guessed(tmp_path, suffix, start):
    path = written(sitk.GetImageFromArray(frame()), tmp_path / f"plane{suffix}", (0.5, 0.5))
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join(line for line in lines if not line.startswith(start.encode())))
    with pytest.raises(UsageError, match="--spacing"):
        PlaneImage.read(path)
    assert PlaneImage.read(path, 0.5).pixel_mm == 0.5


@pytest.mark.parametrize(("text", "unstated", "by_plane"), [
    ("", None, {}),
    ("0,25", 0.25, {}),
    ("axial=0,25;coronal=0,3", None, {"axial": 0.25, "coronal": 0.3}),
    ("axial=0,25,coronal=1", None, {"axial": 0.25, "coronal": 1.0}),
    ("axial=0.25,coronal=0.3", None, {"axial": 0.25, "coronal": 0.3}),
    ("0.2,coronal=0.3", 0.2, {"coronal": 0.3}),
])
def test_pixel_sizes_for_all_and_by_plane(text, unstated, by_plane):
    assert parse_spacings(text) == PixelSizes(unstated, by_plane)


@pytest.mark.parametrize("text, weeks", [("24.5", 24.5), ("24,5", 24.5), ("24+3", 24.43), ("24w3d", 24.43),
                                         (" 24 W 3 ", 24.43), ("24+3/7", 24.43), ("24 3/7", 24.43), ("24w+3d", 24.43),
                                         ("24 weeks", 24.0), ("24.", 24.0), ("24w", 24.0), ("", None)])
def test_ages_in_weeks_or_weeks_and_days(text, weeks):
    assert parse_weeks(text) == weeks


@pytest.mark.parametrize("text", ["old", "24+7", "24.5+1", "-24", "nan", "24 3"])
def test_what_is_no_age_is_refused(text):
    with pytest.raises(UsageError, match="24\\+3"):
        parse_weeks(text)
