"""Reading images to learn from: folders, tables, globs, idx files; PNG, NIfTI and DICOM; and clear refusals."""

from __future__ import annotations

import errno
import gzip
import json
import os
import shutil
import struct
import weakref
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from MedVAELib.errors import Cancelled, InputError, UsageError
from MedVAELib.files import dicom, whole_files
from MedVAELib.preprocessing.image_form import ImageForm
from MedVAELib.progress import CancelToken
from MedVAELib.training.image_listing import find_images
from MedVAELib.training.image_sets import load_images, read_images

from ..scan.scan_files import link
from .image_files import write_dicom_series, write_idx, write_pictures, write_volumes


def test_folder_with_labels_and_split(tmp_path):
    write_pictures(tmp_path, {"train/a": 4, "train/b": 4, "test/a": 2})
    images = read_images(tmp_path, validation=0.25)
    assert images.images.shape == (10, 1, 12, 16) and images.scaling == "byte" and images.spacing_mm is None
    assert images.images.dtype == np.float32 and 0.9 < images.images.max() <= 1
    assert set(images.labels) == {"a", "b"}
    assert [len(images.part(name)) for name in ("train", "validation", "test")] == [6, 2, 2]
    one = images.cases.index("train-a-0")
    pixels = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "train" / "a" / "0.png")))
    assert np.allclose(images.images[one, 0], pixels / 255)


def test_the_patient_from_the_name(tmp_path):
    for side in "LR":
        write_pictures(tmp_path, {"": 6}, suffix=f"{side}.png")
    images = read_images(tmp_path, patient=r"(\d+)[LR]\.", validation=0.3, test=0.2)
    assert len(set(images.patients)) == 6 and len(images) == 12
    for name in ("train", "validation", "test"):
        part = images.part(name)
        assert len(part) == 2 * len(set(part.patients))
    with pytest.raises(InputError, match="finds no patient"):
        read_images(tmp_path, patient=r"p(\d+)")


def test_table_with_tags(tmp_path):
    write_volumes(tmp_path, 3)
    rows = ["file,case,patient,label,split,tr_ms,scanner", "0.nii.gz,a,p1,ms,train,9000,x",
            "1.nii.gz,b,p2,healthy,validation,,y", "2.nii.gz,c,p3,ms,test,8000,z"]
    (tmp_path / "images.csv").write_text("\n".join(rows))
    images = read_images(tmp_path / "images.csv")
    assert images.cases == ["a", "b", "c"] and images.splits == ["train", "validation", "test"]
    assert images.tags["scanner"] == ["x", "y", "z"] and images.tags["tr_ms"][0] == 9000
    assert np.isnan(images.tags["tr_ms"][1])
    assert images.spacing_mm == (5.0, 3.0, 2.0) and images.shape == (8, 10, 12)


def test_volumes_lie_alike_however_they_are_stored(tmp_path):
    write_volumes(tmp_path, 1)
    volume = sitk.ReadImage(str(tmp_path / "0.nii.gz"))
    sitk.WriteImage(sitk.DICOMOrient(volume, "PIR"), str(tmp_path / "turned.nii.gz"))
    images = read_images(tmp_path, shape=(8, 10, 12), scaling="percentile")
    assert np.allclose(images.images[0], images.images[1])
    assert images.labels == ["", ""]


def test_glob_and_pattern(tmp_path):
    write_pictures(tmp_path, {"a": 3, "b": 2})
    (tmp_path / "a" / "notes.txt").write_text("no image")
    by_glob = read_images(str(tmp_path / "*" / "*.png"))
    assert sorted(by_glob.labels) == ["a"] * 3 + ["b"] * 2
    assert len(read_images(tmp_path, pattern="a/*.png")) == 3
    assert read_images(tmp_path, labels=["b"]).labels == ["b", "b"]
    assert len(read_images(tmp_path, limit=3)) == 3
    with pytest.raises(InputError, match="no images labelled c"):
        read_images(tmp_path, labels=["c"])


def test_a_folder_per_case_is_no_label(tmp_path):
    for case in ("one", "two"):
        write_volumes(tmp_path / case, 1)
    images = read_images(tmp_path)
    assert images.labels == ["", ""] and images.cases == ["one-0", "two-0"]


def test_idx(tmp_path):
    pictures = write_idx(tmp_path, [3, 1, 3, 0])
    images = read_images(tmp_path / "t-images-idx3-ubyte.gz", labels=["3"])
    assert images.labels == ["3", "3"] and np.allclose(images.images[:, 0], pictures[[0, 2]] / 255)
    assert len(set(images.patients)) == 2
    (tmp_path / "cut-images-idx3-ubyte.gz").write_bytes(gzip.compress(struct.pack(">4I", 0x803, 9, 4, 4) + b"12"))
    with pytest.raises(InputError, match="no complete idx"):
        read_images(tmp_path / "cut-images-idx3-ubyte.gz")


def test_dicom_files_are_pictures_or_slices(tmp_path):
    """What a file is follows from the shape that is asked for."""
    volume = write_dicom_series(tmp_path / "series")
    pictures = read_images(tmp_path, shape=(10, 12), scaling="percentile")
    assert len(pictures) == 8 and pictures.tags["repetition_time_ms"] == [9000.0] * 8
    whole = read_images(tmp_path, shape=(8, 10, 12), scaling="percentile")
    assert len(whole) == 1 and whole.spacing_mm == (5.0, 3.0, 2.0)
    expected = ImageForm((8, 10, 12), scaling="percentile").apply(volume, "volume")
    assert np.allclose(whole.images[0, 0], expected, atol=0.02)
    assert whole.tags["repetition_time_ms"] == [9000.0]


@pytest.mark.parametrize("kind", ["4", "1", "1.1", "12.1"])
@pytest.mark.parametrize("own, detector, expected", [
    ("3\\2", "", (3.0, 2.0)), ("3\\2", "4\\5", (3.0, 2.0)), ("", "4\\5", (4.0, 5.0)), ("", "", None),
])
def test_dicom_pictures_have_their_pixel_spacing_or_that_at_the_detector(tmp_path, kind, own, detector, expected):
    """MR, which has no detector, and the radiographs CR, DX and XA."""
    write_dicom_series(tmp_path)
    for file in tmp_path.iterdir():
        header = pydicom.dcmread(file)
        header.SOPClassUID = header.file_meta.MediaStorageSOPClassUID = f"1.2.840.10008.5.1.4.1.1.{kind}"
        header.PixelSpacing, header.ImagerPixelSpacing = own, detector
        header.save_as(file)
    assert read_images(tmp_path, shape=(10, 12)).spacing_mm == (None if kind == "4" and not own else expected)


def test_dicom_files_of_one_patient_stay_together(tmp_path):
    """By the header, wherever they lie and whatever they are called; one that says nothing counts by the study."""
    for n, patient in enumerate(("4711", "4712", "4711", "ANONYMOUS")):
        tags = {"0010|0020": patient, "0020|000d": f"1.9.{n}"}
        write_dicom_series(tmp_path / f"scan{n}", n, f"1.2.{n}", **tags)
    for dimensions in (2, 3):
        records = find_images(tmp_path, dimensions=dimensions)
        scans = [{record.patient for record in records if f"scan{n}" in record.name} for n in range(4)]
        assert scans[0] == scans[2] and len(set.union(*scans)) == 3, dimensions
        assert not any("4711" in str(vars(record)) for record in records)
    said = []
    for pattern, warnings in (r"(scan)\d", 0), (r"(scan\d)", 1):
        find_images(tmp_path, patient=pattern, dimensions=3, progress=lambda *told: said.append(told))
        assert [stage for stage, *_ in said] == ["warning"] * warnings
    assert "scan0 and scan2" in said[0][2]


def test_patient_ids_that_are_placeholders_name_nobody(tmp_path):
    """One with a number may be somebody's."""
    nobody = ("Anonymous Patient", "NULL", "(null)", "UNDEFINED", "NOID", "no name", "PHANTOM", "Test Patient", "TEST")
    somebody = ("1", "ANON 01", "anonymous_1", "TEST2", "Noah", "Testa")
    for n, patient in enumerate(2 * (*nobody, *somebody)):
        tags = {"0010|0020": patient, "0020|000d": f"1.9.{n}"}
        write_dicom_series(tmp_path / f"scan{n}", n, f"1.2.{n}", **tags)
    records = find_images(tmp_path, dimensions=3)
    assert len({record.patient for record in records}) == 2 * len(nobody) + len(somebody)


def test_a_patient_id_that_most_studies_share_names_nobody(tmp_path):
    for n, patient in enumerate(("ANON 01", "ANON 01", "ANON 01", "4711", "4711", "4712")):
        write_dicom_series(tmp_path / f"scan{n}", n, f"1.2.{n}", **{"0010|0020": patient, "0020|000d": f"1.9.{n}"})
    said = []
    records = find_images(tmp_path, dimensions=3, progress=lambda *told: said.append(told))
    assert len({record.patient for record in records}) == 3 and not said  # half of all studies may be one patient's
    shutil.rmtree(tmp_path / "scan5")
    for dimensions in (2, 3):
        records = find_images(tmp_path, dimensions=dimensions, progress=lambda *told: said.append(told))
        assert len({record.patient for record in records}) == 4
        assert len({record.patient for record in records if "scan3" in record.name or "scan4" in record.name}) == 1
    assert [stage for stage, *_ in said] == ["warning"] * 2 and "of 3 studies" in said[0][2]
    find_images(tmp_path, patient=r"(scan\d)", dimensions=3, progress=lambda *told: said.append(told))
    assert len(said) == 3 and "whom data.patient calls" in said[2][2], "one named by hand needs no such warning"


def test_fit(tmp_path):
    write_pictures(tmp_path, {"": 1})
    with pytest.raises(InputError, match="12 × 16 voxels where 8 × 8 .*fit"):
        read_images(tmp_path, shape=(8, 8))
    exact = read_images(tmp_path).images[0, 0]
    cropped = read_images(tmp_path, shape=(8, 20), fit="crop").images[0, 0]
    assert np.allclose(cropped[:, 2:18], exact[2:10]) and not cropped[:, :2].any()
    stretched = read_images(tmp_path, shape=(24, 32), fit="stretch").images[0, 0]
    assert abs(stretched.mean() - exact.mean()) < 0.02


def test_store_is_mapped_and_made_anew_when_something_changed(tmp_path):
    write_pictures(tmp_path / "in", {"": 4})
    store = tmp_path / "store" / "images.npy"
    first = read_images(tmp_path / "in", store=store)
    assert isinstance(first.images, np.memmap) and not first.images.flags.writeable
    made = store.stat().st_mtime_ns
    again = read_images(tmp_path / "in", store=store)
    assert store.stat().st_mtime_ns == made and again.scaling == "byte" and np.array_equal(first.images, again.images)
    assert np.shares_memory(again.select([1, 2]).images, again.images)
    write_pictures(tmp_path / "in", {"": 5})
    assert len(read_images(tmp_path / "in", store=store).images) == 5
    assert sorted(file.name for file in store.parent.iterdir()) == ["images.npy", "images.npy.json"]
    (tmp_path / "mine.npy").write_text("something else")
    with pytest.raises(InputError, match="something else"):
        read_images(tmp_path / "in", store=tmp_path / "mine.npy")


def test_a_store_that_cannot_be_written_is_said_in_a_sentence(tmp_path, monkeypatch):
    """Windows replaces no file that another training reads."""
    write_pictures(tmp_path / "in", {"": 4})
    store, replace = tmp_path / "store" / "images.npy", os.replace
    read_images(tmp_path / "in", store=store)
    write_pictures(tmp_path / "in", {"": 5})

    def in_use(source, target):
        if target == store:
            raise PermissionError(errno.EACCES, "Access is denied", str(source), None, str(target))
        replace(source, target)

    monkeypatch.setattr(os, "replace", in_use)
    with pytest.raises(UsageError, match=r"Access is denied.*data\.store"):
        read_images(tmp_path / "in", store=store)
    assert len(np.load(store)) == 4 and len(list(store.parent.iterdir())) == 2
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"data\.store"):
        read_images(tmp_path / "in", store=tmp_path / "file" / "images.npy")


def test_cancelling_leaves_no_store(tmp_path):
    write_pictures(tmp_path / "in", {"": 4})
    token = CancelToken()
    with pytest.raises(Cancelled):
        read_images(tmp_path / "in", store=tmp_path / "images.npy", cancel=token,
                    progress=lambda stage, fraction, message="": token.cancel())
    assert [file.name for file in tmp_path.iterdir()] == ["in"]


def _colours(folder: Path) -> None:
    values = np.random.default_rng(0).integers(0, 255, (12, 16, 3), np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(values, isVector=True), str(folder / "rgb.png"))


def _not_finite(folder: Path) -> None:
    values = np.zeros((8, 10, 12), np.float32)
    values[4] = np.nan
    sitk.WriteImage(sitk.GetImageFromArray(values), str(folder / "x.mha"))


def _cut_short(folder: Path) -> None:
    write_volumes(folder, 1)
    file = folder / "0.nii.gz"
    file.write_bytes(file.read_bytes()[:-200])


def _damaged(folder: Path) -> None:
    (folder / "x.png").write_bytes(b"\x89PNG no more")


def _mixed(folder: Path) -> None:
    write_pictures(folder, {"": 1})
    write_volumes(folder, 1)


def _table(text: str):
    return lambda folder: (folder / "images.csv").write_text(text)


@pytest.mark.parametrize(("prepare", "source", "words"), [
    (lambda folder: None, "", "holds no images"),
    (lambda folder: None, "missing", "does not exist"),
    (_colours, "", "colours"),
    (_not_finite, "", "not numbers"),
    (_cut_short, "", "truncated"),
    (_damaged, "", "x.png"),
    (_mixed, "", "picture|volume"),
    (_table("file,case\na.png,a\n"), "images.csv", "no column 'patient'"),
    (_table("file,patient,split\na.png,p,trian\n"), "images.csv", "line 2: split is 'trian'"),
    (_table("file,patient\na.png,\n"), "images.csv", "line 2"),
    (_table("file,patient\na.png,p\nb/a.png,q\n"), "images.csv", "case a more than once"),
    (_table("file,patient\na.png,p\n"), "images.csv", "a.png does not exist"),
    *((lambda folder, name=name: link(folder / name, folder / "not fetched"), "", f"{name} does not exist")
      for name in ("a.png", "a.nii.gz", "a.dcm")),
])
def test_refusals_are_one_sentence_that_names_the_file(tmp_path, prepare, source, words):
    prepare(tmp_path)
    with pytest.raises(InputError, match=words) as error:
        read_images(tmp_path / source)
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)


def test_series_of_one_folder_are_one_patient_and_sub_folders_are_listed_once(tmp_path):
    for patient in ("p01", "p02"):
        write_dicom_series(tmp_path / patient, seed=0, uid="1.2.1")
        write_dicom_series(tmp_path / patient, seed=1, uid="1.2.2", prefix="b")
        write_dicom_series(tmp_path / patient / "later", seed=2, uid="1.2.1")  # under one UID by mistake
    records = find_images(tmp_path, dimensions=3)
    assert len(records) == 6 and len({(record.file, record.series) for record in records}) == 6
    first = [record for record in records if record.file.name == "p01"]
    assert len(first) == 2 and len({record.patient for record in first}) == 1 and len({r.case for r in first}) == 2
    images = load_images(records, ImageForm((8, 10, 12), scaling="percentile"))
    by_folder = dict(zip((Path(file).name for file in images.files), images.images, strict=True))
    assert not np.allclose(by_folder["p01"], by_folder["later"]), "each from its own folder"


def test_volumes_that_share_a_series_are_read_one_by_one(tmp_path, monkeypatch):
    volumes = [write_dicom_series(tmp_path / "dwi", seed=number, prefix=b_value, **{"0018|9087": b_value})
               for number, b_value in enumerate(("0", "1000"))]
    records = find_images(tmp_path, dimensions=3)
    assert [record.tags["b_value"] for record in records] == [0.0, 1000.0]
    headers, read = [], dicom.find_volumes
    monkeypatch.setattr(dicom, "find_volumes", lambda *given, **how: headers.append(given) or read(*given, **how))
    form = ImageForm((8, 10, 12), scaling="percentile")
    images = load_images(records, form)
    assert len(headers) == 1, "the folder's headers are read once"
    for image, volume in zip(images.images[:, 0], volumes, strict=True):
        assert np.allclose(image, form.apply(volume, "volume"), atol=0.02)


def test_a_store_that_is_not_filled_is_closed_before_it_is_removed(tmp_path, monkeypatch):
    """Windows removes no file that is open."""
    opened, still_open = [], []

    def open_memmap(*arguments, real=np.lib.format.open_memmap):
        made = real(*arguments)
        opened.append(weakref.ref(made))
        return made

    def remove(path, real=whole_files.remove_temporary):
        still_open.extend(each for each in opened if each() is not None)
        real(path)

    monkeypatch.setattr(np.lib.format, "open_memmap", open_memmap)
    monkeypatch.setattr(whole_files, "remove_temporary", remove)
    write_pictures(tmp_path / "in", {"": 3})
    (tmp_path / "in" / "2.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match="2.png"):
        read_images(tmp_path / "in", store=tmp_path / "images.npy")
    assert opened and not still_open and not (tmp_path / "images.npy").exists()


def test_a_store_with_broken_notes_is_filled_anew(tmp_path):
    write_volumes(tmp_path / "scans", 2)
    store = tmp_path / "store.npy"
    before = read_images(tmp_path / "scans", store=store).images.copy()
    (tmp_path / "store.npy.json").write_text('{"images": "12')
    assert np.array_equal(read_images(tmp_path / "scans", store=store).images, before)
    assert json.loads((tmp_path / "store.npy.json").read_text())["images"]


def test_generated_images_are_never_held_back(tmp_path):
    write_pictures(tmp_path, {"": 12})
    lines = [f"{i}.png,p{i},train,{'a-model' if i > 4 else ('n/a', '')[i % 2]}" for i in range(12)]
    table = tmp_path / "images.csv"
    table.write_text("file,patient,split,generated_by\n" + "\n".join(lines) + "\n")
    images = read_images(table, validation=0.3)
    for told in (images, read_images(table).with_split(0.3, 0.0, 0)):
        held_back = told.part("validation")
        assert len(held_back) and {Path(file).name for file in held_back.files} <= {f"{i}.png" for i in range(5)}


def test_generated_images_do_not_change_how_the_others_are_scaled(tmp_path):
    write_volumes(tmp_path, 2, scale=1.0)
    write_volumes(tmp_path / "bright", 1, scale=255.0)
    rows = ["file,case,patient,generated_by", "0.nii.gz,a,p,", "1.nii.gz,b,q,", "bright/0.nii.gz,c,r,vae-8"]
    (tmp_path / "images.csv").write_text("\n".join(rows))
    with pytest.raises(InputError, match="bright.* another scale .* by percentile instead of unit"):
        read_images(tmp_path / "images.csv")
    (tmp_path / "images.csv").write_text("\n".join(rows).replace("vae-8", ""))
    assert read_images(tmp_path / "images.csv").scaling == "percentile"


def test_voxels_of_several_sizes_have_a_usual_one(tmp_path):
    write_volumes(tmp_path, 3)
    said = []
    assert read_images(tmp_path, progress=lambda *told: said.append(told)).spacing_mm == (5.0, 3.0, 2.0)
    assert "warning" not in {stage for stage, *_ in said}
    wider = sitk.ReadImage(str(tmp_path / "2.nii.gz"))
    wider.SetSpacing((2.0, 3.0, 7.0))
    sitk.WriteImage(wider, str(tmp_path / "2.nii.gz"))
    assert read_images(tmp_path, progress=lambda *told: said.append(told)).spacing_mm == (5.0, 3.0, 2.0)
    assert [message for stage, _, message in said if stage == "warning"][0].endswith("5 × 3 × 2 mm.")


def test_a_scan_is_one_patients(tmp_path):
    write_pictures(tmp_path, {"": 2})
    table = tmp_path / "images.csv"
    table.write_text("file,patient,scan\n0.png,p,s.nii.gz\n1.png,p,s.nii.gz\n")
    assert len(read_images(table)) == 2
    table.write_text("file,patient,scan\n0.png,p,s.nii.gz\n1.png,q,s.nii.gz\n")
    with pytest.raises(InputError, match="s.nii.gz, for the patients p and q"):
        read_images(table)
