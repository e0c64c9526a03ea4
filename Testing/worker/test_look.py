"""What the worker says of a machine with several GPUs, and of bundles."""

from __future__ import annotations

import torch

from MedVAELib.inference import device as device_module
from MedVAELib.models import MODELS, registry
from MedVAELib.skull.predictor import SkullPredictor
from MedVAELib.worker.look import bundles, info

from ..fake_cuda import pretended
from ..skull.bundles import outline_bundle, shape_bundle


def test_gpus_are_tried_up_to_the_one_that_is_used(monkeypatch):
    asked = []

    def problem(index: int) -> str:
        asked.append(("trial", index))
        return "it is too old" if index == 0 else ""

    def memory(index: int) -> tuple[int, int]:
        asked.append(("memory", index))
        return 8 << 30, 80 << 30

    with pretended("cuda"):
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
        monkeypatch.setattr(torch.cuda, "mem_get_info", memory)
        monkeypatch.setattr(device_module, "cuda_device_problem", problem)
        found = info()
        monkeypatch.undo()
    gpus = [device for device in found["devices"] if device["name"].startswith("cuda:")]
    assert [device["problem"] for device in gpus] == ["it is too old", "", ""]
    assert [device["free_gib"] for device in gpus] == [8.0] * 3 and found["default_device"] == "cuda:1"
    assert ("trial", 2) not in asked and asked.index(("trial", 1)) < asked.index(("memory", 1))


def test_a_new_model_of_skulls_need_be_listed_nowhere(tmp_path, monkeypatch):
    monkeypatch.setitem(registry._registered, "one-more", MODELS["hcvae"])
    monkeypatch.setenv("MEDVAE_BUNDLES", str(tmp_path))
    outline_bundle(tmp_path / "new-outline")
    metadata = shape_bundle(tmp_path / "new-skull").path / "metadata.json"
    metadata.write_text(metadata.read_text(encoding="utf-8").replace('"hcvae"', '"one-more"'), encoding="utf-8")
    found = {entry["name"]: entry for entry in bundles()["bundles"]}
    assert {name for name, entry in found.items() if entry["skull"]} == {"fetal-skull", "new-skull"}
    assert found["new-skull"]["expected_time"] == found["fetal-skull"]["expected_time"]
    assert SkullPredictor.load("new-skull", "cpu").bundle.model == "one-more"
