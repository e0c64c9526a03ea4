"""Which images there are: tables as spreadsheets and people write them, folders of the split, images listed twice."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from MedVAELib.errors import InputError
from MedVAELib.files.csv_files import as_numbers
from MedVAELib.training.image_listing import find_images
from MedVAELib.training.image_sets import read_images

from ..scan.scan_files import link
from .image_files import write_idx, write_pictures


def table(folder, text: str, encoding: str = "utf-8"):
    (folder / "images.csv").write_bytes(text.encode(encoding))
    return folder / "images.csv"


def test_blanks_around_values_do_not_count(tmp_path):
    text = "file,case,patient,label,site\n a.png ,a ,p01 , ill,x\nb.png,b,p01,ill , x\n"
    records = find_images(table(tmp_path, text))
    assert [record.patient for record in records] == ["p01", "p01"]
    assert [record.label for record in records] == ["ill", "ill"] and [record.case for record in records] == ["a", "b"]
    assert records[0].file == tmp_path / "a.png" and {record.tags["site"] for record in records} == {"x"}


@pytest.mark.parametrize("sign", [",", ";", "\t"])
def test_tables_as_spreadsheets_write_them(tmp_path, sign):
    lines = [" File ,PATIENT,Label,Echo", "", "a.png,p1,ill,3", ",,,", "b.png,p2,well,4", ""]
    records = find_images(table(tmp_path, "\r\n".join(lines).replace(",", sign), "utf-8-sig"))
    assert [(r.file.name, r.patient, r.label, r.tags) for r in records] == [
        ("a.png", "p1", "ill", {"Echo": 3.0}), ("b.png", "p2", "well", {"Echo": 4.0})]


@pytest.mark.parametrize("name", ["numbers.tsv", "numbers.TXT"])
def test_tables_under_other_names(tmp_path, name):
    table(tmp_path, "file\tpatient\na.png\tp1\n").rename(tmp_path / name)
    assert [record.patient for record in find_images(tmp_path / name)] == ["p1"]


def test_a_file_that_is_neither_image_nor_table(tmp_path):
    table(tmp_path, "PK").rename(tmp_path / "numbers.xlsx")
    with pytest.raises(InputError, match="numbers.xlsx is no image: if it is a table, save it as CSV"):
        find_images(tmp_path / "numbers.xlsx")


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-16-le"])
def test_other_encodings_are_one_sentence(tmp_path, encoding):
    text = "file,patient\na.png,p1\n" if encoding == "utf-16-le" else "file,patient\nä.png,Müller\n"
    with pytest.raises(InputError, match="images.csv is not a text file in UTF-8: export it as 'CSV UTF-8'") as error:
        find_images(table(tmp_path, text, encoding))
    assert "\n" not in str(error.value)


def test_a_line_is_named_by_its_number_in_the_file(tmp_path):
    with pytest.raises(InputError, match="line 4: split is 'trian'"):
        find_images(table(tmp_path, "file,patient,split\n\na.png,p,train\nb.png,q,trian\n"))


def test_the_split_has_its_names_in_any_case(tmp_path):
    write_pictures(tmp_path / "in", {"Train/a": 2, "Val/a": 2, "TEST/b": 2})
    records = find_images(tmp_path / "in")
    assert [record.split for record in records] == ["test"] * 2 + ["train"] * 2 + ["validation"] * 2
    assert [record.label for record in records] == ["b"] * 2 + ["a"] * 4
    lines = [f"{i}.png,p{i},{word}" for i, word in enumerate(("Train", "VAL", "valid", "Validation", "Test", ""))]
    records = find_images(table(tmp_path, "\n".join(["file,patient,split", *lines])))
    assert [record.split for record in records] == ["train", *["validation"] * 3, "test", ""]


def test_an_image_that_is_listed_twice_is_refused(tmp_path):
    write_pictures(tmp_path / "in", {"a": 2, "b": 1})
    lines = "file,case,patient\nin/a/0.png,x,p1\nin/b/../a/0.png,y,p2\n"
    with pytest.raises(InputError, match="0.png twice, as cases x and y and patients p1 and p2"):
        find_images(table(tmp_path, lines))
    with pytest.raises(InputError, match="twice, as cases x and y:"):
        find_images(table(tmp_path, lines.replace("p2", "p1")))
    write_idx(tmp_path, [1, 2])
    name = "t-images-idx3-ubyte.gz"
    rows = f"file,case,patient,idx_index\n{name},x,p,0\n{name},y,q,1\n"
    assert len(find_images(table(tmp_path, rows))) == 2
    with pytest.raises(InputError, match="twice"):
        find_images(table(tmp_path, rows.replace("q,1", "q,0")))
    assert len(find_images(tmp_path / "in" / "**" / "**" / "*.png")) == 3


def test_a_link_to_another_image_is_refused(tmp_path):
    write_pictures(tmp_path, {"a": 2})
    link(tmp_path / "a" / "again.png", tmp_path / "a" / "0.png")
    with pytest.raises(InputError, match="twice"):
        find_images(tmp_path)


def test_tags_with_leading_zeros_stay_text(tmp_path):
    records = find_images(table(tmp_path, "file,patient,site,te\na.png,p,01,0.5\nb.png,q,12,0\n"))
    assert [record.tags for record in records] == [{"site": "01", "te": 0.5}, {"site": "12", "te": 0.0}]


@pytest.mark.parametrize(("texts", "numbers"), [
    (("80", "n/a", "", "92.5"), [80.0, None, None, 92.5]), (("80", "92,5"), [80.0, 92.5]),
    (("1,500", "2,000"), None), (("1,500", "2,0"), [1.5, 2.0]), (("a", "2"), None), (("01", "2"), None),
])
def test_numbers_as_people_write_them(texts, numbers):
    found = as_numbers(texts)
    assert (found and [None if value != value else value for value in found]) == numbers


def test_the_patient_is_looked_for_below_the_source_of_every_kind(tmp_path):
    """Not in the folders above it, which may be named after one, too."""
    folder = tmp_path / "p99study"
    write_pictures(folder / "images", {"ill": 2})
    files = sorted((folder / "images" / "ill").iterdir())
    for number, file in enumerate(files):
        file.rename(file.with_name(f"p{number:02d}.png"))
    listed = table(folder, "file,patient\nimages/ill/p00.png,x\nimages/ill/p01.png,y\n")
    for source in (folder / "images", folder / "images" / "**" / "*.png", listed):
        assert [record.patient for record in find_images(source, patient=r"(p\d+)")] == ["p00", "p01"], source


def test_a_folder_that_is_the_patient_is_no_label(tmp_path):
    write_pictures(tmp_path, {"anna": 2, "bert": 2})
    records = find_images(tmp_path, patient=r"^([^/]+)/")
    assert {(record.patient, record.label) for record in records} == {("anna", ""), ("bert", "")}


def test_labels_are_chosen_before_folders_count_as_patients(tmp_path):
    write_pictures(tmp_path, {"anna": 2, "bert": 2})
    records = find_images(tmp_path, labels=["anna"], patient=r"^([^/]+)/")
    assert [(record.patient, record.label) for record in records] == [("anna", "")] * 2


def test_one_label_may_stand_alone(tmp_path):
    write_pictures(tmp_path, {"ill": 2, "l": 1})
    assert {record.label for record in find_images(tmp_path, labels="ill")} == {"ill"}


@pytest.mark.parametrize(("kind", "scaling"), [(np.uint8, "byte"), (np.uint16, "percentile")])
def test_grey_pictures_with_alpha(tmp_path, kind, scaling):
    values = np.random.default_rng(0).integers(0, np.iinfo(kind).max, (12, 16, 2)).astype(kind)
    sitk.WriteImage(sitk.GetImageFromArray(values, isVector=True), str(tmp_path / "grey.png"))
    images = read_images(tmp_path)
    assert images.scaling == scaling
    grey = values[..., 0].astype(np.float32)
    top = 255 if kind is np.uint8 else np.percentile(grey, 99.5)
    assert np.allclose(images.images[0, 0], np.clip(grey / top, 0, 1), atol=1e-6)
    (tmp_path / "grey.png").write_bytes((tmp_path / "grey.png").read_bytes()[:-30])
    with pytest.raises(InputError, match="grey.png is no image that can be read"):
        read_images(tmp_path)


@pytest.mark.parametrize("texts", [["1_2", "3_4"], ["infinity", "1"], ["0x10"], ["1e"], ["1,2,3"]])
def test_what_only_python_takes_for_numbers_is_text(texts):
    assert as_numbers(texts) is None
