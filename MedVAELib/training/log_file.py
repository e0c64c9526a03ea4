"""The log of a training: a line of JSON per ten steps or validation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

LOG_FILE = "log.jsonl"


def read_log(output: Path) -> list[dict[str, Any]]:
    """The lines of the run in `output`, "step", "seconds" and terms of the loss or "validation" each, without half a
    line that a killed run wrote last; none where there is no log."""
    file = output / LOG_FILE
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
