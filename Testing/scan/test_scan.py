"""Every usable kind of scan is read with its geometry and values."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from MedVAELib.errors import InputError, UsageError
from MedVAELib.files import itk_files
from MedVAELib.scan import Scan, files_of, hint_modality
from Testing.scan.scan_files import (
    OBLIQUE,
    SAGITTAL,
    assert_same_image,
    changed,
    dicom_series,
    nifti_with,
    small_head,
    written,
)


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


def test_4d_file_of_one_volume_is_that_volume(tmp_path: Path) -> None:
    image = small_head()
    scan = Scan.read(written(sitk.JoinSeries([image]), tmp_path / "a.mha"))
    assert_same_image(scan.image, image)


@pytest.mark.parametrize("series, b_values", [
    (2, "dwi.bval"), ("2", "dwi.bvals"), ("b-value 1000", "bvals"), ("b-value 1000", "dwi.bval")])
def test_a_volume_of_a_4d_file(tmp_path: Path, series: str | int, b_values: str) -> None:
    images = [small_head(seed=seed, direction=SAGITTAL) for seed in range(3)]
    path = written(sitk.JoinSeries(images), tmp_path / "dwi.nii.gz")
    (tmp_path / b_values).write_text("\ufeff0 1000 500\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"3 volumes .*1 to 3.*1: b-value 0; 2: b-value 1000; 3: b-value 500"):
        Scan.read(path)
    scan = Scan.read(path, series=series)
    assert_same_image(scan.image, images[1])
    with pytest.raises(UsageError, match=r"no volume 'b-value 900': .* 1 to 3 \(1: b-value 0; 2: b-value 1000;"):
        Scan.read(path, series="b-value 900")
    assert scan.tags["b_value"] == 1000 and tmp_path / b_values in files_of(path)


def test_directions_of_one_b_value_give_the_trace_weighted_image(tmp_path: Path) -> None:
    images = [sitk.Abs(small_head(seed=seed, direction=SAGITTAL)) for seed in range(5)]
    path = written(sitk.JoinSeries(images), tmp_path / "dwi.nii.gz")
    (tmp_path / "dwi.bval").write_text("0 995 1005 0 2000\n")
    with pytest.raises(InputError, match="'b-value 2000' for the mean of all that have it"):
        Scan.read(path)
    scan = Scan.read(path, series="b-value 1000")
    assert_same_image(scan.image, sitk.Sqrt(images[1] * images[2]), 1e-3)
    assert scan.tags["b_value"] == 1000 and "the mean of 2 volumes" in scan.warnings[0]


def test_a_volume_of_a_4d_file_that_is_not_there(tmp_path: Path) -> None:
    path = written(sitk.JoinSeries([small_head(seed=seed) for seed in range(3)]), tmp_path / "dwi.nii.gz")
    (tmp_path / "dwi.bval").write_text("0 1000\n")  # of another file
    with pytest.raises(InputError, match="highest b-value[.]"):
        Scan.read(path)
    for series in (0, 4, "b-value 1000"):
        with pytest.raises(UsageError, match=f"no volume '{series}': name one by its number, 1 to 3"):
            Scan.read(path, series=series)


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


@pytest.mark.parametrize("sform_code, used", [(1, "sform"), (2, "qform"), (4, "qform")])
def test_two_orientations_apart_are_said_with_the_one_that_is_used(tmp_path: Path, sform_code: int, used: str) -> None:
    there = np.array(small_head().GetOrigin())
    scan = Scan.read(nifti_with(tmp_path, ("hh", 252, (1, sform_code)), ("f", 292, (50.0 - there[0],))))
    assert f"up to 50 mm apart, which is usual after a registration: the {used} is used" in scan.warnings[0]
    np.testing.assert_allclose(scan.image.GetOrigin(), there - (50 * (used == "sform"), 0, 0), atol=1e-3)


@given(st.tuples(*[st.floats(-180, 180, width=32)] * 3), st.sampled_from(((1, 1), (1, 4))))
@settings(max_examples=20, deadline=None)
def test_two_orientations_that_agree_are_no_matter(tmp_path_factory, angles, codes) -> None:
    turn = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    path = written(small_head(direction=turn.tolist()), tmp_path_factory.mktemp("turned") / "scan.nii")
    data = bytearray(path.read_bytes())
    struct.pack_into("<hh", data, 252, *codes)
    path.write_bytes(data)
    assert not any("orientations" in warning for warning in Scan.read(path).warnings)


def test_rounded_axes_are_read_and_said(tmp_path: Path) -> None:  # SimpleITK by itself refuses this file
    scan = Scan.read(nifti_with(tmp_path, ("hh", 252, (0, 1)), ("f", 284, (0.02,))))
    assert "not exactly perpendicular" in scan.warnings[0]
    direction = np.array(scan.image.GetDirection()).reshape(3, 3)
    np.testing.assert_allclose(direction.T @ direction, np.eye(3), atol=1e-6)
    assert "ITK_NIFTI_SFORM_PERMISSIVE" not in os.environ


@pytest.mark.parametrize("angles", [(0, 0, 0), (17, 0, 0), (5, -40, 12), (90, 0, 0), (0, 90, 90)])
@pytest.mark.parametrize("mirrored", [False, True])
def test_rounded_axes_lie_where_the_header_says(tmp_path: Path, angles, mirrored) -> None:
    """Oblique, and stored in sagittal and coronal slices: to within what the rounding itself comes to."""
    turn = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() @ np.diag([1, 1, -1 if mirrored else 1])
    path = written(small_head(direction=turn.tolist()), tmp_path / "scan.nii")
    data = bytearray(path.read_bytes())
    sform = np.frombuffer(data, "<f4", 12, 280).reshape(3, 4).copy()
    sform[:, 0] += 2e-3 * sform[:, 1] * np.linalg.norm(sform[:, 0]) / np.linalg.norm(sform[:, 1])
    struct.pack_into("<12f", data, 280, *sform.ravel())
    struct.pack_into("<hh", data, 252, 0, 1)
    path.write_bytes(data)
    image = Scan.read(path).image
    for corner in np.ndindex(2, 2, 2):
        ijk = np.array(corner) * (np.array(image.GetSize()) - 1)
        meant = np.diag([-1, -1, 1]) @ (sform @ [*ijk, 1])
        found = image.TransformContinuousIndexToPhysicalPoint(ijk.astype(float).tolist())
        assert np.linalg.norm(meant - found) < 4e-3 * np.linalg.norm(sform[:, :3] @ ijk) + 1e-3


@pytest.mark.parametrize("suffix", ["", ".nii", ".nii.gz", ".mha"])
def test_a_few_non_finite_voxels_are_replaced_and_said(suffix: str, tmp_path: Path) -> None:
    image = changed(lambda a: a[0, 0].__setitem__(slice(0, 3), np.nan))
    scan = Scan.read(written(image, tmp_path / f"a{suffix}")) if suffix else Scan.from_image(image)
    assert np.isfinite(scan.array_zyx()).all() and "3 voxels" in scan.warnings[0]


def test_negative_values_are_fine() -> None:
    head = small_head()
    scaled = sitk.Normalize(head)
    assert_same_image(Scan.from_image(scaled).image, sitk.Cast(scaled, sitk.sitkFloat32))


def test_negative_values_saved_without_their_sign_are_mended_and_said(tmp_path: Path) -> None:
    """As the overshoot of splines is in 16 bits."""
    signed = changed(lambda a: np.round(a - 20, out=a))
    wrapped = sitk.Cast(sitk.Cast(signed, sitk.sitkInt16), sitk.sitkUInt16)
    scan = Scan.read(written(wrapped, tmp_path / "a.nii"))
    assert_same_image(scan.image, signed)
    assert "65,536 was taken off" in scan.warnings[0] and scan.warnings[0].startswith(str(tmp_path / "a.nii"))


@pytest.mark.parametrize("change", [
    lambda a: a[0].fill(65535),  # padding
    lambda a: np.round(a * (65535 / a.max()), out=a),
    lambda a: np.minimum(np.round(a * (90000 / a.max())), 65535, out=a),  # saturated
    lambda a: (np.round(a, out=a), a[0, 0].__setitem__(slice(0, 2), (65535, 40000))),
], ids=["padded", "full range", "saturated", "far below"])
def test_values_up_to_the_highest_of_16_bits_are_kept(change, tmp_path: Path) -> None:
    image = sitk.Cast(sitk.Clamp(changed(change), sitk.sitkFloat32, 0, 65535), sitk.sitkUInt16)
    scan = Scan.read(written(image, tmp_path / "a.nii"))
    assert_same_image(scan.image, sitk.Cast(image, sitk.sitkFloat32))
    assert not scan.warnings


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
    ({}, "3D_DIR.nii.gz", "other"), ({}, "dicom_dir", None), ({}, "DTI_64_DIR.nii", None), ({}, "s1_DIR-AP.nii", None),
    ({}, "mean_CBF.nii", "other"), ({"series_description": "Double Inversion Recovery"}, "x.dcm", "other"),
    ({}, "sub-01_space-T1w_FLAIR.nii.gz", "flair"), ({}, "sub-01_ses-T1_FLAIR.nii.gz", "flair"),
    ({}, "AX_T1_FLAIR.nii", "other"), ({}, "eADC.nii", "other"), ({}, "t2_spc_da-fl_sag_p2_iso.nii", "flair"),
    ({}, "Linda_FL.nii", None), ({}, "da_fl3d.nii", None), ({}, "t2_flash.nii", "other"),
    ({"series_description": "t2_tirm_tra_dark-fluid"}, "x.dcm", "flair"),
    ({"series_description": "t1_tirm_tra_dark-fluid"}, "x.dcm", "other"),
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


@pytest.mark.parametrize("links", [True, False])
def test_a_scan_is_its_own_whatever_lies_beside_it(tmp_path: Path, links: bool, monkeypatch: pytest.MonkeyPatch
                                                   ) -> None:
    """ITK takes the header of FILE.nii.gz and the voxels of FILE.nii."""
    head = small_head()
    written(sitk.Cast(head + 500, sitk.sitkFloat32), tmp_path / "flair.nii")
    if not links:
        monkeypatch.setattr(Path, "symlink_to", lambda *_: (_ for _ in ()).throw(OSError("no links here")))
    scan = Scan.read(written(head, tmp_path / "flair.nii.gz"))
    assert_same_image(scan.image, sitk.Cast(head, sitk.sitkFloat32))


def test_side_car_gives_tags_and_hint(tmp_path: Path) -> None:
    """Also one that begins with a byte-order mark, as some programs on Windows write it."""
    (tmp_path / "scan.json").write_text(json.dumps({"SeriesDescription": "AX T2 FLAIR", "EchoTime": 0.12,
                                                    "InversionTime": 2.5, "PatientName": "Doe^Jane",
                                                    "ProtocolName": "half a letter \udce4"}), encoding="utf-8-sig")
    scan = Scan.read(written(small_head(), tmp_path / "scan.nii.gz"))
    assert scan.tags == {"series_description": "AX T2 FLAIR", "protocol": "half a letter ?", "echo_time_ms": 120,
                         "inversion_time_ms": 2500}
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
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
    import MedVAELib
    with pytest.raises(AttributeError, match="nothing_here"):
        MedVAELib.nothing_here  # noqa: B018


@pytest.mark.parametrize(("suffix", "old"), [(".nrrd", "space: left-posterior-superior"), (".mha", "TransformMatrix")])
def test_text_headers_without_an_orientation_are_said(suffix: str, old: str, tmp_path: Path) -> None:
    path = written(small_head(), tmp_path / f"scan{suffix}")
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join(line for line in lines if not line.startswith(old.encode())))
    with contextlib.suppress(InputError):  # ITK may refuse what is left of it
        assert any("left and right" in warning for warning in Scan.read(path).warnings)
    assert not any("left and right" in w for w in Scan.read(written(small_head(), tmp_path / f"b{suffix}")).warnings)


def test_all_files_that_decide_a_scan_are_known(tmp_path: Path) -> None:
    detached = written(small_head(), tmp_path / "a.mhd")
    pair = written(small_head(), tmp_path / "b.hdr")
    single = written(small_head(), tmp_path / "flair.nii.gz")
    (tmp_path / "flair.json").write_text("{}")
    assert {file.name for file in files_of(detached)} == {"a.mhd", "a.raw"}
    assert {file.name for file in files_of(pair)} == {"b.hdr", "b.img"}
    assert {file.name for file in files_of(single)} == {"flair.nii.gz", "flair.json"}
    assert files_of(tmp_path / "nothing.mhd") == [tmp_path / "nothing.mhd"]
    folder = dicom_series(tmp_path / "dicom")
    (folder / "DICOMDIR").touch()
    assert set(files_of(folder)) == set(files_of(folder / "DICOMDIR")) == set(folder.iterdir())


def test_a_name_that_no_disk_takes_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        Scan.read(tmp_path / f"{300 * 'a'}.nii.gz")


def test_a_name_that_is_no_text_is_one_sentence(tmp_path: Path) -> None:
    """A byte of another code page, as old archives leave it: ITK would end the process."""
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/M\xfcller.nii.gz"))
    with pytest.raises(InputError, match="no UTF-8: rename it"):
        Scan.read(path)


@pytest.mark.parametrize(("system", "code_page", "alone"), [("posix", 0, False), ("nt", 1252, True),
                                                             ("nt", 65001, False)])
def test_where_itk_knows_all_letters(monkeypatch, system, code_page, alone) -> None:
    windows = SimpleNamespace(kernel32=SimpleNamespace(GetACP=lambda: code_page))
    with monkeypatch.context() as patched:
        patched.setattr(ctypes, "windll", windows, raising=False)
        patched.setattr(os, "name", system)
        found = itk_files._plain_letters_alone()
    assert found is alone


def test_names_that_itk_cannot_open_on_windows(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(itk_files, "_PLAIN_LETTERS_ALONE", True)
    monkeypatch.setattr(itk_files, "_short_name", lambda folder: "C:\\JRG~1" if "Jörg" in folder else folder)
    assert itk_files.itk_name(tmp_path / "a.nii") == str(tmp_path / "a.nii")
    assert itk_files.itk_name("/home/Jörg/a.nii") == os.path.join("C:\\JRG~1", "a.nii")
    for name in ("/home/Łukasz/a.nii", "/home/Jörg/größe.nii"):  # without a short name; no folder
        with pytest.raises(InputError, match="plain letters"):
            itk_files.itk_name(name)
