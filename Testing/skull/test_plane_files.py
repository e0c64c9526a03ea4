"""Files that hold a plane: pictures upright, whole and bright on black; pixel sizes that DICOM files state."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from MedVAELib.errors import InputError, UsageError
from MedVAELib.skull.plane_files import Cut, plane_of_image, ultrasound_region_spacings
from MedVAELib.skull.planes import PlaneImage

from .test_planes import frame, written
from .ultrasound_dicom import region, write_ultrasound

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
    none = write_ultrasound(tmp_path / "four.dcm", frame(), [])
    with pytest.raises(UsageError, match="--spacing"):
        PlaneImage.read(none)


@pytest.mark.parametrize("spacing", [r"", r"1\1"])
def test_regions_of_one_scale_are_one_and_of_several_are_named(tmp_path, spacing):
    """Of a screen in two halves; a pixel spacing of 1 mm is a placeholder."""
    file = tmp_path / "split.dcm"
    same = write_ultrasound(file, frame(), [region((0.03, 0.03)), region((0.0300001, 0.0299999))], spacing)
    assert PlaneImage.read(same).pixel_mm == pytest.approx(0.3)
    several = write_ultrasound(file, frame(), [region((0.03, 0.03)), region((0.02, 0.02))], spacing)
    with pytest.raises(UsageError, match="several pixel sizes, 0.3 or 0.2 mm in its ultrasound regions.*--spacing"):
        PlaneImage.read(several)
    plane = PlaneImage.read(several, unstated_mm=0.2)
    assert plane.pixel_mm == 0.2 and not plane.warnings


def test_an_enhanced_file_states_one_size_for_all_frames(tmp_path):
    import pydicom

    header = pydicom.dcmread(write_ultrasound(tmp_path / "plane.dcm", frame(), []))
    measures, shared = pydicom.Dataset(), pydicom.Dataset()
    measures.PixelSpacing = [0.3, 0.3]
    shared.PixelMeasuresSequence = [measures]
    header.SharedFunctionalGroupsSequence = [shared]
    header.save_as(tmp_path / "enhanced.dcm")
    plane = PlaneImage.read(tmp_path / "enhanced.dcm")
    assert plane.pixel_mm == pytest.approx(0.3) and plane.spacing_source == "DICOM pixel spacing"


def test_a_dicom_file_that_contradicts_itself_comes_with_a_warning(tmp_path):
    file = write_ultrasound(tmp_path / "one.dcm", frame(), [region((0.03, 0.03))], r"0.4\0.4")
    for given in (None, 0.5):  # which is not used
        plane = PlaneImage.read(file, unstated_mm=given)
        said = [warning for warning in plane.warnings if "two pixel sizes" in warning]
        assert plane.pixel_mm == pytest.approx(0.4) and "0.4 mm" in said[0] and "0.3 mm" in said[0]
    assert not PlaneImage.read(write_ultrasound(file, frame(), [region((0.04, 0.04))], r"0.4\0.4")).warnings


@pytest.mark.parametrize("given, warnings", [(0.3, 0), (0.4, 0), (0.301, 0), (0.25, 1)])
def test_who_settles_a_contradiction_hears_of_it_no_more(tmp_path, given, warnings):
    file = write_ultrasound(tmp_path / "one.dcm", frame(), [region((0.03, 0.03))], r"0.4\0.4")
    plane = PlaneImage.read(file, given)
    assert plane.pixel_mm == given and len(plane.warnings) == warnings
    assert not any("two pixel sizes" in warning for warning in plane.warnings)


def test_oblong_pixels_of_a_dicom_file_without_a_size(tmp_path):
    plane = PlaneImage.read(write_ultrasound(tmp_path / "one.dcm", frame(), [], aspect=r"2\1"), 0.5)
    assert plane.grey_yx.shape == (240, 160) and plane.pixel_mm == 0.5 and "2 times as high" in plane.warnings[0]


@pytest.mark.parametrize("stated", [r"0\0", r"0.4\0", "0.4", "unknown"])
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
    assert ultrasound_region_spacings(far) == []


def test_regions_are_read_without_types_too(tmp_path):
    import pydicom

    explicit = write_ultrasound(tmp_path / "plane.dcm", frame(), [region((0.02, 0.025))])
    header = pydicom.dcmread(explicit)
    header.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    header.save_as(tmp_path / "implicit.dcm")
    assert ultrasound_region_spacings(tmp_path / "implicit.dcm") == [(0.2, 0.25)]


def test_a_region_goes_before_a_placeholder(tmp_path):
    """A pixel spacing of 1 mm is what programs write that know none; the frame would be too large with it."""
    plane = PlaneImage.read(write_ultrasound(tmp_path / "one.dcm", frame(), [region((0.03, 0.03))], r"1\1"))
    assert plane.pixel_mm == pytest.approx(0.3) and plane.spacing_source == "DICOM ultrasound region"
    assert PlaneImage.read(write_ultrasound(tmp_path / "two.dcm", frame(), [], r"1\1")).pixel_mm == 1


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


def test_a_jpeg_is_whole_whatever_lies_around_the_picture(tmp_path):
    """Previews before it hold starts and ends of scans, too, and a phone's film behind it anything."""
    path = written(sitk.GetImageFromArray(frame()), tmp_path / "plane.jpg")
    plain = path.read_bytes()
    preview = b"\xff\xe2" + (2 + 8).to_bytes(2, "big") + b"\xff\xda\0\0\xff\xd9\0\0"
    path.write_bytes(plain[:2] + preview + plain[2:] + b"film \xff\xda film")
    assert np.abs(PlaneImage.read(path, 0.5).grey_yx * 255 - frame()).mean() < 3
    path.write_bytes(plain[:2] + preview + plain[2 : len(plain) // 2])
    with pytest.raises(InputError, match="truncated"):
        PlaneImage.read(path, 0.5)


@pytest.mark.parametrize("bits", [8, 16])
def test_a_tiff_in_which_white_is_0(tmp_path, bits):
    path, values = tmp_path / "plane.tiff", frame() if bits == 8 else 65535 - 257 * frame().astype(np.uint16)
    Image.fromarray(values).save(path, tiffinfo={0x0106: 0})  # Pillow stores what has 8 bits as a negative then
    if bits == 8:
        assert sitk.GetArrayFromImage(sitk.ReadImage(str(path))).max() == 255 - frame().min()
    grey = PlaneImage.read(path, 0.5).grey_yx
    assert np.corrcoef(grey.ravel(), frame().ravel())[0, 1] > 0.99
