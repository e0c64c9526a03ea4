"""The one place that decides where a network runs, in which number format and on how many threads.

Every choice carries its reasons as plain sentences, so that a log or a report can say why, for example, an Apple
GPU was not used.
"""

from __future__ import annotations

import functools
import os
import platform
import re
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as functional

from ..errors import UsageError
from ..failures import is_out_of_memory

PRECISIONS: dict[str, torch.dtype] = {
    "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16,
}


@dataclass(frozen=True)
class DeviceChoice:
    """Where and how to compute. `name` is what a report prints, e.g. "NVIDIA A100" or "CPU (AVX2)"."""

    device: torch.device
    precision: torch.dtype
    threads: int  # of torch's CPU pool
    name: str
    reasons: list[str] = field(default_factory=list)

    @property
    def half_precision(self) -> torch.dtype | None:
        """The half format that this device computes quickly, or None: the memory ladder's step before the CPU."""
        return cuda_half_precision(self.device) if self.device.type == "cuda" else None


def select_device(name: str = "auto", precision: str = "auto") -> DeviceChoice:
    """Choose for `name` in auto, cpu, cuda, cuda:<index>, mps, and `precision` in auto, float32, bfloat16, float16.

    "auto" takes the first CUDA GPU that really runs 3D convolutions, else such an Apple GPU, else the CPU, and says
    why.
    Raises UsageError when a device or a precision that was asked for by name is not there.
    """
    if precision != "auto" and precision not in PRECISIONS:
        raise UsageError(f"Precision '{precision}' is unknown: use auto, {', '.join(PRECISIONS)}.")
    name = name.strip().lower()
    if name == "auto":
        return _select_auto(precision)
    if name == "cpu":
        return _cpu_choice(precision, ["The CPU was asked for."])
    if name == "mps":
        problem = mps_problem()
        if problem:
            raise UsageError(f"Device 'mps' cannot be used: {problem}; use auto or cpu.")
        return _mps_choice(precision, ["The Apple GPU was asked for."])
    match = re.fullmatch(r"cuda(?::(\d+))?", name)
    if not match:
        raise UsageError(f"Device '{name}' is unknown: use auto, cpu, cuda, cuda:<index> or mps.")
    problem = cuda_problem()
    if problem:
        raise UsageError(f"Device '{name}' cannot be used: {problem}; use auto or cpu.")
    index, count = int(match[1] or 0), torch.cuda.device_count()
    if index >= count:
        raise UsageError(f"Device '{name}' does not exist: this machine has {count} CUDA device(s), counted from 0.")
    problem = cuda_device_problem(index)
    if problem:
        raise UsageError(f"Device '{name}' cannot be used: {problem}; use auto or cpu.")
    return _cuda_choice(index, precision, [f"CUDA device {index} was asked for."])


def _select_auto(precision: str) -> DeviceChoice:
    problem = cuda_problem()
    reasons = [f"No CUDA: {problem}."] if problem else []
    for index in range(0 if problem else torch.cuda.device_count()):
        problem = cuda_device_problem(index)
        if not problem:
            return _cuda_choice(index, precision, [*reasons, "A CUDA GPU is present."])
        reasons.append(f"No CUDA device {index}: {problem}.")
    if platform.system() == "Darwin":
        problem = mps_problem()
        if not problem:
            return _mps_choice(precision, [*reasons, "The Apple GPU passed a 3D convolution check."])
        reasons.append(f"No Apple GPU: {problem}.")
    return _cpu_choice(precision, reasons)


# ------------------------------------------------------------------------------------------------------- CUDA, MPS


def cuda_problem() -> str:
    """Why CUDA cannot be used, or an empty string."""
    if not torch.backends.cuda.is_built() and torch.version.hip is None:
        return "this build of PyTorch is for the CPU only"
    if not torch.cuda.is_available():
        return "PyTorch finds no usable GPU or driver"
    return ""


_USABLE_GPUS: set[int] = set()


def cuda_device_problem(index: int) -> str:
    """Why this CUDA device cannot be used, or an empty string. PyTorch also counts those that it holds no code for, as
    they are too old, and those that another process keeps to itself: a tiny 3D convolution tells. One that can be used
    is tried once, another may be free the next time."""
    if index in _USABLE_GPUS:
        return ""
    try:
        ones = torch.ones(1, 1, 3, 3, 3, device=torch.device("cuda", index))
        functional.conv3d(ones, ones).cpu()
    except RuntimeError as error:
        # Full is not unusable: that is for the memory ladder.
        return "" if is_out_of_memory(error) else f"it does not run 3D convolutions ({_first_line(error)})"
    _USABLE_GPUS.add(index)
    return ""


def cuda_half_precision(device: torch.device) -> torch.dtype:
    """bfloat16 where the tensor cores have it (Ampere and newer: its range needs no care), float16 before."""
    return torch.bfloat16 if torch.cuda.get_device_capability(device)[0] >= 8 else torch.float16


def _cuda_choice(index: int, precision: str, reasons: list[str]) -> DeviceChoice:
    device = torch.device("cuda", index)
    dtype = cuda_half_precision(device) if precision == "auto" else PRECISIONS[precision]
    return DeviceChoice(device, dtype, cpu_threads(), torch.cuda.get_device_name(device), reasons)


@functools.cache
def mps_problem() -> str:
    """Why an Apple GPU cannot be used, or an empty string: tiny 3D convolutions must run and give the CPU's numbers."""
    if not (hasattr(torch.backends, "mps") and torch.backends.mps.is_available()):
        return "PyTorch has no working Metal backend here"
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 4, 6, 6, 6, generator=generator)
    kernel = torch.randn(4, 4, 3, 3, 3, generator=generator)
    up_kernel = torch.randn(4, 4, 4, 4, 4, generator=generator)

    def probe(device: str) -> torch.Tensor:
        y = functional.conv3d(x.to(device), kernel.to(device), padding=1, stride=2)
        return functional.conv_transpose3d(y, up_kernel.to(device), stride=2, padding=1).cpu()

    try:
        found = probe("mps")
    except (RuntimeError, NotImplementedError, TypeError) as error:
        return f"it does not run 3D convolutions ({_first_line(error)})"
    return "" if torch.allclose(found, probe("cpu"), atol=1e-3, rtol=1e-3) else "its 3D convolutions give wrong numbers"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]


def _mps_choice(precision: str, reasons: list[str]) -> DeviceChoice:
    dtype = torch.float32 if precision == "auto" else PRECISIONS[precision]
    return DeviceChoice(torch.device("mps"), dtype, cpu_threads(), "Apple GPU", reasons)


# ------------------------------------------------------------------------------------------------------------- CPU


def _cpu_choice(precision: str, reasons: list[str]) -> DeviceChoice:
    reasons = list(reasons)
    if precision == "auto":
        problem = cpu_bfloat16_problem()
        dtype = torch.float32 if problem else torch.bfloat16
        reasons.append(f"float32: {problem}." if problem else "bfloat16: the CPU has instructions for it.")
    else:
        dtype = PRECISIONS[precision]
        problem = cpu_bfloat16_problem() if dtype is torch.bfloat16 else ""
        if dtype is torch.float16 or problem:
            why = problem or "CPUs compute float16 convolutions very slowly"
            raise UsageError(f"Precision '{precision}' cannot be used on this CPU: {why}; use auto or float32.")
    threads = cpu_threads()
    why = ", as this process was forked: start processes by 'spawn' to use more" if _forked else ""
    reasons.append(f"{threads} thread(s){why}.")
    return DeviceChoice(torch.device("cpu"), dtype, threads, f"CPU ({cpu_capability()})", reasons)


def cpu_capability() -> str:
    """The vector instructions that torch uses, e.g. "AVX2" or "AVX512"."""
    return torch.backends.cpu.get_cpu_capability()


def cpu_flags() -> set[str]:
    """The CPU's feature flags as Linux lists them; empty on other systems."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return set()
    match = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    return set(match[1].split()) if match else set()


def has_bfloat16_instructions(flags: set[str]) -> bool:
    """AMX or AVX-512 instructions for bfloat16. Without them torch emulates it, over a hundred times slower."""
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    found = any(bool(getattr(torch.cpu, probe, lambda: False)()) for probe in probes)
    # Outside Linux there are no flags to read, and torch's own answer has to do.
    return found and (not flags or "avx512_bf16" in flags or "amx_bf16" in flags)


_EMULATED = 2.0  # times float32's time; with the instructions .5 to .8


@functools.cache
def cpu_bfloat16_problem() -> str:
    """Why bfloat16 should not be used on this CPU, or an empty string.

    The instructions decide. Where they exist, a timing (a few milliseconds) shows whether torch uses them: emulated,
    bfloat16 is over a hundred times slower. A closer limit would choose otherwise from run to run on a busy machine.
    """
    if not has_bfloat16_instructions(cpu_flags()):
        return f"this CPU ({cpu_capability()}) has no bfloat16 instructions"
    if _convolution_seconds(torch.bfloat16) > _EMULATED * _convolution_seconds(torch.float32):
        return "bfloat16 convolutions were timed far slower than float32 ones on this CPU"
    return ""


def _convolution_seconds(dtype: torch.dtype) -> float:
    x = torch.ones(1, 32, 12, 16, 16, dtype=dtype).to(memory_format=torch.channels_last_3d)
    kernel = torch.ones(32, 32, 3, 3, 3, dtype=dtype).to(memory_format=torch.channels_last_3d)
    up_kernel = torch.ones(32, 16, 4, 4, 4, dtype=dtype).to(memory_format=torch.channels_last_3d)

    def work() -> float:
        start = time.perf_counter()
        functional.conv_transpose3d(functional.conv3d(x, kernel, padding=1), up_kernel, stride=2, padding=1)
        return time.perf_counter() - start

    with torch.inference_mode():
        work()
        return min(work() for _ in range(3))


def cpu_threads() -> int:
    """Threads for torch: OMP_NUM_THREADS when set, else one for each of `usable_cores`; one in a forked process."""
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return one_if_forked(int(asked) if asked.isdigit() and int(asked) > 0 else usable_cores())


_forked = False


def _one_thread_only() -> None:
    """A forked process has the record of its parent's threads without the threads themselves: torch would wait for them
    for ever."""
    global _forked
    _forked = True
    torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_one_thread_only)


def one_if_forked(threads: int) -> int:
    """As many, but in a process that was forked after torch was loaded."""
    return 1 if _forked else threads


def usable_cores() -> int:
    """The physical cores that this process may use.

    A second thread on one core, or more threads than a container's share, only makes them wait for each other.
    """
    if not hasattr(os, "sched_getaffinity"):
        return max(1, torch.get_num_threads())
    allowed = os.sched_getaffinity(0)
    cores = len({_core_of(cpu) for cpu in allowed}) or 1
    quota = cgroup_cpus()
    return max(1, min(cores, int(quota)) if quota else cores)


def _core_of(cpu: int) -> str:
    """An identifier shared by the hardware threads of one physical core."""
    try:
        return Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text().strip()
    except OSError:
        return str(cpu)


def cgroup_cpus(root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """The CPU share of this container (cgroup v2 or v1) in CPUs, or None when there is no limit."""
    try:
        quota, period = (root / "cpu.max").read_text().split()[:2]
    except (OSError, ValueError):
        try:
            quota = (root / "cpu/cpu.cfs_quota_us").read_text().strip()
            period = (root / "cpu/cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if not quota.isdigit() or not period.isdigit() or int(period) == 0:
        return None  # "max" or -1: unlimited
    return int(quota) / int(period)
