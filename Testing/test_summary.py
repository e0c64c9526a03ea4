"""`summary.csv` of several runs into one folder: none loses the lines of another."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from MedVAELib.cohort import CaseRow
from MedVAELib.cohort import summary as summary_module
from MedVAELib.cohort.summary import DONE, FAILED, NOT_RUN, check_summary, write_summary
from MedVAELib.errors import Cancelled, UsageError
from MedVAELib.files import csv_files
from MedVAELib.progress import CancelToken
from Testing.tables import summary_rows

ROOT = Path(__file__).resolve().parents[1]


def row(case: str, status: str = FAILED, **values: object) -> CaseRow:
    return CaseRow(case, f"{case}.nii.gz", status, **values)


def test_lines_of_other_runs_stay_as_they_are(tmp_path):
    (tmp_path / "a").mkdir()
    message = 'It says "no",\nin two lines, with é.'
    write_summary([row("a", DONE, findings=2, volume_ml=0.5), row("b", message=message), row("c", NOT_RUN)], tmp_path)
    before = summary_rows(tmp_path)
    write_summary([row("d"), row("e", NOT_RUN)], tmp_path)
    assert list(summary_rows(tmp_path)) == ["a", "b", "c", "d", "e"]
    write_summary([row("c", message="now"), row("b2")], tmp_path)
    after = summary_rows(tmp_path)
    assert list(after) == ["a", "b", "c", "b2", "d", "e"]  # a run's own lines stand together, in its own order
    assert after["a"] == before["a"] and after["b"] == before["b"] and after["b"]["message"] == message
    assert after["c"]["status"] == FAILED and after["c"]["message"] == "now"
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["summary.csv"]


def test_a_result_that_is_gone_has_no_line(tmp_path):
    for case in ("a", "b"):
        (tmp_path / case).mkdir()
    write_summary([row("a", DONE), row("b", DONE)], tmp_path)
    (tmp_path / "a").rmdir()
    write_summary([row("c")], tmp_path)
    assert list(summary_rows(tmp_path)) == ["b", "c"]


def test_runs_at_the_same_time(tmp_path):
    """Every process writes often, as a run does after every case; the last state of each must be there at the end."""
    code = ("import sys; from pathlib import Path; from Testing.test_summary import row, write_summary\n"
            "for number in range(40):\n"
            "    cases = [row(f'{sys.argv[1]}{case}', message=str(number)) for case in range(3)]\n"
            "    write_summary(cases, Path(sys.argv[2]))")
    runs = [subprocess.Popen([sys.executable, "-c", code, name, str(tmp_path / "out")], cwd=ROOT) for name in "xyz"]
    assert [run.wait(timeout=240) for run in runs] == [0, 0, 0]
    found = summary_rows(tmp_path / "out")
    assert sorted(found) == [f"{name}{case}" for name in "xyz" for case in range(3)]
    assert {line["message"] for line in found.values()} == {"39"}
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["summary.csv"]


def test_a_run_that_was_killed_does_not_keep_others_waiting_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_files, "_LOCK_ABANDONED_AFTER_S", 0.3)
    (tmp_path / ".summary.csv.lock").touch()
    started = time.monotonic()
    write_summary([row("a")], tmp_path)
    assert time.monotonic() - started > 0.3
    assert [path.name for path in tmp_path.iterdir()] == ["summary.csv"]


def test_a_writer_that_fails_leaves_no_lock(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("MedVAELib.cohort.summary.write_csv", full)
    with pytest.raises(UsageError, match="No space left"):
        write_summary([row("a")], tmp_path)
    assert not list(tmp_path.iterdir())


def test_waiting_for_another_run_can_be_cancelled(tmp_path):
    lock, cancel = tmp_path / ".summary.csv.lock", CancelToken()
    lock.write_text("another")
    threading.Timer(0.2, cancel.cancel).start()
    with pytest.raises(Cancelled):
        write_summary([row("a")], tmp_path, cancel)
    assert [path.name for path in tmp_path.iterdir()] == [lock.name]


def test_the_lock_of_another_run_is_left_alone(tmp_path):
    """Which it made when this one had been stopped for so long that its own was taken for abandoned."""
    table, lock = tmp_path / "summary.csv", tmp_path / ".summary.csv.lock"
    with csv_files.only_writer(table):
        lock.unlink()
        lock.write_text("another")
    assert lock.read_text() == "another"
    csv_files._take_away(lock, "the one before", "mine")  # another waiting run was quicker
    assert lock.read_text() == "another" and len(list(tmp_path.iterdir())) == 1
    csv_files._take_away(lock, "another", "mine")
    assert not list(tmp_path.iterdir())


def test_a_large_table_is_not_written_after_every_case_and_true_at_the_end(tmp_path, monkeypatch):
    written, now = [], [0.0]

    def slow(rows, output, cancel=None):
        written.append([each.status for each in rows])
        now[0] += 0.5

    monkeypatch.setattr(summary_module, "write_summary", slow)
    monkeypatch.setattr(summary_module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    rows = [row(f"{i}", NOT_RUN) for i in range(40)]
    with pytest.raises(Cancelled), summary_module.Summary(rows, tmp_path, CancelToken()) as summary:
        for i in range(30):
            rows[i] = row(f"{i}")
            summary.changed()
            summary.write_if_due()
            now[0] += 1
        raise Cancelled
    assert 2 <= len(written) <= 5
    assert written[-1] == [FAILED] * 30 + [NOT_RUN] * 10


def test_a_table_that_is_open_elsewhere_stops_no_run_and_is_true_at_the_end(tmp_path, monkeypatch):
    rows, replaced, refused = [row(f"{i}", NOT_RUN) for i in range(3)], os.replace, []

    def open_in_a_spreadsheet(*names):
        if len(refused) < 2:
            refused.append(names)
            raise PermissionError(errno.EACCES, "Permission denied", str(names[1]))
        replaced(*names)

    monkeypatch.setattr(summary_module, "_AGAIN_AFTER_S", 0.0)
    monkeypatch.setattr(os, "replace", open_in_a_spreadsheet)
    with summary_module.Summary(rows, tmp_path, CancelToken()) as summary:
        for i in range(2):
            rows[i] = row(f"{i}")
            summary.changed()
            summary.write_if_due()
    assert len(refused) == 2
    assert [line["status"] for line in summary_rows(tmp_path).values()] == [FAILED, FAILED, NOT_RUN]


def test_a_small_table_is_true_after_every_case(tmp_path, monkeypatch):
    now, rows = [0.0], [row(f"{i}", NOT_RUN) for i in range(5)]

    def quick(*arguments):
        now[0] += 0.005
        write_summary(*arguments)

    monkeypatch.setattr(summary_module, "write_summary", quick)
    monkeypatch.setattr(summary_module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    with summary_module.Summary(rows, tmp_path, CancelToken()) as summary:
        for i in range(5):
            rows[i] = row(f"{i}")
            now[0] += 1
            summary.changed()
            summary.write_if_due()
            assert [line["status"] for line in summary_rows(tmp_path).values()].count(FAILED) == i + 1


def test_a_table_of_somebody_else_is_refused(tmp_path):
    write_summary([row("a")], tmp_path)
    check_summary(CaseRow, tmp_path)
    (tmp_path / "summary.csv").write_text("case,scan\na,a.nii.gz\n")
    with pytest.raises(UsageError, match="did not write"):
        check_summary(CaseRow, tmp_path)


def test_rows_of_results_have_five_digits_and_no_nan(tmp_path):
    rows = [{"case": "a", "ap": np.float64(1 / 3), "n": 123456}, {"case": "b", "ap": float("nan"), "note": "x,y"}]
    assert csv_files.write_rows(tmp_path / "t.csv", rows).read_text(encoding="utf-8") == (
        'case,ap,n,note\na,0.33333,123456,\nb,,,"x,y"\n')
