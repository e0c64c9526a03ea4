"""Scans: every kind of unusable input gets one sentence; every usable kind is read with its geometry and values."""

from __future__ import annotations

import dataclasses
import gzip
import json
import os
import pickle
import re
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from MedVAELib.errors import InputError, MedVAEError, UsageError
from MedVAELib.scan import Scan, hint_modality

from .conftest import synthetic_head

SIZE, SPACING = (40, 44, 20), (5.0, 5.0, 9.0)


def small_head(**changes: object) -> sitk.Image:
    return synthetic_head(**{"size_ijk": SIZE, "spacing_mm": SPACING, **changes})  # type: ignore[arg-type]


def written(image: sitk.Image, path: Path, compress: bool = False) -> Path:
    sitk.WriteImage(image, str(path), compress)
    return path


def from_array(array: np.ndarray, vector: bool = False, spacing: Sequence[float] = SPACING) -> sitk.Image:
    image = sitk.GetImageFromArray(array, isVector=vector)
    image.SetSpacing([*spacing, 1.0][: image.GetDimension()])
    return image


def changed(change: Callable[[np.ndarray], None]) -> sitk.Image:
    """The small head with its array changed in place."""
    head = small_head()
    array = sitk.GetArrayFromImage(head)
    change(array)
    result = sitk.GetImageFromArray(array)
    result.CopyInformation(head)
    return result


def nifti_with(folder: Path, *fields: tuple[str, int, Sequence[object]], name: str = "scan.nii") -> Path:
    """A NIfTI file of the small head with header fields (struct format, byte offset, values) overwritten."""
    path = written(small_head(), folder / name)
    data = bytearray(path.read_bytes())
    for form, offset, values in fields:
        struct.pack_into("<" + form, data, offset, *values)
    path.write_bytes(data)
    return path


def cut(path: Path, keep: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    return path


def text_replaced(path: Path, old: str, new: str) -> Path:
    text = path.read_bytes()
    assert old.encode() in text
    path.write_bytes(text.replace(old.encode(), new.encode(), 1))
    return path


def dicom_series(folder: Path, image: sitk.Image | None = None, uid: str = "1.2.3.4", description: str = "t2_flair",
                 prefix: str = "", skip: Sequence[int] = (), shift_mm: float = 0.0, **tags: str) -> Path:
    """Writes an image as a series of slices; shift_mm moves each slice sideways, as a tilted gantry does."""
    head = small_head(size_ijk=(24, 28, 12), spacing_mm=(8, 8, 14)) if image is None else image
    slices = sitk.Cast(head, sitk.sitkInt16) if head.GetNumberOfComponentsPerPixel() == 1 else head
    folder.mkdir(parents=True, exist_ok=True)
    direction = np.array(head.GetDirection()).reshape(3, 3)
    common = {"0008|0060": "MR", "0020|000d": "1.2.3", "0020|000e": uid, "0008|103e": description,
              "0010|0010": "Doe^Jane", "0010|0020": "12345", "0008|0008": "ORIGINAL\\PRIMARY\\M",
              "0020|0037": "\\".join(f"{v:.8f}" for v in direction[:, :2].T.ravel()), "0018|0050": "14",
              **{tag.replace("_", "|")[1:]: value for tag, value in tags.items()}}
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for k in range(head.GetSize()[2]):
        if k in skip:
            continue
        position = np.array(head.TransformIndexToPhysicalPoint((0, 0, k))) + direction[:, 0] * shift_mm * k
        one = slices[:, :, k]
        place = {"0020|0032": "\\".join(f"{v:.6f}" for v in position), "0020|0013": str(k)}
        for tag, value in {**common, **place}.items():
            one.SetMetaData(tag, value)
        # names in no useful order: slices are put in order by their position
        writer.SetFileName(str(folder / f"{prefix}{(7 * k) % 23:02d}_{k}.dcm"))
        writer.Execute(one)
    return folder


# --- Inputs that cannot be used --------------------------------------------------------------------------------------

BAD: dict[str, tuple[Callable[[Path], Path], str, type[MedVAEError]]] = {}


def bad(expected: str, error: type[MedVAEError] = InputError) -> Callable[[Callable[[Path], Path]], None]:
    def register(build: Callable[[Path], Path]) -> None:
        BAD[build.__name__] = (build, expected, error)

    return register


@bad("does not exist")
def missing(t: Path) -> Path:
    return t / "nothing.nii.gz"


@bad("folder without DICOM")
def empty_folder(t: Path) -> Path:
    (t / "empty").mkdir()
    return t / "empty"


@bad("folder without DICOM")
def folder_of_nifti(t: Path) -> Path:
    written(small_head(), t / "a.nii")
    return t


@bad("is empty")
def empty_file(t: Path) -> Path:
    (t / "scan.nii.gz").touch()
    return t / "scan.nii.gz"


@bad("known image format")
def text_file(t: Path) -> Path:
    (t / "notes.txt").write_text("not an image at all\n" * 50)
    return t / "notes.txt"


@bad("known image format")
def pickled_file(t: Path) -> Path:
    (t / "scan.pkl").write_bytes(pickle.dumps(np.zeros((20, 20, 20))))
    return t / "scan.pkl"


@bad("no NIfTI header")
def web_page_named_nifti(t: Path) -> Path:
    (t / "scan.nii.gz").write_text("<html><body>404 Not Found</body></html>" * 40)
    return t / "scan.nii.gz"


@bad("truncated")
def truncated_gzip(t: Path) -> Path:
    return cut(written(small_head(), t / "scan.nii.gz"), 0.6)


@bad("truncated")
def gzip_without_its_last_bytes(t: Path) -> Path:
    path = written(small_head(), t / "scan.nii.gz")
    path.write_bytes(path.read_bytes()[:-6])
    return path


@bad("truncated or damaged")
def gzip_cut_in_its_header(t: Path) -> Path:
    path = written(small_head(), t / "scan.nii.gz")
    path.write_bytes(path.read_bytes()[:15])
    return path


@bad("checksum")
def gzip_with_wrong_checksum(t: Path) -> Path:
    path = written(small_head(), t / "scan.nii.gz")
    path.write_bytes(path.read_bytes()[:-8] + b"\0\1\2\3" + path.read_bytes()[-4:])
    return path


@bad("truncated")
def gzip_of_too_little_data(t: Path) -> Path:
    data = written(small_head(), t / "scan.nii").read_bytes()
    (t / "scan.nii.gz").write_bytes(gzip.compress(data[:-5000]))
    return t / "scan.nii.gz"


@bad("truncated")
def nifti_shorter_than_declared(t: Path) -> Path:
    return cut(written(small_head(), t / "scan.nii"), 0.9)


@bad("truncated")
def nifti_of_only_a_header(t: Path) -> Path:
    path = written(small_head(), t / "scan.nii")
    path.write_bytes(path.read_bytes()[:352])
    return path


@bad("no NIfTI header")
def nifti_cut_in_its_header(t: Path) -> Path:
    path = written(small_head(), t / "scan.nii")
    path.write_bytes(path.read_bytes()[:100])
    return path


@bad("rename it")
def gzip_named_nii(t: Path) -> Path:
    data = written(small_head(), t / "scan.nii").read_bytes()
    (t / "scan.nii").write_bytes(gzip.compress(data))
    return t / "scan.nii"


@bad("impossible image size")
def negative_size(t: Path) -> Path:
    return nifti_with(t, ("h", 42, (-5,)))


@bad("NIfTI-2")
def nifti_2(t: Path) -> Path:  # SimpleITK has no reader for it
    return nifti_with(t, ("i8s", 0, (540, b"n+2\0\r\n\x1a\n")))


@bad("needs its data file")
def header_without_img(t: Path) -> Path:
    written(small_head(), t / "scan.hdr")
    (t / "scan.img").unlink()
    return t / "scan.hdr"


@bad("truncated")
def nrrd_shorter_than_declared(t: Path) -> Path:
    return cut(written(small_head(), t / "scan.nrrd"), 0.7)


@bad("truncated")
def compressed_nrrd_cut(t: Path) -> Path:
    return cut(written(small_head(), t / "scan.nrrd", compress=True), 0.7)


@bad("damaged header")
def nrrd_with_words_for_numbers(t: Path) -> Path:
    return text_replaced(written(small_head(), t / "scan.nrrd"), "sizes: 40 44 20", "sizes: forty x 20")


@bad("needs its data file")
def nhdr_without_data(t: Path) -> Path:
    written(small_head(), t / "scan.nhdr")
    (t / "scan.raw").unlink()
    return t / "scan.nhdr"


@bad("truncated")
def mha_shorter_than_declared(t: Path) -> Path:
    return cut(written(small_head(), t / "scan.mha"), 0.7)


@bad("truncated")
def compressed_mha_cut(t: Path) -> Path:
    return cut(written(small_head(), t / "scan.mha", compress=True), 0.7)


@bad("needs its data file")
def mhd_without_data(t: Path) -> Path:
    written(small_head(), t / "scan.mhd")
    (t / "scan.raw").unlink()
    return t / "scan.mhd"


@bad("two-dimensional")
def picture(t: Path) -> Path:
    return written(from_array(np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)), t / "scan.png")


@bad("two-dimensional")
def nifti_2d(t: Path) -> Path:
    return written(from_array(np.random.default_rng(0).random((64, 64), np.float32)), t / "scan.nii")


@bad("3 volumes (4D)")
def nifti_4d(t: Path) -> Path:
    return written(from_array(np.random.default_rng(0).random((3, 20, 44, 40), np.float32)), t / "dwi.nii.gz")


@bad("holds colours")
def colours(t: Path) -> Path:
    return written(from_array(np.zeros((20, 44, 40, 3), np.uint8), vector=True), t / "scan.nii")


@bad("holds vectors")
def vectors(t: Path) -> Path:
    return written(from_array(np.zeros((20, 44, 40, 6), np.float32), vector=True), t / "tensor.nrrd")


@bad("complex")
def complex_numbers(t: Path) -> Path:
    return written(from_array(np.zeros((20, 44, 40), np.complex64)), t / "scan.nii")


@bad("single slice")
def one_slice(t: Path) -> Path:
    return written(small_head()[:, :, 10:11], t / "scan.nii")


@bad("40 x 44 x 7 voxels")
def too_few_slices(t: Path) -> Path:
    return written(small_head()[:, :, 5:12], t / "scan.nii")


@bad("not numbers (NaN)")
def nan(t: Path) -> Path:
    return written(changed(lambda a: a[:3].fill(np.nan)), t / "scan.nii")


@bad("not numbers (NaN)")
def nan_compressed(t: Path) -> Path:
    return written(sitk.Cast(changed(lambda a: a[:3].fill(np.nan)), sitk.sitkFloat64), t / "scan.nii.gz")


@bad("not numbers (NaN)")
def nan_in_nrrd(t: Path) -> Path:
    return written(changed(lambda a: a[:3].fill(np.nan)), t / "scan.nrrd")


@bad("infinite")
def infinity(t: Path) -> Path:
    return written(changed(lambda a: a[:3].fill(np.inf)), t / "scan.nii")


@bad("constant")
def constant(t: Path) -> Path:
    return written(changed(lambda a: a.fill(7)), t / "scan.nii")


@bad("impossible voxel size")
def zero_spacing(t: Path) -> Path:  # SimpleITK reads it as 1 mm
    return nifti_with(t, ("f", 84, (0.0,)))


@bad("impossible voxel size")
def negative_spacing(t: Path) -> Path:
    return nifti_with(t, ("f", 80, (-5.0,)))


@bad("impossible voxel size")
def spacing_not_a_number(t: Path) -> Path:
    return nifti_with(t, ("f", 88, (float("nan"),)))


@bad("impossible voxel size")
def tiny_spacing(t: Path) -> Path:
    return written(small_head(spacing_mm=(1e-6, 5, 5)), t / "scan.nrrd")


@bad("impossible voxel size")
def huge_spacing(t: Path) -> Path:
    return written(small_head(spacing_mm=(5, 5, 500)), t / "scan.mha")


@bad("impossible voxel size")
def spacing_in_metres(t: Path) -> Path:
    return nifti_with(t, ("B", 123, (1,)))


@bad("sheared axes")
def sheared_nifti(t: Path) -> Path:
    return nifti_with(t, ("hh", 252, (0, 1)), ("f", 284, (1.5,)))


@bad("damaged orientation")
def nifti_with_zero_sform(t: Path) -> Path:
    return nifti_with(t, ("hh", 252, (0, 1)), ("12f", 280, [0.0] * 12))


@bad("contradicts itself")
def nifti_with_two_voxel_sizes(t: Path) -> Path:
    return nifti_with(t, ("hh", 252, (0, 1)), ("f", 280, (-15.0,)))


@bad("not orthonormal")
def sheared_nrrd(t: Path) -> Path:
    return written(small_head(direction=((1, 0.2, 0), (0, 1, 0), (0, 0, 1))), t / "scan.nrrd")


@bad("not orthonormal")
def sheared_mha(t: Path) -> Path:
    return written(small_head(direction=((1, 0, 0), (0, 1, 0), (0, 0.1, 1))), t / "scan.mha")


@bad("too little of a head")
def small_field_of_view(t: Path) -> Path:
    return written(small_head(spacing_mm=(1, 1, 9)), t / "scan.nii")


@bad("too much for a head")
def large_field_of_view(t: Path) -> Path:
    return written(small_head(spacing_mm=(5, 14.5, 9)), t / "scan.nii")


@bad("more than 500,000,000")
def too_many_voxels(t: Path) -> Path:
    path = nifti_with(t, ("3h", 42, (1000, 1000, 600)), ("hh", 70, (2, 8)), ("3f", 80, (0.2, 0.2, 0.2)))
    os.truncate(path, 352 + 600_000_000)  # sparse: takes no space
    return path


@bad("looks like a label map")
def brain_mask(t: Path) -> Path:
    mask = sitk.BinaryThreshold(small_head(noise=0), 20.0, 1000.0, 1, 0)
    return written(mask, t / "brainmask.nii.gz")


@bad("looks like a label map")
def parcellation(t: Path) -> Path:
    z, y, x = np.mgrid[:40, :40, :40] // 10
    return written(from_array((z * 16 + y * 4 + x).astype(np.int16), spacing=(5, 5, 5)), t / "labels.nrrd")


@bad("label map")
def declared_label_map(t: Path) -> Path:
    return nifti_with(t, ("h", 68, (1002,)))


@bad("statistical map")
def declared_statistical_map(t: Path) -> Path:
    return nifti_with(t, ("h", 68, (3,)))


@bad("single DICOM slice")
def one_dicom_slice(t: Path) -> Path:
    return next(iter(sorted(dicom_series(t / "s").iterdir())))


@bad("slices missing")
def dicom_with_a_missing_slice(t: Path) -> Path:
    return dicom_series(t / "series", skip=(5,))


@bad("different orientations")
def dicom_localiser(t: Path) -> Path:
    dicom_series(t / "localiser", prefix="a")
    turned = small_head(size_ijk=(24, 28, 12), spacing_mm=(8, 8, 14), direction=((0, 0, 1), (1, 0, 0), (0, 1, 0)))
    return dicom_series(t / "localiser", turned, prefix="b")


@bad("different sizes")
def dicom_of_two_sizes(t: Path) -> Path:
    dicom_series(t / "mixed", skip=range(6))
    return dicom_series(t / "mixed", small_head(size_ijk=(26, 28, 12), spacing_mm=(8, 8, 14)), prefix="b",
                        skip=range(6, 12))


@bad("different pixel spacings")
def dicom_of_two_spacings(t: Path) -> Path:
    dicom_series(t / "mixed", skip=range(6))
    return dicom_series(t / "mixed", small_head(size_ijk=(24, 28, 12), spacing_mm=(7, 7, 14)), prefix="b",
                        skip=range(6, 12))


@bad("same slice position")
def dicom_with_repeated_slices(t: Path) -> Path:
    dicom_series(t / "twice", prefix="a")
    return dicom_series(t / "twice", prefix="b")


@bad("tilted gantry")
def dicom_with_tilted_gantry(t: Path) -> Path:
    return dicom_series(t / "tilted", shift_mm=4.0)


@bad("mosaic")
def dicom_mosaic(t: Path) -> Path:
    return dicom_series(t / "mosaic", _0008_0008="ORIGINAL\\PRIMARY\\M\\ND\\MOSAIC")


@bad("holds colours")
def dicom_colours(t: Path) -> Path:
    array = np.random.default_rng(0).integers(0, 255, (12, 28, 24, 3), np.uint8)
    return dicom_series(t / "colour", from_array(array, vector=True, spacing=(8, 8, 14)))


@bad("without an image")
def damaged_dicom(t: Path) -> Path:
    (t / "scan.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"rubbish" * 100)
    return t / "scan.dcm"


@bad("name one of them: 1: t1_mprage (12 slices); 2: t2_flair (12 slices)", UsageError)
def dicom_folder_with_two_series(t: Path) -> Path:
    dicom_series(t / "study" / "a")
    dicom_series(t / "study" / "b", uid="1.2.3.5", description="t1_mprage")
    return t / "study"


def check_message(error: MedVAEError, named: str) -> None:
    """One sentence that names the file and says what to do."""
    text = str(error)
    assert named in text
    assert "\n" not in text and text.endswith(".")
    assert not re.search(r"[.!?] +[A-Z]", text.replace(named, ""))
    assert ": " in text.replace(named, "") or "," in text.replace(named, "")


@pytest.mark.parametrize("case", BAD)
def test_unusable_input_gets_one_sentence(case: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    build, expected, error = BAD[case]
    path = build(tmp_path)
    capfd.readouterr()
    with pytest.raises(MedVAEError) as caught:
        Scan.read(path)
    assert type(caught.value) is error
    assert caught.value.exit_code == (2 if error is UsageError else 3)
    assert expected in str(caught.value)
    check_message(caught.value, str(path))
    assert capfd.readouterr().err == ""  # the reader's own noise would be a second message


def test_at_least_thirty_kinds_of_unusable_input() -> None:
    assert len(BAD) >= 30


@pytest.mark.parametrize(("options", "expected"), [({"modality": "t1"}, "modality 't1'"),
                                                   ({"series": "flair"}, "not a DICOM folder")])
def test_wrong_options_for_a_file(options: dict[str, str], expected: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=expected):
        Scan.read(written(small_head(), tmp_path / "scan.nii"), **options)


@pytest.mark.parametrize(("series", "expected"), [("swi", "no DICOM series 'swi'"), ("t", "that 't' can mean"),
                                                  (7, "no DICOM series '7'")])
def test_series_that_chooses_none_or_several(series: str | int, expected: str, tmp_path: Path) -> None:
    path = dicom_folder_with_two_series_at(tmp_path)
    with pytest.raises(UsageError, match=expected) as caught:
        Scan.read(path, series=series)
    check_message(caught.value, str(path))
    assert "t1_mprage (12 slices)" in str(caught.value)


def dicom_folder_with_two_series_at(folder: Path) -> Path:
    return BAD["dicom_folder_with_two_series"][0](folder)


@pytest.mark.parametrize(("image", "expected"), [
    (changed(lambda a: a.fill(1)), "constant"),
    (small_head()[:, :, 0], "two-dimensional"),
    (from_array(np.zeros((20, 44, 40, 3), np.float32), vector=True), "vectors"),
    (small_head(spacing_mm=(5, 5, 100)), "voxel size"),
])
def test_images_in_memory_are_validated_too(image: sitk.Image, expected: str) -> None:
    with pytest.raises(InputError, match=expected) as caught:
        Scan.from_image(image, name="volume 3")
    check_message(caught.value, "volume 3")


# --- Inputs that can be used -----------------------------------------------------------------------------------------

OBLIQUE = ((0.96, -0.28, 0.0), (0.28, 0.96, 0.0), (0.0, 0.0, 1.0))
SAGITTAL = ((0, 0, 1), (-1, 0, 0), (0, -1, 0))


def assert_same_image(found: sitk.Image, expected: sitk.Image, atol: float = 1e-5) -> None:
    assert found.GetPixelID() == sitk.sitkFloat32 and found.GetSize() == expected.GetSize()
    for get in ("GetSpacing", "GetOrigin", "GetDirection"):
        np.testing.assert_allclose(getattr(found, get)(), getattr(expected, get)(), atol=1e-4)
    np.testing.assert_allclose(sitk.GetArrayViewFromImage(found), sitk.GetArrayViewFromImage(expected), atol=atol)


@pytest.mark.parametrize("direction", [OBLIQUE, SAGITTAL], ids=["oblique", "sagittal"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".hdr", ".nrrd", ".nhdr", ".mha", ".mhd"])
@pytest.mark.parametrize("compress", [False, True])
def test_formats_keep_values_and_geometry(suffix: str, compress: bool, direction: object, tmp_path: Path) -> None:
    image = small_head(direction=direction, center_ras_mm=(10, -20, 30))
    scan = Scan.read(written(image, tmp_path / f"sub-01_flair{suffix}", compress), modality="flair")
    assert_same_image(scan.image, image)
    assert (scan.name, scan.modality, scan.modality_hint, scan.warnings) == ("sub-01_flair", "flair", "flair", ())
    assert scan.path == tmp_path / f"sub-01_flair{suffix}"


@pytest.mark.parametrize("pixel", [sitk.sitkUInt8, sitk.sitkInt16, sitk.sitkUInt16, sitk.sitkInt32, sitk.sitkFloat64])
def test_every_number_type_becomes_float32(pixel: int, tmp_path: Path) -> None:
    image = sitk.Cast(sitk.Clamp(small_head(), sitk.sitkFloat32, 0, 250), pixel)
    assert_same_image(Scan.read(written(image, tmp_path / "a.nii.gz")).image, sitk.Cast(image, sitk.sitkFloat32))


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


@pytest.mark.parametrize("series", ["1.2.3.4", "T2_FLAIR", "flair", 2, "2"])
def test_series_by_uid_description_or_number(series: str | int, tmp_path: Path) -> None:
    scan = Scan.read(dicom_folder_with_two_series_at(tmp_path), series=series)
    assert scan.name == "t2_flair" and scan.image.GetSize() == (24, 28, 12)


def test_localiser_is_passed_over_with_a_word(tmp_path: Path) -> None:
    dicom_series(tmp_path / "a")
    dicom_series(tmp_path / "b", uid="1.2.9", description="localizer", skip=range(3, 12))
    scan = Scan.read(tmp_path)
    assert scan.name == "t2_flair" and "passed over: localizer (3 slices)" in scan.warnings[0]


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


def test_multi_frame_dicom_is_read_with_a_warning(tmp_path: Path) -> None:
    image = sitk.Cast(small_head(direction=SAGITTAL), sitk.sitkInt16)
    image.SetMetaData("0008|0060", "MR")
    scan = Scan.read(written(image, tmp_path / "frames.dcm"))
    assert_same_image(scan.image, sitk.Cast(image, sitk.sitkFloat32))
    assert "multi-frame" in scan.warnings[0]


def test_dicomdir_stands_for_its_folder(tmp_path: Path) -> None:
    dicom_series(tmp_path / "data")
    (tmp_path / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    assert Scan.read(tmp_path / "DICOMDIR").name == "t2_flair"


def test_4d_file_of_one_volume_is_that_volume(tmp_path: Path) -> None:
    image = small_head()
    scan = Scan.read(written(sitk.JoinSeries([image]), tmp_path / "a.mha"))
    assert_same_image(scan.image, image)


def test_uncompressed_nifti_named_gz(tmp_path: Path) -> None:
    image = small_head()
    written(image, tmp_path / "a.nii").rename(tmp_path / "a.nii.gz")
    assert_same_image(Scan.read(tmp_path / "a.nii.gz").image, image)


def test_unknown_orientation_is_said(tmp_path: Path) -> None:
    scan = Scan.read(nifti_with(tmp_path, ("hh", 252, (0, 0))))
    assert "left and right may be exchanged" in scan.warnings[0]


def test_contradicting_orientations_are_said(tmp_path: Path) -> None:
    scan = Scan.read(nifti_with(tmp_path, ("hh", 252, (1, 4)), ("f", 284, (1.5,))))
    assert "contradict each other" in scan.warnings[0]


def test_rounded_axes_are_read_and_said(tmp_path: Path) -> None:  # SimpleITK by itself refuses this file
    scan = Scan.read(nifti_with(tmp_path, ("hh", 252, (0, 1)), ("f", 284, (0.02,))))
    assert "not exactly perpendicular" in scan.warnings[0]
    direction = np.array(scan.image.GetDirection()).reshape(3, 3)
    np.testing.assert_allclose(direction.T @ direction, np.eye(3), atol=1e-6)
    assert "ITK_NIFTI_SFORM_PERMISSIVE" not in os.environ


@pytest.mark.parametrize("suffix", ["", ".nii", ".nii.gz", ".mha"])
def test_a_few_non_finite_voxels_are_replaced_and_said(suffix: str, tmp_path: Path) -> None:
    image = changed(lambda a: a[0, 0].__setitem__(slice(0, 3), np.nan))
    scan = Scan.read(written(image, tmp_path / f"a{suffix}")) if suffix else Scan.from_image(image)
    assert np.isfinite(scan.array_zyx()).all() and "3 voxels" in scan.warnings[0]


def test_negative_values_are_fine() -> None:
    head = small_head()
    scaled = sitk.Normalize(head)
    assert_same_image(Scan.from_image(scaled).image, sitk.Cast(scaled, sitk.sitkFloat32))


def test_an_8_bit_scan_is_not_taken_for_a_label_map() -> None:
    coarse = sitk.Cast(sitk.Clamp(small_head(noise=4.0) / 8, sitk.sitkFloat32, 0, 30), sitk.sitkUInt8)
    assert Scan.from_image(coarse).image.GetPixelID() == sitk.sitkFloat32


def test_the_callers_image_is_left_alone() -> None:
    image = small_head()
    image.SetMetaData("descrip", "mine")
    scan = Scan.from_image(image, modality="dwi", name="Pat. 7: DWI/b1000")
    assert image.GetMetaData("descrip") == "mine"
    assert scan.name == "Pat._7_DWI_b1000" and scan.modality == "dwi" and scan.path is None


@pytest.mark.parametrize(("tags", "name", "expected"), [
    ({}, "sub-01_FLAIR.nii.gz", "flair"), ({}, "3DT2FLAIR.nrrd", "flair"), ({}, "dwi_b1000.nii", "dwi"),
    ({}, "sub-2_T1w.nii.gz", "other"), ({}, "adc.nii.gz", "other"), ({}, "dwi_ADC.nii", "other"),
    ({}, "T1_FLAIR.nii", "other"), ({}, "patient7.nii.gz", None), ({}, "different_head.nii", None),
    ({"series_description": "t2_tirm_tra_dark-fluid"}, "x.dcm", "flair"),
    ({"series_description": "ep2d_diff_3scan_trace_p2"}, "x.dcm", "dwi"),
    ({"series_description": "ep2d_diff_3scan_trace_p2_ADC"}, "x.dcm", "other"),
    ({"modality": "CT", "series_description": "flair"}, "flair.nii", "other"),
    ({"b_value": 1000.0}, "x.nii", "dwi"),
    ({"inversion_time_ms": 2500.0, "echo_time_ms": 110.0}, "x.nii", "flair"),
    ({"inversion_time_ms": 900.0, "echo_time_ms": 3.0}, "x.nii", None),
])
def test_modality_hints(tags: dict[str, str | float], name: str, expected: str | None) -> None:
    hint, reason = hint_modality(tags, name)
    assert hint == expected and bool(reason) == (expected is not None)


def test_side_car_gives_tags_and_hint(tmp_path: Path) -> None:
    (tmp_path / "scan.json").write_text(json.dumps({"SeriesDescription": "AX T2 FLAIR", "EchoTime": 0.12,
                                                    "InversionTime": 2.5, "PatientName": "Doe^Jane"}))
    scan = Scan.read(written(small_head(), tmp_path / "scan.nii.gz"))
    assert scan.tags == {"series_description": "AX T2 FLAIR", "echo_time_ms": 120, "inversion_time_ms": 2500}
    assert scan.modality_hint == "flair"


def test_asking_against_the_tags_is_said(tmp_path: Path) -> None:
    scan = Scan.read(written(small_head(), tmp_path / "sub_T1w.nii.gz"), modality="flair")
    assert scan.modality == "flair" and "as asked, although" in scan.warnings[0]


def test_real_scans_are_read(medvae_data: Path) -> None:
    files = [p for p in sorted((medvae_data / "brain").glob("*/*/*.nii.gz"))
             if p.name.startswith(("flair", "dwi", "adc")) and p.parts[-3] in ("flair", "dwi")]
    assert len(files) >= 10
    for path in files:
        scan = Scan.read(path)
        reference = sitk.ReadImage(str(path))
        assert scan.image.GetSize() == reference.GetSize() and scan.image.GetDirection() == reference.GetDirection()
        assert scan.warnings == () and scan.modality_hint is not None


def test_real_masks_and_label_maps_are_refused(medvae_data: Path) -> None:
    files = [*(medvae_data / "brain").glob("flair/*/*mask*.nii.gz"),
             *sorted((medvae_data / "brain" / "label_maps").glob("*.nii.gz"))[:1]]
    assert files
    for path in files:
        with pytest.raises(InputError, match="looks like a label map"):
            Scan.read(path)


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = ("import sys, MedVAELib; assert not {'torch', 'SimpleITK', 'numpy', 'vtk'} & set(sys.modules);"
            "from MedVAELib import Scan; assert Scan.__name__ == 'Scan'; assert 'torch' not in sys.modules;"
            "assert 'load_bundle' in dir(MedVAELib)")
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])
    import MedVAELib
    with pytest.raises(AttributeError, match="nothing_here"):
        MedVAELib.nothing_here  # noqa: B018
