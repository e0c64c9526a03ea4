"""Device, precision and threads: what is chosen, why, and what is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from multiprocessing import get_context

import numpy as np
import pytest
import torch

from MedVAELib.errors import UsageError
from MedVAELib.inference import Engine, select_device
from MedVAELib.inference import device as device_module
from MedVAELib.inference.device import cgroup_cpus, cpu_bfloat16_problem, cpu_threads, has_bfloat16_instructions

from ..fake_cuda import pretended
from .networks import small_net

needs_no_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA GPU is present")


@needs_no_cuda
def test_auto_without_gpu_takes_the_cpu_and_says_why():
    choice = select_device("auto")
    assert choice.device.type in ("cpu", "mps")
    assert any(reason.startswith("No CUDA: ") for reason in choice.reasons)


@needs_no_cuda
@pytest.mark.parametrize("name", ["cuda", "cuda:1"])
def test_asking_for_an_absent_gpu_is_wrong_usage_in_one_sentence(name):
    with pytest.raises(UsageError, match=name) as error:
        select_device(name)
    assert error.value.exit_code == 2 and "\n" not in str(error.value)


NO_CODE = "CUDA error: no kernel image is available for execution on the device\nCompile with TORCH_USE_CUDA_DSA"


def test_a_gpu_that_torch_sees_but_cannot_use_is_passed_over(monkeypatch):
    with pretended("cuda"):
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        monkeypatch.setattr(device_module, "cuda_device_problem", {0: "it is too old", 1: ""}.get)
        choice = select_device("auto")
        assert choice.device == torch.device("cuda", 1) and choice.reasons[0] == "No CUDA device 0: it is too old."
        monkeypatch.setattr(device_module, "cuda_device_problem", lambda index: f"{index} is too old")
        choice = select_device("auto")
        assert choice.device.type == "cpu" and "No CUDA device 1: 1 is too old." in choice.reasons
        with pytest.raises(UsageError, match="'cuda:1' cannot be used: 1 is too old; use auto or cpu"):
            select_device("cuda:1")


@pytest.mark.parametrize(("raised", "problem"), [
    (RuntimeError(NO_CODE), "it does not run 3D convolutions (CUDA error: no kernel image is available for execution "
                            "on the device)"),
    (RuntimeError("CUDA error: out of memory"), ""), (torch.OutOfMemoryError("full"), ""), (None, ""),
])
def test_a_cuda_device_is_tried(monkeypatch, raised, problem):
    def conv3d(values: torch.Tensor, kernel: torch.Tensor, real=torch.nn.functional.conv3d) -> torch.Tensor:
        assert str(values.device) == "cuda:0"
        if raised is not None:
            raise raised
        return real(values, kernel)

    monkeypatch.setattr(device_module, "_USABLE_GPUS", set())
    monkeypatch.setattr(device_module.functional, "conv3d", conv3d)
    with pretended("cuda"):
        assert device_module.cuda_device_problem(0) == problem
        raised = None
        assert device_module.cuda_device_problem(0) == ""  # free by now


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "", "cuda:-1", "tpu"])
def test_unknown_device_is_wrong_usage(name):
    with pytest.raises(UsageError, match="unknown"):
        select_device(name)


@pytest.mark.parametrize("precision", ["float64", "half", "fp16"])
def test_unknown_precision_is_wrong_usage(precision):
    with pytest.raises(UsageError, match="unknown"):
        select_device("cpu", precision)


def test_float16_on_the_cpu_is_refused():
    with pytest.raises(UsageError, match="float16"):
        select_device("cpu", "float16")


def test_cpu_without_bfloat16_instructions_computes_in_float32(monkeypatch):
    monkeypatch.setattr(device_module, "cpu_bfloat16_problem", lambda: "this CPU has no bfloat16 instructions")
    choice = select_device("cpu")
    assert choice.precision is torch.float32
    assert any("no bfloat16 instructions" in reason for reason in choice.reasons)
    with pytest.raises(UsageError, match="no bfloat16 instructions"):
        select_device("cpu", "bfloat16")


def test_cpu_with_bfloat16_instructions_that_pay_uses_them(monkeypatch):
    monkeypatch.setattr(device_module, "cpu_bfloat16_problem", lambda: "")
    assert select_device("cpu").precision is torch.bfloat16
    assert select_device("cpu", "float32").precision is torch.float32


def test_bfloat16_is_never_timed_where_the_instructions_are_missing(monkeypatch):
    """Emulated bfloat16 is hundreds of times slower: even trying it would hang the program."""
    monkeypatch.setattr(device_module, "has_bfloat16_instructions", lambda flags: False)
    monkeypatch.setattr(device_module, "_convolution_seconds", lambda dtype: pytest.fail("timed"))
    assert cpu_bfloat16_problem.__wrapped__()


@pytest.mark.parametrize(("bfloat16_seconds", "used"), [(0.2, True), (1.5, True), (30.0, False)])
def test_emulated_bfloat16_is_told_and_a_busy_machine_changes_nothing(monkeypatch, bfloat16_seconds, used):
    monkeypatch.setattr(device_module, "has_bfloat16_instructions", lambda flags: True)
    seconds = {torch.bfloat16: bfloat16_seconds, torch.float32: 1.0}
    monkeypatch.setattr(device_module, "_convolution_seconds", seconds.__getitem__)
    assert (cpu_bfloat16_problem.__wrapped__() == "") is used


def test_instructions_need_both_torch_and_the_flag(monkeypatch):
    for probe in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, probe, lambda: True, raising=False)
    assert has_bfloat16_instructions({"avx2", "amx_bf16"})
    assert not has_bfloat16_instructions({"avx2", "avx512f", "amx_int8"})
    for probe in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, probe, lambda: False)
    assert not has_bfloat16_instructions({"avx2", "amx_bf16"})


def test_threads_follow_omp_num_threads(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert cpu_threads() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "4,2")
    assert cpu_threads() == 4


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_does_not_wait_for_its_parents_threads(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    engine, scan = Engine("cpu", "float32").load(small_net()), np.ones((32, 48, 32), np.float32)
    large = torch.ones(2**20)

    def compute() -> None:
        large.exp()
        engine.encode(scan)
        assert cpu_threads() == engine.threads == torch.get_num_threads() == 1

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        large.exp()  # with both threads
        engine.encode(scan)
        forked = get_context("fork").Process(target=compute)
        forked.start()
        forked.join(60)
        forked.kill()
        assert forked.exitcode == 0 and cpu_threads() == engine.threads == 2
    finally:
        torch.set_num_threads(before)


_KILLED_IN_VAIN = """
import os, signal, time
import torch
torch.set_num_threads(2)
import MedVAELib.inference.device  # before what makes forked processes deaf to signals
from MedVAELib.listening import cancelled_by_signals
with cancelled_by_signals():
    forked = os.fork()
    if not forked:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(1)
        os._exit(7)
    time.sleep(0.3)
    os.kill(forked, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1]) == 7
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_no_thread_of_a_forked_process_hears_signals_in_its_place():
    subprocess.run([sys.executable, "-c", _KILLED_IN_VAIN], check=True)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system has no CPU affinity")
def test_threads_respect_affinity_hyperthreads_and_quota(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3, 4, 5})
    monkeypatch.setattr(device_module, "_core_of", lambda cpu: str(cpu // 2))
    monkeypatch.setattr(device_module, "cgroup_cpus", lambda: None)
    assert cpu_threads() == 3
    monkeypatch.setattr(device_module, "cgroup_cpus", lambda: 1.5)
    assert cpu_threads() == 1


def test_cgroup_quota_of_both_versions(tmp_path):
    assert cgroup_cpus(tmp_path) is None
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("-1\n")
    (tmp_path / "cpu/cpu.cfs_period_us").write_text("100000\n")
    assert cgroup_cpus(tmp_path) is None
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("250000\n")
    assert cgroup_cpus(tmp_path) == 2.5
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert cgroup_cpus(tmp_path) is None
    (tmp_path / "cpu.max").write_text("400000 100000\n")
    assert cgroup_cpus(tmp_path) == 4


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
def test_cuda_is_taken_with_half_precision():
    choice = select_device("auto")
    assert choice.device == torch.device("cuda", 0)
    ampere = torch.cuda.get_device_capability(0)[0] >= 8
    assert choice.precision is (torch.bfloat16 if ampere else torch.float16)
    with pytest.raises(UsageError, match="does not exist"):
        select_device(f"cuda:{torch.cuda.device_count()}")
