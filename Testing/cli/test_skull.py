"""`medvae skull`: its files, messages and exit codes, on small untrained bundles and pictures of a bright ring."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from MedVAELib.cli.app import run
from MedVAELib.reporting import skull_page
from MedVAELib.reporting.skull_pictures import PROBABILITY
from MedVAELib.resources import RESOURCES_VARIABLE
from MedVAELib.skull.biometry import Drawn
from MedVAELib.skull.engine import OutlineEngine
from MedVAELib.skull_outputs import SKULL_FILES
from Testing.skull.bundles import bright_outline, outline_bundle, shape_bundle
from Testing.skull.heads import AXES_MM, plane_with_head
from Testing.tables import summary_rows

FAST = ("--samples", "2", "--device", "cpu", "--progress", "none")


@pytest.fixture(scope="module")
def resources(tmp_path_factory):
    """A folder Resources with small bundles of the shipped names, and a sample."""
    folder = tmp_path_factory.mktemp("Resources")
    shape_bundle(folder / "bundles" / "fetal-skull")
    outline_bundle(folder / "bundles" / "head-outline")
    sample = folder / "sample" / "skull"
    sample.mkdir(parents=True)
    z, y, x = AXES_MM
    for name, axes in (("axial", (y, x)), ("sagittal", (y, z)), ("coronal", (z, x))):
        Image.fromarray(plane_with_head(axes, angle=0.0)).save(sample / f"{name}.png")
    measures = {"BPD": 88.0, "OFD": 110.0, "HC": 312.0, "cephalic index": 80.0, "volume": 425.0}
    truth = {"spacing_mm": 0.4, "ga_weeks": 32.0, "kind": "typical", "measures": measures}
    (sample / "truth.json").write_text(json.dumps(truth))
    return folder


@pytest.fixture(autouse=True)
def small_models(resources, monkeypatch):
    monkeypatch.setenv(RESOURCES_VARIABLE, str(resources))
    monkeypatch.setattr(OutlineEngine, "find", lambda self, images: bright_outline(images))
    # The pictures have tests of their own, and take longer than all else here.
    small = Image.new("RGB", (8, 8))
    for name in ("plane_picture", "sections"):
        monkeypatch.setattr(f"MedVAELib.reporting.skull_page.{name}", lambda *_: small)
    legend = skull_page.map_legend("", PROBABILITY, 0.0, 1.0)
    monkeypatch.setattr(skull_page, "views", lambda result: (small, legend))


@pytest.fixture(scope="module")
def planes(resources) -> dict[str, Path]:
    return {name: resources / "sample" / "skull" / f"{name}.png" for name in ("axial", "sagittal", "coronal")}


def skull(*arguments: object) -> int:
    return run(["skull", *map(str, arguments)])


def sentence(capsys) -> str:
    """The one line on standard error."""
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_every_file_of_the_contract(planes, tmp_path, capsys):
    out = tmp_path / "out"
    assert skull("--axial", planes["axial"], "--coronal", planes["coronal"], "--spacing", 0.4, "--ga", "30w0d",
                 "--output", out, *FAST) == 0
    assert sorted(file.name for file in out.iterdir()) == sorted(SKULL_FILES)
    said = capsys.readouterr().out
    assert "> 99th" in said and "axial, coronal; not given: sagittal" in said and "report.html" in said
    for name, kind in (("skull", sitk.sitkFloat32), ("skull_mask", sitk.sitkUInt8), ("std", sitk.sitkFloat32)):
        image = sitk.ReadImage(str(out / f"{name}.nii.gz"))
        assert image.GetPixelID() == kind and image.GetSize() == (96, 96, 96)
    biometry = json.loads((out / "biometry.json").read_text())
    assert set(biometry["measures"]) == {"BPD", "OFD", "HC", "cephalic index", "volume"}
    assert biometry["planes_used"] == ["axial", "coronal"] and biometry["planes_missing"] == ["sagittal"]
    assert biometry["measures"]["HC"]["percentile"] is not None and biometry["ga_weeks"] == 30
    provenance = json.loads((out / "provenance.json").read_text())
    assert set(provenance["files"]) == set(SKULL_FILES)
    assert provenance["bundle"] == "fetal-skull" and provenance["input"]["axial"]["pixel_mm"] == 0.4
    page = (out / "report.html").read_text()
    assert "research use only" in page.lower() and "not registered" in page and "Not given: sagittal" in page


def test_a_second_run_replaces_the_first(planes, tmp_path):
    for _ in range(2):
        assert skull("--axial", planes["axial"], "--spacing", 0.4, "--output", tmp_path / "out", *FAST) == 0


def test_sample_says_how_it_compares(tmp_path, capsys):
    assert skull("--sample", "--output", tmp_path / "out", *FAST) == 0
    said = capsys.readouterr().out
    assert "true" in said and "312.0" in said


def test_the_samples_truth_is_drawn_as_far_outside_as_the_prediction(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("MedVAELib.skull.predictor.drawn_by", lambda bundle: Drawn(0.5))
    assert skull("--sample", "--output", tmp_path / "out", *FAST) == 0
    said = capsys.readouterr().out
    assert "315.1" in said and "89.0" in said and "425.0" in said, "HC 312 + π, BPD 88 + 1, and the volume as it is"


def test_progress_as_json_lines(planes, tmp_path, capsys):
    assert skull("--axial", planes["axial"], "--spacing", 0.4, "--output", tmp_path / "out", "--samples", 2,
                 "--device", "cpu", "--progress", "json") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    fractions = [line["fraction"] for line in lines]
    assert fractions == sorted(fractions) and fractions[-1] == 1.0
    assert {"outline", "sampling", "surface", "write"} <= {line["stage"] for line in lines}


def bad_inputs(folder: Path) -> dict[str, tuple[Path, str]]:
    """Files that are no plane, and what is to be said of them."""
    ring = plane_with_head()
    volume = sitk.GetImageFromArray(np.stack([ring] * 12))
    sitk.WriteImage(volume, str(folder / "volume.nii.gz"))
    Image.fromarray(np.zeros((300, 300), np.uint8)).save(folder / "blank.png")
    noise = np.random.default_rng(0).integers(80, 89, (256, 256), dtype=np.uint8)  # darker would be brightened
    Image.fromarray(noise).save(folder / "noise.png")
    (folder / "notes.txt").write_text("no picture")
    return {
        "volume": (folder / "volume.nii.gz", "volume.nii.gz@6"), "blank": (folder / "blank.png", "blank"),
        "not an ultrasound": (folder / "noise.png", "no outline of a head"), "text": (folder / "notes.txt", "damaged"),
        "missing": (folder / "nowhere.png", "does not exist"), "folder": (folder, "folder"),
    }


@pytest.mark.parametrize("case", ["volume", "blank", "not an ultrasound", "text", "missing", "folder"])
def test_what_is_no_plane_ends_with_3_and_one_sentence(tmp_path, capsys, case):
    file, said = bad_inputs(tmp_path)[case]
    assert skull("--axial", file, "--spacing", 0.4, "--output", tmp_path / "out", *FAST) == 3
    assert said in sentence(capsys)
    assert not (tmp_path / "out").exists()


def test_wrong_usage_ends_with_2(planes, tmp_path, capsys):
    axial, out = ("--axial", planes["axial"]), ("--output", tmp_path / "out", *FAST)
    for arguments, said in (
        ((), "--axial, --sagittal or --coronal"), ((*axial, "--sample"), "not several"), (axial, "--spacing"),
        ((*axial, "--spacing", 0), "pixel size"), ((*axial, "--spacing", -1), "pixel size"),
        ((*axial, "--spacing", "wide"), "pixel size"), ((*axial, "--spacing", "axial=0.3,axial=0.4"), "pixel size"),
        ((*axial, "--spacing", "nan"), "pixel size"), ((*axial, "--spacing", "coronal=0.3"), "coronal plane"),
        ((*axial, "--spacing", "0.3,sagittal=0.4"), "pixel size"),
        ((*axial, "--spacing", "axial=0.4,sagittal=0.4"), "sagittal plane, which is not given"),
        ((*axial, "--spacing", 0.4, "--ga", 60), "gestational age"),
        ((*axial, "--spacing", 0.4, "--ga", "soon"), "as 24+3"), ((*axial, "--spacing", 0.4, "--resume"), "cohort"),
    ):
        assert skull(*arguments, *out) == 2, arguments
        assert said in sentence(capsys)
    assert not (tmp_path / "out").exists()


def test_an_absurd_spacing_is_refused(planes, tmp_path, capsys):
    assert skull("--axial", planes["axial"], "--spacing", 40, "--output", tmp_path / "out", *FAST) == 3
    assert "pixel size" in sentence(capsys)


def test_the_same_image_twice(planes, tmp_path, capsys):
    assert skull("--axial", planes["axial"], "--coronal", planes["axial"], "--spacing", 0.4, "--output",
                 tmp_path / "out", *FAST) == 3
    assert "as axial and as coronal" in sentence(capsys)


def test_a_large_colour_frame_and_mirrored_planes_give_the_same_head(planes, tmp_path):
    picture = Image.open(planes["axial"])
    large = picture.resize((4000, 4000 * picture.height // picture.width)).convert("RGB")
    large.save(tmp_path / "large.png")
    picture.transpose(Image.Transpose.ROTATE_180).save(tmp_path / "down.png")
    picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "mirrored.jpg", quality=95)
    found = []
    for name, spacing in (("large.png", 0.4 * picture.width / 4000), ("down.png", 0.4), ("mirrored.jpg", 0.4)):
        out = tmp_path / name.split(".")[0]
        assert skull("--axial", tmp_path / name, "--spacing", spacing, "--output", out, *FAST) == 0
        found.append(json.loads((out / "biometry.json").read_text())["measures"]["HC"]["value"])
    assert found == pytest.approx([found[0]] * 3, rel=0.01)


def test_a_slice_of_a_volume(tmp_path):
    image = sitk.GetImageFromArray(np.stack([plane_with_head()] * 9))
    image.SetSpacing((0.4, 0.4, 2.0))
    sitk.WriteImage(image, str(tmp_path / "volume.nii.gz"))
    out = tmp_path / "out"
    assert skull("--axial", f"{tmp_path / 'volume.nii.gz'}@4", "--output", out, *FAST) == 0
    assert json.loads((out / "provenance.json").read_text())["input"]["axial"]["pixel_size_from"] == "file header"


def test_bundles_that_cannot_be_used_end_with_4(planes, resources, tmp_path, capsys):
    arguments = ("--axial", planes["axial"], "--spacing", 0.4, "--output", tmp_path / "out", *FAST)
    assert skull(*arguments, "--bundle", "nowhere") == 4
    assert "nowhere" in sentence(capsys)
    assert skull(*arguments, "--bundle", "head-outline") == 4
    assert "no model of fetal skulls" in sentence(capsys)


def test_foreign_files_are_not_overwritten(planes, tmp_path, capsys):
    (tmp_path / "skull.nii.gz").write_bytes(b"an expert's work")
    assert skull("--axial", planes["axial"], "--spacing", 0.4, "--output", tmp_path, *FAST) == 2
    assert "skull.nii.gz" in sentence(capsys)
    assert (tmp_path / "skull.nii.gz").read_bytes() == b"an expert's work"


def test_a_doubtful_plane_warns(tmp_path, capsys, planes):
    assert skull("--axial", planes["axial"], "--spacing", 0.05, "--output", tmp_path / "out", *FAST) == 0
    assert "15 to 150 mm" in capsys.readouterr().err
    assert "15 to 150 mm" in (tmp_path / "out" / "report.html").read_text()
    assert "15 to 150 mm" in (tmp_path / "out" / "biometry.json").read_text()


def test_a_cohort(planes, tmp_path, capsys):
    table = tmp_path / "heads.csv"
    table.write_text(f"case,axial,sagittal,coronal,spacing,ga\nboth,{planes['axial']},{planes['sagittal']},,0.4,31+1\n"
                     f"side,,{planes['sagittal']},,sagittal=0.4,\nbad,{tmp_path}/none.png,,,0.4,\n"
                     f"old,{planes['axial']},,,0.4,old\n")
    out = tmp_path / "out"
    assert skull("--cohort", table, "--output", out, *FAST) == 5
    assert "none.png" in capsys.readouterr().err
    rows = summary_rows(out)
    assert [rows[name]["status"] for name in ("both", "side", "bad", "old")] == ["done", "done", *["failed"] * 2]
    assert rows["both"]["ga_weeks"] == "31.14" and "gestational age 'old'" in rows["old"]["message"]
    assert rows["both"]["planes"] == "axial sagittal" and rows["both"]["hc_percentile"]
    assert "<h1>both</h1>" in (out / "both" / "report.html").read_text(), "files of several heads may be called alike"
    assert rows["bad"]["exit_code"] == "3"
    kept = (out / "both" / "report.html").stat().st_mtime_ns
    assert skull("--cohort", table, "--output", out, "--resume", *FAST) == 5
    assert (out / "both" / "report.html").stat().st_mtime_ns == kept
    again = (out / "summary.csv").read_text().splitlines()
    assert again[1].startswith("both,axial sagittal,done")


def test_pixel_sizes_of_planes_that_a_cohort_lacks(planes, tmp_path, capsys):
    """A size for all heads may tell of planes that some of them lack; not of one that none has, nor a head's own."""
    table, out = tmp_path / "heads.csv", tmp_path / "out"
    table.write_text(f"case,axial,sagittal,spacing\none,{planes['axial']},,\ntwo,,{planes['sagittal']},\n"
                     f"wrong,{planes['axial']},,\"axial=0.4,coronal=0.4\"\n")
    assert skull("--cohort", table, "--spacing", "axial=0.4,coronal=0.4", "--output", out, *FAST) == 2
    assert "coronal plane, which is not given" in sentence(capsys) and not out.exists()
    assert skull("--cohort", table, "--spacing", "axial=0.4,sagittal=0.4", "--output", out, *FAST) == 5
    rows = summary_rows(out)
    assert [rows[name]["exit_code"] for name in ("one", "two", "wrong")] == ["0", "0", "2"]
    assert "coronal plane" in rows["wrong"]["message"]


def test_a_size_for_a_whole_cohort_is_for_files_that_state_none(planes, tmp_path, capsys):
    """A size by plane is for all; a line of the summary has all measures."""
    picture = sitk.GetImageFromArray(plane_with_head())
    picture.SetSpacing((0.4, 0.4))
    sitk.WriteImage(picture, str(tmp_path / "stated.nii.gz"))
    (tmp_path / "heads.csv").write_text(f"case,axial,ga\nstated,stated.nii.gz,30\nbare,{planes['axial']},41.5\n")
    sizes = {}
    for spacing in ("0.5", "axial=0.5"):
        out = tmp_path / spacing
        assert skull("--cohort", tmp_path / "heads.csv", "--spacing", spacing, "--output", out, *FAST) == 0
        rows = summary_rows(out)
        sizes[spacing] = [float(rows[name]["ofd_mm"]) for name in ("stated", "bare")]
    assert sizes["axial=0.5"] == pytest.approx([1.25 * sizes["0.5"][0], sizes["0.5"][1]], rel=0.03)
    assert "is not used" in capsys.readouterr().err
    row = rows["stated"]
    index = 100 * float(row["bpd_mm"]) / float(row["ofd_mm"])
    assert float(row["cephalic_index_percent"]) == pytest.approx(index, rel=0.01) and row["cephalic_index_std_percent"]
    assert row["bpd_percentile"] and row["ofd_percentile"] and row["ga_weeks"] == "30.0"
    assert rows["bare"]["hc_percentile"] == rows["bare"]["bpd_percentile"] == "" and rows["bare"]["ga_weeks"] == "41.5"


@pytest.mark.parametrize("text, said", [
    ("case,axial\n", "lists no cases"), ("case,axial\na,\n", "no plane"), ("name,axial\na,b.png\n", "no column 'case'"),
    ("case,axial\na,b.png\nA,c.png\n", "more than once"),
])
def test_tables_that_leave_something_unclear(tmp_path, capsys, text, said):
    (tmp_path / "heads.csv").write_text(text)
    assert skull("--cohort", tmp_path / "heads.csv", "--output", tmp_path / "out", *FAST) == 3
    assert said in sentence(capsys)


def test_cancelling_leaves_nothing(planes, tmp_path, monkeypatch):
    from MedVAELib.errors import Cancelled

    monkeypatch.setattr("MedVAELib.skull.surface.write_surface", lambda *_: (_ for _ in ()).throw(Cancelled()))
    assert skull("--axial", planes["axial"], "--spacing", 0.4, "--output", tmp_path / "out", *FAST) == 130
    assert not (tmp_path / "out").exists()
