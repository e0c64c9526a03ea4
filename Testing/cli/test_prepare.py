"""`medvae prepare`: one table in the common format, a bad scan is a row, a second run does only what is missing."""

from __future__ import annotations

import csv
import json
import re
import shutil

import numpy as np
import pytest
import SimpleITK as sitk

from MedVAELib.cli.app import run
from MedVAELib.made_with import made_with
from MedVAELib.training.image_listing import find_images
from Testing.preprocessing.test_slices import volume
from Testing.scan.scan_files import dicom_series


@pytest.fixture
def cohort(tmp_path):
    """Two scans with brain masks, one with a lesion, and a file that is none."""
    image, mask = volume()
    lesion = sitk.Image(image.GetSize(), sitk.sitkUInt8)
    lesion.CopyInformation(image)
    lesion[20:30, 20:30, 18:22] = 1
    for name, what in (("a", image), ("b", image * 2), ("mask", mask), ("lesion", lesion)):
        sitk.WriteImage(what, str(tmp_path / f"{name}.nii.gz"))
    (tmp_path / "bad.nii.gz").write_bytes(b"no image")
    (tmp_path / "scans.csv").write_text(
        "case,scan,patient,label,split,brain,lesion,echo_time_ms\n"
        "one,a.nii.gz,p1,stroke,train,mask.nii.gz,lesion.nii.gz,90\n"
        "two,b.nii.gz,p2,healthy,test,mask.nii.gz,,120\n"
        "three,bad.nii.gz,p3,healthy,test,,,\n")
    return tmp_path


def prepare(folder, *options) -> int:
    return run(["prepare", str(folder / "scans.csv"), "--brain", "template", "--output", str(folder / "out"),
                "--progress", "none", *options])


def rows_of(folder, name="images.csv"):
    with (folder / "out" / name).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_patches_of_a_cohort(cohort, capsys):
    options = ("--preparation", "patches", "--size", "8", "--pixel", "3")
    assert prepare(cohort, *options) == 5
    assert "three" in capsys.readouterr().err
    rows = rows_of(cohort)
    assert list(rows[0]) == ["file", "case", "patient", "label", "split", "scan", "echo_time_ms", "lesion_fraction"]
    assert {row["patient"] for row in rows} == {"p1", "p2"} and len({row["case"] for row in rows}) == len(rows)
    assert {row["label"] for row in rows if row["patient"] == "p2"} == {"healthy"}  # a healthy scan needs no mask
    assert {"lesion", "healthy"} <= {row["label"] for row in rows if row["patient"] == "p1"}
    records = find_images(cohort / "out" / "images.csv")
    assert sitk.ReadImage(str(records[0].file)).GetSize() == (8, 8) and records[0].tags["echo_time_ms"] == 90
    summary = rows_of(cohort, "summary.csv")
    assert [row["status"] for row in summary] == ["done", "done", "failed"]

    written = (cohort / "out" / rows[0]["file"]).stat().st_mtime_ns
    shutil.copy(cohort / "a.nii.gz", cohort / "bad.nii.gz")
    text = (cohort / "scans.csv").read_text()
    (cohort / "scans.csv").write_text(text.replace("p3,healthy,test,,", "p3,healthy,test,mask.nii.gz,"))
    assert prepare(cohort, *options, "--resume") == 0
    assert (cohort / "out" / rows[0]["file"]).stat().st_mtime_ns == written
    assert {row["patient"] for row in rows_of(cohort)} == {"p1", "p2", "p3"}


def test_slices_of_a_cohort(cohort, capsys):
    assert prepare(cohort, "--preparation", "slices", "--axis", "coronal", "--from", "0.4", "--to", "0.6", "--size",
                   "48") == 5
    rows = rows_of(cohort)
    assert float(rows[0]["pixel_mm"]) == pytest.approx(224 / 48, abs=1e-3) and "outside" not in capsys.readouterr().err
    assert {row["label"] for row in rows} == {"stroke", "healthy"} and float(rows[0]["position_mm"]) < 0
    values = sitk.GetArrayFromImage(sitk.ReadImage(str(cohort / "out" / rows[0]["file"])))
    assert values.shape == (48, 48) and values.dtype == np.float32 and 0 <= values.min() < values.max() <= 1


def test_slices_that_cut_off_brain_are_told_of(cohort, capsys):
    assert prepare(cohort, "--preparation", "slices", "--every", "9", "--size", "16", "--pixel", "3") == 5
    assert re.search(r"a.nii.gz: up to \d\d % of", capsys.readouterr().err)
    assert "lie outside its square of 16 pixels of 3 mm" in rows_of(cohort, "summary.csv")[0]["message"]


def test_whole_brains_of_a_cohort(cohort):
    assert prepare(cohort) == 5
    rows = rows_of(cohort)
    assert [row["case"] for row in rows] == ["one", "two"] and rows[0]["label"] == "stroke"
    image = sitk.ReadImage(str(cohort / "out" / rows[0]["file"]))
    assert image.GetSize() == (40, 48, 40) and image.GetSpacing() == (4.0, 4.0, 4.0)
    assert image.GetMetaData("sform_code") == image.GetMetaData("qform_code") == "4"  # MNI space
    values = sitk.GetArrayFromImage(image)
    assert values.min() == 0 and values.max() == 1 and 0.1 < (values > 0).mean() < 0.6


def test_masks_are_read_by_their_headers_and_labels_of_any_number_are_one(cohort):
    options = ("--preparation", "patches", "--size", "8", "--pixel", "2", "--every", "4")
    mask = sitk.ReadImage(str(cohort / "mask.nii.gz"))
    mask[:20, :25, :] = 0  # not alike from both sides
    sitk.WriteImage(mask, str(cohort / "mask.nii.gz"))
    prepare(cohort, *options)
    expected = rows_of(cohort)
    for name in ("mask", "lesion"):
        image = sitk.ReadImage(str(cohort / f"{name}.nii.gz"))
        sitk.WriteImage(sitk.Flip(image * 255, (True, True, False)), str(cohort / f"{name}.nii.gz"))
    before = sitk.GetArrayFromImage(sitk.ReadImage(str(cohort / "out" / expected[-1]["file"])))
    assert prepare(cohort, *options, "--resume") == 5 and rows_of(cohort) == expected
    after = sitk.GetArrayFromImage(sitk.ReadImage(str(cohort / "out" / expected[-1]["file"])))
    assert np.array_equal(before, after)


@pytest.mark.parametrize("name", ["mask", "lesion"])
def test_a_mask_of_another_place_is_refused(cohort, name, capsys):
    image = sitk.ReadImage(str(cohort / f"{name}.nii.gz"))
    image.SetOrigin([value + 1000 for value in image.GetOrigin()])
    sitk.WriteImage(image, str(cohort / f"{name}.nii.gz"))
    assert prepare(cohort, "--preparation", "patches", "--every", "9") == 5
    assert f"{name}.nii.gz lies outside its scan" in capsys.readouterr().err
    assert "p1" not in {row["patient"] for row in rows_of(cohort)}


def test_warnings_of_a_scan_are_told_and_kept(cohort, capsys):
    image = sitk.ReadImage(str(cohort / "a.nii.gz"))
    image[0, 0, 0] = float("nan")
    sitk.WriteImage(image, str(cohort / "a.nii.gz"))
    for more in ((), ("--resume",)):
        assert prepare(cohort, "--preparation", "slices", "--every", "9", *more) == 5
        told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("medvae: warning: ")]
        first, second, _ = rows_of(cohort, "summary.csv")
        assert "not finite" in first["message"] and second["message"] == ""
        assert told == ([] if more else [f"medvae: warning: {first['message']}"])  # as detect: once, when it is made
    made = json.loads((cohort / "out" / "one" / "provenance.json").read_text(encoding="utf-8"))
    assert made["warnings"] == [first["message"]] and set(made_with()) <= set(made)


def test_a_series_is_chosen_for_all_or_in_the_table(tmp_path, capsys):
    image, mask = volume()
    image = sitk.Cast(image, sitk.sitkInt16)
    for number, name in enumerate(("flair", "dwi"), 1):
        dicom_series(tmp_path / "patient", image * number, f"1.2.{number}", name, prefix=name)
    sitk.WriteImage(mask, str(tmp_path / "mask.nii.gz"))
    table, options = tmp_path / "scans.csv", ("--preparation", "slices", "--every", "9")
    table.write_text("case,scan,brain,modality\none,patient,mask.nii.gz,DWI\n")
    assert prepare(tmp_path, *options) == 5 and "2 DICOM series" in capsys.readouterr().err
    assert prepare(tmp_path, *options, "--series", "flair") == 0
    provenance = tmp_path / "out" / "one" / "provenance.json"

    def made() -> tuple[str, int]:
        return json.loads(provenance.read_text(encoding="utf-8"))["request"]["series"], provenance.stat().st_mtime_ns

    first = made()
    assert first[0] == "flair" and rows_of(tmp_path)[0]["modality"] == "DWI"  # which is a tag
    assert prepare(tmp_path, *options, "--series", "flair", "--resume") == 0 and made() == first
    table.write_text("case,scan,brain,series\none,patient,mask.nii.gz,dwi\n")
    assert prepare(tmp_path, *options, "--series", "flair", "--resume") == 0
    assert made()[0] == "dwi" and "series" not in rows_of(tmp_path)[0]


def test_wrong_usage(cohort, capsys):
    assert prepare(cohort, "--preparation", "slices", "--from", "0.9", "--to", "0.2") == 2
    assert run(["prepare", str(cohort / "a.nii.gz"), "--lesions", "x.csv", "--output", str(cohort / "out")]) == 2
    assert "--lesions" in capsys.readouterr().err
    (cohort / "scans.csv").rename(cohort / "scans.TSV")
    assert run(["prepare", str(cohort / "scans.TSV"), "--lesions", "x.csv", "--output", str(cohort / "out")]) == 3
    assert "x.csv does not exist" in capsys.readouterr().err


def test_the_table_of_scans_and_foreign_tables_are_never_overwritten(cohort, capsys):
    listed = (cohort / "scans.csv").read_text()
    (cohort / "images.csv").write_text(listed)
    assert run(["prepare", str(cohort / "images.csv"), "--output", str(cohort), "--progress", "none"]) == 2
    assert "images.csv" in capsys.readouterr().err and (cohort / "images.csv").read_text() == listed
    (cohort / "out").mkdir()
    (cohort / "out" / "images.csv").write_text("name,age\n")
    assert prepare(cohort) == 2 and (cohort / "out" / "images.csv").read_text() == "name,age\n"


def test_acquisition_tags_of_a_scan_go_with_its_images(tmp_path):
    image, mask = volume()
    dicom_series(tmp_path / "patient", sitk.Cast(image, sitk.sitkInt16), "1.2.1", "flair", _0018_0081="82")
    sitk.WriteImage(mask, str(tmp_path / "mask.nii.gz"))
    sitk.WriteImage(image, str(tmp_path / "b.nii.gz"))
    (tmp_path / "b.json").write_text('{"EchoTime": 0.11, "Manufacturer": "A"}')
    (tmp_path / "scans.csv").write_text("case,scan,brain,manufacturer\none,patient,mask.nii.gz,\n"
                                        "two,b.nii.gz,mask.nii.gz,B\n")
    assert prepare(tmp_path, "--preparation", "slices", "--every", "20") == 0
    found = {row["case"][:3]: (float(row["echo_time_ms"]), row["manufacturer"]) for row in rows_of(tmp_path)}
    assert found == {"one": (82.0, ""), "two": (110.0, "B")}, "what the table says of a tag counts"


def test_one_scan_for_two_patients_is_refused(cohort, capsys):
    (cohort / "scans.csv").write_text("case,scan,patient\na,a.nii.gz,p\nb,a.nii.gz,q\n")
    assert prepare(cohort, "--preparation", "slices") == 3 and "patients p and q" in capsys.readouterr().err
    assert not (cohort / "out").exists()
