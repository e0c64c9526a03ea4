"""Every shipped config of image autoencoders: killed and resumed, and on two processes, against one unbroken run.

Real models, as the configs have them, on a few made-up images; what is compared is every weight after all steps.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from multiprocessing import get_context
from pathlib import Path

import torch

from Testing.latent.presets import (
    checkpoint,
    killed_at,
    largest_difference,
    last_validation,
    preset_files,
    share_that_differs,
    small_config,
    train,
    without_pictures,
)

STEPS, KILLED_AT, CHECKPOINT_EVERY = 4, 3, 2
PAGE = Path(__file__).parent / "resume.md"


def main(work: Path) -> None:
    """Trains every preset three times below `work`, and writes the page."""
    work = work / "resume"
    work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    names = sorted(preset_files())
    configs = {name: small_config(name, work, STEPS, False, "float32", CHECKPOINT_EVERY) for name in names}
    rows = []
    for name in names:
        print(f"{name}: unbroken, killed and resumed", flush=True)
        with without_pictures():
            rows.append(_row(name, configs[name], work))
    print("all: on two processes", flush=True)
    _on_two_processes({configs[name]: work / f"{name}-two" for name in names})
    for row, name in zip(rows, names, strict=True):
        one, two = checkpoint(work / f"{name}-whole"), checkpoint(work / f"{name}-two")
        row["apart"] = share_that_differs(configs[name], one["model"], two["model"])
        row["mse"] = [last_validation(work / f"{name}-{run}")["mse"] for run in ("whole", "two")]
    PAGE.write_text(_page(rows), encoding="utf-8")
    print(f"written to {PAGE}")


def _row(name: str, config: Path, work: Path) -> dict[str, object]:
    whole = train(config, work / f"{name}-whole")
    child = get_context("spawn").Process(target=_train_and_die, args=(config, work / f"{name}-killed"))
    child.start()
    child.join()
    left = checkpoint(work / f"{name}-killed")["step"]
    resumed = train(config, work / f"{name}-killed", resume=True)
    weights = sum(value.numel() for value in whole["model"].values() if value.is_floating_point())
    same = {part: all(torch.equal(whole[part][key], resumed[part][key]) for key in whole[part])
            for part in ("model", "averaged")}
    return {"name": name, "weights": weights, "exit": child.exitcode, "left": left,
            "resumed": largest_difference(whole["model"], resumed["model"]), "same": all(same.values())}


def _train_and_die(config: Path, output: Path) -> None:
    torch.set_num_threads(1)
    with killed_at(KILLED_AT, lambda: os.kill(os.getpid(), signal.SIGKILL)):
        train(config, output)


def _on_two_processes(outputs: dict[Path, Path]) -> None:
    pairs = [f"{config}={output}" for config, output in outputs.items()]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m",
               "Testing.latent.presets", *pairs]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def _page(rows: list[dict[str, object]]) -> str:
    lines = [
        "# Resuming and several processes", "",
        "Written by `python -m Testing.benchmarks.family resume`. Every shipped config of the task `images`, with its "
        f"model as it is, trains {STEPS} steps of 4 on made-up images on the CPU in float32. Killed: by SIGKILL before "
        f"step {KILLED_AT + 1}, with a checkpoint every {CHECKPOINT_EVERY} steps, then resumed. Two processes: started "
        "by `torchrun`, 2 images of every batch each.", "",
        "Largest difference: of any weight or buffer from the unbroken run in one process. Identical: all of them, and "
        "those of the moving average, are equal to the last bit. Share that differs: distance of the weights from "
        "those of one process, relative to how far training moved them (root sum of squares); runs with other noise "
        "or images come to about 1, rounding in float32 to far less.", "",
        "| config | weights | killed by | resumed from step | resumed: largest difference | identical | "
        "two processes: share that differs | validation MSE, one and two processes |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        killer = "SIGKILL" if row["exit"] == -signal.SIGKILL else f"**exit code {row['exit']}**"
        lines.append(f"| {row['name']} | {row['weights']:,} | {killer} | {row['left']} | {row['resumed']:.2g} | "
                     f"{'yes' if row['same'] else '**no**'} | {row['apart']:.2g} | "
                     f"{row['mse'][0]:.7f}, {row['mse'][1]:.7f} |")
    lines += [
        "", "In the VQ-VAEs rounding decides between codes that are as near as each other, and the prior over codes "
        "learns from that choice; nearly all of their difference lies in the prior.", "",
        f"torch {torch.__version__.split('+')[0]}.", "",
    ]
    return "\n".join(lines)
