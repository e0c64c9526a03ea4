"""What leaves the machine in a report: no names of people, which are in those of files and folders."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "MedVAE"))

from MedVAEPanel.log import PanelLog  # noqa: E402


@pytest.mark.parametrize(("said", "kept"), [
    (r"Reading C:\Users\Jane Doe\x", "Reading <file>"),
    (r"Reading C:\Users\Jane Doe\x.nii.gz: 3 s", "Reading <file>: 3 s"),
    ("Reading /Patients/Smith, John 1970/t2.nii cannot be read: copy it", "Reading <file> cannot be read: copy it"),
    (r"in '\\server\share of Doe\John' was found", "in '<file>' was found"),
    ("'/data/O'Doe/John' was found", "'<file>' was found"),
    ('File "/home/jane doe/MedVAE/scan.py", line 12, in read', 'File "<file>", line 12, in read'),
    ('{"bundle": "/home/jane doe/b", "device": "cuda:0"}', '{"bundle": "<file>", "device": "cuda:0"}'),
    (r'{"bundle": "D:\\Doe, John\\b", "samples": 2}', '{"bundle": "<file>", "samples": 2}'),
    ("file:///home/jane%20doe/x", "<file>"), ("(in ~/Doe, John/scans)", "(in <file>"),
    ("doe/john.nii.gz read", "<file> read"),
    ("scan:/home/jane doe/x", "scan:<file>"), ("in //nas/doe, j/x", "in <file>"), ("a file: 1", "a file: 1"),
    ("/a/Doe.nii.gz and /b/John Doe", "<file> and <file>"), ("/a/Doe.nii folder/John/t2.nii", "<file>"),
    ("12:34:56  2 ml/min, N/A, cuda:0, half / full, 1.5", "12:34:56  2 ml/min, N/A, cuda:0, half / full, 1.5"),
    ("see https://example.org/a/b for help", "see https://example.org/a/b for help"),
])
def test_paths_go_whole_and_nothing_else_does(said, kept):
    assert PanelLog().clean(said) == kept


def test_slicers_own_log_has_every_line_without_names(caplog):
    log = PanelLog(lambda: ["Smith T2", ""])
    log.secrets.add("Doe FLAIR")
    caplog.set_level(logging.INFO)
    log.add("Doe FLAIR was read from /home/doe/x.nii.gz\nand Smith T2 was not.")
    assert [record.getMessage() for record in caplog.records] == ["<scan> was read from <file>\nand <scan> was not."]
    assert len(log.lines) == 2
