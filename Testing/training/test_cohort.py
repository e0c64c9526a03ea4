"""Synthetic cohorts: repeatable, split by anatomy, lesions that grow with the grade, tags that do or do not tell."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from MedVAELib.cli.app import run
from MedVAELib.errors import InputError, UsageError
from MedVAELib.preprocessing.mni import WINDOW_CENTER_RAS_MM, load_template, mni_grid
from MedVAELib.training.synthesis.anatomy import GROUP_INDEX, Anatomy, LesionMask, read_anatomy
from MedVAELib.training.synthesis.cohort import HEALTHY, KINDS, SPLITS, CohortSynthesiser, least_count, plan
from MedVAELib.training.synthesis.cohort_files import CohortRequest, write_cohort
from MedVAELib.training.synthesis.mni_heads import MniHead, align
from MedVAELib.training.synthesis.sequences import RANGES, Acquisition, brightness_factors, noise_factor

from .heads import write_head

MASK = LesionMask(torch.full((20, 20, 20), 255, dtype=torch.uint8), (0.0, -40.0, 20.0))
FEW_HEADS = 3


@pytest.fixture(scope="module")
def heads(tmp_path_factory) -> list[MniHead]:
    """Three heads of ellipsoids, the brain's centre in the middle of the window: nothing is registered."""
    folder = write_head(tmp_path_factory.mktemp("heads"))
    anatomy = read_anatomy(folder / "01.nii.gz")
    offset = torch.tensor(anatomy.brain_centre) - torch.tensor(WINDOW_CENTER_RAS_MM[::-1])
    return [MniHead(Anatomy(f"0{n}", anatomy.groups, anatomy.brain_centre, anatomy.brain_size), torch.eye(3), offset)
            for n in range(1, FEW_HEADS + 1)]


def label_maps(folder: Path, count: int = FEW_HEADS) -> Path:
    """A folder of files with the names of `heads`."""
    folder.mkdir()
    for number in range(1, count + 1):
        (folder / f"0{number}.nii.gz").touch()
    return folder


def case_of(label: str, seed: int = 7):
    kind = "dwi-strokes" if label == "stroke" else "flair-leuko"
    cases = plan(kind, 28, seed, FEW_HEADS, 5, confounded=False)
    return next(case for case in cases if case.label == label)


@pytest.mark.parametrize("confounded", [False, True])
def test_no_head_and_no_mask_is_in_two_parts(confounded):
    cases = plan("flair-leuko", 200, 1, 20, 28, confounded)
    for things in ("head", "mask"):
        parts: dict[object, set[str]] = {}
        for case in cases:
            if getattr(case, things) is not None:
                parts.setdefault(getattr(case, things), set()).add(case.split)
        assert all(len(splits) == 1 for splits in parts.values())
        assert {split for splits in parts.values() for split in splits} == set(SPLITS)
    assert {case.label for case in cases} == set(KINDS["flair-leuko"].labels)


def test_every_head_has_every_label():
    cases = plan("flair-leuko", 7 * 20 * 2, 0, 20, 28, confounded=False)
    per_head = {head: sorted(case.label for case in cases if case.head == head) for head in range(20)}
    assert all(labels == per_head[0] for labels in per_head.values())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("heads", [3, 20])
def test_the_least_count_gives_every_part_every_label(kind, heads):
    def parts(count: int) -> set[tuple[str, str]]:
        return {(case.split, case.label) for case in plan(kind, count, 0, heads, 28, confounded=False)}

    least, labels = least_count(kind, heads), set(KINDS[kind].labels)
    assert parts(least) == {(split, label) for split in SPLITS for label in labels}
    assert len(parts(least - len(KINDS[kind].labels))) == 2 * len(labels)


def test_settings_follow_the_label_only_where_they_shall():
    def spread(confounded: bool) -> float:
        cases = plan("flair-leuko", 280, 3, 20, 28, confounded)
        times = np.array([case.acquisition.echo_time_ms for case in cases])
        means = [times[[case.label == label for case in cases]].mean() for label in set(KINDS["flair-leuko"].labels)]
        return float(np.std(means) / times.std())

    assert spread(False) < 0.3 < 0.8 < spread(True)


def test_a_confounded_cohort_shows_the_same_brains():
    plain, confounded = (plan("flair-leuko", 10, 5, 20, 28, which) for which in (False, True))
    assert [(c.seed, c.head, c.mask, c.label) for c in plain] == [(c.seed, c.head, c.mask, c.label) for c in confounded]


def test_a_scan_depends_on_its_case_alone(heads):
    synthesise = CohortSynthesiser("flair-leuko", heads, [MASK] * 5)
    case = case_of("ms")
    first = synthesise(case)
    synthesise(case_of("healthy"))
    again = synthesise(case)
    assert np.array_equal(first.values, again.values) and np.array_equal(first.lesion, again.lesion)


@pytest.mark.parametrize("label", ["healthy", "ms", "leuko1", "leuko2", "leuko3"])
def test_lesions_are_bright_and_healthy_scans_have_none(heads, label):
    case = case_of(label)
    scan = CohortSynthesiser("flair-leuko", heads, [MASK] * 5)(case)
    assert np.isfinite(scan.values).all() and scan.values.shape == scan.brain.shape == (80, 96, 80)
    if label == HEALTHY:
        assert not scan.lesion.any()
    else:
        inside = scan.lesion > 0.5
        assert inside.any() and not inside[~scan.brain].any()
        assert scan.values[inside].mean() > 1.1 * np.median(scan.values[scan.brain])


def test_leukoencephalopathy_grows_with_its_grade_from_the_ventricles(heads):
    synthesise, volumes = CohortSynthesiser("flair-leuko", heads, [MASK] * 5), []
    for grade in (1, 2, 3):
        scans = [synthesise(case_of(f"leuko{grade}", seed)) for seed in range(3)]
        volumes.append(np.mean([scan.lesion.sum() for scan in scans]))
    assert volumes[0] < 0.7 * volumes[1] and volumes[1] < 0.7 * volumes[2]


def test_strokes_are_brighter_than_cortex_on_dwi(heads):
    scan = CohortSynthesiser("dwi-strokes", heads, [MASK] * 5)(case_of("stroke"))
    assert scan.values[scan.lesion > 0.7].mean() > np.quantile(scan.values[scan.brain & (scan.lesion == 0)], 0.9)


def test_a_longer_echo_makes_grey_matter_and_lesions_brighter():
    low, high = RANGES["flair"]
    short, long = (Acquisition(9500, te, 200) for te in (low.echo_time_ms, high.echo_time_ms))
    assert all(a < 1 < b for a, b in zip(brightness_factors("flair", short), brightness_factors("flair", long),
                                         strict=True))
    assert noise_factor("flair", Acquisition(9500, 100, 400)) > noise_factor("flair", Acquisition(9500, 100, 120))


def test_a_head_is_brought_to_where_the_average_lies(tmp_path):
    head = align(read_anatomy(write_head(tmp_path) / "01.nii.gz"))
    brain = sitk.GetArrayFromImage(load_template().brain) > 0.5
    grid = mni_grid(2.0)
    centre = [grid.TransformIndexToPhysicalPoint([int(v) for v in index[::-1]]) for index in np.argwhere(brain)[::50]]
    mni = torch.tensor(np.mean(centre, 0) * (-1, -1, 1), dtype=torch.float32).flip(0)
    centre_of_head = torch.nonzero((head.anatomy.groups > 0) & (head.anatomy.groups <= GROUP_INDEX["ventricles"]))

    def index_of(mni_mm: torch.Tensor) -> torch.Tensor:
        return mni_mm @ head.linear.T + head.offset

    assert (index_of(mni) - centre_of_head.float().mean(0)).norm() < 6
    edge = index_of(mni + torch.tensor([70.0, 0.0, 0.0]))  # the top of the brain in both
    assert abs(edge[0] - centre_of_head[:, 0].max()) < 10


def test_files_have_the_common_columns_and_a_run_goes_on(heads, tmp_path):
    request = CohortRequest("flair-leuko", 7, seed=2)
    masks = tmp_path / "masks" / "ms_ljubljana"
    masks.mkdir(parents=True)
    maps = label_maps(tmp_path / "maps")
    volume = sitk.GetImageFromArray(np.ones((20, 20, 20), np.uint8))
    for number in range(3):
        sitk.WriteImage(volume, str(masks / f"{number}.nii.gz"))
    told = []
    table = write_cohort(request, maps, tmp_path / "masks", tmp_path / "out", lambda *line: told.append(line),
                         heads=heads)
    stages = [stage for stage, *_ in told]
    assert stages.index("warning") < stages.index("cases") and "make 21 at least" in told[stages.index("warning")][2]
    with table.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:5] == ["file", "case", "patient", "label", "split"] and len(rows) == 7
    image = sitk.ReadImage(str(table.parent / rows[0]["file"]))
    values = sitk.GetArrayFromImage(image)
    assert values.shape == (40, 48, 40) and values.min() >= 0 and values.max() == 1
    assert image.GetSpacing() == (4.0, 4.0, 4.0) and np.allclose(image.GetOrigin(), mni_grid(4.0).GetOrigin())
    with (table.parent / "lesions.csv").open(encoding="utf-8") as file:
        lesions = {row["case"]: float(row["lesion_ml"]) for row in csv.DictReader(file)}
    assert set(lesions) == {row["case"] for row in rows if row["label"] != HEALTHY}
    volumes = {name: sitk.GetArrayFromImage(sitk.ReadImage(str(table.parent / "lesions" / f"{name}.nii.gz"))).sum()
               for name in lesions}
    assert lesions == pytest.approx({name: volume * 0.064 for name, volume in volumes.items()}, abs=1e-3)

    kept = table.parent / rows[1]["file"]
    written = kept.stat().st_mtime_ns
    missing = table.parent / rows[0]["file"]
    missing.unlink()
    write_cohort(request, maps, tmp_path / "masks", tmp_path / "out", heads=heads)
    assert kept.stat().st_mtime_ns == written
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(missing))), values)
    with pytest.raises(UsageError, match="another way"):
        write_cohort(CohortRequest("flair-leuko", 7, seed=3), maps, tmp_path / "masks", tmp_path / "out", heads=heads)
    listed = table.read_bytes()
    (maps / "04.nii.gz").touch()  # other heads would be listed for the images that are there
    with pytest.raises(UsageError, match="another way"):
        write_cohort(request, maps, tmp_path / "masks", tmp_path / "out", heads=heads)
    assert table.read_bytes() == listed
    (maps / "04.nii.gz").unlink()
    noted = json.loads((table.parent / "cohort.json").read_text(encoding="utf-8"))
    assert noted["label_maps"].keys() == {"01.nii.gz", "02.nii.gz", "03.nii.gz"}
    assert len(noted["lesion_masks"]) == 3


@pytest.mark.parametrize("name", ["images.csv", "lesions.csv", "lesions/x", "healthy_00001.nii.gz"])
def test_somebodys_own_files_are_left_alone(heads, tmp_path, name):
    own = tmp_path / "out" / name
    own.parent.mkdir(parents=True)
    own.write_text("mine")
    with pytest.raises(UsageError, match="exists and is of no cohort"):
        write_cohort(CohortRequest("flair-healthy", 3), label_maps(tmp_path / "maps"), tmp_path, tmp_path / "out",
                     heads=heads)
    assert own.read_text() == "mine" and [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == [own]


def test_what_cannot_be_made_is_said(heads, tmp_path, capsys, monkeypatch):
    maps = label_maps(tmp_path / "maps")
    with pytest.raises(InputError, match="ms_ljubljana"):
        write_cohort(CohortRequest("flair-leuko", 7), maps, tmp_path, tmp_path / "out", heads=heads)
    with pytest.raises(UsageError, match="three label maps"):
        write_cohort(CohortRequest("flair-healthy", 7), label_maps(tmp_path / "two", 2), tmp_path, tmp_path / "few")
    with pytest.raises(UsageError, match="one label"):
        write_cohort(CohortRequest("flair-healthy", 7, confounded=True), maps, tmp_path, tmp_path / "one", heads=heads)
    monkeypatch.delenv("MEDVAE_DATA", raising=False)
    assert run(["synthesise", "cohort", "--output", str(tmp_path / "x")]) == 2
    assert "MEDVAE_DATA" in capsys.readouterr().err
    assert run(["synthesise", "cohort", "--spacing", "3", "--label-maps", str(tmp_path), "--output",
                str(tmp_path / "x")]) == 2
    assert not (tmp_path / "few").exists(), "nor is a folder claimed for it"
