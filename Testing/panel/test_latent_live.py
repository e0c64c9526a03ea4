"""The parts of the tab Latent space that need no worker: requests while dragging, groups of a plot."""

from __future__ import annotations

import pytest

from .detections import ROOT


class Worker:
    """Answers when it is told to."""

    def __init__(self):
        self.open = []

    def request(self, task, fields, on_result, on_error):
        self.open.append((fields, on_result, on_error))


@pytest.fixture(autouse=True)
def panel_on_path(host, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "MedVAE"))


@pytest.fixture
def live():
    from MedVAEPanel.live import Live

    worker, seen, failed, dropped = Worker(), [], [], []
    made = Live(worker.request, "decode", lambda what: {"what": what}, lambda what, reply: seen.append((what, reply)),
                failed.append, dropped.append)
    made.dropped = dropped
    return made, worker, seen, failed


def test_never_more_than_one_request_under_way_and_the_latest_wins(live):
    live, worker, seen, failed = live
    for value in range(50):
        live.ask(value)
    assert [fields["what"] for fields, *_ in worker.open] == [0] and live.busy
    worker.open.pop(0)[1]("a")
    assert [fields["what"] for fields, *_ in worker.open] == [49] and live.sent == 2
    worker.open.pop(0)[1]("b")
    assert seen == [(0, "a"), (49, "b")] and not live.busy and not worker.open and not failed


def test_what_was_dropped_is_not_heard_of_any_more(live):
    live, worker, seen, failed = live
    live.ask(1)
    live.ask(2)
    live.drop()
    assert not live.busy
    live.ask(3)
    (_, old, _), (fields, new, _) = worker.open
    new("c")
    old("a")
    assert seen == [(3, "c")] and fields == {"what": 3} and live.sent == 2 and live.dropped == ["a"]


def test_an_error_does_not_stop_what_waits(live):
    live, worker, seen, failed = live
    live.ask(1)
    live.ask(2)
    worker.open.pop(0)[2]({"message": "no"})
    worker.open.pop(0)[1]("b")
    assert failed == [{"message": "no"}] and seen == [(2, "b")]


def test_a_full_disk_is_an_error():
    from MedVAEPanel.live import Live

    def send(what):
        raise OSError("disk full")

    failed = []
    live = Live(Worker().request, "decode", send, None, failed.append)
    live.ask(1)
    assert "disk full" in failed[0]["message"] and not live.busy


def test_what_a_worker_that_did_not_start_left_open_is_asked_anew():
    from MedVAEPanel.offers import Offers

    worker, said = Worker(), []
    offers = Offers(worker, said.append, lambda: said.append("changed"))
    offers.retry()
    assert not worker.open, "asked before the panel was opened"
    offers.ask()
    offers.retry()
    assert len(worker.open) == 2, "asked twice"
    for _, _, on_error in [worker.open.pop(), worker.open.pop()]:
        on_error({"message": "It did not start within a minute."})
    offers.retry()
    (_, on_info, _), (_, on_bundles, on_error) = worker.open
    on_info({"devices": []})
    on_bundles({"bundles": []})
    on_error({"message": "later"})
    offers.retry()
    assert len(worker.open) == 2 and said.count("changed") == 2


def test_groups_of_a_plot():
    from MedVAEPanel.latent_plot import group

    assert group(["b", "a", "", "b"]) == {"a": [1], "b": [0, 3], "not known": [2]}
    assert group(["", ""]) == {"cohort": [0, 1]}
    assert list(group(["10", "9", "10"])) == ["9", "10"], "numbers are sorted as such"
    quarters = group([str(value) for value in range(40)])
    assert [len(rows) for rows in quarters.values()] == [10] * 4 and next(iter(quarters)).startswith("0 – ")
    many = group([f"site {index // 2}" for index in range(60)])
    assert len(many) == 10 and sum(map(len, many.values())) == 60 and "others" in many
