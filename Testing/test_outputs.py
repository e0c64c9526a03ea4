from __future__ import annotations

import csv
import errno
import gzip
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from itertools import count

import numpy as np
import pytest
import SimpleITK as sitk

from MedVAELib import outputs
from MedVAELib.anomaly.result import FINDING_COLUMNS
from MedVAELib.cohort.summary import read_provenance
from MedVAELib.detection_outputs import DETECTION_FILES, check_detection_writable, write_detection
from MedVAELib.errors import Cancelled, InputError, UsageError
from MedVAELib.files import csv_files, gzip_blocks, itk_files, whole_files
from MedVAELib.outputs import atomic_output, check_writable, report_line
from MedVAELib.progress import CancelToken
from Testing.detection_standin import quick_report, standin_detection


@pytest.fixture
def detection():
    return standin_detection()


@pytest.fixture(name="quick_report")
def pictures_left_out(monkeypatch):
    quick_report(monkeypatch)


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_writes_every_file_of_the_contract_with_the_real_report(detection, tmp_path):
    seen = []
    files = write_detection(detection, tmp_path / "new" / "out", lambda *report: seen.append(report))
    assert sorted(files) == sorted(DETECTION_FILES)
    assert {path.name for path in (tmp_path / "new" / "out").iterdir()} == set(DETECTION_FILES)
    assert all(path.stat().st_size > 0 for path in files.values())
    fractions = [fraction for _, fraction, _ in seen]
    assert fractions == sorted(fractions) and fractions[-1] == 1.0


@pytest.mark.parametrize("name, pixel", [
    ("anomaly", sitk.sitkFloat32), ("residual", sitk.sitkFloat32), ("reconstruction", sitk.sitkFloat32),
    ("std", sitk.sitkFloat32), ("mask", sitk.sitkUInt8), ("brain", sitk.sitkUInt8),
])
def test_volumes_come_back_bit_for_bit_on_the_scans_grid(detection, quick_report, tmp_path, name, pixel):
    files = write_detection(detection, tmp_path)
    read, image = sitk.ReadImage(str(files[f"{name}.nii.gz"])), detection.scan.image
    assert read.GetPixelID() == pixel
    assert read.GetSize() == image.GetSize()
    np.testing.assert_allclose(read.GetSpacing(), image.GetSpacing(), rtol=1e-6)
    np.testing.assert_allclose(read.GetOrigin(), image.GetOrigin(), rtol=1e-6)
    np.testing.assert_allclose(read.GetDirection(), image.GetDirection(), atol=1e-6)  # NIfTI holds float32
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read), sitk.GetArrayFromImage(getattr(detection, name)))


def test_header_states_the_unit_and_nothing_of_the_scans_own_tags(detection, quick_report, tmp_path):
    detection.anomaly.SetMetaData("0010|0010", "Someone^Private")
    files = write_detection(detection, tmp_path)
    assert sitk.ReadImage(str(files["anomaly.nii.gz"])).GetMetaData("descrip") == \
        "MedVAE anomaly score, standard deviations"
    assert b"Private" not in gzip.decompress(files["anomaly.nii.gz"].read_bytes())


def test_description_too_long_for_the_header_is_cut(detection, quick_report, tmp_path):
    detection.unit = "µ" * 200
    files = write_detection(detection, tmp_path)
    assert len(sitk.ReadImage(str(files["anomaly.nii.gz"])).GetMetaData("descrip")) == 79


def test_findings_table(detection, quick_report, tmp_path):
    with write_detection(detection, tmp_path)["findings.csv"].open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == FINDING_COLUMNS and len(rows) == 1
    assert rows[0]["location"] == "left white matter" and rows[0]["bbox_size_k"] == "4"
    assert float(rows[0]["volume_ml"]) == pytest.approx(detection.findings[0].volume_ml, abs=1e-4)


def test_no_findings_leave_the_header_alone(detection, quick_report, tmp_path):
    detection.findings = []
    assert write_detection(detection, tmp_path)["findings.csv"].read_text() == ",".join(FINDING_COLUMNS) + "\n"


def test_provenance_is_strict_json_with_what_is_needed_to_read_the_maps(detection, quick_report, tmp_path):
    text = write_detection(detection, tmp_path)["provenance.json"].read_text()
    record = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert record["unit"] == "standard deviations" and record["threshold"] == 3.0 and record["fpr"] == 0.01
    assert record["seed"] == 3 and record["worst"] is None
    assert record["warnings"] == ["The scan is a stand-in."]
    assert record["files"] == sorted(DETECTION_FILES)
    assert set(record["timings_s"]) == {"network", "write_volumes", "write_report"}


def test_a_second_run_replaces_the_first(detection, quick_report, tmp_path):
    write_detection(detection, tmp_path)
    detection.fpr = 0.05
    write_detection(detection, tmp_path)
    assert json.loads((tmp_path / "provenance.json").read_text())["fpr"] == 0.05
    assert {path.name for path in tmp_path.iterdir()} == set(DETECTION_FILES)


@pytest.mark.parametrize("name", ["mask.nii.gz", "brain.nii.gz", "report.html"])
def test_someone_elses_file_of_the_same_name_is_never_overwritten(detection, quick_report, tmp_path, name):
    (tmp_path / name).write_bytes(b"an expert's work")
    with pytest.raises(UsageError, match=name):
        check_detection_writable(tmp_path)
    with pytest.raises(UsageError, match=name):
        write_detection(detection, tmp_path)
    assert contents(tmp_path) == {name: b"an expert's work"}


def test_cancelling_at_any_step_leaves_the_earlier_result_as_it_was(detection, quick_report, tmp_path):
    write_detection(detection, tmp_path)
    before = contents(tmp_path)
    detection.fpr = 0.2
    for step in count(1):
        reports, token = [], CancelToken()

        def cancel_at(*report, step=step, reports=reports, token=token):
            reports.append(report)
            if len(reports) == step:
                token.cancel()

        try:
            write_detection(detection, tmp_path, cancel_at, token)
        except Cancelled:
            assert contents(tmp_path) == before
        else:
            break
    assert len(reports) == step > 1 and reports[-1][1] == 1.0  # everything was in place


def test_cancelling_a_first_run_leaves_no_folder(detection, quick_report, tmp_path):
    token = CancelToken()
    token.cancel()
    with pytest.raises(Cancelled):
        write_detection(detection, tmp_path / "a" / "b", cancel=token)
    assert list(tmp_path.iterdir()) == []


def test_full_disk_while_writing_volumes(detection, quick_report, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write_detection(detection, tmp_path)
    before = contents(tmp_path)
    monkeypatch.setattr("MedVAELib.files.nifti_files.gzip_file", full)
    with pytest.raises(UsageError, match="No space left") as failure:
        write_detection(detection, tmp_path)
    assert str(tmp_path) in str(failure.value) and "\n" not in str(failure.value)
    assert contents(tmp_path) == before


def test_full_disk_that_itk_does_not_notice(detection, quick_report, tmp_path, monkeypatch):
    def short(image, path, **options):
        with open(path, "wb") as file:
            file.write(bytes(400))

    monkeypatch.setattr(sitk, "WriteImage", short)
    with pytest.raises(UsageError, match="No space left"):
        write_detection(detection, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def moves_until_none_fails(folder, monkeypatch, write):
    """`write` runs with the first move of a file into the folder, or away from it, failing for once, then with the
    second, and so on, until it has no such move. What was in the folder is there after each failure."""
    before, replace = contents(folder), os.replace
    for move in count(1):
        moves = []

        def failing(source, target, move=move, moves=moves):
            if str(folder) in (os.path.dirname(source), os.path.dirname(target)):
                moves.append(target)
                if len(moves) == move:
                    raise OSError(errno.EIO, "Input/output error", str(target))
            replace(source, target)

        monkeypatch.setattr(os, "replace", failing)
        try:
            write()
        except UsageError as error:
            assert "Input/output error" in str(error) and contents(folder) == before
        else:
            assert len(moves) < move, "a failure was passed over"
            return len(moves)


def test_failure_between_two_moves_puts_the_earlier_files_back(detection, quick_report, tmp_path, monkeypatch):
    write_detection(detection, tmp_path)
    detection.fpr = 0.3
    moves = moves_until_none_fails(tmp_path, monkeypatch, lambda: write_detection(detection, tmp_path))
    assert moves >= 2 * len(DETECTION_FILES)


def write_some(directory, task, *names):
    with atomic_output(directory) as partial:
        for name in names:
            (partial / name).write_text(task)
        (partial / "provenance.json").write_text(json.dumps({"task": task, "files": [*names, "provenance.json"]}))


def test_what_an_earlier_result_has_more_goes_with_it(detection, quick_report, tmp_path, monkeypatch):
    """Else a report of another result lies beside the maps, and is taken for someone else's by the next run."""
    write_detection(detection, tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    monkeypatch.setattr(outputs, "report_problem", lambda: "not written")
    write_detection(detection, tmp_path)
    without = {*DETECTION_FILES, "notes.txt"} - {"report.html", "overlay.png"}
    assert {path.name for path in tmp_path.iterdir()} == without
    monkeypatch.setattr(outputs, "report_problem", lambda: "")
    write_detection(detection, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*DETECTION_FILES, "notes.txt"}


def test_a_failure_brings_back_what_was_to_go(tmp_path, monkeypatch):
    out = tmp_path / "out"
    write_some(out, "slices", "a", "b", "c")
    assert moves_until_none_fails(out, monkeypatch, lambda: write_some(out, "slices", "b")) > 4
    assert set(contents(out)) == {"b", "provenance.json"}


def test_an_interrupt_between_two_moves_loses_nothing(tmp_path, monkeypatch):
    write_some(tmp_path, "slices", "a", "b")
    before, replace = contents(tmp_path), os.replace

    def interrupted(source, target):
        replace(source, target)
        monkeypatch.setattr(os, "replace", replace)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_some(tmp_path, "slices", "b")
    assert contents(tmp_path) == before


def held(file, times, monkeypatch):
    """As on Windows while a program looks at the file: so many times it cannot be replaced."""
    replace, refused = os.replace, []

    def refusing(source, target):
        if str(target) == str(file) and len(refused) < times:
            refused.append(target)
            raise PermissionError(errno.EACCES, "in use", str(target))
        replace(source, target)

    monkeypatch.setattr(os, "replace", refusing)


def test_a_file_that_is_in_use_for_a_moment_stops_no_result(tmp_path, monkeypatch):
    write_some(tmp_path, "slices", "a", "b")
    before = contents(tmp_path)
    monkeypatch.setattr(whole_files, "_WAIT_S", 20.0)
    held(tmp_path / "b", 4, monkeypatch)
    write_some(tmp_path, "slices", "a", "b", "c")
    assert set(contents(tmp_path)) == {*before, "c"}


def test_the_only_copy_of_an_earlier_file_is_never_removed(tmp_path, monkeypatch):
    """Neither the new file can be moved there nor the earlier one back; all others come back."""
    write_some(tmp_path, "slices", "a", "b", "c")
    before = contents(tmp_path)
    held(tmp_path / "b", 9, monkeypatch)
    with pytest.raises(UsageError, match="in use") as failure:
        write_some(tmp_path, "slices", "a", "b", "c")
    (partial,) = tmp_path.glob(f"{outputs.PARTIAL_PREFIX}*")
    assert str(failure.value).endswith(f"Files of the earlier result lie in {partial / 'earlier'}.")
    os.utime(partial, (time.time() - 2 * 86400,) * 2)
    outputs._remove_abandoned(tmp_path)
    assert contents(partial / "earlier") == {"b": before.pop("b")}
    shutil.move(partial, tmp_path.parent / "partial")
    assert contents(tmp_path) == before


def test_a_temporary_file_that_could_not_be_removed_is_no_part_of_the_result(tmp_path):
    with atomic_output(tmp_path / "out") as partial:
        for name in (".a.nii.gz.1234.nii", "a.nii.gz"):
            (partial / name).write_text("a")
        assert outputs.names_in(partial) == ["a.nii.gz"]
    assert set(contents(tmp_path / "out")) == {"a.nii.gz"}


def test_of_two_runs_into_one_folder_the_files_of_one_are_there(tmp_path, monkeypatch):
    """The second one comes between two moves of the first."""
    write_some(tmp_path, "slices", "a", "b")
    replace, others = os.replace, []

    def run(what):
        with atomic_output(tmp_path) as partial:
            for name in ("a", "b"):
                (partial / name).write_text(what)
            said = {"task": "slices", "files": ["a", "b", "provenance.json"]}
            (partial / "provenance.json").write_text(json.dumps(said))

    def watched(source, target):
        replace(source, target)
        if os.path.basename(target) == "a" and not others:
            others.append(threading.Thread(target=run, args=("second",)))
            others[0].start()
            others[0].join(0.3)  # it would be done by then

    monkeypatch.setattr(os, "replace", watched)
    run("first")
    others[0].join(20)
    assert (tmp_path / "a").read_text() == (tmp_path / "b").read_text() == "second"


def test_a_partial_folder_of_another_run_may_go_meanwhile(tmp_path):
    (tmp_path / f"{outputs.PARTIAL_PREFIX}1").symlink_to(tmp_path / "gone")  # is listed, and not there
    check_detection_writable(tmp_path)


def test_nothing_outside_the_folder_goes(tmp_path):
    (tmp_path / "mine").write_text("mine")
    write_some(tmp_path / "out", "slices", "a")
    listed = json.dumps({"task": "slices", "files": ["a", "../mine", str(tmp_path / "mine"), ".", "provenance.json"]})
    (tmp_path / "out" / "provenance.json").write_text(listed)
    write_some(tmp_path / "out", "slices", "b")
    assert (tmp_path / "mine").exists() and set(contents(tmp_path / "out")) == {"b", "provenance.json"}


def test_a_full_disk_is_told_of_a_relative_folder_too(tmp_path, monkeypatch):
    """Paths in it are absolute or not, as the version of Python has it."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="No space left"), atomic_output("out") as partial:
        raise OSError(errno.ENOSPC, "No space left on device", os.path.abspath(partial / "anomaly.nii.gz"))
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_place_of_the_folder(detection, tmp_path):
    place = tmp_path / "results"
    place.write_text("precious")
    for target in (place, place / "below"):
        with pytest.raises(UsageError, match="choose another --output"):
            check_detection_writable(target)
        with pytest.raises(UsageError, match="choose another --output"):
            write_detection(detection, target)
    assert place.read_text() == "precious"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UsageError, match="Permission denied"):
        check_detection_writable(tmp_path / "out")


def test_refused_folder_whoever_asks(tmp_path, monkeypatch):
    def refused(*args, **options):
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "out"))

    monkeypatch.setattr(outputs, "new_folder", refused)
    with pytest.raises(UsageError, match="Permission denied"):
        check_detection_writable(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_checking_leaves_nothing_behind(tmp_path):
    check_detection_writable(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []


def test_an_error_about_another_file_is_not_blamed_on_the_output(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_output(tmp_path / "out"):
        open("/nonexistent/template.html")
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_run_left_is_removed_when_it_is_old(tmp_path):
    old, fresh = tmp_path / f"{outputs.PARTIAL_PREFIX}old", tmp_path / f"{outputs.PARTIAL_PREFIX}fresh"
    for folder in (old, fresh):
        folder.mkdir()
        (folder / "anomaly.nii.gz").write_bytes(b"half")
    os.utime(old, (time.time() - 2 * 86400,) * 2)
    check_detection_writable(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [fresh.name]


@pytest.mark.parametrize("size", [0, 1, gzip_blocks.BLOCK_BYTES, 5 * gzip_blocks.BLOCK_BYTES + 17])
@pytest.mark.parametrize("kind", ["zeros", "noise", "both"])
def test_gzip_blocks_are_one_ordinary_gzip_stream(tmp_path, size, kind):
    data = np.zeros(size, np.uint8)
    if kind != "zeros":
        data[size // 2 if kind == "both" else 0:] = 7
        data[::3] = np.random.default_rng(0).integers(0, 255, len(data[::3])) if kind == "noise" else 0
    (tmp_path / "plain").write_bytes(data.tobytes())
    gzip_blocks.gzip_file(tmp_path / "plain", tmp_path / "packed.gz")
    with gzip.open(tmp_path / "packed.gz") as packed:
        assert packed.read() == data.tobytes()


def test_equal_results_are_equal_files(detection, quick_report, tmp_path):
    first, second = write_detection(detection, tmp_path / "a"), write_detection(detection, tmp_path / "b")
    assert first["anomaly.nii.gz"].read_bytes() == second["anomaly.nii.gz"].read_bytes()


def test_a_result_of_another_task_is_never_overwritten(detection, quick_report, tmp_path):
    write_detection(detection, tmp_path)
    before = contents(tmp_path)
    with pytest.raises(UsageError, match="another result .detection."):
        check_writable(tmp_path, ("skull.nii.gz", "std.nii.gz"), "skull")
    with pytest.raises(UsageError, match="another result .detection."), atomic_output(tmp_path) as partial:
        (partial / "std.nii.gz").write_bytes(b"of a skull")
        (partial / "provenance.json").write_text('{"task": "skull", "files": ["std.nii.gz", "provenance.json"]}')
    assert contents(tmp_path) == before


def test_a_folder_that_itk_cannot_write_to_is_named_before_anything_is_computed(tmp_path, monkeypatch):
    monkeypatch.setattr(itk_files, "_PLAIN_LETTERS_ALONE", True)
    monkeypatch.setattr(itk_files, "_short_name", lambda folder: folder)
    with pytest.raises(InputError, match="plain letters"):
        check_detection_writable(tmp_path / "Łukasz")
    check_writable(tmp_path / "Łukasz", ("table.csv",), "tables")  # is no image
    assert list(tmp_path.iterdir()) == []


def test_an_output_name_that_no_disk_takes_is_one_sentence(tmp_path):
    with pytest.raises(UsageError, match="cannot be written"):
        check_detection_writable(tmp_path / (300 * "a"))


def test_what_is_said_of_a_report_that_was_not_written(detection, quick_report, tmp_path, monkeypatch):
    write_detection(detection, tmp_path / "a")
    assert report_line(detection.provenance, tmp_path / "a") == f"Report: {tmp_path / 'a' / 'report.html'}"
    monkeypatch.setattr(outputs, "find_spec", lambda name: None if name == "jinja2" else name)
    write_detection(detection, tmp_path / "b")
    assert report_line(detection.provenance, tmp_path / "b") == (
        "The report was not written: the Python packages jinja2 are not installed.")


def test_killed_at_any_move_it_is_no_result_and_can_be_written_again(tmp_path, monkeypatch):
    """Else files of two results would be taken for one."""
    monkeypatch.setattr(csv_files, "_LOCK_ABANDONED_AFTER_S", 0.3)
    script = (
        "import json, os, sys; from MedVAELib import outputs\n"
        "moves, move = iter(range(int(sys.argv[2]))), os.replace\n"
        "def killed(source, target): os._exit(9) if next(moves, None) is None else move(source, target)\n"
        "os.replace = killed\n"
        "with outputs.atomic_output(sys.argv[1]) as partial:\n"
        "    for name in ('a', 'b'): (partial / name).write_bytes(b'new')\n"
        "    said = dict(task='t', request={}, files=['a', 'b'])\n"
        "    (partial / 'provenance.json').write_text(json.dumps(said))\n"
    )
    mixed = 0
    for survived in range(20):
        folder = tmp_path / str(survived)
        write_some(folder, "t", "a", "b")
        if not subprocess.run([sys.executable, "-c", script, str(folder), str(survived)]).returncode:
            break
        left = {file.read_bytes() for file in folder.glob("[ab]")}
        mixed += len(left) == 2
        assert left == {b"t"} or read_provenance(folder) is None
        write_some(folder, "t", "a", "b")
        names = [file.name for file in folder.iterdir() if file.is_file()]
        assert sorted(names) == ["a", "b", "provenance.json"]
    assert mixed and survived > 4
