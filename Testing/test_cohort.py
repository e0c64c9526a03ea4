"""Cohorts: what a table of cases must be, and real runs in which some cases go wrong."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from MedVAELib.anomaly.detect import detect_anomalies
from MedVAELib.bundle import DEFAULT_ANOMALY_BUNDLE, DEFAULT_SKULL_BUNDLE, OUTLINE_BUNDLE, load_bundle
from MedVAELib.cohort import Case, Settings, cases_of_paths, read_cases, run_cohort
from MedVAELib.cohort.cases import scans_in
from MedVAELib.cohort.skull import SkullCase, SkullSettings
from MedVAELib.detection_outputs import DETECTION_FILES
from MedVAELib.errors import BundleError, Cancelled, InputError, UsageError
from MedVAELib.progress import CancelToken
from MedVAELib.scan import Scan
from Testing.conftest import coarse_sample
from Testing.tables import summary_rows
from Testing.warm_python import warm

ROOT = Path(__file__).resolve().parents[1]
FAST = Settings(device="cpu", samples=1)


# --- Tables of cases -------------------------------------------------------------------------------------------------


def table(folder: Path, text: str | bytes) -> Path:
    path = folder / "cases.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_paths_start_from_the_table_and_modality_is_optional(tmp_path):
    text = ("case,scan,modality,age\np1,a/flair.nii.gz,FLAIR,50\n\np2,/data/dwi.nii,,60\n , , ,\n"
            '"p 3","b,c.nii",dwi,\n')
    assert read_cases(table(tmp_path, text)) == [
        Case("p1", tmp_path / "a/flair.nii.gz", "flair"), Case("p2", Path("/data/dwi.nii")),
        Case("p 3", tmp_path / "b,c.nii", "dwi"),
    ]


@pytest.mark.parametrize("text", [
    b"\xef\xbb\xbfcase;scan\r\np1;a.nii\r\n", "Case\tScan\np1\ta.nii\n", "\n\n SCAN , CASE \na.nii, p1\n",
    b"\xef\xbb\xbfsep=;\r\ncase;scan\r\np1;a.nii\r\n", '"sep=|"\n\ncase|scan\np1|a.nii\n',
    "SEP=\t\ncase\tscan\np1\ta.nii\n", "sep=;\ncase;scan;a,b,c,d\np1;a.nii;\n",
])
def test_spreadsheets_write_tables_in_their_own_ways(tmp_path, text):
    assert read_cases(table(tmp_path, text)) == [Case("p1", tmp_path / "a.nii")]


@pytest.mark.parametrize("text, part", [
    ("", "empty"), ("\n \n", "empty"), ("case,scan\n", "no cases"), ("case,scan\n,\n", "no cases"),
    ("name,file\np1,a.nii\n", "no column 'case' (it has: name, file)"), ("case\np1\n", "no column 'scan'"),
    ("case,scan,case\np1,a.nii,p\n", "more than once"), ("case,scan\np1,a.nii\nP1,b.nii\n", "'P1' more than once"),
    ("case,scan\np1,\n", "line 2: the column 'scan' is empty"), ("case,scan\n,a.nii\n", "line 2"),
    ("case,scan\n../p1,a.nii\n", "'../p1'"), ("case,scan\n..,a.nii\n", "'..'"), ("case,scan\na\\b,a.nii\n", "folder"),
    ("case,scan\nsummary.csv,a.nii\n", "summary.csv"), ("case,scan\nNul,a.nii\n", "'Nul'"),
    ("case,scan\ncom1.2024,a.nii\n", "'com1.2024'"), (f"case,scan\n{'x' * 200},a.nii\n", "folder"),
    ("case,scan,modality\np1,a.nii,ct\n", "'ct'"), ("case,scan\np1,a.nii,more\n", "more values than columns"),
    ("sep=;\n", "empty"), ("sep=;\n\ncase;scan\np1;\n", "line 4: the column 'scan' is empty"),
    (b"case,scan\np\xe4,a.nii\n", "UTF-8"), ('case,scan\n"p1,a.nii\n', "CSV"),
])
def test_an_unclear_table_is_one_sentence(tmp_path, text, part):
    with pytest.raises(InputError) as error:
        read_cases(table(tmp_path, text))
    assert part in str(error.value) and "cases.csv" in str(error.value) and "\n" not in str(error.value)


def test_no_table(tmp_path):
    for path in (tmp_path / "absent.csv", tmp_path):
        with pytest.raises(InputError, match=path.name):
            read_cases(path)


def test_scans_in_a_folder(tmp_path):
    for name in ("p1/flair.nii.gz", "p1/mask.nii.gz", "p2/flair.nii", "p2/.hidden.nii", "p2/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    results = tmp_path / "results"
    results.mkdir()
    (results / "anomaly.nii.gz").touch()
    (results / "provenance.json").touch()
    found = scans_in(tmp_path, "flair*")
    assert found == [tmp_path / "p1/flair.nii.gz", tmp_path / "p2/flair.nii"]
    assert len(scans_in(tmp_path)) == 3
    assert scans_in(tmp_path, "**/p1/*.nii.gz") == [tmp_path / "p1/flair.nii.gz", tmp_path / "p1/mask.nii.gz"]
    assert [case.name for case in cases_of_paths(found)] == ["p1_flair", "p2_flair"]
    dicom = tmp_path / "dicom"
    dicom.mkdir()
    (dicom / "IM0001").touch()
    assert scans_in(dicom) == [dicom]
    (tmp_path / "nothing").mkdir()
    for folder, pattern in ((results, "*"), (tmp_path, "t1*"), (tmp_path / "nothing", "*")):
        with pytest.raises(InputError, match="holds no scans"):
            scans_in(folder, pattern)


# --- Runs ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Two different usable scans (the bundled sample on a coarse grid) and three that are not, in one folder."""
    folder = tmp_path_factory.mktemp("scans")
    image = coarse_sample((72, 88, 72), 2.4)
    sitk.WriteImage(image, str(folder / "one.nii.gz"))
    sitk.WriteImage(image * 2 + 5, str(folder / "two.nii.gz"))
    sitk.WriteImage(image * 0, str(folder / "flat.nii.gz"))
    (folder / "broken.nii.gz").write_bytes(b"no gzip")
    return folder


def cases(folder, *names):
    return [Case(name, folder / f"{name}.nii.gz") for name in names]


@pytest.fixture(scope="module")
def real_result(small):
    return detect_anomalies(Scan.read(small / "one.nii.gz"), device="cpu", samples=1)


@pytest.fixture
def bookkeeping(real_result, monkeypatch):
    """For tests of what is done when: scans are read and results written, but every detection has the same outcome."""
    monkeypatch.setattr("MedVAELib.anomaly.detect.detect_anomalies",
                        lambda *_, **__: replace(real_result, provenance=deepcopy(real_result.provenance)))


class Told(list):
    """Collects what the run tells: (case, whether it was computed now)."""

    def __call__(self, row, result):
        self.append((row.case, row.status, result is not None))


def test_bad_cases_do_not_stop_the_rest_and_resume_does_what_is_missing(small, real_result, tmp_path):
    listed = cases(small, "one", "broken", "absent", "flat", "two")
    rows = run_cohort(listed, tmp_path / "out", FAST)
    assert [row.status for row in rows] == ["done", "failed", "failed", "failed", "done"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"one", "two", "summary.csv"}
    assert {path.name for path in (tmp_path / "out" / "one").iterdir()} == set(DETECTION_FILES)
    table = summary_rows(tmp_path / "out")
    assert list(table) == ["one", "broken", "absent", "flat", "two"]
    assert [table[name]["exit_code"] for name in table] == ["0", "3", "3", "3", "0"]
    assert "absent.nii.gz" in table["absent"]["message"] and "constant" in table["flat"]["message"]
    assert int(table["one"]["findings"]) == rows[0].findings > 0
    assert all(Path(row["scan"]).is_absolute() for row in table.values()), "the table may be read from anywhere"

    expected = real_result
    written = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "out/one/anomaly.nii.gz")))
    assert written.tobytes() == sitk.GetArrayFromImage(expected.anomaly).tobytes()
    volumes = [finding.volume_ml for finding in expected.findings]
    assert float(table["one"]["volume_ml"]) == pytest.approx(sum(volumes), abs=1e-2)
    assert float(table["one"]["largest_ml"]) == pytest.approx(max(volumes), abs=1e-4)
    assert float(table["one"]["peak"]) == pytest.approx(max(f.peak for f in expected.findings), abs=1e-4)

    told = Told()
    shutil.copy(small / "two.nii.gz", tmp_path / "absent.nii.gz")
    listed[2] = Case("absent", tmp_path / "absent.nii.gz")  # it has come to light
    again = run_cohort(listed, tmp_path / "out", FAST, resume=True, told=told)
    assert sorted(told) == [("absent", "done", True), ("broken", "failed", False), ("flat", "failed", False),
                            ("one", "done", False), ("two", "done", False)]
    for before, after in zip(rows, again, strict=True):
        if before.status == "done":
            assert (before.findings, before.modality, before.message) == (after.findings, after.modality, after.message)
            assert (before.volume_ml, before.peak) == pytest.approx((after.volume_ml, after.peak), abs=1e-4)


def test_resume_does_again_what_was_made_in_another_way(small, bookkeeping, tmp_path):
    output, listed = tmp_path / "out", [Case("one", tmp_path / "scan.nii.gz")]
    shutil.copy(small / "one.nii.gz", tmp_path / "scan.nii.gz")

    def computed(settings=FAST, listed=listed):
        told = Told()
        run_cohort(listed, output, settings, resume=True, told=told)
        return told[0][2]

    assert computed() and not computed()
    assert computed(Settings(device="cpu", samples=1, fpr=0.02))
    assert computed() and not computed()
    assert computed(listed=[Case("one", tmp_path / "scan.nii.gz", "flair")]) and computed()
    (output / "one" / "std.nii.gz").unlink()  # incomplete
    assert computed() and not computed()
    (output / "one" / "findings.csv").write_text("damaged")
    assert computed() and not computed()
    (output / "one" / "provenance.json").write_text("{")
    (output / "one" / "provenance.json").unlink()
    shutil.rmtree(output / "one")
    assert computed()
    shutil.copy(small / "two.nii.gz", tmp_path / "scan.nii.gz")  # another scan of the same name
    os.utime(tmp_path / "scan.nii.gz", ns=(1, 1))
    assert computed() and not computed()
    shutil.copy2(tmp_path / "scan.nii.gz", tmp_path / "other.nii.gz")  # as large and as old as that one
    assert computed(listed=[Case("one", tmp_path / "other.nii.gz")])
    shutil.copy2(tmp_path / "scan.nii.gz", tmp_path / "again.nii.gz")
    listed = [Case("one", tmp_path / "again.nii.gz")]
    assert computed(listed=listed) and not computed(listed=listed)
    os.utime(tmp_path / "again.nii.gz", ns=(2, 2))
    assert computed(listed=listed)


def test_a_new_release_of_a_bundle_makes_results_anew():
    """Its calibration may be another, with the weights as they were."""
    head = SkullCase("a", (("axial", "a.png"),))
    settings, case = SkullSettings(spacing="0.3"), Case("a", Path("scan.nii.gz"))
    for name, task, what in ((DEFAULT_ANOMALY_BUNDLE, Settings(), case), (DEFAULT_SKULL_BUNDLE, settings, head)):
        bundle = load_bundle(name)
        newer = replace(bundle, metadata={**bundle.metadata, "version": "9.0.0"})
        assert task.request(what, bundle) == task.request(what, bundle) != task.request(what, newer)
    assert settings.request(head, bundle)["outline_bundle_sha256"] == load_bundle(OUTLINE_BUNDLE).sha256
    ages = [settings.request(replace(head, ga=text), bundle)["ga_weeks"] for text in ("", "24,5", "24+3", "soon")]
    assert ages == [None, 24.5, 24.43, "soon"], "an age is the same however it is written"


def test_without_resume_everything_is_done_again(small, bookkeeping, tmp_path):
    for _ in range(2):
        told = Told()
        run_cohort(cases(small, "one"), tmp_path / "out", FAST, told=told)
        assert told == [("one", "done", True)]


def test_an_earlier_result_of_a_case_that_fails_now_is_mentioned(small, bookkeeping, tmp_path):
    shutil.copy(small / "one.nii.gz", tmp_path / "scan.nii.gz")
    run_cohort([Case("one", tmp_path / "scan.nii.gz")], tmp_path / "out", FAST)
    (tmp_path / "scan.nii.gz").write_bytes(b"no gzip")
    (row,) = run_cohort([Case("one", tmp_path / "scan.nii.gz")], tmp_path / "out", FAST)
    assert row.status == "failed" and "earlier result" in row.message


def test_cancelling_leaves_a_true_summary(small, bookkeeping, tmp_path):
    cancel = CancelToken()
    with pytest.raises(Cancelled):
        run_cohort(cases(small, "one", "broken", "two"), tmp_path / "out", FAST, cancel=cancel,
                   told=lambda row, result: row.case == "broken" and cancel.cancel())
    assert {name: row["status"] for name, row in summary_rows(tmp_path / "out").items()} == {
        "one": "done", "broken": "failed", "two": "not run"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"one", "summary.csv"}


def test_what_concerns_all_cases_is_said_at_once(small, tmp_path):
    listed = cases(small, "one")
    with pytest.raises(UsageError, match="fpr"):
        run_cohort(listed, tmp_path / "out", Settings(fpr=2))
    with pytest.raises(BundleError, match="unknown"):
        run_cohort(listed, tmp_path / "out", Settings(bundle="unknown"))
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be written"):
        run_cohort(listed, tmp_path / "file", FAST)
    (tmp_path / "taken" / "summary.csv").mkdir(parents=True)
    with pytest.raises(UsageError, match="summary.csv cannot be written"):
        run_cohort(listed, tmp_path / "taken", FAST)


# --- The command -----------------------------------------------------------------------------------------------------


def medvae(*arguments: object) -> subprocess.CompletedProcess:
    command = warm([sys.executable, "-m", "MedVAELib", *map(str, arguments)])
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)


def test_the_command_takes_a_table(small, tmp_path):
    cohort = table(tmp_path, f"case,scan,modality\na,{small}/one.nii.gz,flair\nb,missing.nii.gz,\n")
    command = ("detect", "--cohort", cohort, "--output", tmp_path / "out", "--samples", 1, "--device", "cpu")
    done = medvae(*command)
    assert done.returncode == 5, done.stderr
    lines = done.stderr.strip().splitlines()
    assert "b:" in lines[0] and "missing.nii.gz" in lines[0] and "1 of 2 scans failed" in lines[-1]
    before = (tmp_path / "out/a/anomaly.nii.gz").stat().st_mtime_ns
    again = medvae(*command, "--resume", "--progress", "json")
    assert again.returncode == 5 and (tmp_path / "out/a/anomaly.nii.gz").stat().st_mtime_ns == before
    assert {frozenset(json.loads(line)) for line in again.stdout.splitlines()} == {
        frozenset(("stage", "fraction", "message"))}
    assert {row["status"] for row in summary_rows(tmp_path / "out").values()} == {"done", "failed"}


@pytest.mark.parametrize("text, part", [("", "empty"), ("x,y\n1,2\n", "no column 'case'")])
def test_the_command_refuses_an_unclear_table(tmp_path, text, part):
    done = medvae("detect", "--cohort", table(tmp_path, text), "--output", tmp_path / "out")
    assert done.returncode == 3 and part in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="signals between processes are POSIX")
def test_ctrl_c_ends_with_130_and_a_true_summary(small, tmp_path):
    cohort = table(tmp_path, f"case,scan\na,{small}/one.nii.gz\nb,{small}/two.nii.gz\n")
    command = [sys.executable, "-m", "MedVAELib", "detect", "--cohort", str(cohort), "--output", str(tmp_path / "out"),
               "--samples", "1000", "--device", "cpu", "--progress", "json"]
    process = subprocess.Popen(warm(command), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in process.stdout:
        if json.loads(line)["stage"] == "sampling":
            break
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 130 and "Cancelled" in errors, errors
    assert [row["status"] for row in summary_rows(tmp_path / "out").values()] == ["not run", "not run"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["summary.csv"]


# --- On a cluster ----------------------------------------------------------------------------------------------------


def test_a_cluster_gives_the_same_results(small, tmp_path):
    import distributed

    from MedVAELib.cohort.cluster import run_on_cluster

    listed = cases(small, "one", "broken", "two")
    alone = run_cohort(listed, tmp_path / "alone", FAST)
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
        rows = run_on_cluster(listed, tmp_path / "cluster", FAST, cluster.scheduler_address)
        told = Told()
        run_on_cluster(listed, tmp_path / "cluster", FAST, cluster.scheduler_address, resume=True, told=told)
        cancel = CancelToken()
        threading.Timer(2, cancel.cancel).start()
        with pytest.raises(Cancelled):
            run_on_cluster(listed[:1], tmp_path / "long", replace(FAST, samples=10_000), cluster.scheduler_address,
                           cancel=cancel)
        run_on_cluster(listed[:1], tmp_path / "next", FAST, cluster.scheduler_address)  # only once the worker is free
    assert [path.name for path in (tmp_path / "long").iterdir()] == ["summary.csv"]
    assert [(r.case, r.status, r.findings, r.peak) for r in rows] == [
        (r.case, r.status, r.findings, r.peak) for r in alone]
    assert sorted(told) == [("broken", "failed", False), ("one", "done", False), ("two", "done", False)]
    for name in ("one", "two"):
        first, second = (sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / where / name / "anomaly.nii.gz")))
                         for where in ("alone", "cluster"))
        assert np.array_equal(first, second)


def test_without_dask_the_command_says_what_to_install(small, tmp_path):
    code = ("import sys; sys.modules['distributed'] = None; from MedVAELib.cli.app import run;"
            f"sys.exit(run(['detect', '{small}/one.nii.gz', '{small}/two.nii.gz', '-o', '{tmp_path}/out',"
            " '--scheduler', 'localhost:1']))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=240)
    assert done.returncode == 2 and '".[cluster]"' in done.stderr and not (tmp_path / "out").exists()


def test_someones_own_summary_is_never_overwritten(small, tmp_path):
    """It may be the table of cases itself."""
    own = f"case,scan,age\none,{small / 'one.nii.gz'},44\n"
    (tmp_path / "summary.csv").write_text(own)
    with pytest.raises(UsageError, match="MedVAE did not write"):
        run_cohort(read_cases(tmp_path / "summary.csv"), tmp_path, FAST)
    assert (tmp_path / "summary.csv").read_text() == own and len(list(tmp_path.iterdir())) == 1


def test_resume_notices_data_exchanged_behind_their_header_and_empty_results(small, bookkeeping, tmp_path):
    image = sitk.ReadImage(str(small / "one.nii.gz"))
    sitk.WriteImage(image, str(tmp_path / "a.mhd"))

    def computed() -> bool:
        told = Told()
        run_cohort([Case("a", tmp_path / "a.mhd")], tmp_path / "out", FAST, resume=True, told=told)
        return told[0][2]

    assert computed() and not computed()
    values = np.fromfile(tmp_path / "a.raw", np.float32)
    (values * 2).tofile(tmp_path / "a.raw")
    assert computed() and not computed()
    (tmp_path / "out" / "a" / "anomaly.nii.gz").write_bytes(b"")
    assert computed()


def test_every_scan_gets_a_folder_of_its_own_below_the_output(tmp_path):
    inner = tmp_path / "series" / "sub"
    inner.mkdir(parents=True)
    names = [case.name for case in cases_of_paths([inner / "..", tmp_path / "A.nii", tmp_path / "b" / "a.nii"])]
    assert names[0] == "series" and len({name.lower() for name in names}) == 3


@pytest.mark.parametrize("output, names", [(".", ("p1", "p2")), ("p1", ("p1", "p2")), ("p1/deep", ("other", "more")),
                                           (".", ("p2", "p1"))])
def test_results_never_lie_among_the_slices_of_a_scan(tmp_path, monkeypatch, output, names):
    """Nor among those of another one."""
    monkeypatch.chdir(tmp_path)
    for folder in ("p1", "p2"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "IM0001").touch()
    (tmp_path / "p1" / "DICOMDIR").touch()
    listed = [Case(name, Path(scan)) for name, scan in zip(names, ("p1/DICOMDIR", "p2"), strict=True)]
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match="p[12] is read as a DICOM folder.*another --output"):
        run_cohort(listed, Path(output), FAST)
    assert sorted(tmp_path.rglob("*")) == before
    assert [row.status for row in run_cohort(listed, tmp_path / "out", FAST)] == ["failed", "failed"]  # none is a scan


def test_an_unknown_users_home_is_a_path_that_is_not_there(tmp_path):
    (case,) = read_cases(table(tmp_path, "case,scan\np1,~no_such_user/a.nii.gz\n"))
    assert case.scan == tmp_path / "~no_such_user/a.nii.gz"


def test_reports_of_a_cohort_have_the_cases_names(small, tmp_path):
    """Files of several patients are often called alike."""
    for patient in ("Pat-007", "Pat-008"):
        (tmp_path / patient).mkdir()
        shutil.copy(small / "one.nii.gz", tmp_path / patient / "flair.nii.gz")
    listed = [Case(name, tmp_path / name / "flair.nii.gz") for name in ("Pat-007", "Pat-008")]
    run_cohort(listed, tmp_path / "out", FAST)
    for case in listed:
        record = json.loads((tmp_path / "out" / case.name / "provenance.json").read_text())
        assert record["input"]["name"] == case.name
        assert f"<h1>{case.name}</h1>" in (tmp_path / "out" / case.name / "report.html").read_text()
