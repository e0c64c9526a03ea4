"""The model of a cohort: loaded anew after it ran out of memory, and never used by two cases at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from MedVAELib.cohort import Case, CaseRow, Settings, cluster, run_cohort
from MedVAELib.cohort.prepare import PrepareSettings
from MedVAELib.cohort.skull import SkullSettings
from MedVAELib.progress import CancelToken

loaded: list[SimpleNamespace] = []


@dataclass(frozen=True)
class Something:
    """A task that needs no model. Cases whose names begin with "large" run out of memory on the way."""

    bundle: str = "any"
    device: str = "cpu"
    row = CaseRow

    def check(self, cases: Sequence[Case]) -> None:
        assert cases

    def request(self, case, bundle) -> dict:
        return {}

    def load(self, bundle) -> SimpleNamespace:
        loaded.append(SimpleNamespace(steps=[], users=0))
        return loaded[-1]

    def degraded(self, model) -> bool:
        return bool(model.steps)

    def run(self, case, directory, bundle, model, progress, cancel):
        model.users += 1
        time.sleep(0.02)
        assert model.users == 1, "another case uses the model"
        model.users -= 1
        if case.name.startswith("large"):
            model.steps.append("out of memory")
        return SimpleNamespace(findings=[], modality="flair", warnings=[])


@pytest.fixture(autouse=True)
def no_bundle(monkeypatch):
    loaded.clear()
    cluster._model.cache_clear()
    for module in ("run", "cluster"):
        monkeypatch.setattr(f"MedVAELib.cohort.{module}.load_bundle", lambda name: SimpleNamespace(sha256="0"))


def cases(*names: str) -> list[Case]:
    return [Case(name, Path(f"{name}.nii.gz")) for name in names]


def test_one_large_scan_does_not_move_the_others_to_the_cpu(tmp_path):
    rows = run_cohort(cases("a", "b", "large", "c", "d"), tmp_path, Something())
    assert [row.status for row in rows] == ["done"] * 5 and len(loaded) == 2


def test_nor_on_a_cluster(tmp_path):
    for case in cases("a", "b", "large", "c", "d"):
        assert cluster._in_turn(case, tmp_path, Something(), CancelToken()).status == "done"
    assert len(loaded) == 2


def test_threads_of_a_worker_take_turns(tmp_path):
    rows = []

    def work(case: Case) -> None:
        rows.append(cluster._in_turn(case, tmp_path, Something(), CancelToken()))

    threads = [threading.Thread(target=work, args=(case,)) for case in cases(*"abcdef")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [row.status for row in rows] == ["done"] * 6, [row.message for row in rows]
    assert len(loaded) == 1


@pytest.mark.parametrize("steps, degraded", [([], False), (["out of memory"], True)])
def test_every_task_knows_a_model_that_ran_out_of_memory(steps, degraded, monkeypatch):
    detector = predictor = SimpleNamespace(steps=steps)
    assert Settings().degraded(detector) is degraded
    assert SkullSettings().degraded(predictor) is degraded
    monkeypatch.setattr("MedVAELib.anomaly.detector.Detector.load", lambda *_: detector)
    prepare = PrepareSettings("slices")
    assert prepare.degraded(prepare.load(None)) is degraded
    template = PrepareSettings("slices", brain="template")
    assert not template.degraded(template.load(None))
