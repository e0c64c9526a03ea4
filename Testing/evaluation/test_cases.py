"""Finding cases in a folder."""

from __future__ import annotations

import pytest

from MedVAELib.errors import InputError
from MedVAELib.evaluation.cases import find_cases
from Testing.scan.scan_files import link


def write(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def test_cases_are_found_with_their_files(tmp_path):
    for name in ("b/flair.nii.gz", "b/mask1.nii.gz", "b/mask2.nii.gz", "b/brainmask.nii.gz", "a/dwi.nii.gz",
                 "c/flair_zscored.nii.gz", "c/labels.nii.gz", "healthy_1/flair.nii.gz", "notes/mask.nii.gz"):
        write(tmp_path / name)
    cases = {case.name: case for case in find_cases(tmp_path)}
    assert list(cases) == ["a", "b", "c", "healthy_1"]
    assert [case.kind for case in cases.values()] == ["no truth", "lesions", "lesions", "healthy"]
    assert (cases["b"].truth.name, cases["b"].second_rater.name) == ("mask1.nii.gz", "mask2.nii.gz")
    assert cases["b"].brain.name == "brainmask.nii.gz" and cases["a"].brain is None
    assert cases["c"].truth.name == "labels.nii.gz"


def test_a_networks_output_is_not_truth(tmp_path):
    write(tmp_path / "stroke" / "dwi.nii.gz")
    write(tmp_path / "stroke" / "automatic_lesion.nii.gz")
    assert find_cases(tmp_path)[0].kind == "no truth"


def test_a_case_folder_alone_is_one_case(tmp_path):
    write(tmp_path / "one" / "flair.nii.gz")
    assert [case.name for case in find_cases(tmp_path / "one")] == ["one"]


def test_linked_cases_keep_their_names_and_what_is_not_there_counts(tmp_path):
    for name in ("store/1/ses/flair.nii.gz", "store/2/ses/flair.nii.gz", "store/3/flair.nii.gz"):
        write(tmp_path / name)
    for name, target in (("p1", "1/ses"), ("p2", "2/ses"), ("healthy_3", "3")):
        link(tmp_path / "cases" / name, tmp_path / "store" / target)
    lost = link(tmp_path / "store" / "2" / "ses" / "mask.nii.gz", tmp_path / "not fetched")
    link(tmp_path / "cases" / "p4" / "flair.nii.gz", tmp_path / "not fetched")
    cases = {case.name: case for case in find_cases(tmp_path / "cases")}
    assert [(case.name, case.kind) for case in cases.values()] == [
        ("healthy_3", "healthy"), ("p1", "no truth"), ("p2", "lesions"), ("p4", "no truth")]
    assert cases["p2"].truth.resolve() == lost.resolve()


def test_no_case_is_said(tmp_path):
    with pytest.raises(InputError, match="holds no case"):
        find_cases(tmp_path)
    with pytest.raises(InputError, match="not a folder"):
        find_cases(tmp_path / "absent")
