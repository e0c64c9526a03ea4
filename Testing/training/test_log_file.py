"""The log of a training, and the curves that are drawn from it."""

from __future__ import annotations

import json

import pytest
from matplotlib.figure import Figure

from MedVAELib.training.log_file import LOG_FILE, read_log
from MedVAELib.training.pictures import draw_curves

LINES = [{"step": 10, "seconds": 1, "loss": 2.0, "kl": 3.0}, {"step": 20, "seconds": 2, "loss": 1.0, "kl": 4.0},
         {"step": 20, "seconds": 2, "validation": {"loss": 1.5, "dice real": 0.5, "dice simulated": 0.7}}]


@pytest.fixture
def run(tmp_path):
    (tmp_path / LOG_FILE).write_text("".join(json.dumps(line) + "\n" for line in LINES))
    return tmp_path


@pytest.mark.parametrize("half", ["", '{"step": 30, "lo', '{"step": 30, "validation": {"loss": 1.0}'])
def test_half_a_line_is_none(run, half):
    with open(run / LOG_FILE, "a") as log:
        log.write(half)
    assert read_log(run) == LINES


def test_no_log_and_nothing_to_draw_give_no_curves(tmp_path, run):
    assert read_log(tmp_path / "elsewhere") == []
    draw_curves(tmp_path / "elsewhere", ["loss"])
    draw_curves(run, ["perplexity"])
    assert [file.name for file in run.iterdir()] == [LOG_FILE]


def test_a_panel_for_each_group_with_what_training_and_validation_say_of_it(run, monkeypatch):
    drawn, save = [], Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *args, **more: (drawn.append(self), save(self, *args, **more)))
    draw_curves(run, ["loss"], ["perplexity"], ["kl"], ["dice real", "dice simulated"])
    curves = [{line.get_label(): line.get_xydata().tolist() for line in panel.lines} for panel in drawn[0].axes]
    assert curves == [{"loss, training": [[10, 2], [20, 1]], "loss, validation": [[20, 1.5]]},
                      {"kl, training": [[10, 3], [20, 4]]},
                      {"dice real, validation": [[20, 0.5]], "dice simulated, validation": [[20, 0.7]]}]
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")
