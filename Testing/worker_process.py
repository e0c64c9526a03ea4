"""A worker in a process of its own, driven over its pipes as the panel drives it."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from Testing.warm_python import WarmProcess

ROOT = Path(__file__).resolve().parents[1]
PATIENCE_S = 120  # far more than anything takes; only a worker that hangs meets it


class WorkerProcess:
    """Starts `python -m MedVAELib.worker`, from a warm Python unless `cold`, or `code` in its place. As a context
    manager it leaves no process."""

    def __init__(self, code: str | None = None, preexec_fn=None, cold: bool = False, **environment: str):
        arguments = ["-c", code] if code else ["-m", "MedVAELib.worker"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
        if code or preexec_fn or cold:
            self.process = subprocess.Popen(
                [sys.executable, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                cwd=ROOT, env=environment, preexec_fn=preexec_fn)
        else:
            self.process = WarmProcess(arguments, environment, ROOT)
        self.lines: queue.Queue[bytes | None] = queue.Queue()
        self.errors: list[bytes] = []
        threading.Thread(target=self._collect, daemon=True).start()
        threading.Thread(target=lambda: self.errors.extend(self.process.stderr), daemon=True).start()

    def _collect(self) -> None:
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put(None)

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def send(self, request: object) -> None:
        self.send_raw(json.dumps(request).encode() + b"\n")

    def send_raw(self, data: bytes) -> None:
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def receive(self) -> dict | None:
        """The next message; None when the worker has ended."""
        line = self.lines.get(timeout=PATIENCE_S)
        return None if line is None else json.loads(line)

    def answer(self, number: object) -> dict:
        """The result or error of that request; progress and what concerns others is passed over."""
        while (message := self.receive()) is not None:
            if message.get("id") == number and message["event"] in ("result", "error"):
                return message
        raise AssertionError(f"the worker ended: {b''.join(self.errors).decode()}")

    def until_stage(self, number: object, stage: str) -> None:
        while (message := self.receive()) is not None:
            if message.get("id") == number and message.get("stage") == stage:
                return
            assert message["event"] in ("ready", "progress"), message
        raise AssertionError(f"the worker ended: {b''.join(self.errors).decode()}")

    def ask(self, **request: object) -> dict:
        self.send(request)
        return self.answer(request["id"])

    def wait(self) -> int:
        return self.process.wait(timeout=PATIENCE_S)

    @property
    def log(self) -> str:
        return b"".join(self.errors).decode()


def handed_over(image: sitk.Image, folder: Path, name: str = "scan", dtype: object = None) -> dict:
    """The scan as a request has it, its voxels in a file in `folder`."""
    path = folder / f"{name}.npy"
    values = sitk.GetArrayFromImage(image)
    np.save(path, values if dtype is None else values.astype(dtype))
    return {"array": str(path), "spacing": image.GetSpacing(), "origin": image.GetOrigin(),
            "direction": image.GetDirection(), "name": name}
