"""Plane images: every kind of file that may hold one, its pixel size stated or asked for, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from MedVAELib.errors import InputError, UsageError
from MedVAELib.skull.plane_files import Cut, parse_cut, plane_of_image, ultrasound_region_spacings
from MedVAELib.skull.planes import MAX_EDGE_PX, PixelSizes, PlaneImage, parse_spacings

from .ultrasound_dicom import region, write_ultrasound


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


UNDO = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270}


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_is_upright(tmp_path, orientation, suffix):
    """However the camera was held: stored turned, with a note of how to turn it back."""
    picture, note, options = Image.fromarray(frame()), Image.Exif(), {}
    note[0x0112] = orientation
    stored = picture.transpose(UNDO[orientation]) if orientation > 1 else picture
    options = {"tiffinfo": {0x0112: orientation}} if suffix == ".tiff" else {"exif": note}
    stored.save(tmp_path / f"plane{suffix}", quality=98, **options)
    plane = PlaneImage.read(tmp_path / f"plane{suffix}", 0.5)
    assert plane.grey_yx.shape == frame().shape and np.abs(plane.grey_yx * 255 - frame()).mean() < 2


@pytest.mark.parametrize("orientation", [2, 6])
@pytest.mark.parametrize("kind", ["RGB", "P"])
def test_a_coloured_tiff_is_upright(tmp_path, orientation, kind):
    stored = Image.fromarray(frame()).transpose(UNDO[orientation]).convert("RGB")
    stored = stored.quantize(256) if kind == "P" else stored
    stored.save(tmp_path / "plane.tiff", tiffinfo={0x0112: orientation})
    plane = PlaneImage.read(tmp_path / "plane.tiff", 0.5)
    assert plane.grey_yx.shape == frame().shape and np.abs(plane.grey_yx * 255 - frame()).mean() < 3


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
        assert plane.grey_yx.min() == 0 and plane.grey_yx.max() == 1
        assert np.corrcoef(plane.grey_yx.ravel(), frame().ravel())[0, 1] > 0.99


@pytest.mark.parametrize("full", [255, 1.0])
def test_a_dark_picture_is_brightened_and_another_is_not(full):
    """Low gain leaves the ring at a few grey levels; a black frame with a few lit pixels stays as it is."""
    dark, normal = (PlaneImage.from_array((frame() * gain * full / 255).astype(np.asarray(full).astype(
        np.uint8 if full == 255 else np.float32).dtype), 0.5).grey_yx for gain in (0.15, 1.0))
    assert np.percentile(dark, 99.9) == pytest.approx(1) and np.corrcoef(dark.ravel(), normal.ravel())[0, 1] > 0.99
    assert normal == pytest.approx(frame() / 255, abs=0.01)
    black = np.zeros((400, 400), np.uint8)
    black[5, 5] = 90
    assert PlaneImage.from_array(black, 0.5).grey_yx.max() == pytest.approx(90 / 255)


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


def test_dicom_pixel_spacing_and_ultrasound_regions(tmp_path):
    one = write_ultrasound(tmp_path / "one.dcm", frame(), [], r"0.4\0.4")
    plane = PlaneImage.read(one)
    assert plane.pixel_mm == pytest.approx(0.4) and plane.spacing_source == "DICOM pixel spacing"
    assert np.abs(plane.grey_yx * 255 - frame()).max() < 0.01
    colour = np.stack([frame()] * 3, -1)
    regions = [region((0.03, 0.03)), region((0.01, 0.01), spatial=3), region((0.5, 0.5), units=4)]
    plane = PlaneImage.read(write_ultrasound(tmp_path / "two.dcm", colour, regions))
    assert plane.pixel_mm == pytest.approx(0.3) and plane.spacing_source == "DICOM ultrasound region"
    assert np.abs(plane.grey_yx * 255 - frame()).max() < 1
    both = write_ultrasound(tmp_path / "three.dcm", frame(), [region((0.03, 0.03)), region((0.02, 0.02))])
    with pytest.raises(UsageError, match="--spacing"):  # two tissue regions that contradict each other
        PlaneImage.read(both)
    none = write_ultrasound(tmp_path / "four.dcm", frame(), [])
    with pytest.raises(UsageError, match="--spacing"):
        PlaneImage.read(none)


def test_a_dicom_file_that_contradicts_itself_comes_with_a_warning(tmp_path):
    file = write_ultrasound(tmp_path / "one.dcm", frame(), [region((0.03, 0.03))], r"0.4\0.4")
    plane = PlaneImage.read(file)
    assert plane.pixel_mm == pytest.approx(0.4) and "0.4 mm" in plane.warnings[0] and "0.3 mm" in plane.warnings[0]
    assert not PlaneImage.read(write_ultrasound(file, frame(), [region((0.04, 0.04))], r"0.4\0.4")).warnings


def test_oblong_pixels_of_a_dicom_file_without_a_size(tmp_path):
    plane = PlaneImage.read(write_ultrasound(tmp_path / "one.dcm", frame(), [], aspect=r"2\1"), 0.5)
    assert plane.grey_yx.shape == (240, 160) and plane.pixel_mm == 0.5 and "2 times as high" in plane.warnings[0]


@pytest.mark.parametrize("stated", [r"0\0", r"0.4\0", "unknown"])
@pytest.mark.parametrize("colours", [1, 3])
def test_a_dicom_pixel_spacing_of_0_is_none(tmp_path, stated, colours):
    values = np.stack([frame()] * 3, -1) if colours == 3 else frame()
    bare = write_ultrasound(tmp_path / "bare.dcm", values, [], stated)
    with pytest.raises(UsageError, match="bare.dcm.*--spacing"):
        PlaneImage.read(bare)
    plane = PlaneImage.read(bare, 0.4)
    assert plane.pixel_mm == 0.4 and not plane.warnings and np.abs(plane.grey_yx * 255 - frame()).max() < 1
    measured = write_ultrasound(tmp_path / "region.dcm", values, [region((0.03, 0.03))], stated)
    assert PlaneImage.read(measured).pixel_mm == pytest.approx(0.3)


def test_regions_are_read_wherever_they_stand(tmp_path):
    far = write_ultrasound(tmp_path / "far.dcm", frame(), [region((0.03, 0.03))], private=400_000)
    assert PlaneImage.read(far).pixel_mm == pytest.approx(0.3)
    whole = far.read_bytes()
    far.write_bytes(whole[: whole.index(b"\x18\x00\x2c\x60")])  # ends within a region
    assert ultrasound_region_spacings(far) == set()


def test_regions_are_read_without_types_too(tmp_path):
    import pydicom

    explicit = write_ultrasound(tmp_path / "plane.dcm", frame(), [region((0.02, 0.025))])
    header = pydicom.dcmread(explicit)
    header.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    header.save_as(tmp_path / "implicit.dcm")
    assert ultrasound_region_spacings(tmp_path / "implicit.dcm") == {(0.2, 0.25)}


def test_a_region_goes_before_a_placeholder(tmp_path):
    """A pixel spacing of 1 mm is what programs write that know none; the frame would be too large with it."""
    plane = PlaneImage.read(write_ultrasound(tmp_path / "one.dcm", frame(), [region((0.03, 0.03))], r"1\1"))
    assert plane.pixel_mm == pytest.approx(0.3) and plane.spacing_source == "DICOM ultrasound region"
    assert PlaneImage.read(write_ultrasound(tmp_path / "two.dcm", frame(), [], r"1\1")).pixel_mm == 1


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


def test_what_lies_between_the_frames_of_a_dicom_is_never_guessed():
    """A cut across the frames would need it; they may be moments as well as slices."""
    image = sitk.GetImageFromArray(np.stack([frame()] * 3))
    across = plane_of_image(image, "cine", Cut(1, 60), (0.3, 0.3, None), "DICOM pixel spacing")
    along = plane_of_image(image, "cine", Cut(2, 1), (0.3, 0.3, None), "DICOM pixel spacing")
    assert across.spacing_yx_mm is None and along.spacing_yx_mm == (0.3, 0.3)


@pytest.mark.parametrize("suffix", [".jpg", ".bmp"])
def test_a_picture_that_ends_early_is_refused(tmp_path, suffix):
    path = written(sitk.GetImageFromArray(frame()), tmp_path / f"plane{suffix}")
    PlaneImage.read(path, 0.5)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match="truncated"):
        PlaneImage.read(path, 0.5)


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
