"""`medvae prepare`: one table in the common format, a bad scan is a row, a second run does only what is missing."""

from __future__ import annotations

import csv
import shutil

import numpy as np
import pytest
import SimpleITK as sitk

from MedVAELib.cli.app import run
from MedVAELib.training.image_listing import find_images
from Testing.preprocessing.test_slices import volume


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
        "three,bad.nii.gz,p3,healthy,test,,,\n")  # fmt: skip
    return tmp_path


def prepare(folder, *options) -> int:
    return run(["prepare", str(folder / "scans.csv"), "--brain", "template", "--output", str(folder / "out"),
                "--progress", "none", *options])  # fmt: skip


def rows_of(folder, name="images.csv"):
    with (folder / "out" / name).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_patches_of_a_cohort(cohort, capsys):
    options = ("--preparation", "patches", "--size", "8", "--pixel", "3")
    assert prepare(cohort, *options) == 5
    assert "three" in capsys.readouterr().err
    rows = rows_of(cohort)
    assert list(rows[0]) == ["file", "case", "patient", "label", "split", "echo_time_ms", "lesion_fraction"]
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


def test_slices_of_a_cohort(cohort):
    assert prepare(cohort, "--preparation", "slices", "--axis", "coronal", "--from", "0.4", "--to", "0.6", "--size",
                   "48") == 5  # fmt: skip
    rows = rows_of(cohort)
    assert {row["label"] for row in rows} == {"stroke", "healthy"} and float(rows[0]["position_mm"]) < 0
    values = sitk.GetArrayFromImage(sitk.ReadImage(str(cohort / "out" / rows[0]["file"])))
    assert values.shape == (48, 48) and values.dtype == np.float32 and 0 <= values.min() < values.max() <= 1


def test_whole_brains_of_a_cohort(cohort):
    assert prepare(cohort) == 5
    rows = rows_of(cohort)
    assert [row["case"] for row in rows] == ["one", "two"] and rows[0]["label"] == "stroke"
    image = sitk.ReadImage(str(cohort / "out" / rows[0]["file"]))
    assert image.GetSize() == (40, 48, 40) and image.GetSpacing() == (4.0, 4.0, 4.0)
    values = sitk.GetArrayFromImage(image)
    assert values.min() == 0 and values.max() == 1 and 0.1 < (values > 0).mean() < 0.6


def test_wrong_usage(cohort, capsys):
    assert prepare(cohort, "--preparation", "slices", "--from", "0.9", "--to", "0.2") == 2
    assert run(["prepare", str(cohort / "a.nii.gz"), "--lesions", "x.csv", "--output", str(cohort / "out")]) == 2
    assert "--lesions" in capsys.readouterr().err


def test_the_table_of_scans_and_foreign_tables_are_never_overwritten(cohort, capsys):
    listed = (cohort / "scans.csv").read_text()
    (cohort / "images.csv").write_text(listed)
    assert run(["prepare", str(cohort / "images.csv"), "--output", str(cohort), "--progress", "none"]) == 2
    assert "images.csv" in capsys.readouterr().err and (cohort / "images.csv").read_text() == listed
    (cohort / "out").mkdir()
    (cohort / "out" / "images.csv").write_text("name,age\n")
    assert prepare(cohort) == 2 and (cohort / "out" / "images.csv").read_text() == "name,age\n"
