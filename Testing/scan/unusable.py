"""Every kind of input that is no scan, each as a function that makes it in a folder."""

from __future__ import annotations

import gzip
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from MedVAELib.errors import InputError, MedVAEError, UsageError
from Testing.scan.scan_files import (
    changed,
    cut,
    dicom_series,
    from_array,
    nifti_with,
    small_head,
    text_replaced,
    written,
)

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


@bad("which side is left")
def nifti_with_mirrored_orientations(t: Path) -> Path:
    return nifti_with(t, ("hh", 252, (1, 4)), ("f", 280, (5.0,)))


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


@bad("name one of them (--series): 1: t1_mprage (12 slices); 2: t2_flair (12 slices)", UsageError)
def dicom_folder_with_two_series(t: Path) -> Path:
    dicom_series(t / "study" / "a")
    dicom_series(t / "study" / "b", uid="1.2.3.5", description="t1_mprage")
    return t / "study"


@bad("does not state the size of a voxel")
def nrrd_without_voxel_size(t: Path) -> Path:
    path = written(small_head(), t / "scan.nrrd")
    return text_replaced(path, "space directions: (5,0,0) (0,5,0) (0,0,9)", "#")


@bad("does not state the size of a voxel")
def mha_without_voxel_size(t: Path) -> Path:
    return text_replaced(written(small_head(), t / "scan.mha"), "ElementSpacing = 5 5 9\n", "")


@bad("damaged or truncated")
def dicom_with_a_slice_cut_off(t: Path) -> Path:
    cut(sorted(dicom_series(t / "series").iterdir())[0], 0.02)
    return t / "series"


@bad("dcm is damaged or truncated")
def dicom_with_a_slice_cut_in_its_header(t: Path) -> Path:
    path = sorted(dicom_series(t / "series").iterdir())[0]
    path.write_bytes(path.read_bytes()[:700])
    return t / "series"
