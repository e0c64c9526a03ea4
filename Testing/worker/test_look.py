"""What the worker says of a machine with several GPUs."""

from __future__ import annotations

import torch

from MedVAELib.inference import device as device_module
from MedVAELib.worker.look import info

from ..fake_cuda import pretended


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
