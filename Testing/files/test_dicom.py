"""DICOM: series, enhanced files, what identifies a patient, and what leaves anything open."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.filebase import DicomFileLike
from pydicom.filewriter import write_dataset

from MedVAELib.errors import InputError, UsageError
from MedVAELib.files.dicom import find_volumes
from MedVAELib.scan import Scan
from Testing.scan.scan_files import (
    OBLIQUE,
    SAGITTAL,
    assert_same_image,
    dicom_series,
    enhanced_dicom,
    from_array,
    small_head,
    written,
)
from Testing.scan.unusable import BAD


@pytest.mark.parametrize("direction", [((1, 0, 0), (0, 1, 0), (0, 0, 1)), OBLIQUE, SAGITTAL])
def test_dicom_series_is_read_in_space_whatever_its_file_names(direction: object, tmp_path: Path) -> None:
    image = small_head(size_ijk=(24, 28, 12), spacing_mm=(8, 7, 14), direction=direction, center_ras_mm=(5, 6, 7))
    dicom_series(tmp_path, image, _0018_0081="120", _0018_0080="9000", _0018_0082="2500", _0018_0087="3")
    (tmp_path / "README.txt").write_text("not DICOM")
    scan = Scan.read(tmp_path)
    assert_same_image(scan.image, sitk.Cast(sitk.Cast(image, sitk.sitkInt16), sitk.sitkFloat32))
    assert scan.name == "t2_flair" and scan.modality_hint == "flair" and "t2_flair" in scan.modality_reason
    assert scan.tags["echo_time_ms"] == 120 and scan.tags["inversion_time_ms"] == 2500
    assert scan.warnings == ()


def test_nothing_that_identifies_the_patient_is_kept(tmp_path: Path) -> None:
    dicom_series(tmp_path / "series")
    multiframe = sitk.Cast(small_head(), sitk.sitkInt16)
    multiframe.SetMetaData("0008|0060", "MR")
    multiframe.SetMetaData("0010|0010", "Doe^Jane")
    written(multiframe, tmp_path / "frames.dcm")
    nifti = small_head()
    nifti.SetMetaData("descrip", "Doe^Jane")
    for scan in (Scan.read(tmp_path / "series"), Scan.read(tmp_path / "frames.dcm"),
                 Scan.read(written(nifti, tmp_path / "a.nii"))):
        assert scan.image.GetMetaDataKeys() == ()
        assert "Doe" not in repr(dataclasses.replace(scan, image=None, path=None)) and "12345" not in repr(scan.tags)


def test_rescale_slope_is_applied(tmp_path: Path) -> None:
    image = small_head(size_ijk=(24, 28, 12), spacing_mm=(8, 8, 14))
    dicom_series(tmp_path, image, _0028_1053="2", _0028_1052="-10")
    stored = sitk.ReadImage(str(next(tmp_path.iterdir())))
    # the writer stores (value - intercept) / slope: what comes back are the values, to the slope
    assert stored.GetSize()[2] == 1
    assert_same_image(Scan.read(tmp_path).image, sitk.Cast(image, sitk.sitkFloat32), atol=3)


@pytest.mark.filterwarnings("ignore:Unknown encoding")
@pytest.mark.parametrize("names, letters, expected", [
    ("ISO_IR 100", "Schädel FLAIR".encode("latin-1"), "Schädel FLAIR"),
    ("\\ISO 2022 IR 149", b"\x1b$)C" + "뇌 FLAIR".encode("euc_kr"), "뇌 FLAIR"),
    ("", "Schädel FLAIR".encode(), "Schädel FLAIR"),
    ("", "Schädel FLAIR".encode("latin-1"), None), ("ISO_IR 999", "Schädel FLAIR".encode("latin-1"), None),
])
def test_a_description_in_any_letters_can_be_written(names: str, letters: bytes, expected: str | None,
                                                     tmp_path: Path) -> None:
    """Whatever the files say of their letters; where that is nothing known, one is lost."""
    dicom_series(tmp_path)
    for file in tmp_path.iterdir():
        header = pydicom.dcmread(file)
        header.SpecificCharacterSet = names.split("\\")
        header.add(pydicom.DataElement("PatientID", "LO", letters))
        header.add(pydicom.DataElement("SeriesDescription", "LO", letters))
        header.save_as(file)
    scan = Scan.read(tmp_path, series="FLAIR")
    said = str(scan.tags["series_description"])
    assert scan.modality_hint == "flair" and said.encode() and scan.modality_reason.encode()
    assert said == expected if expected else said.startswith("Sch")


@pytest.mark.parametrize("series", ["1.2.3.4", "T2_FLAIR", "flair", 2, "2"])
def test_series_by_uid_description_or_number(series: str | int, tmp_path: Path) -> None:
    scan = Scan.read(BAD["dicom_folder_with_two_series"][0](tmp_path), series=series)
    assert scan.name == "t2_flair" and scan.image.GetSize() == (24, 28, 12)


def test_what_a_series_can_mean_is_listed_with_numbers_that_choose_it(tmp_path: Path) -> None:
    for number, name in enumerate(("adc", "flair sag", "flair tra", "t1")):
        dicom_series(tmp_path / name, uid=f"1.2.{number}", description=name)
    dicom_series(tmp_path / "few", uid="1.2.9", description="a flair localizer", skip=range(3, 12))
    with pytest.raises(UsageError) as refused:
        Scan.read(tmp_path, series="flair")
    assert str(refused.value).endswith("name one of: 2: flair sag (12 slices); 3: flair tra (12 slices); "
                                       "5: a flair localizer (3 slices).")
    assert Scan.read(tmp_path, series=3).name == "flair_tra"


@pytest.mark.parametrize("left", [1, 12])
def test_mosaics_are_called_so_and_do_not_compete(left: int, tmp_path: Path) -> None:
    dicom_series(tmp_path / "dwi", uid="1.2.9", description="dwi", skip=range(left, 12),
                 _0008_0008="ORIGINAL\\PRIMARY\\M\\ND\\MOSAIC")
    with pytest.raises(InputError, match="mosaics: convert it"):
        Scan.read(tmp_path)
    dicom_series(tmp_path / "flair")
    assert Scan.read(tmp_path).name == "t2_flair"
    with pytest.raises(InputError, match="mosaics: convert it"):
        Scan.read(tmp_path, series="dwi")


@pytest.mark.parametrize("kind", ["few", "three planes", "colours"])
def test_localiser_or_screenshots_are_passed_over_with_a_word(kind: str, tmp_path: Path) -> None:
    dicom_series(tmp_path / "a")
    if kind == "few":
        dicom_series(tmp_path / "b", uid="1.2.9", description="localizer", skip=range(3, 12))
    elif kind == "colours":
        dicom_series(tmp_path / "b", from_array(np.zeros((9, 28, 24, 3), np.uint8), vector=True), "1.2.9", "localizer")
    else:
        for name, direction in (("x", SAGITTAL), ("y", OBLIQUE), ("z", ((1, 0, 0), (0, 1, 0), (0, 0, 1)))):
            plane = small_head(size_ijk=(24, 28, 3), spacing_mm=(8, 8, 14), direction=direction)
            dicom_series(tmp_path / "b", plane, uid="1.2.9", description="localizer", prefix=name)
    scan = Scan.read(tmp_path)
    assert scan.name == "t2_flair"
    assert f"passed over: localizer ({3 if kind == 'few' else 9} slices)" in scan.warnings[0]


@pytest.mark.parametrize("kind", ["4.2", "88.22"])
def test_spectra_and_reports_beside_a_scan_are_no_damaged_images(kind: str, tmp_path: Path) -> None:
    """Though they say which image they were made from."""
    file = next(dicom_series(tmp_path).iterdir())
    header = pydicom.dcmread(file)
    for name in ("PixelData", "Rows", "Columns"):
        delattr(header, name)
    header.SOPClassUID = header.file_meta.MediaStorageSOPClassUID = f"1.2.840.10008.5.1.4.1.1.{kind}"
    image = pydicom.Dataset()
    image.ReferencedSOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
    header.ReferencedImageSequence = [image]
    header.save_as(tmp_path / "other.dcm")
    assert Scan.read(tmp_path).image.GetSize() == (24, 28, 12)


@pytest.mark.parametrize("uid", ["1.2.3.4", ""])
def test_series_of_one_uid_are_told_apart_by_their_descriptions(uid: str, tmp_path: Path) -> None:
    image = small_head(size_ijk=(24, 28, 12), spacing_mm=(8, 8, 14), seed=1)
    between = sitk.Image(image)  # so that both would make one volume of half the distance
    between.SetOrigin(image.TransformContinuousIndexToPhysicalPoint((0, 0, 0.5)))
    dicom_series(tmp_path / "a", image, uid=uid)
    dicom_series(tmp_path / "b", between, uid=uid, description="t1_mprage")
    if not uid:
        for file in tmp_path.glob("*/*"):
            header = pydicom.dcmread(file)
            del header.SeriesInstanceUID
            header.save_as(file)
    volumes = find_volumes(tmp_path)
    assert [v.description for v in volumes] == ["t1_mprage", "t2_flair"] and len({v.key for v in volumes}) == 2
    scan = Scan.read(tmp_path, series=volumes[1].key)
    assert_same_image(scan.image, sitk.Cast(sitk.Cast(image, sitk.sitkInt16), sitk.sitkFloat32))


def test_diffusion_series_is_split_by_b_value(tmp_path: Path) -> None:
    dark = small_head(size_ijk=(24, 28, 12), spacing_mm=(8, 8, 14), modality="dwi", seed=1)
    bright = small_head(size_ijk=(24, 28, 12), spacing_mm=(8, 8, 14), modality="flair", seed=2)
    dicom_series(tmp_path, bright, description="ep2d_diff", prefix="a", _0018_9087="0")
    dicom_series(tmp_path, dark, description="ep2d_diff", prefix="b", _0018_9087="1000")
    with pytest.raises(UsageError, match=r"ep2d_diff, b-value 0 \(12 slices\); 2: ep2d_diff, b-value 1000"):
        Scan.read(tmp_path)
    scan = Scan.read(tmp_path, series="b-value 1000")
    assert_same_image(scan.image, sitk.Cast(sitk.Cast(dark, sitk.sitkInt16), sitk.sitkFloat32))
    assert scan.tags["b_value"] == 1000 and scan.modality_hint == "dwi"


@pytest.mark.parametrize("group, creator, tags", [
    (0x2001, "Philips Imaging DD 001", [(0x1003, "FL", (0, 1000))]),
    (0x0019, "SIEMENS MR HEADER", [(0x100C, "IS", (1000, 1000)), (0x100E, "FD", ([1, 0, 0], [0, 1, 0]))]),
    (0x0043, "GEMS_PARM_01", [(0x1039, "IS", ([10**9 + 1000, 8, 0], [10**9 + 1000, 8, 0])), (0x1030, "SS", (3, 4))]),
])
def test_diffusion_is_split_by_its_makers_own_tags(group: int, creator: str, tags: list, tmp_path: Path) -> None:
    """b-value, and gradient where that is the same."""
    images = small_dwi(0), small_dwi(1)
    for number, image in enumerate(images):
        for file in dicom_series(tmp_path / str(number), image).iterdir():
            header = pydicom.dcmread(file)
            header.add_new((group, 0x10), "LO", creator)
            for element, kind, values in tags:
                header.add_new((group, element), kind, values[number])
            header.save_as(file)
    second = find_volumes(tmp_path)[-1]
    assert second.detail.startswith("b-value 1000, gradient " if len(tags) > 1 else "b-value 1000")
    found = {sitk.Hash(Scan.read(tmp_path, series=volume.key).image) for volume in find_volumes(tmp_path)}
    assert found == {sitk.Hash(sitk.Cast(image, sitk.sitkFloat32)) for image in images}


def small_dwi(seed: int) -> sitk.Image:
    return sitk.Cast(small_head(modality="dwi", direction=SAGITTAL, seed=seed), sitk.sitkInt16)


@pytest.mark.parametrize("order", [range(20), range(19, -1, -1), [*range(0, 20, 2), *range(1, 20, 2)]])
def test_enhanced_dicom_is_put_together_by_where_its_frames_lie(tmp_path: Path, order: Sequence[int]) -> None:
    image = small_dwi(0)
    scan = Scan.read(enhanced_dicom(tmp_path / "frames.dcm", {1000: image}, order))
    assert_same_image(scan.image, sitk.Cast(image, sitk.sitkFloat32))
    assert scan.warnings == () and scan.tags["b_value"] == 1000


def test_enhanced_dicom_is_split_by_b_value(tmp_path: Path) -> None:
    """Its frames are stored by position, as scanners do, so that taken in this order they would be a zebra."""
    dark, bright = small_dwi(1), small_dwi(2)
    by_position = [index for k in range(20) for index in (k, 20 + k)]
    file = enhanced_dicom(tmp_path / "frames.dcm", {0: bright, 1000: dark}, by_position)
    with pytest.raises(UsageError, match=r"b-value 0 \(20 slices\); 2: unnamed, b-value 1000"):
        Scan.read(file)
    assert_same_image(Scan.read(file, series="b-value 1000").image, sitk.Cast(dark, sitk.sitkFloat32))


def test_enhanced_dicom_is_split_by_gradient(tmp_path: Path) -> None:
    """b = 0, two directions and their trace in one file, as scanners send a DWI."""
    images = {b: small_dwi(seed) for seed, b in enumerate((0, 1000, 1001, 1002))}

    def directed(header: pydicom.Dataset) -> None:
        for frame in header.PerFrameFunctionalGroupsSequence:
            diffusion = deepcopy(frame.MRDiffusionSequence[0])
            which, diffusion.DiffusionBValue = diffusion.DiffusionBValue, min(diffusion.DiffusionBValue, 1000)
            diffusion.DiffusionDirectionality = {0: "NONE", 1002: "ISOTROPIC"}.get(which, "DIRECTIONAL")
            if which in (1000, 1001):
                direction = pydicom.Dataset()
                direction.DiffusionGradientOrientation = [1.0, 0.0, 0.0] if which == 1000 else [0.0, 1.0, 0.0]
                diffusion.DiffusionGradientDirectionSequence = [direction]
            frame.MRDiffusionSequence = [diffusion]

    file = enhanced_dicom(tmp_path / "frames.dcm", images, change=directed)
    with pytest.raises(UsageError, match="holds 4 DICOM series"):
        Scan.read(file)
    trace = Scan.read(file, series="b-value 1000, gradient ISOTROPIC")
    assert_same_image(trace.image, sitk.Cast(images[1002], sitk.sitkFloat32))


def test_enhanced_dicom_files_of_one_series_are_told_apart(tmp_path: Path) -> None:
    """By a tag of the file that its frames do not repeat, else by the files themselves."""
    def of_series(acquisition: int, header: pydicom.Dataset) -> None:
        header.SeriesInstanceUID, header.SOPInstanceUID = "1.2.3", f"1.2.3.{acquisition}"
        if acquisition < 3:
            header.AcquisitionNumber = acquisition

    for number in (1, 2):
        enhanced_dicom(tmp_path / f"{number}.dcm", {0: small_dwi(number)}, change=partial(of_series, number))
    second = Scan.read(tmp_path, series="acquisition 2")
    assert_same_image(second.image, sitk.Cast(small_dwi(2), sitk.sitkFloat32))
    for number in (1, 2):
        enhanced_dicom(tmp_path / f"{number}.dcm", {0: small_dwi(number)}, change=partial(of_series, number + 2))
    assert_same_image(Scan.read(tmp_path, series="file 2.dcm").image, sitk.Cast(small_dwi(2), sitk.sitkFloat32))


def test_enhanced_dicom_of_a_frame_per_file(tmp_path: Path) -> None:
    image = small_dwi(3)
    for number in range(20):
        def only(header: pydicom.Dataset, number: int = number) -> None:
            header.SeriesInstanceUID, header.SOPInstanceUID = "1.2.3", f"1.2.3.{number}"
            header.PerFrameFunctionalGroupsSequence = [header.PerFrameFunctionalGroupsSequence[number]]
            size = header.Rows * header.Columns * 2
            header.PixelData, header.NumberOfFrames = header.PixelData[number * size : (number + 1) * size], 1

        enhanced_dicom(tmp_path / f"{number}.dcm", {0: image}, change=only)
    assert_same_image(Scan.read(tmp_path).image, sitk.Cast(image, sitk.sitkFloat32))


def without_places(header: pydicom.Dataset) -> None:
    for frame in header.PerFrameFunctionalGroupsSequence:
        del frame.PlanePositionSequence


def without_sizes(header: pydicom.Dataset) -> None:
    del header.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence


def scaled_by_frame(header: pydicom.Dataset) -> None:
    del header.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence
    for number, frame in enumerate(header.PerFrameFunctionalGroupsSequence):
        scale = pydicom.Dataset()
        scale.RescaleSlope, scale.RescaleIntercept = str(1 + number % 2), "0"
        frame.PixelValueTransformationSequence = [scale]


def without_sequences(header: pydicom.Dataset, kind: str = "7.3") -> None:
    """As secondary captures have it (kind 7.3), or nuclear medicine (20)."""
    header.SOPClassUID = header.file_meta.MediaStorageSOPClassUID = f"1.2.840.10008.5.1.4.1.1.{kind}"
    del header.PerFrameFunctionalGroupsSequence, header.SharedFunctionalGroupsSequence
    header.PixelSpacing, header.SpacingBetweenSlices, header.PixelRepresentation = [5, 5], 9, 0


@pytest.mark.parametrize("change, part", [
    (without_sequences, "size of a voxel"), (without_places, "where its frames lie"),
    (without_sizes, "size of a voxel"), (scaled_by_frame, "different scales"),
])
def test_enhanced_dicom_that_leaves_anything_open_is_refused(tmp_path: Path, change, part: str) -> None:
    with pytest.raises(InputError, match=part):
        Scan.read(enhanced_dicom(tmp_path / "frames.dcm", {0: small_dwi(0)}, change=change))


def test_frames_without_places_of_a_stated_distance_are_read_with_a_warning(tmp_path: Path) -> None:
    nuclear = partial(without_sequences, kind="20")
    scan = Scan.read(enhanced_dicom(tmp_path / "frames.dcm", {0: small_dwi(0)}, change=nuclear))
    np.testing.assert_allclose(scan.image.GetSpacing(), (5, 5, 9))
    assert "left and right" in scan.warnings[0] and "multi-frame" in scan.warnings[1]


def test_axes_of_nuclear_medicine_are_found_where_they_are(tmp_path: Path) -> None:
    def sagittal(header: pydicom.Dataset) -> None:
        without_sequences(header, kind="20")
        detector = pydicom.Dataset()
        detector.ImageOrientationPatient = [0, -1, 0, 0, 0, -1]
        detector.ImagePositionPatient = [0, 0, 0]
        header.DetectorInformationSequence = [detector]

    scan = Scan.read(enhanced_dicom(tmp_path / "frames.dcm", {0: small_dwi(0)}, change=sagittal))
    assert np.allclose(scan.image.GetDirection()[:6:3], (0, -1)) and "left and right" not in " ".join(scan.warnings)


@pytest.mark.parametrize("kind", ["4", "2", "7", "6.1", "1", "1.1", "12.1"])
@pytest.mark.parametrize("detector", [None, [0.4, 0.3]])
def test_pixel_spacing_goes_before_the_detectors(tmp_path: Path, kind: str, detector: list[float] | None) -> None:
    """In MR, CT, captures, ultrasound and in radiographs (CR, DX, XA), where GDCM looks at the detector's alone."""
    dicom_series(tmp_path)
    for file in tmp_path.iterdir():
        header = pydicom.dcmread(file)
        header.SOPClassUID = header.file_meta.MediaStorageSOPClassUID = f"1.2.840.10008.5.1.4.1.1.{kind}"
        header.PixelSpacing = [9, 7]
        if detector:
            header.ImagerPixelSpacing = detector
        header.save_as(file)
    np.testing.assert_allclose(Scan.read(tmp_path).image.GetSpacing(), (7, 9, 14))


def test_series_without_pixel_spacing_is_refused(tmp_path: Path) -> None:
    dicom_series(tmp_path)
    for file in tmp_path.iterdir():
        header = pydicom.dcmread(file)
        del header.PixelSpacing
        header.save_as(file)
    with pytest.raises(InputError, match="size of a voxel"):
        Scan.read(tmp_path)


def test_series_that_does_not_say_how_the_patient_lies_comes_with_a_warning(tmp_path: Path) -> None:
    dicom_series(tmp_path)
    assert not Scan.read(tmp_path).warnings
    for file in tmp_path.iterdir():
        header = pydicom.dcmread(file)
        del header.ImageOrientationPatient
        header.save_as(file)
    assert "left and right" in Scan.read(tmp_path).warnings[0]


def test_copies_of_slices_are_passed_over_with_a_word(tmp_path: Path) -> None:
    dicom_series(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    scan = Scan.read(tmp_path)
    assert scan.image.GetSize() == (24, 28, 12) and "12 files are copies" in scan.warnings[0]


def test_an_odd_digit_is_no_number_of_a_series(tmp_path: Path) -> None:
    dicom_series(tmp_path)
    with pytest.raises(UsageError, match="no DICOM series"):
        Scan.read(tmp_path, series="²")


def test_files_without_preamble_and_suffix_are_found(tmp_path: Path) -> None:
    expected = Scan.read(dicom_series(tmp_path)).image
    for file in list(tmp_path.iterdir()):
        header = pydicom.dcmread(file)
        with file.with_suffix("").open("wb") as opened:
            bare = DicomFileLike(opened)
            bare.is_implicit_VR, bare.is_little_endian = True, True
            write_dataset(bare, pydicom.Dataset(dict(header.items())))
        file.unlink()
    (tmp_path / "other").write_bytes(b"\x08\0\0\0" + bytes(range(256)) * 4)
    assert_same_image(Scan.read(tmp_path).image, expected)


def test_dicomdir_stands_for_its_folder(tmp_path: Path) -> None:
    dicom_series(tmp_path / "data")
    (tmp_path / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    assert Scan.read(tmp_path / "DICOMDIR").name == "t2_flair"
