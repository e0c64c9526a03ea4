"""A patient is never in two parts, whatever the images, labels and shares are."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from MedVAELib.errors import InputError
from MedVAELib.training.image_split import assign_parts, count_in_words, likely_patient

IMAGES = st.lists(st.tuples(st.integers(0, 30), st.sampled_from(["", "a", "b"])), min_size=1, max_size=80)
SHARES = st.tuples(st.floats(0.01, 0.45), st.floats(0, 0.45))


@settings(deadline=None, max_examples=300)
@given(IMAGES, SHARES, st.integers(0, 5), st.dictionaries(st.integers(0, 30), st.sampled_from(["train", "test"])))
def test_no_patient_is_in_two_parts(images, shares, seed, stated):
    patients = [f"p{number}" for number, _ in images]
    labels = [label for _, label in images]
    given_parts = [stated.get(number, "") for number, _ in images]
    try:
        parts = assign_parts(patients, labels, given_parts, *shares, seed)
    except InputError:
        train = {patient for patient, part in zip(patients, given_parts, strict=True) if part != "test"}
        assert len(train) <= 2 or shares[0] + shares[1] > 0.5  # only what is too little is refused
        return
    of_patient, free = {}, {patient for patient, part in zip(patients, given_parts, strict=True) if not part}
    for patient, part, wanted in zip(patients, parts, given_parts, strict=True):
        assert of_patient.setdefault(patient, part) == part
        assert part == wanted or not wanted or (wanted == "train" and part == "validation" and len(free) < 2)
    assert {"train", "validation"} <= set(of_patient.values())


def test_shares_hold_in_every_label():
    patients = [f"p{i:03d}" for i in range(200)]
    labels = ["a"] * 150 + ["b"] * 50
    parts = assign_parts(patients, labels, [""] * 200, 0.2, 0.1, 0)
    assert Counter(zip(labels, parts, strict=True)) == {
        ("a", "train"): 105, ("a", "validation"): 30, ("a", "test"): 15,
        ("b", "train"): 35, ("b", "validation"): 10, ("b", "test"): 5,
    }


def test_the_draw_depends_on_seed_and_names_alone():
    patients = [f"p{i}" for i in range(40)]
    forward = dict(zip(patients, assign_parts(patients, [""] * 40, [""] * 40, 0.2, 0.2, 1), strict=True))
    backward = assign_parts(patients[::-1], [""] * 40, [""] * 40, 0.2, 0.2, 1)
    assert [forward[patient] for patient in patients[::-1]] == backward
    assert assign_parts(patients, [""] * 40, [""] * 40, 0.2, 0.2, 2) != list(forward.values())


def test_validation_is_taken_from_those_that_train_where_only_test_is_given():
    patients = [f"p{i}" for i in range(20)]
    given_parts = ["train"] * 15 + ["test"] * 5
    parts = assign_parts(patients, [""] * 20, given_parts, 0.2, 0.5, 0)
    assert parts[15:] == ["test"] * 5 and Counter(parts[:15]) == {"train": 12, "validation": 3}


@pytest.mark.parametrize(("patients", "given_parts", "words"), [
    (["p", "p"], ["train", "test"], "patient p is given to both"),
    (["p", "p"], ["", ""], "too few"),
    (["p", "q"], ["test", "validation"], "gives all of them to test and validation"),
])
def test_refusals_are_one_sentence(patients, given_parts, words):
    with pytest.raises(InputError, match=words) as error:
        assign_parts(patients, ["", ""], given_parts, 0.2, 0.2, 0)
    assert "\n" not in str(error.value)


def test_what_there_is_of_each_part_in_words():
    assert count_in_words(["p", "p", "q"], ["ill", "well", "ill"], ["train", "train", "test"]) == (
        "train: 2 images of 1 patient (ill 1, well 1), test: 1 image of 1 patient (ill 1)")
    assert count_in_words(["p"], [""], ["train"]) == "train: 1 image of 1 patient"


@pytest.mark.parametrize(("files", "found"), [
    (["in/p01_t1.nii", "in/p01_t2.nii", "in/p02_t1.nii"], "p01"),
    (["in/p01/a.png", "in/p01/b.png", "in/p02/a.png"], "p01"),
    (["in/ill/001.png", "in/ill/002.png", "in/well/001.png"], ""),
    (["in/ill/scan_2023_1.png", "in/ill/scan_2023_2.png", "in/well/scan_2023_1.png"], ""),
    (["in/0/1.png", "in/0/2.png", "in/1/1.png"], ""),
    (["a.png", "b.png"], ""),
    ([f"in/{name}/{visit}.png" for name in ("anna", "bert", "carl", "dora") for visit in ("early", "late")], "anna"),
    ([f"in/{name}/{name}{n}.png" for name in ("anna", "bert", "carl", "dora") for n in range(3)], "anna"),
    ([f"in/{name}/slice_{n}.png" for name in ("anna", "bert", "carl", "dora") for n in range(9)], "anna"),
    ([f"in/{name}_{visit}.png" for name in ("anna", "bert", "carl", "dora") for visit in ("pre", "post")], "anna"),
    ([f"in/{name}_{n}.png" for name in ("ill", "well") for n in range(9)], ""),
    ([f"in/{name}/{n}.png" for name in ("mild", "severe", "well", "worst") for n in range(9)], ""),
    ([f"in/{name}/image({n}).jpg" for name in ("mild", "severe", "well", "worst") for n in range(50)], ""),
    ([f"in/{name}/image_{n:04d}.jpg" for name in ("mild", "severe", "well", "worst") for n in range(50)], ""),
    ([f"in/{name}/{word}-{n}.png" for name in ("ill", "mild", "sick", "well") for n in range(9) for word in ("i", "I")],
     ""),
    ([f"in/{name}/{n:04d}.png" for name in "abcdefghij" for n in range(8)], ""),
    ([f"in/{name}/{kind}.png" for name in ("anna", "bert", "carl", "dora") for kind in ("t1", "t2", "flair", "dwi")],
     "anna"),
    ([f"in/{name}/scan.png" for name in ("anna", "bert", "carl", "dora")] + ["in/anna/b.png"], "anna"),
    ([f"in/{name:08x}-0.png" for name in range(9)], ""),
])
def test_files_that_look_like_one_patients(files, found):
    folders = [Path(file).parent.name for file in files]
    assert Path(likely_patient(files, [name if name != "in" else "" for name in folders])).name == found


@pytest.mark.parametrize("given_parts", ["", "train"])
def test_what_a_model_made_up_trains_alone(given_parts):
    patients = [f"p{i}" for i in range(10)] + [f"generated_{i}" for i in range(40)]
    parts = assign_parts(patients, [""] * 50, ["train" if given_parts else ""] * 10 + [given_parts] * 40, 0.3, 0.0, 0,
                         set(patients[10:]))
    assert set(parts[10:]) == {"train"} and Counter(parts[:10]) == {"train": 7, "validation": 3}
    with pytest.raises(InputError, match="made all of these images"):
        assign_parts(patients[10:], [""] * 40, [""] * 40, 0.3, 0.0, 0, set(patients))
